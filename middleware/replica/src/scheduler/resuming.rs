//! Going on under another master (section 4 of the design): what becomes of the transactions that run when a term begins.
//!
//! The old master's stream is void. The new master holds the same snapshots and, up to where it executed them, the same
//! operations. A transaction goes on there from what its client was shown: the client says how far that is and with which
//! transcript (`Resume`). What the new master has executed beyond it without showing it, it undoes and does again; what
//! was shown and comes out otherwise here cannot be reproduced, and its client is told (40001).
//!
//! Nothing of this is needed for safety: a transaction still commits only with the equal votes of a quorum on what its
//! client was shown.

use super::operations::{ENTRIES_HELD_MAX, Word};
use super::planted::PlantedBug;
use super::transaction::{Decided, Phase, Transaction};
use super::{Command, Effect, Scheduler, draws};
use steeldb_types::{Digest, SessionKey, TxId, limits};
use steeldb_wire::transaction::{Executed, ReplicaMessage, VoteKind};

/// How long a new master lets what was shown before go first, microseconds. It keeps the locks where they were.
const SHOWN_FIRST_US: u64 = 1_000_000;

/// How long a new master waits for the last words of one that was moved away on what it showed, microseconds.
const LAST_WORDS_US: u64 = 250_000;

/// How far a client was shown a transaction, by its own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// In which master epoch it said so.
    pub epoch: u64,
    /// How many operations.
    pub operations: u32,
    /// Their transcript.
    pub transcript: Digest,
}

/// Whether an earlier master drew for operations that are yet to be done again, behind the `done`th and up to `shown`.
fn owes_draws(transaction: &Transaction, done: u32, shown: u32) -> bool {
    let drew = |(number, entry): (&u32, &Executed)| *number > done && !entry.draws.is_empty();
    shown > done && transaction.stream.range(..=shown).any(drew)
}

impl Transaction {
    /// Whether the client is to be shown the operation though what it was shown before has not been done again here. Were that
    /// to fail this time, the backend would answer 25P02, and the client would see it before it hears that its transaction
    /// cannot go on.
    pub(super) fn owes_shown(&self, number: u32) -> bool {
        number > self.shown_upto && self.executed() < self.shown_upto
    }
}

impl Scheduler {
    /// A term begins: what runs is carried over.
    pub(super) fn carry_over(&mut self) {
        self.early_stream = Default::default();
        self.speculation.void();
        self.barriers.clear();
        self.draining.clear();
        self.streamed.clear();
        self.streaming_since_us = None;
        self.stream_next = 0;
        self.resuming.clear();
        self.resume_until_us = 0;
        self.last_words_until_us = 0;
        self.skipping.clear();
        let master = self.is_master();
        let now = self.now_us;
        self.words.renew(now);
        let all: Vec<TxId> = self.transactions.keys().copied().collect();
        for tx in &all {
            let Some(transaction) = self.transactions.get_mut(tx) else { continue };
            transaction.active_at_us = now;
            transaction.drain_until_us = None;
            // The old master's entries are void, and what is decided nobody streams again. A new master would wait for it before
            // it draws from sequences, and everybody else for that.
            transaction.strand();
            if transaction.prepared_vote.is_none() && transaction.against_vote.is_none() {
                transaction.finished_at_us = transaction.finished_at_us.max(now);
            }
            // The results that this replica was showing, nobody takes any more.
            let showing = transaction.issued.values().any(|issued| issued.shown);
            let leading = transaction.slot.is_none() && transaction.leading_begun;
            transaction.shown_upto = 0;
            transaction.shows = false;
            if leading {
                // Its locks were the old master's to hold (A10): no order knows of it.
                self.drop_without_slot(*tx);
            } else if showing && transaction.may_redo() {
                self.undo(*tx, None);
            } else if showing {
                self.cast_against(*tx, VoteKind::Blocked);
                self.give_up(*tx);
            }
            if !master {
                self.void_entries(*tx);
            }
        }
        if master {
            self.take_over(&all);
        }
        for tx in all {
            self.advance(tx);
        }
    }

    /// Drops the old stream's entries for what is not sent to its backend yet.
    fn void_entries(&mut self, tx: TxId) {
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        let void = transaction.stream.split_off(&(transaction.sent + 1));
        let weight: usize = void.values().map(draws::weight).sum();
        self.entries_held = self.entries_held.saturating_sub(weight);
    }

    /// This replica is the master from now on.
    fn take_over(&mut self, all: &[TxId]) {
        self.skipping =
            self.config.clients.values().flat_map(|rights| rights.databases.iter().cloned()).collect();
        self.resume_until_us = self.now_us + SHOWN_FIRST_US;
        if self.moved_from.is_some_and(|before| before != self.config.me) {
            self.last_words_until_us = self.now_us + LAST_WORDS_US;
        }
        self.term_began = self.open.delivered();
        self.open_windows();
        let epoch = self.open.term().epoch;
        for tx in all {
            let Some(transaction) = self.transactions.get_mut(tx) else { continue };
            if transaction.outcome.is_some() {
                continue;
            }
            match (&transaction.phase, &transaction.finish) {
                (Phase::Running | Phase::Completing, Some(_)) => {
                    self.resuming.insert(*tx);
                    self.shown_whole(*tx);
                }
                // Its BEGIN is ordered behind the term's: no earlier master showed anything of it, and a client that knew of the
                // term before this replica did has nothing to say.
                (Phase::Running, None) if transaction.slot.is_none() => {}
                (Phase::Running, None) => {
                    self.resuming.insert(*tx);
                    if let Some((_, said)) = self
                        .sessions
                        .get(&tx.session)
                        .and_then(|session| session.shown)
                        .filter(|(of, _)| of == tx)
                        && transaction.shown.is_none_or(|shown| shown.epoch < said.epoch)
                    {
                        transaction.shown = Some(said);
                    }
                    if transaction.shown.is_some_and(|shown| shown.epoch == epoch) {
                        self.resume(*tx);
                    }
                }
                (Phase::Queued { .. } | Phase::Preparing { .. } | Phase::Prepared { .. }, _) => {
                    self.stream_again(*tx, true);
                }
                (Phase::GivenUp, None) => {
                    self.reply(tx.session, ReplicaMessage::NotReproduced { tx: *tx });
                }
                _ => {}
            }
        }
        self.tell_words();
        self.shown_again();
    }

    /// What this replica showed in earlier terms, nobody acknowledges any more: it takes no room from what comes now.
    fn open_windows(&mut self) {
        let ready: Vec<SessionKey> =
            self.sessions.iter().filter(|(_, session)| session.ready).map(|(key, _)| *key).collect();
        for session in ready {
            self.backend(session, Command::Acknowledge(u32::MAX));
        }
    }

    /// The client says how far it was shown its transaction.
    pub(super) fn resume_asked(&mut self, tx: TxId, shown: Shown) {
        let epoch = self.open.term().epoch;
        if shown.epoch < epoch {
            return;
        }
        let Some(transaction) = self.transactions.get_mut(&tx) else {
            if shown.operations > 0 && self.is_master() && shown.epoch == epoch {
                self.reply(tx.session, ReplicaMessage::NotReproduced { tx });
            }
            if shown.epoch > epoch
                && let Some(session) = self.sessions.get_mut(&tx.session)
            {
                // The order may bring the transaction first and the term then. The client does not say it again.
                session.shown = Some((tx, shown));
            }
            return;
        };
        if transaction.shown.is_some_and(|said| said.epoch >= shown.epoch) {
            return; // the first word counts
        }
        transaction.shown = Some(shown);
        if shown.epoch == epoch && self.is_master() {
            self.resume(tx);
            self.shown_again();
            self.advance(tx);
        }
    }

    /// Goes on with a transaction from what its client was shown.
    fn resume(&mut self, tx: TxId) {
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        let Some(shown) = transaction.shown else { return };
        if transaction.phase != Phase::Running || transaction.finish.is_some() {
            if transaction.phase == Phase::GivenUp {
                self.reply(tx.session, ReplicaMessage::NotReproduced { tx });
            }
            return;
        }
        transaction.shown_upto = shown.operations;
        let executed = transaction.executed();
        let beyond =
            executed > shown.operations || transaction.issued.keys().any(|number| *number > shown.operations);
        let head = transaction.heads.last().copied();
        let done = if beyond { 0 } else { executed };
        let too_late = self.resume_until_us == 0 && owes_draws(transaction, done, shown.operations);
        if too_late || beyond && !transaction.may_redo() {
            self.not_reproduced(tx);
        } else if beyond {
            self.undo(tx, None);
        } else if executed > 0 && executed == shown.operations && head != Some(shown.transcript) {
            self.not_reproduced(tx);
        } else {
            if transaction.begun
                && let Some(slot) = transaction.slot
            {
                let timestamp = transaction.timestamp;
                self.reply(tx.session, ReplicaMessage::Begun { tx, slot, timestamp });
            }
            self.stream_again(tx, false);
        }
    }

    /// The client has finished: it was shown all of it, and has no other word for a new master. It may not have heard of the
    /// term when it sent its Finish. What is executed is streamed again: a replica may lack it.
    fn shown_whole(&mut self, tx: TxId) {
        let epoch = self.open.term().epoch;
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        let Some(finish) = transaction.finish.as_ref().map(|signed| &signed.finish) else { return };
        let (operations, transcript) = (finish.operations, finish.transcript);
        transaction.shown_upto = operations;
        transaction.shown = Some(Shown { epoch, operations, transcript });
        if self.resume_until_us == 0 && owes_draws(transaction, transaction.executed(), operations) {
            return self.not_reproduced(tx);
        }
        self.stream_again(tx, false);
    }

    /// The client finishes a transaction. At a new master that waits for its word, that is this word.
    pub(super) fn finish_tells_shown(&mut self, tx: TxId) {
        let runs = self.transactions.get(&tx).is_some_and(|transaction| transaction.phase == Phase::Running);
        let heard = !self.config.has(PlantedBug::FinishIsNoWord);
        if runs && heard && self.is_master() && self.awaits_resume(tx) {
            self.shown_whole(tx);
            self.shown_again();
        }
    }

    /// What the client was shown comes out otherwise here, or cannot be done again.
    pub(super) fn not_reproduced(&mut self, tx: TxId) {
        tracing::warn!(%tx, "what a transaction showed cannot be reproduced at the new master");
        self.reply(tx.session, ReplicaMessage::NotReproduced { tx });
        self.cast_against(tx, VoteKind::Blocked);
        self.give_up(tx);
    }

    /// Puts what a transaction has executed here into this master's stream.
    fn stream_again(&mut self, tx: TxId, checked: bool) {
        let Some(transaction) = self.transactions.get(&tx) else { return };
        let words = transaction.words();
        let last = transaction.heads.last().copied();
        let head = last.or(transaction.transcript.map(|transcript| transcript.head())).unwrap_or_default();
        let check = (transaction.executed() + 1, head, Word { check: true, ..Word::default() });
        for (number, head, word) in words.into_iter().chain(checked.then_some(check)) {
            self.stream(tx, number, head, word);
        }
    }

    /// What the master before this one said before it knew that it was moved away. Its stream is void; what it showed is done
    /// again with what it drew and with its errors of timing, as with the words that came in time. Once this one draws by
    /// itself, it is too late for that.
    pub(super) fn last_words(&mut self, epoch: u64, entries: Vec<Executed>) {
        if self.last_words_until_us == 0 || self.resume_until_us == 0 {
            return;
        }
        for mut entry in entries.into_iter().filter(|entry| entry.draws.is_sound() && !entry.check) {
            let (tx, number) = (entry.tx, entry.number);
            let Some(transaction) = self.transactions.get_mut(&tx) else { continue };
            let wanted = transaction.phase == Phase::Running
                && number > transaction.sent
                && number <= limits::OPERATIONS_MAX
                && !transaction.stream.contains_key(&number);
            if wanted && self.entries_held < ENTRIES_HELD_MAX {
                entry.epoch = epoch;
                self.entries_held += draws::weight(&entry);
                transaction.stream.insert(number, entry);
                self.advance(tx);
            }
        }
    }

    /// Whether an operation that was shown waits for the old master's word on it. What was executed here before had a word, or
    /// this replica's own.
    pub(super) fn awaits_word(&self, transaction: &Transaction, number: u32) -> bool {
        self.last_words_until_us != 0
            && number > transaction.executed_before
            && number <= transaction.shown_upto
            && !transaction.stream.contains_key(&number)
    }

    /// Last words had their time.
    pub(super) fn last_words_overdue(&mut self) {
        if self.last_words_until_us != 0 && self.now_us >= self.last_words_until_us {
            self.last_words_until_us = 0;
            self.advance_everyone();
        }
    }

    /// Whether an operation waits for those that were shown before the term began, so that their locks are theirs again.
    pub(super) fn lets_shown_go_first(&self, tx: TxId, number: u32) -> bool {
        let shown = self.transactions.get(&tx).is_some_and(|transaction| number <= transaction.shown_upto);
        !shown && self.resume_until_us != 0 && !self.resuming.is_empty()
    }

    /// Whether the transaction's client has yet to say how far it was shown.
    pub(super) fn awaits_resume(&self, tx: TxId) -> bool {
        let epoch = self.open.term().epoch;
        self.transactions.get(&tx).is_some_and(|transaction| {
            // One that goes first no longer, since its client has gone on from it, is shown to nobody all the same.
            let before = transaction.slot.is_some_and(|slot| slot <= self.term_began);
            let asked = self.resuming.contains(&tx) || transaction.superseded && before;
            asked && transaction.shown.is_none_or(|shown| shown.epoch != epoch)
        })
    }

    /// Transactions that have done again what was shown are waited for no longer; when none is left, all go on. What the order
    /// has closed with its session's next BEGIN can only end as one that wrote nothing: unless it drew, others need not stand
    /// behind it.
    pub(super) fn shown_again(&mut self) {
        if self.resume_until_us == 0 {
            return;
        }
        let epoch = self.open.term().epoch;
        let transactions = &self.transactions;
        self.resuming.retain(|tx| {
            transactions.get(tx).is_some_and(|transaction| {
                let behind = match transaction.shown.filter(|shown| shown.epoch == epoch) {
                    Some(shown) => transaction.executed() < shown.operations || transaction.undoing,
                    None => true,
                };
                let harmless =
                    transaction.superseded && !owes_draws(transaction, transaction.executed(), u32::MAX);
                behind && transaction.phase == Phase::Running && !harmless
            })
        });
        if self.resuming.is_empty() {
            self.skip_sequences();
        }
    }

    /// What was shown had its time to go first.
    pub(super) fn resume_overdue(&mut self) {
        if self.resume_until_us == 0 || self.now_us < self.resume_until_us {
            return;
        }
        self.shown_again();
        let (applied, began) = (self.applying.applied_upto(), self.term_began);
        tracing::info!(missing = ?self.resuming, %applied, %began, "what was shown had its time to go first");
        // What an earlier master drew cannot be drawn again beside what this one draws from now on.
        let resuming: Vec<TxId> = self.resuming.iter().copied().collect();
        for tx in resuming {
            let owes = self.transactions.get(&tx).is_some_and(|transaction| {
                owes_draws(transaction, transaction.executed(), transaction.shown_upto)
            });
            if owes {
                self.not_reproduced(tx);
            }
        }
        self.skip_sequences();
    }

    /// What was shown is done again: from here on this master draws by itself.
    fn skip_sequences(&mut self) {
        // What was committed under earlier masters says how far its sequences were used. Some of what was open when the term
        // began others have vouched for without this replica: it is decided behind that, and taken from a peer.
        let open_before = |transaction: &Transaction| {
            let before = transaction.slot.is_some_and(|slot| slot <= self.term_began);
            before && matches!(transaction.outcome, Some(Decided::Commit { .. }))
        };
        if self.resume_until_us == 0
            || self.applying.applied_upto() < self.term_began
            || self.transactions.values().any(open_before)
        {
            return;
        }
        self.resume_until_us = 0;
        for database in self.skipping.clone() {
            self.push(Effect::SkipSequences { database });
        }
        self.advance_everyone();
    }

    /// The sequences of a database are past what earlier masters may have drawn.
    pub(super) fn sequences_skipped(&mut self, database: &str) {
        if self.skipping.remove(database) {
            self.advance_everyone();
        }
    }

    fn advance_everyone(&mut self) {
        let all: Vec<TxId> = self.transactions.keys().copied().collect();
        for tx in all {
            self.advance(tx);
        }
    }
}
