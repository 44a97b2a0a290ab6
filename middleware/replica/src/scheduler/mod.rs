//! The scheduler: the replica's side of the transaction protocol as a deterministic state machine. Events in, effects
//! out; no sockets, clocks, tasks or PostgreSQL here.
//!
//! Invariants (rules of the design in brackets):
//! - A snapshot is taken only when every earlier commit is applied and no later one is issued (3, 8).
//! - An operation runs here after its predecessor, with the master's stream entry in hand, and behind its barrier (5).
//! - What is executed before its client has finished can be undone, and done again on its anchor, until it is prepared.
//! - A Prepared vote is cast only for a transaction whose effects are durable here, with its client's k and h_k and
//!   the w that decoding shows; never after a vote against, never for a Finish that says Rollback (6).
//! - What is prepared here is committed or rolled back only by its ordered outcome (13). Where it vanished all the same,
//!   this replica vouches for nothing until all that was open has its outcome.
//! - The first ordered outcome of a transaction whose BEGIN is ordered is its outcome; others are no-ops (7).
//! - Whatever a replica or a client sends, what is kept of it is bounded; and what is prepared here gets an outcome, or
//!   this replica says what it can to bring one about.

mod anchors;
mod applying;
mod ballot;
mod buffers;
mod bulk;
mod catching_up;
mod copying;
mod delivery;
mod draws;
mod early;
mod effect;
mod ended;
mod event;
mod finishing;
mod lost;
mod maintaining;
mod mastership;
mod open;
mod operations;
mod outcomes;
pub(crate) mod planted;
mod preparing;
mod rates;
mod resuming;
mod scripting;
mod sessions;
mod sizes;
mod speculation;
mod statements;
mod temporary;
mod tentative;
mod ticking;
mod transaction;
mod voting;
mod walls;
mod words;

pub use effect::{Command, Effect, Reexecution};
pub use event::{AnchorId, BackendReport, CatchUpError, Completion, Connection, DecodedSet, Event, TagKind};
pub use open::{Missing, OpenTransactions};
#[cfg(feature = "planted-bugs")]
pub use planted::PlantedBug;
pub use sizes::{Counts, Sizes};

use anchors::Anchors;
use applying::Applying;
use ballot::Ballot;
use early::{EarlyStream, EarlyVotes};
use ended::Ended;
use maintaining::Maintaining;
use mastership::Mastership;
use speculation::Speculation;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use steeldb_types::{ClientId, Execution, Position, ReplicaId, SessionKey, TxId, View, limits};
use steeldb_wire::auth::{PublicKey, SecretKey};
use steeldb_wire::transaction::{AbortReason, Executed, ReplicaMessage, SignedFinish, Vote, VoteKind};
use transaction::{Session, Transaction};

/// How long stream entries gather under one signature, microseconds.
const GATHER_US: u64 = limits::GATHER.as_micros() as u64;

/// What the scheduler needs to know of the cluster.
pub struct Config {
    /// This replica.
    pub me: ReplicaId,
    /// The master of the first term.
    pub master: ReplicaId,
    /// The view.
    pub view: View,
    /// This replica's key.
    pub key: SecretKey,
    /// The replicas' public keys, by number.
    pub replica_keys: Vec<PublicKey>,
    /// What each client may do.
    pub clients: BTreeMap<ClientId, ClientRights>,
    /// The replicas' shared secret, for seeds (A14).
    pub cluster_key: [u8; 32],
    /// How many transactions may be prepared at once (max_prepared_transactions).
    pub permits: usize,
    /// T_vote, microseconds.
    pub vote_timeout_us: u64,
    /// Idle in transaction, microseconds.
    pub idle_timeout_us: u64,
    /// How long DDL waits for others, microseconds.
    pub drain_timeout_us: u64,
    /// When replicas other than the master execute.
    pub execution: Execution,
    /// T_soft, microseconds.
    pub soft_barrier_us: u64,
    /// COPY data that a transaction may have, bytes.
    pub bulk_bytes_max: u64,
    /// How long a master may be silent before it is accused, microseconds.
    pub master_silence_us: u64,
    /// A bug to plant.
    #[cfg(feature = "planted-bugs")]
    pub planted_bug: Option<PlantedBug>,
}

/// A client's key and what it may use (A4).
#[derive(Clone, Debug)]
pub struct ClientRights {
    /// Its public key.
    pub key: PublicKey,
    /// The databases it may use.
    pub databases: Vec<String>,
    /// The roles it may act as.
    pub roles: Vec<String>,
}

/// The scheduler's state.
pub struct Scheduler {
    config: Config,
    now_us: u64,
    effects: VecDeque<Effect>,
    sessions: BTreeMap<SessionKey, Session>,
    transactions: BTreeMap<TxId, Transaction>,
    /// Transactions whose BEGIN is ordered and whose outcome is not. The same on all correct replicas.
    open: OpenTransactions,
    applying: Applying,
    /// The batch that most likely comes next.
    ahead: tentative::Ahead,
    anchors: Anchors,
    maintaining: Maintaining,
    ballots: BTreeMap<TxId, Ballot>,
    early_votes: EarlyVotes,
    early_stream: EarlyStream,
    speculation: Speculation,
    ended: Ended,
    words: words::Words,
    /// What is being prepared or may be, by its name in PREPARE TRANSACTION.
    by_gid: BTreeMap<String, TxId>,
    /// Transactions whose next operation waits for all commits up to a position.
    barriers: BTreeSet<(Position, TxId)>,
    /// Transactions whose DDL waits for others to end.
    draining: BTreeSet<TxId>,
    /// How often roles raise walls, at the master.
    wall_rates: rates::Rates,
    /// Walls that let go on what does not reach what they name.
    named_walls: walls::NamedWalls,
    /// The bulk transaction, and how long others have to wait for it.
    bulk: bulk::Bulk,
    /// Clients that have let this replica wait for what they had finished elsewhere, and until when they are not waited
    /// for again.
    impatient_until_us: BTreeMap<ClientId, u64>,
    /// Stream entries held, over all transactions.
    entries_held: usize,
    permits_used: usize,
    /// What is being rolled back and still takes a place, by its name in PREPARE TRANSACTION.
    rolling_back: BTreeSet<String>,
    permit_queue: VecDeque<TxId>,
    /// Votes cast and entries streamed since the last flush.
    cast: Vec<(Vote, Option<SignedFinish>)>,
    streamed: Vec<Executed>,
    /// Somebody waits for what is streamed: deferred execution needs entries once their client has finished.
    stream_due: bool,
    /// Since when entries gather.
    streaming_since_us: Option<u64>,
    stream_next: u64,
    diverged: Option<String>,
    mastership: Mastership,
    /// At a new master: transactions that have not done again what their clients were shown, and until when they go first.
    resuming: BTreeSet<TxId>,
    resume_until_us: u64,
    /// Where its term began.
    term_began: Position,
    /// The master that an administrator moved away when this term began, and until when its last words are waited for.
    moved_from: Option<ReplicaId>,
    last_words_until_us: u64,
    /// At a new master: databases whose sequences are yet to be put past what was drawn before.
    skipping: BTreeSet<String>,
    /// Sessions with temporary relations that their clients have closed, and that are not open here.
    closed_sessions: BTreeSet<SessionKey>,
    not_here: BTreeMap<SessionKey, temporary::NotHere>,
    /// What was open when prepared transactions vanished, and is still open (A12).
    lost: BTreeSet<TxId>,
    bytes_by_client: BTreeMap<ClientId, usize>,
    counts: Counts,
}

impl Scheduler {
    /// A scheduler that has seen the order up to `delivered`, with the transactions that are open there.
    pub fn new(config: Config) -> Scheduler {
        let open = OpenTransactions::new(config.master, config.view.clone());
        Scheduler {
            config,
            now_us: 0,
            effects: VecDeque::new(),
            sessions: BTreeMap::new(),
            transactions: BTreeMap::new(),
            open,
            applying: Applying::default(),
            ahead: tentative::Ahead::default(),
            anchors: Anchors::default(),
            maintaining: Maintaining::default(),
            ballots: BTreeMap::new(),
            early_votes: EarlyVotes::default(),
            early_stream: EarlyStream::default(),
            speculation: Speculation::default(),
            ended: Ended::default(),
            words: words::Words::default(),
            by_gid: BTreeMap::new(),
            barriers: BTreeSet::new(),
            draining: BTreeSet::new(),
            wall_rates: walls::rates(),
            named_walls: walls::NamedWalls::default(),
            bulk: bulk::Bulk::default(),
            impatient_until_us: BTreeMap::new(),
            entries_held: 0,
            permits_used: 0,
            rolling_back: BTreeSet::new(),
            permit_queue: VecDeque::new(),
            cast: Vec::new(),
            streamed: Vec::new(),
            stream_due: false,
            streaming_since_us: None,
            stream_next: 0,
            diverged: None,
            mastership: Mastership::new(),
            resuming: BTreeSet::new(),
            resume_until_us: 0,
            term_began: Position::default(),
            moved_from: None,
            last_words_until_us: 0,
            skipping: BTreeSet::new(),
            closed_sessions: BTreeSet::new(),
            not_here: BTreeMap::new(),
            lost: BTreeSet::new(),
            bytes_by_client: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    /// Takes an event at `now_us`, microseconds of a clock that never goes back.
    pub fn handle(&mut self, now_us: u64, event: Event) {
        self.now_us = self.now_us.max(now_us);
        match event {
            Event::Client { connection, client, message } => self.client_message(connection, client, message),
            Event::CopyData { connection, client, tx, number, data } => {
                self.copy_data_from(connection, client, tx, number, data);
            }
            Event::CopyLost { tx } => self.copy_lost(tx),
            Event::ConnectionLost(connection) => self.connection_lost(connection),
            Event::Delivered { position, timestamp, late, request, payload } => {
                self.delivered(position, timestamp, late, request, payload);
            }
            Event::Bound { view, claim, requests } => self.bound(view, claim, &requests),
            Event::Unbound => self.nothing_ahead(),
            Event::ViewChanged { position, view } => self.view_changed(position, view),
            Event::Stream { from, epoch, entries } => self.stream_piece(from, epoch, entries),
            Event::Accused(signed) => self.accused(signed),
            Event::Certified { epoch, certified } => self.certified(epoch, certified),
            Event::SequencesSkipped { database } => self.sequences_skipped(&database),
            Event::Votes(votes) => self.votes(votes),
            Event::PeerUp(replica) => {
                self.resend_votes(replica);
                self.stream_missed(replica);
            }
            Event::Backend { session, report } => self.backend_report(session, report),
            Event::Anchored { anchor, snapshot } => self.anchored(anchor, snapshot),
            Event::Decoded { gid, write_set } => self.decoded(&gid, write_set),
            Event::DecodesLong { gid, bytes } => self.decodes_long(&gid, bytes),
            Event::Applied { tx, result } => self.commit_applied(tx, result),
            Event::RolledBack { gid } => self.rolled_back(&gid),
            Event::CaughtUp { tx, result } => self.caught_up(tx, result),
            Event::ServerRestarted => self.server_restarted(),
            Event::Vanished { gids } => self.vanished(gids),
            Event::Reexecuted { tx, result } => self.reexecuted(tx, result),
            Event::ReexecutionWaits { tx } => self.reexecution_waits(tx),
            Event::Verified { session, sequence, position, tables } => {
                self.verified(session, sequence, position, tables);
            }
            Event::Maintained { session, sequence, messages } => {
                self.maintained(session, sequence, messages);
            }
            Event::TemporaryCleared => self.temporary_cleared(),
            Event::Blockers { tx, blockers } => self.blockers(tx, &blockers),
            Event::Wake => {}
            Event::Tick => self.tick(),
        }
        self.take_turns();
    }

    /// When [`Event::Wake`] is wanted: time alone will have changed something by then. None: not before something else
    /// happens.
    pub fn next_wake(&self) -> Option<u64> {
        let streams = self.streaming_since_us.filter(|_| self.config.execution == Execution::Speculative);
        let gathered = streams.map(|since| since + GATHER_US);
        gathered.into_iter().chain(self.speculation.next_turn(self.present())).min()
    }

    /// The next thing to do. Call [`Scheduler::flush`] before draining, so that what was decided is signed and sent.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Why this replica's data can no longer be trusted, if so.
    pub fn diverged(&self) -> Option<&str> {
        self.diverged.as_deref()
    }

    /// Up to where all is applied.
    pub fn applied(&self) -> Position {
        self.applying.applied_upto()
    }

    /// Up to where the order is delivered.
    pub fn delivered_upto(&self) -> Position {
        self.open.delivered()
    }

    /// How many transactions this replica works on.
    pub fn active(&self) -> usize {
        self.transactions.len()
    }

    /// Whether nothing that a client has finished waits for its execution or its application here.
    pub fn is_settled(&self) -> bool {
        let executes = |transaction: &Transaction| {
            let prepares = matches!(transaction.phase, transaction::Phase::Preparing { .. });
            transaction.finish.is_some() && (transaction.phase.needs_backend() || prepares)
        };
        !self.applying.is_busy() && !self.transactions.values().any(executes)
    }

    /// Over which connection a session talks.
    pub fn connection(&self, session: SessionKey) -> Option<Connection> {
        self.sessions.get(&session).map(|session| session.connection)
    }

    /// Notes that this replica's data are not those of the others.
    pub fn mark_diverged(&mut self, position: Position, tx: TxId, reason: String) {
        self.diverge(position, tx, reason);
    }

    fn push(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    fn backend(&mut self, session: SessionKey, command: Command) {
        self.push(Effect::Backend { session, command });
    }

    fn reply(&mut self, session: SessionKey, message: ReplicaMessage) {
        if let Some(connection) = self.sessions.get(&session).map(|session| session.connection) {
            self.push(Effect::Reply { connection, message });
        }
    }
}

/// The reason that clients are told, from the votes of an abort certificate: the most frequent kind.
fn abort_reason(votes: &[steeldb_wire::transaction::SignedVote]) -> AbortReason {
    let reason = |kind: &VoteKind| match kind {
        VoteKind::Mismatch { operation } => AbortReason::Mismatch { operation: *operation },
        VoteKind::Failed { sqlstate } => AbortReason::Failed { sqlstate: *sqlstate },
        VoteKind::Walled => AbortReason::Walled,
        VoteKind::Gone => AbortReason::Gone,
        VoteKind::Prepared { .. } | VoteKind::Blocked | VoteKind::Expired => AbortReason::Expired,
    };
    let reasons: Vec<AbortReason> = votes.iter().map(|vote| reason(&vote.vote.kind)).collect();
    let count = |wanted: &AbortReason| reasons.iter().filter(|reason| *reason == wanted).count();
    reasons.iter().copied().rev().max_by_key(|reason| count(reason)).unwrap_or(AbortReason::Expired)
}

#[cfg(test)]
mod tests;
