//! The scheduler as a pure machine: one replica alone, fed by hand ([`One`]), or four under a
//! fake order ([`world`]).
//!
//! Names of tests begin with the risk that they cover.

mod backend;
mod bounds;
mod bulk;
mod catching_up;
mod certificates;
mod clients;
mod deposed;
mod doubt;
mod draws;
mod finishing;
mod lost;
mod mastership;
mod operations;
mod random;
mod reexecuting;
mod restart;
mod resuming;
mod speculation;
mod tentative;
mod walls;
mod waves;
mod words;
mod world;

use super::*;
use backend::Backend;
use steeldb_types::{Digest, SessionId, Slot, Term, Timestamp};
use steeldb_wire::transaction::{
    ClientMessage, Decision, DeposeCertificate, Draws, Finish, Modes, Operation, OperationKind, Ordered,
    Outcome, SignatureMemo, SignedVote, SqlState, StatementId, StatementText, TransactionState, Transcript,
    VoteBundle,
};

const SECOND: u64 = 1_000_000;
const VOTE_TIMEOUT: u64 = 5 * SECOND;
const IDLE_TIMEOUT: u64 = 300 * SECOND;
const SOFT_BARRIER: u64 = 20_000;
const MASTER_SILENCE: u64 = 2 * SECOND;
const CLIENT: ClientId = ClientId(1);
const OTHER_CLIENT: ClientId = ClientId(2);
const CONNECTION: Connection = Connection(1);

fn replica_key(replica: u16) -> SecretKey {
    SecretKey::from_seed(&[replica as u8 + 1; 32])
}

fn client_key(client: ClientId) -> SecretKey {
    SecretKey::from_seed(&[client.0 as u8 + 100; 32])
}

/// A master's word on an operation that went well.
fn entry(tx: TxId, number: u32, transcript: Digest) -> Executed {
    Executed {
        tx,
        number,
        transcript,
        barrier: Position(0),
        adopted: None,
        operation: Digest::default(),
        failed: None,
        restored: false,
        copied: false,
        check: false,
        draws: Draws::NONE,
        arrival: 0,
        epoch: 0,
    }
}

/// COPY data that a transaction may have here.
const BULK_BYTES_MAX: u64 = 96 * 1024 * 1024;

fn config(me: u16, master: u16) -> Config {
    let rights = |client| ClientRights {
        key: client_key(client).public(),
        databases: vec!["app".into(), "other".into()],
        roles: vec!["alice".into()],
    };
    Config {
        me: ReplicaId(me),
        master: ReplicaId(master),
        view: View::of_size(4).unwrap(),
        key: replica_key(me),
        replica_keys: (0..4).map(|replica| replica_key(replica).public()).collect(),
        clients: [CLIENT, OTHER_CLIENT].map(|client| (client, rights(client))).into(),
        cluster_key: [9; 32],
        permits: 8,
        vote_timeout_us: VOTE_TIMEOUT,
        idle_timeout_us: IDLE_TIMEOUT,
        drain_timeout_us: SECOND,
        execution: Execution::Deferred,
        soft_barrier_us: SOFT_BARRIER,
        bulk_bytes_max: BULK_BYTES_MAX,
        master_silence_us: MASTER_SILENCE,
        #[cfg(feature = "planted-bugs")]
        planted_bug: None,
    }
}

fn session(number: u64) -> SessionKey {
    SessionKey { client: CLIENT, session: SessionId(number) }
}

fn tx(of: u64, counter: u64) -> TxId {
    TxId { session: session(of), counter }
}

fn text(sql: &str) -> StatementText {
    StatementText { sql: sql.into(), parameter_types: vec![] }
}

/// The statement that every session of the tests defines as number `n`, by what the fake backend does with it.
const STATEMENTS: [(u32, &str); 5] = [
    (1, "SELECT 1"),
    (2, "UPDATE t SET x = 1"),
    (3, "LOCK TABLE t"),
    (4, "CREATE TABLE u ()"),
    (5, "COPY t FROM STDIN"),
];
const READ: u32 = 1;
const WRITE: u32 = 2;
const LOCK: u32 = 3;
const DDL: u32 = 4;
const COPY: u32 = 5;

fn operation(tx: TxId, number: u32, statement: u32) -> Operation {
    let bind = vec![0; 6];
    Operation {
        tx,
        number,
        statement: StatementId(statement),
        leading: false,
        row_order: false,
        must_vote: false,
        verify: false,
        kind: if statement == COPY {
            OperationKind::CopyIn { bind }
        } else {
            OperationKind::Execute { bind }
        },
    }
}

fn statement_digest(statement: u32) -> Digest {
    let (_, sql) = STATEMENTS.iter().find(|(number, _)| *number == statement).unwrap();
    text(sql).digest()
}

/// h_k of a transaction whose operations give what the fake backend gives.
fn transcript(tx: TxId, slot: Slot, statements: &[u32]) -> Digest {
    let preamble = steeldb_wire::transaction::preamble("app", "alice", &[]);
    let mut transcript = Transcript::begin(tx, preamble, Modes::default());
    for (statement, number) in statements.iter().zip(1..) {
        let digest = operation(tx, number, *statement).digest(statement_digest(*statement), None);
        transcript.extend(Some(slot), digest, backend::result_of(number));
    }
    transcript.head()
}

fn finish(tx: TxId, slot: Slot, decision: Decision, statements: &[u32]) -> SignedFinish {
    let operations = statements.len() as u32;
    let finish = Finish { tx, slot, decision, operations, transcript: transcript(tx, slot, statements) };
    SignedFinish::new(finish, &client_key(tx.session.client))
}

fn begin(tx: TxId, database: &str) -> Ordered {
    Ordered::Begin {
        tx,
        database: database.into(),
        role: "alice".into(),
        modes: Modes::default(),
        preamble: steeldb_wire::transaction::preamble(database, "alice", &[]),
    }
}

fn bundle(replica: u16, vote: Vote) -> VoteBundle {
    VoteBundle::new(vec![(vote, None)], &replica_key(replica)).unwrap()
}

fn vote(replica: u16, vote: Vote) -> SignedVote {
    let key = replica_key(replica);
    bundle(replica, vote)
        .open(ReplicaId(replica), &key.public(), &mut SignatureMemo::new(1))
        .unwrap()
        .remove(0)
        .0
}

fn prepared(statements: &[u32], tx: TxId, slot: Slot) -> VoteKind {
    VoteKind::Prepared {
        operations: statements.len() as u32,
        transcript: transcript(tx, slot, statements),
        write_set: backend::write_set_of(tx, statements.len() as u32),
        wall: if statements.contains(&DDL) {
            steeldb_wire::transaction::Wall::Database
        } else {
            steeldb_wire::transaction::Wall::None
        },
    }
}

fn commit(tx: TxId, slot: Slot, statements: &[u32]) -> Ordered {
    let votes: Vec<SignedVote> = (0..3)
        .map(|replica| vote(replica, Vote { tx, slot, kind: prepared(statements, tx, slot) }))
        .collect();
    let view = View::of_size(4).unwrap();
    let certificate =
        steeldb_wire::transaction::CommitCertificate::gather(&view, &votes.iter().collect::<Vec<_>>());
    Ordered::Commit(certificate.unwrap())
}

fn abort(tx: TxId, slot: Slot) -> Ordered {
    let votes = (0..2).map(|replica| vote(replica, Vote { tx, slot, kind: VoteKind::Expired })).collect();
    Ordered::Abort(steeldb_wire::transaction::AbortCertificate { tx, slot, votes })
}

/// One replica alone: its backend answers by itself, all else is fed by hand.
struct One {
    scheduler: Scheduler,
    now: u64,
    position: u64,
    backend: Backend,
    /// What was asked of the outside and is no backend's business.
    effects: Vec<Effect>,
}

impl One {
    fn new(me: u16, master: u16) -> One {
        One {
            scheduler: Scheduler::new(config(me, master)),
            now: SECOND,
            position: 0,
            backend: Backend::default(),
            effects: Vec::new(),
        }
    }

    /// A replica that is not the master.
    fn slave() -> One {
        One::new(1, 0)
    }

    /// One that executes ahead of COMMIT.
    fn speculative() -> One {
        let config = Config { execution: Execution::Speculative, ..config(1, 0) };
        One { scheduler: Scheduler::new(config), ..One::slave() }
    }

    fn master() -> One {
        One::new(0, 0)
    }

    fn event(&mut self, event: Event) {
        self.backend.see(&event);
        self.scheduler.handle(self.now, event);
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            self.scheduler.flush();
            let Some(effect) = self.scheduler.poll_effect() else { return };
            for event in self.backend.effect(&effect) {
                self.backend.see(&event);
                self.scheduler.handle(self.now, event);
            }
            self.effects.push(effect);
        }
    }

    fn say(&mut self, message: ClientMessage) {
        self.event(Event::Client { connection: CONNECTION, client: CLIENT, message });
    }

    /// Opens a session and defines the statements.
    fn open(&mut self, of: u64) {
        let session = SessionId(of);
        let (database, role) = ("app".into(), "alice".into());
        self.say(ClientMessage::OpenSession { session, database, role, parameters: vec![] });
        for (statement, sql) in STATEMENTS {
            let statement = StatementId(statement);
            self.say(ClientMessage::Define { session, statement, text: text(sql) });
        }
    }

    fn deliver(&mut self, payload: Ordered) -> Position {
        self.deliver_late(payload, false)
    }

    fn deliver_late(&mut self, payload: Ordered, late: bool) -> Position {
        self.position += 1;
        let position = Position(self.position);
        let request = match &payload {
            Ordered::Verify { session, .. }
            | Ordered::Maintain { session, .. }
            | Ordered::Outcome { session, .. } => Some((*session, self.position)),
            _ => None,
        };
        self.event(Event::Delivered { position, timestamp: Timestamp(1), late, request, payload });
        position
    }

    fn begin(&mut self, tx: TxId) -> Slot {
        self.deliver(begin(tx, "app"))
    }

    fn operation(&mut self, tx: TxId, number: u32, statement: u32) {
        self.say(ClientMessage::Operation(operation(tx, number, statement)));
    }

    fn operations(&mut self, tx: TxId, statements: &[u32]) {
        for (statement, number) in statements.iter().zip(1..) {
            self.operation(tx, number, *statement);
        }
    }

    /// What it streamed as a master.
    fn entries(&self) -> impl Iterator<Item = &Executed> {
        let streamed = self.effects.iter().filter_map(|effect| match effect {
            Effect::SendStream(stream) => Some(&stream.entries),
            _ => None,
        });
        streamed.flatten()
    }

    /// A piece of the stream of the term's master.
    fn stream_of_master(&mut self, entries: Vec<Executed>) {
        let term = self.scheduler.term();
        self.event(Event::Stream { from: term.master, epoch: term.epoch, entries });
    }

    /// The master's stream entries 1..=k and that of the constraints' check.
    fn stream(&mut self, tx: TxId, operations: u32, barrier: u64) {
        for number in 1..=operations {
            self.entry(tx, number, barrier, None);
        }
        self.check(tx, operations, barrier);
    }

    /// The entry of the constraints' check behind so many operations.
    fn check(&mut self, tx: TxId, operations: u32, barrier: u64) {
        self.entry_of(tx, operations + 1, barrier, None, true);
    }

    fn entry(&mut self, tx: TxId, number: u32, barrier: u64, adopted: Option<SqlState>) {
        self.entry_of(tx, number, barrier, adopted, false);
    }

    fn entry_of(&mut self, tx: TxId, number: u32, barrier: u64, adopted: Option<SqlState>, check: bool) {
        let barrier = Position(barrier);
        self.stream_of_master(vec![Executed {
            barrier,
            adopted,
            check,
            ..entry(tx, number, Digest::default())
        }]);
    }

    /// The master's stream entries, with what it found.
    fn vouched(&mut self, tx: TxId, slot: Slot, statements: &[u32]) {
        for number in 1..=statements.len() + 1 {
            let transcript = transcript(tx, slot, &statements[..number.min(statements.len())]);
            let number = number as u32;
            let check = number as usize > statements.len();
            self.stream_of_master(vec![Executed { check, ..entry(tx, number, transcript) }]);
        }
    }

    fn finish(&mut self, tx: TxId, slot: Slot, decision: Decision, statements: &[u32]) {
        self.say(ClientMessage::Finish(finish(tx, slot, decision, statements)));
    }

    /// A whole transaction up to where the replica's own vote is cast.
    fn run(&mut self, tx: TxId, statements: &[u32]) -> Slot {
        let slot = self.begin(tx);
        self.operations(tx, statements);
        self.stream(tx, statements.len() as u32, 0);
        self.finish(tx, slot, Decision::Commit, statements);
        slot
    }

    fn vote(&mut self, replica: u16, cast: Vote) {
        self.event(Event::Votes(vec![(vote(replica, cast), None)]));
    }

    fn pass(&mut self, us: u64) {
        self.now += us;
        self.event(Event::Tick);
    }

    /// Votes that this replica has cast on `tx`.
    fn cast(&self, tx: TxId) -> Vec<VoteKind> {
        self.effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::SendVotes(bundle) => Some(bundle.votes.iter().map(|(vote, _)| vote)),
                _ => None,
            })
            .flatten()
            .filter(|vote| vote.tx == tx)
            .map(|vote| vote.kind)
            .collect()
    }

    fn commands(&self) -> Vec<&Command> {
        self.effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Backend { command, .. } => Some(command),
                _ => None,
            })
            .collect()
    }

    fn count(&self, is: impl Fn(&Effect) -> bool) -> usize {
        self.effects.iter().filter(|effect| is(effect)).count()
    }

    fn executed(&self, tx: TxId) -> usize {
        self.count(|effect| matches!(effect, Effect::Backend { command: Command::Execute { tx: of, .. }, .. } if *of == tx))
    }

    fn caught_up(&self, tx: TxId) -> usize {
        self.count(|effect| matches!(effect, Effect::CatchUp { tx: of, .. } if *of == tx))
    }

    fn committed(&self, tx: TxId) -> usize {
        self.count(|effect| matches!(effect, Effect::CommitPrepared { tx: of, .. } if *of == tx))
    }

    fn rolled_back(&self) -> usize {
        self.count(|effect| matches!(effect, Effect::RollbackPrepared { .. }))
    }

    fn refusals(&self) -> Vec<String> {
        self.effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Reply { message: ReplicaMessage::SessionRefused { sqlstate, .. }, .. } => {
                    Some(sqlstate.to_string())
                }
                _ => None,
            })
            .collect()
    }

    fn transcripts(&self) -> usize {
        self.count(|effect| {
            matches!(effect, Effect::Reply { message: ReplicaMessage::Transcript { .. }, .. })
        })
    }

    fn outcomes(&self, tx: TxId) -> Vec<Outcome> {
        self.effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Reply { message: ReplicaMessage::Outcome { tx: of, outcome }, .. } if *of == tx => {
                    Some(outcome.clone())
                }
                _ => None,
            })
            .collect()
    }

    fn closed(&self, key: SessionKey) -> bool {
        self.count(|e| matches!(e, Effect::Backend { session, command: Command::Close } if *session == key))
            > 0
    }
}
