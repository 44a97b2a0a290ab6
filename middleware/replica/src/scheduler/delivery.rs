//! Delivery: what the order says, in its order (rules 3, 7, 9).

use super::applying::Item;
use super::ballot::Ballot;
use super::maintaining::Statement;
use super::open::{Missing, OpenTransactions};
use super::outcomes::End;
use super::planted::PlantedBug;
use super::transaction::{Decided, Phase, Transaction};
use super::{Effect, Scheduler, abort_reason};
use std::collections::{BTreeMap, BTreeSet};
use steeldb_types::{Digest, Position, SessionKey, Slot, Timestamp, TxId, View};
use steeldb_wire::transaction::{
    AbortReason, CommitCertificate, Modes, Ordered, Outcome, ReplicaMessage, TransactionState, VoteKind,
};

/// Transactions of one session that this replica may be behind with; past it the older ones are given up.
const OVERTAKEN_MAX: usize = 64;

impl Scheduler {
    /// Takes up the order where a restarted replica's own log ends. `in_doubt` are prepared here: they wait for their
    /// outcome (rule 13) and for decoding to show what they are. `missing` are decided commits that are not applied
    /// here, in their order: those that are in doubt are committed if they are what the certificate names, the others
    /// are caught up with one by one. `vanished` are open and were prepared here before (A12).
    pub fn restore(
        &mut self,
        open: OpenTransactions,
        in_doubt: Vec<(TxId, Slot, String)>,
        missing: Vec<Missing>,
        vanished: Vec<TxId>,
    ) {
        self.applying.restored(open.delivered());
        self.open = open;
        for (tx, slot, database) in in_doubt {
            if self.config.has(PlantedBug::PreparedForgotten) {
                continue;
            }
            let mut transaction = Transaction::new(tx, self.now_us);
            transaction.slot = Some(slot);
            transaction.database = database;
            self.transactions.insert(tx, transaction);
            self.take_permit(tx);
            self.set_phase(tx, Phase::InDoubt { decoded: None, prepared: true });
        }
        let decided: BTreeSet<TxId> = missing.iter().map(|missing| missing.certificate.tx).collect();
        let in_doubt: Vec<TxId> = self.transactions.keys().copied().collect();
        for tx in in_doubt {
            if !decided.contains(&tx) {
                // Its vote is not remembered; Expired any replica may say, whatever it said before.
                self.cast_against(tx, VoteKind::Expired);
            }
        }
        let not_here: Vec<TxId> =
            self.open.iter().map(|(tx, _)| tx).filter(|tx| !self.transactions.contains_key(tx)).collect();
        for tx in not_here {
            self.note_ended(tx);
        }
        // Those that must be executed again need a snapshot as near to their slots as there is one.
        let mut walls: BTreeMap<Slot, (TxId, String)> = missing
            .iter()
            .filter(|missing| missing.certificate.wall.is_scripted())
            .map(|missing| (missing.certificate.slot, (missing.certificate.tx, missing.database.clone())))
            .collect();
        for Missing { position, database, timestamp, certificate } in missing {
            let (tx, now) = (certificate.tx, self.now_us);
            let later = walls.split_off(&position);
            for (tx, database) in std::mem::replace(&mut walls, later).into_values() {
                self.applying.enqueue(Item::Begin { tx, database });
            }
            let transaction = self.transactions.entry(tx).or_insert_with(|| {
                let mut transaction = Transaction::new(tx, now);
                transaction.phase = Phase::GivenUp;
                transaction
            });
            transaction.slot = Some(certificate.slot);
            transaction.database = database;
            transaction.timestamp = timestamp;
            transaction.decided_at_us = now;
            transaction.outcome = Some(Decided::Commit { certificate });
            // Alone: what lay between them in the order is not known any more.
            self.applying.fall_behind();
            self.applying.enqueue(Item::Commit { position, tx, alone: true });
        }
        if !vanished.is_empty() {
            self.lose_votes(&vanished);
        }
    }

    pub(super) fn delivered(
        &mut self,
        position: Position,
        timestamp: Timestamp,
        late: bool,
        request: Option<(SessionKey, u64)>,
        payload: Ordered,
    ) {
        self.nothing_ahead();
        self.open.follow(position, &payload);
        self.applying.delivered(position);
        match payload {
            Ordered::Begin { tx, database, modes, preamble, .. } => {
                self.begin_delivered(tx, position, timestamp, database, (modes, preamble));
                if late && !self.sessions.contains_key(&tx.session) {
                    self.give_up(tx);
                }
            }
            Ordered::Rollback { tx, slot } => {
                if self.open.slot(tx) == Some(slot) {
                    self.abort_delivered(tx, AbortReason::Client);
                }
            }
            Ordered::Abort(certificate) => {
                if self.is_of(certificate.tx, certificate.slot) {
                    self.abort_delivered(certificate.tx, abort_reason(&certificate.votes));
                }
            }
            Ordered::Commit(certificate) => {
                if self.is_of(certificate.tx, certificate.slot) {
                    self.commit_delivered(position, certificate, late);
                }
            }
            Ordered::Depose(certificate) => self.depose_delivered(&certificate),
            Ordered::Move(wish) => self.move_delivered(&wish),
            Ordered::SessionOver(word) => self.session_over_delivered(&word),
            Ordered::Maintain { database, role, sql, .. } => {
                if let Some((session, sequence)) = request {
                    let statement = Statement { session, sequence, database, role, sql };
                    self.applying.enqueue(Item::Maintain(statement));
                }
            }
            Ordered::Verify { database, .. } => {
                if let Some((session, sequence)) = request {
                    self.renew_anchor(&database);
                    self.applying.enqueue(Item::Verify { position, session, sequence, database });
                }
            }
            Ordered::Outcome { tx, .. } => {
                if let Some((session, sequence)) = request {
                    self.tell(session, sequence, tx);
                }
            }
        }
        self.pump();
    }

    /// Whether an outcome is that of the open transaction, and the first.
    fn is_of(&self, tx: TxId, slot: Slot) -> bool {
        match self.open.slot(tx) {
            Some(open) => open == slot,
            None => self.config.has(PlantedBug::SecondOutcomeHonoured),
        }
    }

    /// A view begins behind the order's position: what was open ends, as after a conflict, and can be tried again.
    pub(super) fn view_changed(&mut self, position: Position, view: View) {
        self.nothing_ahead();
        let term = self.open.term();
        self.end_stream();
        let ended = self.open.change_view(position, view.clone());
        tracing::info!(view = view.number().0, %position, ended = ended.len(), "the membership changed");
        self.config.view = view;
        self.applying.delivered(position);
        for tx in ended {
            self.abort_locally(tx, AbortReason::ViewChanged);
        }
        if self.open.term() != term {
            self.begin_term();
        }
        self.pump();
    }

    fn begin_delivered(
        &mut self,
        tx: TxId,
        slot: Slot,
        timestamp: Timestamp,
        database: String,
        (modes, preamble): (Modes, Digest),
    ) {
        let Some(ended) = self.open.open(tx, slot, &database, timestamp) else { return self.void(tx) };
        let goes_on: Vec<bool> = ended.into_iter().map(|before| self.supersede(before)).collect();
        let overtakes = goes_on.contains(&true);
        if overtakes {
            self.shown_again();
        }
        let now = self.now_us;
        let transaction = self.transaction(tx);
        transaction.slot = Some(slot);
        transaction.timestamp = timestamp;
        transaction.modes = modes;
        transaction.preamble = Some(preamble);
        transaction.database = database.clone();
        transaction.active_at_us = now;
        transaction.slotted_at_us = now;
        let view = &self.config.view;
        let early = self.early_votes.take(slot, tx).into_iter().filter(|vote| view.contains(vote.replica));
        for vote in early {
            self.ballots.entry(tx).or_insert_with(|| Ballot::new(slot)).add(vote);
        }
        let session = self.sessions.get(&tx.session);
        let wrong_database = session.is_some_and(|session| session.database != database);
        // Where the session is not open yet, its client may be on the way.
        let gone = session.is_some_and(|session| session.closing)
            || session.is_some_and(|session| session.is_past(tx));
        if !gone && !overtakes {
            self.enter(tx);
        }
        if wrong_database || gone {
            self.cast_against(tx, VoteKind::Gone);
            self.give_up(tx);
        } else {
            self.applying.enqueue(Item::Begin { tx, database });
        }
        if wrong_database {
            self.drop_session(tx.session, "08P01", "a BEGIN names another database than its session");
        }
        self.count(tx);
    }

    /// A BEGIN opens nothing. What came ahead of it is dropped.
    fn void(&mut self, tx: TxId) {
        if self.open.slot(tx).is_some() {
            return; // the BEGIN of a transaction that is open already
        }
        let outcome = Outcome::Aborted { reason: AbortReason::Void };
        self.reply(tx.session, ReplicaMessage::Outcome { tx, outcome });
        if self.transactions.get(&tx).is_some_and(|transaction| transaction.slot.is_none()) {
            self.drop_without_slot(tx);
        }
    }

    /// Answers who asks for a transaction's outcome. Nothing has to be applied first: a BEGIN that follows the answer is
    /// ordered behind the commit that it tells of.
    fn tell(&mut self, session: SessionKey, sequence: u64, tx: TxId) {
        let state = self.open.ask(tx);
        if state == TransactionState::InProgress {
            // Where it is over without an ordered outcome, since it wrote nothing or its client is gone, it gets one.
            self.ended.contest(tx);
        }
        let message = ReplicaMessage::Told { session: session.session, sequence, state };
        self.push(Effect::Answer { session, message });
    }

    fn abort_delivered(&mut self, tx: TxId, reason: AbortReason) {
        self.open.close(tx, End::NoChanges);
        self.abort_locally(tx, reason);
    }

    /// The session's next BEGIN is ordered: a transaction that is still open before it has no ordered outcome any more. It
    /// may be one that wrote nothing and that its client has seen committed by f + 1 others (rule 11): then this replica
    /// completes it, too, or the session's settings would not be theirs. Its Finish comes before what comes next.
    /// Whether it goes on.
    fn supersede(&mut self, tx: TxId) -> bool {
        let completes = self.sessions.contains_key(&tx.session)
            && self.of_session(tx.session).count() <= OVERTAKEN_MAX
            && self.transactions.get(&tx).is_some_and(|transaction| {
                matches!(transaction.phase, Phase::Running | Phase::Completing)
                    && !transaction.is_rolled_back()
            });
        if !completes {
            self.abort_locally(tx, AbortReason::Client);
            return false;
        }
        self.ballots.remove(&tx);
        self.ended.remove(tx);
        if let Some(transaction) = self.transactions.get_mut(&tx) {
            transaction.superseded = true;
        }
        true
    }

    /// Applies an ordered Abort at once, out of turn (A11).
    pub(super) fn abort_locally(&mut self, tx: TxId, reason: AbortReason) {
        self.ballots.remove(&tx);
        self.ended.remove(tx);
        self.reply(tx.session, ReplicaMessage::Outcome { tx, outcome: Outcome::Aborted { reason } });
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        transaction.outcome = Some(Decided::Abort);
        self.give_up(tx);
        self.settle(tx);
    }

    fn commit_delivered(&mut self, position: Position, certificate: CommitCertificate, late: bool) {
        let tx = certificate.tx;
        let slot = certificate.slot;
        let Some((opened, commits)) = self.open.close_committed(position, &certificate) else { return };
        if !commits {
            return self.abort_locally(tx, AbortReason::Walled);
        }
        self.ballots.remove(&tx);
        self.ended.remove(tx);
        let now = self.now_us;
        let alone = certificate.wall.is_raised();
        let cleared = self.open.defined(position, &certificate, &opened.database);
        let transaction = self.transactions.entry(tx).or_insert_with(|| {
            // Open in the order and not here: this replica has ended it, or has lost it with a restart.
            let mut transaction = Transaction::new(tx, now);
            transaction.phase = Phase::GivenUp;
            transaction
        });
        transaction.slot = Some(slot);
        transaction.database = opened.database;
        transaction.timestamp = opened.timestamp;
        transaction.outcome = Some(Decided::Commit { certificate });
        transaction.decided_at_us = if late { 0 } else { now };
        if late {
            self.applying.fall_behind();
        }
        self.applying.enqueue(Item::Commit { position, tx, alone });
        if alone {
            self.wall_delivered(tx);
        }
        if let Some(cleared) = cleared {
            self.clear(cleared);
        }
        self.advance(tx);
    }
}
