//! The sans-IO core of one session: commands of the application and messages of replicas in, messages to replicas and
//! events for the application out. No clock, no sockets, no randomness; the driver passes time-outs in.
//!
//! Invariants:
//! - What is to be verified eagerly is shown on f + 1 equal transcripts, and on nothing else ([`verification`]).
//! - The transcript covers exactly what was handed on to the application, in that order.
//! - A transaction is said to be committed or aborted only as [`verdict`] allows.
//! - What a replica can fill is bounded: the master's results by the window, all else by one word per replica. Messages
//!   for other transactions change nothing.
//! - No message of any replica makes it panic; a master that breaks the protocol ends its transaction, nothing else.

mod answer;
mod doubt;
mod operations;
mod ordered;
mod outcome;
mod planted;
mod report;
mod resuming;
mod session;
mod settings;
mod statements;
mod transaction;
mod verdict;
mod verification;

use crate::ShimError;
use bytes::Bytes;
use ordered::Ordering;
#[cfg(feature = "planted-bugs")]
pub use planted::PlantedBug;
use session::Membership;
use settings::Settings;
use statements::Statements;
use std::collections::VecDeque;
use std::sync::Arc;
use steeldb_ordering::{Request, RequestId};
use steeldb_types::{Digest, Position, ReplicaId, SessionKey, TxId, View};
use steeldb_wire::auth::SecretKey;
use steeldb_wire::codec::encode;
use steeldb_wire::transaction::{
    ClientMessage, Decision, Modes, OperationKind, Ordered, ReplicaMessage, StatementText, TableDigest,
    TransactionState, preamble,
};
use transaction::{Phase, Transaction};

/// What a session's core needs to know.
#[derive(Clone)]
pub struct CoreConfig {
    /// The replicas.
    pub view: View,
    /// The one that answers, and the master epoch that it does so in.
    pub master: ReplicaId,
    /// Counts the masters' terms.
    pub epoch: u64,
    /// The session; never used before.
    pub session: SessionKey,
    /// The client's key.
    pub key: Arc<SecretKey>,
    /// The database.
    pub database: String,
    /// The role.
    pub role: String,
    /// Start-up parameters of the backends.
    pub parameters: Vec<(String, String)>,
    /// COPY data that a transaction may have, bytes.
    pub bulk_bytes_max: u64,
    /// Open backends. Without, the session can only order requests that need none.
    pub backends: bool,
    /// A bug to plant.
    #[cfg(feature = "planted-bugs")]
    pub planted_bug: Option<PlantedBug>,
}

/// An operation as the application wants it; the core numbers it.
#[derive(Clone, Debug)]
pub struct NewOperation {
    /// The statement.
    pub text: Arc<StatementText>,
    /// The statement will come again: remember it longer.
    pub keep: bool,
    /// What to do with it.
    pub kind: OperationKind,
    /// What is known of it.
    pub flags: OperationFlags,
}

/// What analysis knows of an operation's statement.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OperationFlags {
    /// LOCK TABLE before any other statement: runs before the BEGIN is ordered (A10).
    pub leading: bool,
    /// Rows are compared in sequence (A8).
    pub row_order: bool,
    /// Explicit locks or sequences (A9).
    pub must_vote: bool,
    /// Its answer is shown once f + 1 replicas have it (rule 11).
    pub verify: bool,
    /// It writes, as far as is known; only to name it when effects differ.
    pub writes: bool,
}

/// A message to send.
#[derive(Clone, Debug)]
pub struct Transmit {
    /// To whom.
    pub to: Vec<ReplicaId>,
    /// What.
    pub message: ClientMessage,
    /// The only replica that acts on it at once, if there is one: the others start on a transaction's operations when
    /// they hold the master's word on them, or when its client has finished, so theirs may travel with what comes next.
    pub at_once: Option<ReplicaId>,
}

/// What the application is told. Operations are answered in the order they were given.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// The session is usable; the master's parameters.
    Opened {
        /// Names and values, for the application's start-up.
        parameters: Vec<(String, String)>,
    },
    /// A piece of an operation's answer: whole backend messages, to be relayed. Report it with [`Core::consumed`].
    Result {
        /// The operation.
        number: u32,
        /// Backend messages.
        messages: Bytes,
    },
    /// An operation's answer is complete.
    Executed {
        /// The operation.
        number: u32,
        /// The answer was an error.
        failed: bool,
        /// It drew from sequences, as the master says: what it did to them stays, whatever becomes of the transaction.
        drew: bool,
    },
    /// An operation has no answer, or none to its end: SteelDB itself failed it. The transaction cannot go on.
    OperationFailed {
        /// The operation.
        number: u32,
        /// Why.
        error: ShimError,
    },
    /// The transaction is over.
    Finished(Result<Completion, ShimError>),
    /// The maintenance statement is over: its backend messages.
    Maintained(Result<Bytes, ShimError>),
    /// A replica's table digests.
    Verified {
        /// Which replica.
        replica: ReplicaId,
        /// Where in the order.
        position: Position,
        /// The tables, or why it could not.
        tables: Result<Vec<TableDigest>, String>,
    },
    /// What became of the transaction that was asked for.
    Told(Result<TransactionState, ShimError>),
    /// The session is over; no event follows.
    Lost(ShimError),
}

/// How a transaction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completion {
    /// Committed; where in the order, if it was ordered.
    Committed(Option<Position>),
    /// Rolled back, and what was shown of it was true.
    RolledBack,
}

/// What the core waits for, so that the driver can bound it in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waiting {
    /// For replicas to open the session.
    Opening,
    /// For the master, or a quorum, to be there for a new transaction.
    Replicas,
    /// For the BEGIN to be ordered.
    Slot,
    /// For another master to go on with the transaction: the link to its master is lost.
    Master,
    /// For other replicas to execute what the master has, before it is shown.
    Verification,
    /// For the transaction's outcome.
    Outcome,
    /// For the answer to a question for a transaction's outcome.
    Answer,
}

/// A session's core.
pub struct Core {
    config: CoreConfig,
    preamble: Digest,
    replicas: Vec<Membership>,
    /// The session was usable once.
    opened: bool,
    over: bool,
    statements: Statements,
    settings: Settings,
    sequence: u64,
    counter: u64,
    transaction: Option<Transaction>,
    ordering: Option<Ordering>,
    /// A transaction given up before its slot was known.
    abandoned: Option<TxId>,
    /// Result bytes of the master: not yet consumed, and consumed but not yet acknowledged.
    unconsumed: usize,
    unacknowledged: usize,
    /// Result bytes of earlier masters that are not yet consumed.
    stale: usize,
    /// Of what the application is to take: bytes that were acknowledged when they were held back.
    prepaid: usize,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    /// Counts what was waited for, so that each wait has its own time-out.
    waits: u64,
}

impl Core {
    /// A session that is being opened. `up` tells whether the link to a replica is up.
    pub fn new(config: CoreConfig, up: impl Fn(ReplicaId) -> bool) -> Core {
        // By replica number; numbers that are no member's are not reachable.
        let numbers = (0..config.view.table_len()).map(|number| ReplicaId(number as u16));
        let reachable = |replica| config.view.contains(replica) && up(replica);
        let replicas = numbers
            .map(|replica| if reachable(replica) { Membership::Closed } else { Membership::Away })
            .collect();
        let preamble = preamble(&config.database, &config.role, &config.parameters);
        let mut core = Core {
            config,
            preamble,
            replicas,
            opened: false,
            over: false,
            statements: Statements::new(),
            settings: Settings::default(),
            sequence: 0,
            counter: 0,
            transaction: None,
            ordering: None,
            abandoned: None,
            unconsumed: 0,
            unacknowledged: 0,
            stale: 0,
            prepaid: 0,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            waits: 0,
        };
        core.open_where_closed();
        core
    }

    /// Starts a transaction. Nothing is sent before its first operation.
    pub fn begin(&mut self, modes: Modes) {
        if self.transaction.is_some() || self.ordering.is_some() {
            // The application is the proxy, which is part of SteelDB: a fault of ours, shown at the next operation.
            return self.doom(ShimError::misuse("begin inside a transaction"));
        }
        self.counter += 1;
        let tx = TxId { session: self.config.session, counter: self.counter };
        self.transaction = Some(Transaction::new(tx, modes, self.preamble, self.replicas.len()));
    }

    /// The transaction that runs, if any.
    pub fn tx(&self) -> Option<TxId> {
        self.transaction.as_ref().map(|transaction| transaction.tx)
    }

    /// A statement failed and no ROLLBACK TO has succeeded since, or the transaction cannot go on.
    pub fn in_failed_transaction(&self) -> bool {
        self.transaction.as_ref().is_some_and(|transaction| transaction.failed || transaction.is_doomed())
    }

    /// A message of a replica over its authenticated link.
    pub fn receive(&mut self, from: ReplicaId, message: ReplicaMessage) {
        if self.over || !self.config.view.contains(from) {
            return;
        }
        match message {
            ReplicaMessage::SessionOpened { session, parameters }
                if session == self.config.session.session =>
            {
                self.session_opened(from, parameters);
            }
            ReplicaMessage::SessionRefused { session, sqlstate, message }
                if session == self.config.session.session =>
            {
                self.session_refused(from, ShimError { sqlstate, ..ShimError::new("", message) });
            }
            ReplicaMessage::Begun { tx, slot, .. } => self.begun(from, tx, slot),
            ReplicaMessage::Result { tx, number, messages } => self.result(from, tx, number, messages.into()),
            ReplicaMessage::Executed { tx, number, transcript, drew, .. } => {
                self.vouched(from, tx, number, transcript);
                self.executed(from, tx, number, transcript, drew);
            }
            ReplicaMessage::Transcript { tx, operations, transcript, read_only, mismatch } => {
                let word = verdict::TranscriptWord { operations, transcript, read_only, mismatch };
                self.transcript(from, tx, word);
            }
            ReplicaMessage::Outcome { tx, outcome } => self.outcome(from, tx, outcome),
            // The quorums of this session's view say nothing of what another one decides.
            ReplicaMessage::Tentative { view, .. } if view != self.config.view.number() => {}
            ReplicaMessage::Tentative { tx, position, claim, .. } => {
                self.tentative(from, tx, verdict::TentativeWord { position, claim });
            }
            ReplicaMessage::NotReproduced { tx } => self.not_reproduced_at(from, tx),
            ReplicaMessage::Maintained { session, sequence, messages } => {
                if session == self.config.session.session {
                    self.maintained(from, sequence, messages.into());
                }
            }
            ReplicaMessage::Verified { session, sequence, position, tables } => {
                if session == self.config.session.session {
                    self.verified(from, sequence, position, tables);
                }
            }
            ReplicaMessage::Told { session, sequence, state } => {
                if session == self.config.session.session {
                    self.told(from, sequence, state);
                }
            }
            ReplicaMessage::Refused { session, sequence, reason } => {
                if session == self.config.session.session {
                    self.refused(from, sequence, &reason);
                }
            }
            ReplicaMessage::SessionOpened { .. }
            | ReplicaMessage::SessionRefused { .. }
            | ReplicaMessage::Term(_)
            | ReplicaMessage::Membership(_) => {}
        }
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next event for the application.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What it waits for, with a number that is new for each wait; nothing while it waits for the application or for
    /// statements that may take as long as they like.
    pub fn waiting(&self) -> Option<(Waiting, u64)> {
        if self.over {
            return None;
        }
        if self.is_asking() {
            return Some((Waiting::Answer, self.waits));
        }
        if !self.opened {
            return self.config.backends.then_some((Waiting::Opening, self.waits));
        }
        let transaction = self.transaction.as_ref()?;
        let waiting = match &transaction.phase {
            Phase::Running | Phase::Finishing { sent: false, .. } if transaction.orphaned => Waiting::Master,
            Phase::Running | Phase::Finishing { .. } if !transaction.unverified.is_empty() => {
                Waiting::Verification
            }
            Phase::Running if transaction.unsent.is_empty() && transaction.begin.is_none() => return None,
            Phase::Running if !transaction.started => Waiting::Replicas,
            Phase::Running
                if transaction.begin.is_some()
                    && transaction.slot(&self.config.view, self.config.master).is_none() =>
            {
                Waiting::Slot
            }
            Phase::Finishing { .. } if transaction.is_answered() => Waiting::Outcome,
            _ => return None,
        };
        Some((waiting, self.waits))
    }

    /// What it waits for took too long.
    pub fn expire(&mut self, waiting: Waiting) {
        if self.waiting().map(|(now, _)| now) != Some(waiting) {
            return;
        }
        match waiting {
            Waiting::Opening => self.lose(self.unusable()),
            // It cannot be opened again where it was lost; a new one can.
            Waiting::Replicas if self.settings.statements().is_none() => self.lose(
                ShimError::new(
                    "57P01",
                    "the session's settings cannot be taken along to the replicas that are left",
                )
                .hint("Connect again."),
            ),
            Waiting::Replicas => self.doom(self.unusable()),
            Waiting::Slot => self.doom(
                ShimError::new("57P03", "the cluster does not order new transactions")
                    .detail("BEGIN was sent to all replicas and was not ordered in time.")
                    .hint("Retry; check that enough replicas run and reach each other."),
            ),
            Waiting::Master => self.lose_master(),
            Waiting::Verification => self.unverified_in_time(),
            Waiting::Outcome => self.settle_unreachable(),
            Waiting::Answer => self.ask_again(),
        }
    }

    /// The user cancels what the session does. The master is asked; if the user asks again for the same operation, the
    /// transaction is given up without it.
    pub fn cancel(&mut self) {
        let cancelled = || ShimError::new("57014", "canceling statement due to user request");
        let Some(transaction) = self.transaction.as_mut() else { return };
        if !matches!(transaction.phase, Phase::Running) || transaction.is_answered() {
            return;
        }
        let leading = transaction.outstanding.iter().any(|outstanding| outstanding.leading);
        let slotted = transaction.slot(&self.config.view, self.config.master).is_some();
        if transaction.outstanding.is_empty() || (!slotted && !leading) {
            return self.doom(cancelled());
        }
        let (tx, master) = (transaction.tx, self.config.master);
        let front = transaction.outstanding.front_mut();
        if front.is_some_and(|front| std::mem::replace(&mut front.cancelled, true)) {
            // The user insists, so the master has not heeded the first wish.
            return self.doom(cancelled());
        }
        self.send(vec![master], ClientMessage::Cancel { tx });
    }

    /// The application is gone or done: the session ends everywhere. Replicas order the end of what was open.
    pub fn close(&mut self) {
        if !self.over {
            self.over = true;
            let session = self.config.session.session;
            let to = self.members();
            self.send(to, ClientMessage::CloseSession { session });
        }
    }

    fn send(&mut self, to: Vec<ReplicaId>, message: ClientMessage) {
        if !to.is_empty() {
            self.transmits.push_back(Transmit { to, message, at_once: None });
        }
    }

    /// Sends what the master acts on and the others do not, for now.
    fn send_operation(&mut self, to: Vec<ReplicaId>, message: ClientMessage) {
        let at_once = Some(self.config.master);
        self.transmits.push_back(Transmit { to, message, at_once });
    }

    /// Signs a request to be ordered and sends it to all replicas; its sequence number.
    fn request(&mut self, payload: &Ordered) -> u64 {
        self.sequence += 1;
        let (sequence, session) = (self.sequence, self.config.session);
        let id = RequestId { session, sequence };
        let Request::Client { payload, signature, .. } =
            Request::signed(id, encode(payload), &self.config.key)
        else {
            // What is signed by a client is a client's request.
            return sequence;
        };
        let to = self.linked();
        self.send(to, ClientMessage::Request { session: session.session, sequence, payload, signature });
        sequence
    }

    fn is_master(&self, replica: ReplicaId) -> bool {
        replica == self.config.master
    }

    /// The transaction if `tx` is the one that runs.
    fn running(&mut self, tx: TxId) -> Option<&mut Transaction> {
        self.transaction.as_mut().filter(|transaction| transaction.tx == tx)
    }

    fn finish_with(&mut self, result: Result<Completion, ShimError>) {
        if matches!(result, Ok(Completion::Committed(_))) {
            self.settings_committed();
        }
        self.transaction = None;
        self.events.push_back(Event::Finished(result));
        self.reopen();
    }

    /// The end of the transaction: COMMIT or ROLLBACK. Waits for the answers of all its operations first.
    pub fn finish(&mut self, decision: Decision) {
        let Some(transaction) = self.transaction.as_mut() else {
            return self
                .events
                .push_back(Event::Finished(Err(ShimError::misuse("finish outside a transaction"))));
        };
        match &mut transaction.phase {
            Phase::Doomed { error } => {
                // A15: what was shown is vouched for by nobody, and the application has not been told yet.
                let shown = transaction.transcript.operations() > 0;
                let result = match (error.take(), decision) {
                    (Some(error), Decision::Commit) => Err(error),
                    (Some(error), Decision::Rollback) if shown => Err(error),
                    (None, Decision::Commit) => Err(ShimError::in_failed_transaction()),
                    (_, Decision::Rollback) => Ok(Completion::RolledBack),
                };
                self.finish_with(result);
            }
            Phase::Finishing { .. } => {}
            Phase::Running => {
                transaction.phase = Phase::Finishing { decision, sent: false };
                self.waits += 1;
                self.finish_if_answered();
            }
        }
    }
}

#[cfg(test)]
mod tests;
