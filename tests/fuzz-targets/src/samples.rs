//! Valid inputs of each target: where fuzzing begins. `cargo run -p steeldb-fuzz-targets --bin corpus` writes them.

use crate::world::{accept, decision, guest_request, proof, proposal, request, stop_data};
use std::sync::Arc;
use steeldb_ordering::{
    BlockHeader, Checkpoint, CheckpointCertificate, Claim, Decision, InstanceNumber, JoinRefusal, Ledger,
    Message, Part, Record, Regency, Registered, RequestId, StopData, Votes,
};
use steeldb_ordering_server::{Answer, ClientMessage, Refused, Reply, ServerMessage};
use steeldb_postgres::{Change, Identity, Operation as Written, Row, WriteSet};
use steeldb_replica::agent::PeerMessage;
use steeldb_replica::effects::{Kind, Part as Kept};
use steeldb_replica::script::{Script, SessionState, Step};
use steeldb_types::{
    ClientId, Digest, Position, ReplicaId, SessionId, SessionKey, Timestamp, TxId, ViewNumber,
};
use steeldb_wire::auth::{Namespace, Signature};
use steeldb_wire::codec::encode;
use steeldb_wire::transaction::{self, SignedFinish, StatementId, StatementText, VoteBundle, VoteKind};

const SIGNERS: [ReplicaId; 3] = [ReplicaId(0), ReplicaId(2), ReplicaId(3)];

fn regency(number: u64) -> Regency {
    Regency::new(0, number)
}

fn decisions() -> Vec<Arc<Decision>> {
    let batch = |number: u64| {
        let requests = vec![Arc::new(request(1, number, vec![7; 3])), Arc::new(request(2, number, vec![]))];
        proposal(number, 10 + number as i64, requests)
    };
    (1..=2).map(|number| decision(batch(number), regency(0), &SIGNERS)).collect()
}

/// What a replica might have logged.
pub(crate) fn records() -> Vec<Record> {
    let mut records = vec![Record::Regency(regency(1))];
    for decision in decisions() {
        let (instance, claim) = (decision.instance(), decision.proof.claim);
        records.push(Record::Write { regency: claim.regency, proposal: Arc::clone(&decision.proposal) });
        records.push(Record::Accept { instance, claim, proposal: None });
        records.push(Record::Decision(decision));
    }
    records
}

fn messages() -> Vec<Message> {
    let decisions = decisions();
    let first = Arc::clone(&decisions[0].proposal);
    let (instance, claim) = (InstanceNumber(1), Claim { regency: regency(0), value: first.digest() });
    let said = |replica| {
        let last = vec![proof(&first, regency(0), &SIGNERS)];
        let votes = vec![Votes { instance: InstanceNumber(2), bound: Some(claim), written: vec![claim] }];
        stop_data(StopData { replica, regency: regency(1), last, votes })
    };
    vec![
        Message::Forward { requests: first.requests.clone() },
        Message::Forward { requests: (0..4).map(|kind| Arc::new(guest_request(kind, 1))).collect() },
        Message::Propose { regency: regency(0), proposal: Arc::clone(&first) },
        Message::Write { instance, claim },
        Message::Accept { instance, claim, signature: accept(instance, &claim, ReplicaId(2)) },
        Message::Stop { regency: regency(1), requests: first.requests.clone() },
        Message::StopData { data: said(ReplicaId(2)), values: vec![Arc::clone(&first)] },
        Message::Sync { regency: regency(1), stop_data: SIGNERS.map(said).to_vec(), proposals: vec![first] },
        Message::FetchDecisions { from: instance, regency: regency(1) },
        Message::Decisions { decisions: decisions.clone(), more: true },
        Message::Checkpoint {
            instance,
            digest: checkpoint().digest(),
            signature: checkpoint_vote(ReplicaId(2)),
        },
        Message::CheckpointOffer { certificate: Arc::new(certificate()), views: decisions },
        Message::FetchState { instance, part: Part::Chunk(0) },
        Message::State { instance, part: Part::Contents, bytes: encode(&checkpoint()) },
    ]
}

/// Of a core's state in one chunk, and an application's in another.
fn checkpoint() -> Checkpoint {
    let chunks = [b"core", b"sums"].map(|bytes| Checkpoint::chunk_digest(bytes)).to_vec();
    let (instance, position, timestamp) = (InstanceNumber(1), Position(2), Timestamp(11));
    Checkpoint { instance, position, timestamp, history: Digest([3; 32]), core_chunks: 1, chunks }
}

fn checkpoint_vote(signer: ReplicaId) -> Signature {
    let vote = encode(&(ViewNumber(0), checkpoint().instance, checkpoint().digest()));
    crate::world::key(signer).sign(Namespace::Checkpoint, &vote)
}

fn certificate() -> CheckpointCertificate {
    CheckpointCertificate {
        view: ViewNumber(0),
        instance: checkpoint().instance,
        digest: checkpoint().digest(),
        signatures: SIGNERS[1..].iter().map(|signer| (*signer, checkpoint_vote(*signer))).collect(),
        last: vec![decisions()[0].proof.clone()],
    }
}

/// Changes of the membership, of all kinds.
fn changes() -> Vec<Vec<u8>> {
    (0..4).map(|kind| crate::world::change(&crate::world::genesis(), kind).payload().to_vec()).collect()
}

/// Two frames and the head of a third.
fn link_bytes() -> Vec<u8> {
    [&[7][..], &3u32.to_be_bytes(), b"one", &0u32.to_be_bytes(), &5u32.to_be_bytes(), b"th"].concat()
}

fn archive() -> Vec<u8> {
    let mut ledger = Ledger::new(crate::world::genesis());
    let mut bytes = b"steeldb-ledger-1".to_vec();
    for decision in decisions() {
        let header: BlockHeader = ledger.append(&decision).expect("a good decision");
        let block = encode(&(header, decision));
        bytes.extend((block.len() as u32).to_le_bytes());
        bytes.extend(block);
    }
    bytes.extend(0u32.to_le_bytes());
    bytes.extend(2u64.to_le_bytes());
    bytes.extend(ledger.tip().0);
    bytes
}

fn client_frames() -> Vec<ClientMessage> {
    vec![
        ClientMessage::Order(Arc::new(request(1, 1, b"add".to_vec()))),
        ClientMessage::Query { number: 1, payload: b"sum".to_vec() },
        ClientMessage::Views { known: ViewNumber(0) },
        ClientMessage::Follow { from: InstanceNumber(1) },
        ClientMessage::Register(Arc::new(guest_request(0, 1))),
    ]
}

fn server_frames() -> Vec<ServerMessage> {
    let session = SessionKey { client: ClientId(1), session: SessionId(1) };
    let id = RequestId { session, sequence: 1 };
    let reply = Reply { position: Position(1), result: b"42".to_vec() };
    let claim = decisions()[0].proof.claim;
    let view = ViewNumber(0);
    let ahead = Some((InstanceNumber(3), claim));
    let answer = Answer { result: b"42".to_vec(), since: Position(1), ahead };
    vec![
        ServerMessage::Executed { id, view, reply: reply.clone() },
        ServerMessage::Tentative { id, instance: InstanceNumber(1), claim, reply },
        ServerMessage::Refused { id, reason: Refused::Invalid("no".into()) },
        ServerMessage::Answer { number: 1, view, answer: Some(answer) },
        ServerMessage::View { view },
        ServerMessage::Views { decisions: decisions() },
        ServerMessage::NotChanged { request: Digest([1; 32]), reason: Refused::Busy },
        ServerMessage::NotKept { from: InstanceNumber(1) },
        ServerMessage::Registered {
            request: Digest([1; 32]),
            registered: Registered::Challenge(Digest([2; 32])),
        },
        ServerMessage::Registered {
            request: Digest([1; 32]),
            registered: Registered::Refused(JoinRefusal::AccountFull { sessions_max: 2 }),
        },
        ServerMessage::NotRegistered { request: Digest([1; 32]), reason: Refused::NotJoined },
        ServerMessage::Decisions { decisions: decisions(), last: InstanceNumber(2) },
    ]
}

/// Each with its type's number before it.
fn transaction_messages() -> Vec<Vec<u8>> {
    let key = crate::world::client_key();
    let (tx, slot) = (TxId::default(), Position(3));
    let finish = transaction::Finish {
        tx,
        slot,
        decision: transaction::Decision::Commit,
        operations: 2,
        transcript: Digest([1; 32]),
    };
    let finish = SignedFinish::new(finish, key);
    let kind = VoteKind::Prepared {
        operations: 2,
        transcript: Digest([1; 32]),
        write_set: Digest([2; 32]),
        wall: steeldb_wire::transaction::Wall::None,
    };
    let vote = transaction::Vote { tx, slot, kind };
    let votes = VoteBundle::new(vec![(vote, Some(finish.clone()))], key);
    let with = |kind: u8, bytes: Vec<u8>| [&[kind][..], &bytes].concat();
    vec![
        with(0, encode(&transaction::ClientMessage::Finish(finish.clone()))),
        with(5, votes.map(|votes| encode(&votes)).unwrap_or_default()),
        with(6, encode(&finish)),
    ]
}

fn peer_frames() -> Vec<PeerMessage> {
    let (tx, slot) = (TxId::default(), Position(3));
    vec![
        PeerMessage::Ordering(messages().remove(0)),
        PeerMessage::Standing(Position(7)),
        PeerMessage::FetchEffects { tx, slot, from: 4096 },
        PeerMessage::Effects {
            tx,
            from: 0,
            part: Some(Kept { kind: Kind::Bulk, total: 4, bytes: vec![1, 2, 3, 4] }),
        },
        PeerMessage::Ping { number: 9 },
        PeerMessage::Pong { number: 9 },
    ]
}

fn kept_effects() -> Vec<Vec<u8>> {
    let (tx, slot) = (TxId::default(), Position(3));
    let row = |value: &str| Row::new(vec![("id".into(), Some("1".into())), ("v".into(), Some(value.into()))]);
    let key = || Row::new(vec![("id".into(), Some("1".into()))]);
    let change = |operation| {
        let identity = Identity::Key(vec![0]);
        Change { schema: "public".into(), table: "t".into(), identity, operation }
    };
    // The second one touches the row of the first.
    let first = row("old").map(|new| change(Written::Insert { new }));
    let second = key().and_then(|old| row("new").map(|new| change(Written::Update { old, new })));
    let changes: Vec<Change> = [first, second].into_iter().flatten().collect();
    let write_set = WriteSet::new(changes.iter().cloned());
    let entries = write_set.entries();
    let mut bulk = vec![7];
    bulk.extend((entries.len() as u64).to_le_bytes());
    bulk.extend(entries.iter().flat_map(|entry| entry.0));
    for change in &changes {
        let bytes = encode(change);
        bulk.extend((bytes.len() as u32).to_le_bytes());
        bulk.extend(bytes);
    }
    let w = write_set.digest().unwrap_or_default();
    let operation = transaction::Operation {
        tx,
        number: 1,
        statement: StatementId(1),
        leading: false,
        row_order: false,
        must_vote: false,
        verify: false,
        kind: transaction::OperationKind::Execute { bind: vec![0; 6] },
    };
    let step = Step {
        operation,
        copy: None,
        adopted: None,
        draws: transaction::Draws::NONE,
        result: Digest([4; 32]),
    };
    let text = StatementText { sql: "create table t (id int primary key)".into(), parameter_types: vec![] };
    let script = Script {
        tx,
        slot,
        modes: transaction::Modes::default(),
        session: SessionState { database: "app".into(), role: "app".into(), ..SessionState::default() },
        statements: [(StatementId(1), text)].into(),
        steps: vec![step],
    };
    let with = |kind: u8, bytes: Vec<u8>| [&[kind][..], &bytes].concat();
    vec![with(0, encode(&write_set)), with(1, encode(&script)), with(2, [&w.0[..], &bulk].concat())]
}

/// The samples of a target, in a fixed order.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "ordering_message" => messages().iter().map(Message::encode).collect(),
        "record" => records().iter().map(Record::encode).collect(),
        "ledger_archive" => vec![archive()],
        "change" => changes(),
        "link_frame" => vec![link_bytes()],
        "client_frame" => client_frames().iter().map(|message| message.encode().to_vec()).collect(),
        "server_frame" => server_frames().iter().map(|message| message.encode().to_vec()).collect(),
        "transaction_message" => transaction_messages(),
        "peer_frame" => peer_frames().iter().map(|message| message.encode().to_vec()).collect(),
        "kept_effects" => kept_effects(),
        // Any bytes will do.
        _ => vec![(0..=255).collect()],
    }
}
