//! Replicas in the same process, honest and lying, for tests. They speak the transaction protocol, order requests at
//! once, and run a toy language in place of SQL, so that tests need neither sockets nor PostgreSQL.

mod toy;

pub use toy::message;

use crate::Links;
use crate::message::messages;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use steeldb_transport::ClientEvent;
use steeldb_types::{Digest, Position, ReplicaId, SessionId, Slot, Timestamp, TxId, View, limits};
use steeldb_wire::codec::{decode, encode};
use steeldb_wire::transaction::{
    AbortReason, ClientMessage, CopyDigest, Decision, Modes, Operation, OperationKind, Ordered, Outcome,
    ReplicaMessage, ResultDigest, SignedFinish, SqlState, StatementId, StatementText, TableDigest,
    TransactionState, Transcript, preamble,
};
use tokio::sync::mpsc;
use toy::{copy_request, error, execute, pieces, tag};

/// How a replica misbehaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Lie {
    /// Not at all.
    #[default]
    Honest,
    /// It answers with other rows, and stands by them.
    OtherRows,
    /// It says nothing and hears nothing.
    Silent,
    /// It claims another transcript at the end of every transaction, whatever it executed.
    OtherTranscript,
    /// It claims that every transaction was aborted.
    SaysAborted,
    /// It claims that every transaction was committed.
    SaysCommitted,
}

/// The replicas and their order.
pub struct FakeCluster {
    view: View,
    master: ReplicaId,
    replicas: Vec<FakeReplica>,
    order: Order,
    out: Vec<(ReplicaId, ReplicaMessage)>,
    /// Requests seen, decoded, in order.
    pub ordered: Vec<Ordered>,
    /// So many transactions that wrote are aborted at their COMMIT, as in a conflict.
    pub conflicts: usize,
    /// Result messages are sent in pieces of about so many bytes.
    pub piece_bytes: usize,
}

#[derive(Default)]
struct Order {
    positions: BTreeMap<(SessionId, u64), Position>,
    last: u64,
    prepared: BTreeMap<TxId, Vec<(ReplicaId, Digest)>>,
    against: BTreeMap<TxId, Vec<(ReplicaId, AbortReason)>>,
    outcomes: BTreeMap<TxId, Outcome>,
    begun: BTreeSet<TxId>,
    heads_of_master: BTreeMap<TxId, Vec<Digest>>,
}

/// One replica.
#[derive(Default)]
pub struct FakeReplica {
    /// How it misbehaves.
    pub lie: Lie,
    /// Every message it was sent.
    pub heard: Vec<ClientMessage>,
    sessions: BTreeMap<SessionId, FakeSession>,
}

#[derive(Default)]
struct FakeSession {
    preamble: Digest,
    statements: BTreeMap<StatementId, StatementText>,
    transaction: Option<FakeTransaction>,
}

struct FakeTransaction {
    tx: TxId,
    slot: Option<Slot>,
    modes: Modes,
    operations: Vec<(Operation, StatementText, CopyDigest, Option<Digest>)>,
    transcript: Option<Transcript>,
    executed: usize,
    failed: bool,
    wrote: bool,
    copy_failed: bool,
    leading: Vec<(Digest, Digest)>,
    heads: Vec<Digest>,
    /// Operations up to here were shown by an earlier master.
    shown: u32,
}

impl FakeCluster {
    /// n honest replicas; replica 0 is the master.
    pub fn new(n: u16) -> FakeCluster {
        let view = View::of_size(n).unwrap_or_else(|error| panic!("{error}"));
        FakeCluster {
            view,
            master: ReplicaId(0),
            replicas: (0..n).map(|_| FakeReplica::default()).collect(),
            order: Order::default(),
            out: Vec::new(),
            ordered: Vec::new(),
            conflicts: 0,
            piece_bytes: 4096,
        }
    }

    /// The view.
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// A replica.
    pub fn replica(&mut self, id: u16) -> &mut FakeReplica {
        &mut self.replicas[usize::from(id)]
    }

    /// Another replica answers from now on; clients have to be told.
    pub fn change_master(&mut self, master: ReplicaId) {
        self.master = master;
    }

    /// A replica's link was lost: its sessions are gone.
    pub fn disconnect(&mut self, replica: ReplicaId) {
        self.replicas[usize::from(replica.0)].sessions.clear();
    }

    /// Hands a message to a replica; what all replicas answer.
    pub fn deliver(&mut self, to: ReplicaId, message: ClientMessage) -> Vec<(ReplicaId, ReplicaMessage)> {
        let index = usize::from(to.0);
        self.replicas[index].heard.push(message.clone());
        if self.replicas[index].lie != Lie::Silent {
            self.handle(to, message);
        }
        std::mem::take(&mut self.out)
    }

    fn say(&mut self, from: ReplicaId, message: ReplicaMessage) {
        self.out.push((from, message));
    }

    fn handle(&mut self, at: ReplicaId, message: ClientMessage) {
        let index = usize::from(at.0);
        match message {
            ClientMessage::OpenSession { session, database, role, parameters } => {
                if role == "nobody" {
                    let (sqlstate, message) =
                        (SqlState::parse("28000"), "role \"nobody\" is not allowed".into());
                    return self.say(at, ReplicaMessage::SessionRefused { session, sqlstate, message });
                }
                let preamble = preamble(&database, &role, &parameters);
                let state = FakeSession { preamble, ..FakeSession::default() };
                self.replicas[index].sessions.insert(session, state);
                let parameters = [
                    ("server_version", "15.0"),
                    ("client_encoding", "UTF8"),
                    ("standard_conforming_strings", "on"),
                    ("integer_datetimes", "on"),
                    ("DateStyle", "ISO, MDY"),
                ];
                let parameters =
                    parameters.map(|(name, value)| (name.to_string(), value.to_string())).to_vec();
                self.say(at, ReplicaMessage::SessionOpened { session, parameters });
            }
            ClientMessage::Resume { tx, operations, .. } => {
                let Some(session) = self.replicas[index].sessions.get_mut(&tx.session.session) else {
                    return;
                };
                let transaction = session.current(tx);
                transaction.shown = operations;
                if let Some(slot) = transaction.slot {
                    self.say(at, ReplicaMessage::Begun { tx, slot, timestamp: Timestamp(0) });
                }
                self.run(at, tx, false);
            }
            ClientMessage::Restore { .. } => {}
            ClientMessage::CloseSession { session } => {
                self.replicas[index].sessions.remove(&session);
            }
            ClientMessage::Define { session, statement, text } => {
                if let Some(session) = self.replicas[index].sessions.get_mut(&session) {
                    session.statements.insert(statement, text);
                }
            }
            ClientMessage::Forget { session, statement } => {
                if let Some(session) = self.replicas[index].sessions.get_mut(&session) {
                    session.statements.remove(&statement);
                }
            }
            ClientMessage::Request { session, sequence, payload, .. } => {
                let Ok(ordered) = decode::<Ordered>(&payload, limits::REQUEST_BYTES_MAX) else { return };
                let position = match self.order.positions.get(&(session, sequence)) {
                    Some(position) => *position,
                    None => {
                        self.order.last += 1;
                        let position = Position(self.order.last);
                        self.order.positions.insert((session, sequence), position);
                        self.ordered.push(ordered.clone());
                        position
                    }
                };
                self.ordered_at(at, session, sequence, position, ordered);
            }
            ClientMessage::Operation(operation) => {
                let tx = operation.tx;
                let Some(session) = self.replicas[index].sessions.get_mut(&tx.session.session) else {
                    return;
                };
                let Some(text) = session.statements.get(&operation.statement).cloned() else {
                    panic!("operation {} of {tx} names a statement that is not defined", operation.number);
                };
                let transaction = session.current(tx);
                assert_eq!(operation.number as usize, transaction.operations.len() + 1);
                transaction.operations.push((operation, text, CopyDigest::default(), None));
                self.run(at, tx, false);
            }
            ClientMessage::CopyData { tx, number, data } => {
                if let Some(session) = self.replicas[index].sessions.get_mut(&tx.session.session)
                    && let Some((_, _, digest, _)) =
                        session.current(tx).operations.get_mut(number as usize - 1)
                {
                    digest.data(&data);
                }
            }
            ClientMessage::CopyEnd { tx, number, failure } => {
                if let Some(session) = self.replicas[index].sessions.get_mut(&tx.session.session)
                    && let Some((_, _, data, end)) =
                        session.current(tx).operations.get_mut(number as usize - 1)
                {
                    *end = Some(data.clone().finish(failure.as_deref()));
                    if failure.is_some() {
                        session.current(tx).copy_failed = true;
                    }
                    self.run(at, tx, true);
                }
            }
            ClientMessage::Finish(finish) => self.finish(at, finish),
            ClientMessage::Acknowledge { .. }
            | ClientMessage::Cancel { .. }
            | ClientMessage::Membership(_) => {}
        }
    }

    fn ordered_at(
        &mut self,
        at: ReplicaId,
        session: SessionId,
        sequence: u64,
        position: Position,
        ordered: Ordered,
    ) {
        let index = usize::from(at.0);
        match ordered {
            Ordered::Begin { tx, modes, preamble, .. } => {
                self.order.begun.insert(tx);
                let Some(state) = self.replicas[index].sessions.get_mut(&session) else { return };
                assert_eq!(preamble, state.preamble);
                let transaction = state.current(tx);
                transaction.slot = Some(position);
                transaction.modes = modes;
                let mut transcript = Transcript::begin(tx, preamble, modes);
                for (operation, result) in std::mem::take(&mut transaction.leading) {
                    transaction.heads.push(transcript.extend(None, operation, result));
                }
                transaction.transcript = Some(transcript);
                if at == self.master {
                    self.say(at, ReplicaMessage::Begun { tx, slot: position, timestamp: Timestamp(0) });
                }
                self.run(at, tx, false);
            }
            Ordered::Rollback { tx, .. } => {
                let outcome = Outcome::Aborted { reason: AbortReason::Client };
                let outcome = self.order.outcomes.entry(tx).or_insert(outcome).clone();
                self.say(at, ReplicaMessage::Outcome { tx, outcome });
            }
            Ordered::Maintain { sql, .. } => {
                let answer = match sql.strip_prefix("FAIL ") {
                    Some(code) => error(code, "refused"),
                    None => tag(sql.split_whitespace().next().unwrap_or_default()),
                };
                self.say(at, ReplicaMessage::Maintained { session, sequence, messages: answer });
            }
            Ordered::Verify { .. } => {
                let digest = if self.replicas[index].lie == Lie::OtherRows { "f00" } else { "abc" };
                let tables = vec![TableDigest { table: "public.t".into(), rows: 1, digest: digest.into() }];
                self.say(at, ReplicaMessage::Verified { session, sequence, position, tables: Ok(tables) });
            }
            Ordered::Outcome { tx, .. } => {
                let state = match self.order.outcomes.get(&tx) {
                    Some(Outcome::Committed { position }) => {
                        TransactionState::Committed { position: *position }
                    }
                    Some(Outcome::Aborted { .. }) => TransactionState::NoChanges,
                    None if self.order.begun.contains(&tx) => TransactionState::InProgress,
                    None => TransactionState::Aborted,
                };
                let state = match self.replicas[index].lie {
                    Lie::SaysCommitted => TransactionState::Committed { position: Position(77) },
                    Lie::SaysAborted => TransactionState::NoChanges,
                    _ => state,
                };
                self.say(at, ReplicaMessage::Told { session, sequence, state });
            }
            Ordered::Commit(_)
            | Ordered::Abort(_)
            | Ordered::Depose(_)
            | Ordered::Move(_)
            | Ordered::SessionOver(_) => {}
        }
    }

    /// Runs what may run: at the master as it comes, elsewhere when the client has finished, or waits for it.
    fn run(&mut self, at: ReplicaId, tx: TxId, finished: bool) {
        let master = at == self.master;
        let waits =
            self.replicas[usize::from(at.0)].sessions.get_mut(&tx.session.session).is_some_and(|session| {
                session.current(tx).operations.iter().any(|(operation, ..)| operation.verify)
            });
        if !master && !finished && !waits {
            return;
        }
        let index = usize::from(at.0);
        let lie = self.replicas[index].lie;
        loop {
            let Some(session) = self.replicas[index].sessions.get_mut(&tx.session.session) else { return };
            let transaction = session.current(tx);
            let Some((operation, text, _, end)) = transaction.operations.get(transaction.executed) else {
                return;
            };
            if transaction.slot.is_none() && !(operation.leading && master) {
                return;
            }
            let (number, leading, verify) = (operation.number, operation.leading, operation.verify);
            let is_copy = matches!(operation.kind, OperationKind::CopyIn { .. });
            let starts_copy = is_copy && !transaction.failed && text.sql.starts_with("COPY");
            let show = master && number > transaction.shown;
            if starts_copy && end.is_none() {
                if show {
                    let messages = copy_request();
                    self.out.push((at, ReplicaMessage::Result { tx, number, messages }));
                }
                return;
            }
            let answer = match std::mem::take(&mut transaction.copy_failed) {
                true => error("57014", "COPY from stdin failed"),
                false => execute(&text.sql, operation, transaction.failed, at, lie),
            };
            let digest = operation.digest(text.digest(), *end);
            // What was sent when the data were asked for is part of the answer.
            let asked = if end.is_some() { copy_request() } else { Vec::new() };
            let mut result = ResultDigest::new(operation.row_order);
            for part in messages(&asked).chain(messages(&answer)).flatten() {
                result.message(part.tag, part.body).unwrap_or_else(|error| panic!("{error}"));
            }
            let failed = result.sqlstate().is_some();
            let describes = operation.kind == OperationKind::Describe;
            transaction.failed = failed || (transaction.failed && describes);
            let upper = text.sql.to_ascii_uppercase();
            let writes = ["INSERT", "UPDATE", "DELETE", "CREATE"].iter().any(|word| upper.starts_with(word));
            transaction.wrote |= ((writes || is_copy) && !describes && !failed) || operation.must_vote;
            transaction.executed += 1;
            let slot = transaction.slot.filter(|_| !leading);
            let head = match &mut transaction.transcript {
                Some(transcript) => {
                    let head = transcript.extend(slot, digest, result.finish());
                    transaction.heads.push(head);
                    head
                }
                None => {
                    transaction.leading.push((digest, result.finish()));
                    Digest::default()
                }
            };
            let status = if transaction.failed { b'E' } else { b'T' };
            let drew = upper.contains("NEXTVAL");
            if verify && !master {
                self.out.push((at, ReplicaMessage::Executed { tx, number, transcript: head, status, drew }));
            }
            if master {
                let heads = transaction.heads.clone();
                self.order.heads_of_master.insert(tx, heads);
            }
            if show {
                let status = if transaction.failed { b'E' } else { b'T' };
                for piece in pieces(&answer, self.piece_bytes) {
                    self.out.push((at, ReplicaMessage::Result { tx, number, messages: piece }));
                }
                self.out.push((at, ReplicaMessage::Executed { tx, number, transcript: head, status, drew }));
            }
        }
    }

    fn finish(&mut self, at: ReplicaId, finish: SignedFinish) {
        let index = usize::from(at.0);
        let finish = finish.finish;
        let tx = finish.tx;
        if finish.slot == Slot::default() {
            if let Some(session) = self.replicas[index].sessions.get_mut(&tx.session.session) {
                session.transaction = None;
            }
            return;
        }
        self.run(at, tx, true);
        let lie = self.replicas[index].lie;
        let Some(session) = self.replicas[index].sessions.get_mut(&tx.session.session) else { return };
        let transaction = session.current(tx);
        let operations = transaction.heads.len() as u32;
        let mut head = transaction.transcript.map(|t| t.head()).unwrap_or_default();
        if lie == Lie::OtherTranscript {
            head = Digest([9; 32]);
        }
        let read_only = !transaction.wrote;
        let of_master = self.order.heads_of_master.get(&tx).cloned().unwrap_or_default();
        let mismatch = transaction.heads.iter().zip(&of_master).position(|(ours, theirs)| ours != theirs);
        let mismatch = mismatch.map(|index| index as u32 + 1);
        session.transaction = None;
        self.say(at, ReplicaMessage::Transcript { tx, operations, transcript: head, read_only, mismatch });
        if finish.decision == Decision::Rollback {
            return;
        }
        match lie {
            Lie::SaysAborted => {
                let outcome = Outcome::Aborted { reason: AbortReason::Expired };
                return self.say(at, ReplicaMessage::Outcome { tx, outcome });
            }
            Lie::SaysCommitted => {
                let outcome = Outcome::Committed { position: Position(77) };
                return self.say(at, ReplicaMessage::Outcome { tx, outcome });
            }
            _ => {}
        }
        if (operations, head) == (finish.operations, finish.transcript) {
            if read_only {
                return;
            }
            if self.conflicts > 0 && !self.order.outcomes.contains_key(&tx) {
                self.conflicts -= 1;
                let outcome = Outcome::Aborted { reason: AbortReason::Expired };
                self.order.outcomes.insert(tx, outcome);
            }
            self.order.prepared.entry(tx).or_default().push((at, head));
        } else {
            let reason = AbortReason::Mismatch { operation: mismatch.unwrap_or(0) };
            self.order.against.entry(tx).or_default().push((at, reason));
        }
        self.decide(tx, at);
    }

    fn decide(&mut self, tx: TxId, at: ReplicaId) {
        let before = self.order.outcomes.contains_key(&tx);
        if !before {
            let prepared = self.order.prepared.get(&tx).cloned().unwrap_or_default();
            let against = self.order.against.get(&tx).cloned().unwrap_or_default();
            if self.view.is_quorum(prepared.iter().map(|(who, _)| *who)) {
                self.order.last += 1;
                let position = Position(self.order.last);
                self.order.outcomes.insert(tx, Outcome::Committed { position });
            } else if self.view.has_correct(against.iter().map(|(who, _)| *who)) {
                let reason = against.last().map_or(AbortReason::Expired, |(_, reason)| *reason);
                self.order.outcomes.insert(tx, Outcome::Aborted { reason });
            }
        }
        let Some(outcome) = self.order.outcomes.get(&tx).cloned() else { return };
        let voters: BTreeSet<ReplicaId> = if before {
            [at].into()
        } else {
            let all = [&self.order.prepared.get(&tx).cloned().unwrap_or_default()]
                .into_iter()
                .flatten()
                .map(|(who, _)| *who)
                .collect::<Vec<_>>();
            let against = self.order.against.get(&tx).cloned().unwrap_or_default();
            all.into_iter().chain(against.into_iter().map(|(who, _)| who)).collect()
        };
        for voter in voters {
            self.say(voter, ReplicaMessage::Outcome { tx, outcome: outcome.clone() });
        }
    }
}

impl FakeSession {
    fn current(&mut self, tx: TxId) -> &mut FakeTransaction {
        if self.transaction.as_ref().is_none_or(|transaction| transaction.tx != tx) {
            self.transaction = None;
        }
        self.transaction.get_or_insert_with(|| FakeTransaction {
            tx,
            slot: None,
            modes: Modes::default(),
            operations: Vec::new(),
            transcript: None,
            executed: 0,
            failed: false,
            wrote: false,
            copy_failed: false,
            leading: Vec::new(),
            heads: Vec::new(),
            shown: 0,
        })
    }
}

/// Links to a cluster in the same process: every message is answered at once.
pub struct FakeLinks {
    cluster: Arc<Mutex<FakeCluster>>,
    events: mpsc::UnboundedSender<ClientEvent>,
}

impl FakeLinks {
    /// Links to `cluster`, all up, and the events to give to [`crate::Shim::over`]. Call it inside a tokio runtime.
    pub fn start(cluster: Arc<Mutex<FakeCluster>>) -> (FakeLinks, mpsc::Receiver<ClientEvent>) {
        // Unbounded on this side, since a fake answers inside `send`; the shim's side is a bounded channel.
        let (events, mut unbounded) = mpsc::unbounded_channel();
        let (bounded, receiver) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Some(event) = unbounded.recv().await {
                if bounded.send(event).await.is_err() {
                    return;
                }
            }
        });
        for replica in cluster.lock().unwrap_or_else(PoisonError::into_inner).view.replicas() {
            let _ = events.send(ClientEvent::ReplicaUp(replica));
        }
        (FakeLinks { cluster, events }, receiver)
    }
}

impl Links for FakeLinks {
    fn send(&self, replica: ReplicaId, frame: Bytes) {
        let Ok(message) = decode::<ClientMessage>(&frame, limits::FRAME_BYTES_MAX) else { return };
        let mut cluster = self.cluster.lock().unwrap_or_else(PoisonError::into_inner);
        for (from, answer) in cluster.deliver(replica, message) {
            let _ = self.events.send(ClientEvent::Frame(from, encode(&answer).into()));
        }
    }

    fn backlog(&self, _replica: ReplicaId) -> usize {
        0
    }
}
