//! Who the master is, and what it is accused of (section 4 of the design).
//!
//! Replicas watch the master themselves; no client's word counts. Which term runs is a function of the order: it ends with
//! f + 1 accusations or an administrator's move. Invariants:
//! - what a correct master is accused of, no client can bring about (B2): a lock wait, a long statement and a client that
//!   withholds its messages from some replicas, or gives its sessions other settings there, look like none of it;
//! - an accusation of silence counts only while its replica repeats it, and only where the master was not heard since: one
//!   that is over does not add up with another one's later.

use super::planted::PlantedBug;
use super::transaction::Found;
use super::{Effect, Scheduler, draws};
use std::collections::{BTreeMap, VecDeque};
use steeldb_types::{ReplicaId, Term, TxId, limits};
use steeldb_wire::transaction::{
    Accusation, Cause, DeposeCertificate, Executed, MasterMove, Ordered, SignedAccusation, Stream,
};

/// A master that has nothing to stream says so this many times in the time after which it counts as silent.
const BEATS: u64 = 5;

/// A replica that starts waits this many times as long for the master's first word: it may be starting, too.
const START_FACTOR: u64 = 10;

/// A new master has this many times as long for its first word.
const TERM_FACTOR: u64 = 2;

/// How often an accusation is repeated, and how long one counts after it was last heard, microseconds.
const REPEAT_US: u64 = 1_000_000;
const COUNTS_US: u64 = 5_000_000;

/// A replica that was not scheduled for so long has not listened, microseconds.
const ASLEEP_US: u64 = 1_000_000;

/// Transactions that others have prepared and that ended without any vote of the master, before it is accused. One may
/// end so when messages are slow.
const UNVOTED_MAX: u32 = 3;

/// Roles in whose transactions the master's word was not this replica's, within so long, before it is accused. With one
/// role it may be the statements.
const ROLES_MAX: usize = 3;
const ROLES_US: u64 = 60_000_000;

/// Statements that are looked up at once for whether they are certified deterministic; a longer transaction's are not.
const CERTIFY_MAX: u32 = 64;

/// How often statements are looked up at the most, microseconds: a client can make any number of transactions differ.
const CERTIFY_US: u64 = 1_000_000;

/// Entries of streams of terms that are not delivered here yet; past it the oldest go.
const AHEAD_MAX: usize = 65_536;

/// What this replica makes of the master of the term that runs.
#[derive(Default)]
pub(super) struct Mastership {
    /// When the master's stream was last heard; and since when its first word is waited for.
    heard_us: Option<u64>,
    since_us: u64,
    /// The time that it has for the first word, in times that it may be silent.
    factor: u64,
    ticked_us: u64,
    /// When the master last streamed something.
    beaten_us: u64,
    /// What this replica accuses it of, beside silence. Kept for the term.
    cause: Option<Cause>,
    said_us: Option<u64>,
    said: Option<Cause>,
    accusations: BTreeMap<ReplicaId, (SignedAccusation, u64)>,
    submitted_us: Option<u64>,
    /// When statements were last looked up.
    certify_us: Option<u64>,
    unvoted: u32,
    /// Databases and roles of transactions in which its word differed, and when last.
    differed: BTreeMap<(String, String), u64>,
    /// Pieces of the streams of later terms.
    ahead: VecDeque<(ReplicaId, u64, Vec<Executed>)>,
    ahead_weight: usize,
}

impl Mastership {
    pub(super) fn new() -> Mastership {
        Mastership { factor: START_FACTOR, ..Mastership::default() }
    }

    /// A term begins: what was made of the master before is no more.
    fn begin(&mut self, now_us: u64) {
        let ahead = std::mem::take(&mut self.ahead);
        let ahead_weight = self.ahead_weight;
        *self = Mastership {
            since_us: now_us,
            factor: TERM_FACTOR,
            ticked_us: self.ticked_us,
            ahead,
            ahead_weight,
            ..Mastership::default()
        };
    }

    fn keep_ahead(&mut self, from: ReplicaId, epoch: u64, entries: Vec<Executed>) {
        self.ahead_weight += weight(&entries);
        self.ahead.push_back((from, epoch, entries));
        while self.ahead_weight > AHEAD_MAX
            && let Some((_, _, oldest)) = self.ahead.pop_front()
        {
            self.ahead_weight -= weight(&oldest);
        }
    }

    /// The pieces that came of the stream of a term before it was known here.
    pub(super) fn take_ahead(&mut self, term: Term) -> Vec<Vec<Executed>> {
        let mut taken = Vec::new();
        let mut kept = VecDeque::new();
        for (from, epoch, entries) in std::mem::take(&mut self.ahead) {
            if epoch > term.epoch {
                kept.push_back((from, epoch, entries));
                continue;
            }
            self.ahead_weight -= weight(&entries);
            if epoch == term.epoch && from == term.master {
                taken.push(entries);
            }
        }
        self.ahead = kept;
        taken
    }
}

fn weight(entries: &[Executed]) -> usize {
    1 + entries.iter().map(draws::weight).sum::<usize>()
}

impl Scheduler {
    /// The term that runs, as far as the order is delivered here.
    pub fn term(&self) -> Term {
        self.open.term()
    }

    /// Whether this replica is the master.
    pub fn is_master(&self) -> bool {
        self.config.me == self.open.term().master
    }

    /// What the master is accused of at the moment, and by whom.
    pub fn accusations(&self) -> impl Iterator<Item = (ReplicaId, Cause)> {
        self.fresh_accusations().map(|signed| (signed.replica, signed.accusation.cause))
    }

    /// A piece of a master's stream arrives over the link of `from`.
    pub(super) fn stream_piece(&mut self, from: ReplicaId, epoch: u64, entries: Vec<Executed>) {
        let term = self.open.term();
        if epoch > term.epoch {
            return self.mastership.keep_ahead(from, epoch, entries);
        }
        if epoch == term.epoch && from == term.master && !self.is_master() {
            self.mastership.heard_us = Some(self.now_us);
            self.stream_entries(entries);
        } else if epoch + 1 == term.epoch && self.moved_from == Some(from) && self.is_master() {
            self.last_words(epoch, entries);
        }
    }

    /// The order deposes the master of a term: the next member takes over.
    pub(super) fn depose_delivered(&mut self, certificate: &DeposeCertificate) {
        if certificate.term == self.open.term() {
            let causes: Vec<String> = certificate
                .accusations
                .iter()
                .map(|signed| format!("{}: {}", signed.replica, signed.accusation.cause))
                .collect();
            let master = certificate.term.master;
            tracing::warn!(%master, accusations = causes.join("; "), "the master is deposed");
            self.end_stream();
            self.open.depose();
            self.begin_term();
        }
    }

    /// The order names another master.
    pub(super) fn move_delivered(&mut self, wish: &MasterMove) {
        if wish.term == self.open.term() {
            tracing::info!(from = %wish.term.master, to = %wish.to, "an administrator moves the master");
            self.end_stream();
            self.open.move_to(wish.to);
            self.moved_from = Some(wish.term.master);
            self.begin_term();
        }
    }

    /// The term is about to end: what this master has done is said in it. Who is slower has it in time, and its successor makes
    /// use of it (`last_words`).
    pub(super) fn end_stream(&mut self) {
        self.moved_from = None;
        if self.is_master() {
            self.send_gathered();
        }
    }

    /// A term begins.
    pub(super) fn begin_term(&mut self) {
        let term = self.open.term();
        tracing::info!(epoch = term.epoch, master = %term.master, "a master's term begins");
        self.mastership.begin(self.now_us);
        self.push(Effect::TermBegan(term));
        self.carry_over();
        for entries in self.mastership.take_ahead(term) {
            self.stream_piece(term.master, term.epoch, entries);
        }
    }

    /// Lets the others know that the master is there, when it has nothing else to say. One whose data are not the others'
    /// says nothing, and is deposed.
    pub(super) fn beat(&mut self) {
        let due = self.now_us.saturating_sub(self.mastership.beaten_us);
        if self.is_master() && self.diverged.is_none() && due * BEATS >= self.config.master_silence_us {
            self.send_stream(Vec::new());
        }
    }

    /// Sends the stream entries that gathered.
    pub(super) fn send_gathered(&mut self) {
        self.streaming_since_us = None;
        let mut bytes = 0;
        let mut piece = Vec::new();
        for entry in std::mem::take(&mut self.streamed) {
            bytes += 128 + entry.draws.size();
            piece.push(entry);
            if bytes > limits::STREAM_BYTES_MAX {
                bytes = 0;
                self.send_stream(std::mem::take(&mut piece));
            }
        }
        if !piece.is_empty() {
            self.send_stream(piece);
        }
    }

    /// Signs a piece of the stream and sends it.
    pub(super) fn send_stream(&mut self, entries: Vec<Executed>) {
        if self.diverged.is_some() {
            return;
        }
        self.mastership.beaten_us = self.now_us;
        let (first, epoch) = (self.stream_next, self.open.term().epoch);
        self.stream_next += entries.len() as u64;
        self.push(Effect::SendStream(Stream::new(epoch, first, entries, &self.config.key)));
    }

    /// Looks whether the master is to be accused, and says so as long as it is.
    pub(super) fn watch_master(&mut self) {
        let (now, mastership) = (self.now_us, &mut self.mastership);
        let asleep_us = now.saturating_sub(mastership.ticked_us);
        if mastership.ticked_us == 0 {
            mastership.since_us = now;
        } else if asleep_us > ASLEEP_US {
            // What came meanwhile is yet to be handled.
            mastership.since_us += asleep_us;
            mastership.heard_us = mastership.heard_us.map(|heard| heard + asleep_us);
        }
        mastership.ticked_us = now;
        self.beat();
        if self.is_master() || !self.config.view.contains(self.config.me) {
            return;
        }
        let mastership = &mut self.mastership;
        let silent_us = self.config.master_silence_us;
        let silent = match mastership.heard_us {
            Some(heard) => now.saturating_sub(heard) > silent_us,
            None => now.saturating_sub(mastership.since_us) > silent_us * mastership.factor,
        };
        let cause = mastership.cause.or(silent.then_some(Cause::Silent));
        let Some(cause) = cause else {
            if mastership.said.take().is_some() {
                tracing::info!("the master is heard again");
                mastership.accusations.remove(&self.config.me);
            }
            return;
        };
        let again = mastership.said_us.is_none_or(|said| now.saturating_sub(said) >= REPEAT_US);
        if mastership.said == Some(cause) && !again {
            return;
        }
        let term = self.open.term();
        if mastership.said != Some(cause) {
            tracing::warn!(master = %term.master, epoch = term.epoch, %cause, "this replica accuses the master");
        }
        mastership.said = Some(cause);
        mastership.said_us = Some(now);
        let accusation = Accusation { term, cause };
        let signed = SignedAccusation::new(self.config.me, accusation, &self.config.key);
        self.push(Effect::SendAccusation(signed));
        self.accused(signed);
    }

    /// A replica accuses the master; its signature is verified.
    pub(super) fn accused(&mut self, signed: SignedAccusation) {
        let term = self.open.term();
        if signed.accusation.term != term || !self.config.view.contains(signed.replica) {
            return;
        }
        let before = self.mastership.accusations.insert(signed.replica, (signed, self.now_us));
        if signed.replica != self.config.me && before.is_none_or(|(before, _)| before != signed) {
            let (by, cause) = (signed.replica, signed.accusation.cause);
            tracing::warn!(master = %term.master, epoch = term.epoch, %by, %cause, "the master is accused");
        }
        let accusations: Vec<SignedAccusation> = self.counted_accusations().collect();
        let enough = self.config.view.has_correct(accusations.iter().map(|signed| signed.replica))
            || self.config.has(PlantedBug::DeposeOnOneWord);
        let submitted = self.mastership.submitted_us;
        if enough && submitted.is_none_or(|at| self.now_us.saturating_sub(at) >= REPEAT_US) {
            self.mastership.submitted_us = Some(self.now_us);
            let certificate = DeposeCertificate { term, accusations };
            self.push(Effect::Submit(Box::new(Ordered::Depose(certificate))));
        }
    }

    fn fresh_accusations(&self) -> impl Iterator<Item = SignedAccusation> {
        self.accusations_since(0)
    }

    /// Those that depose the master, if there are enough. Whoever hears it counts no silence: of two replicas that were cut
    /// off one after the other, neither finds it silent with the other. If it is, those to whom it is hear one another.
    fn counted_accusations(&self) -> impl Iterator<Item = SignedAccusation> {
        let mastership = &self.mastership;
        let silent_since = match self.is_master() {
            true => self.now_us + 1,
            false => mastership.heard_us.unwrap_or(mastership.since_us),
        };
        self.accusations_since(silent_since)
    }

    /// Those of the last moments; those of silence that came since `silent_since`, and this replica's own.
    fn accusations_since(&self, silent_since: u64) -> impl Iterator<Item = SignedAccusation> {
        let (now, me) = (self.now_us, self.config.me);
        let counts = move |(signed, heard_us): &&(SignedAccusation, u64)| {
            now.saturating_sub(*heard_us) <= COUNTS_US
                && (signed.accusation.cause != Cause::Silent
                    || signed.replica == me
                    || *heard_us >= silent_since)
        };
        self.mastership.accusations.values().filter(counts).map(|(signed, _)| *signed)
    }

    /// Has the statements looked up whose last one the master answered otherwise than this replica, and the others alike:
    /// if all have one result only, it was wrong. What may have another reason is left out: an error on either side, and a
    /// session whose client brought settings along here or, as the master says, there.
    fn ask_whether_certified(&mut self, tx: TxId) {
        let now = self.now_us;
        if self.mastership.certify_us.is_some_and(|at| now.saturating_sub(at) < CERTIFY_US) {
            return;
        }
        let (Some(transaction), Some(session)) = (self.transactions.get(&tx), self.sessions.get(&tx.session))
        else {
            return;
        };
        let epoch = self.open.term().epoch;
        let Some(operation) = transaction.first_difference() else { return };
        // Asked alike here and there, and answered without an error: a client may send one replica what it likes.
        let alike = |(number, entry): (&u32, &Executed)| {
            let here = Found { operation: entry.operation, failed: None, copied: entry.copied };
            transaction.found.get(number) == Some(&here)
                && entry.epoch == epoch
                && entry.failed.is_none()
                && !entry.restored
        };
        let clear = operation <= CERTIFY_MAX
            && transaction.stream.range(..=operation).count() == operation as usize
            && transaction.stream.range(..=operation).all(alike)
            && !session.restored;
        if !clear {
            return;
        }
        let statement = |number: u32| {
            let operation = &transaction.kept.get(&number)?.operation;
            let text = session.statements.get(&operation.statement)?.text.clone();
            Some((text, operation.row_order))
        };
        let Some(statements) = (1..=operation).map(statement).collect::<Option<Vec<_>>>() else { return };
        let database = session.database.clone();
        self.mastership.certify_us = Some(now);
        self.push(Effect::Certify { epoch, database, statements });
    }

    /// Whether the statements have one result only, as far as this replica's own server knows.
    pub(super) fn certified(&mut self, epoch: u64, certified: bool) {
        if certified && epoch == self.open.term().epoch && !self.is_master() {
            self.mastership.cause.get_or_insert(Cause::Disproved);
        }
    }

    /// A transaction that is prepared here found no quorum in time. The master showed its results, and a correct one has
    /// its Finish from the votes at the latest: it would have said something by now.
    pub(super) fn note_unvoted(&mut self, tx: TxId) {
        let master = self.open.term().master;
        let voted = self.ballots.get(&tx).is_some_and(|ballot| ballot.has_vote_of(master));
        let prepared = self.transactions.get(&tx).is_some_and(|transaction| {
            transaction.prepared_vote.is_some() && transaction.finished_at_us >= self.mastership.since_us
        });
        if prepared && !voted && !self.is_master() {
            self.mastership.unvoted += 1;
            if self.mastership.unvoted >= UNVOTED_MAX {
                self.mastership.cause.get_or_insert(Cause::NoVotes);
            }
        }
    }

    /// The master's word on a transaction is not what this replica found. That may be the statement's doing, or the
    /// client's; not when it happens to several roles, and not when the statement has one result only.
    pub(super) fn note_difference(&mut self, tx: TxId) {
        if self.is_master() {
            return;
        }
        self.ask_whether_certified(tx);
        let Some(session) = self.sessions.get(&tx.session) else { return };
        let (role, now) = ((session.database.clone(), session.role.clone()), self.now_us);
        self.mastership.differed.retain(|_, at| now.saturating_sub(*at) <= ROLES_US);
        self.mastership.differed.insert(role, now);
        if self.mastership.differed.len() >= ROLES_MAX {
            self.mastership.cause.get_or_insert(Cause::Doubted);
        }
    }
}
