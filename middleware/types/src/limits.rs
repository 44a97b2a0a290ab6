//! Every bound in one place (design, section 8). What happens past one is said beside it.

use std::time::Duration;

/// The largest frame on any link, bytes. A larger one: the peer misbehaved, the link is closed.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Replicas in a view. Past it: no such view.
pub const REPLICAS_MAX: usize = 1024;

/// The longest address of a replica, bytes. Past it: the change of the membership is invalid.
pub const ADDRESS_BYTES_MAX: usize = 256;

/// The largest message of PostgreSQL's protocol that is passed on, bytes: it fits a frame with what surrounds it.
/// A longer row or statement: 54000 with a hint.
pub const MESSAGE_BYTES_MAX: usize = FRAME_BYTES_MAX - 64 * 1024;

/// The largest message that a replica's own PostgreSQL can send, bytes (its MaxAllocSize): what decoding takes, since
/// a row may be far larger than the statement that made it.
pub const DECODED_MESSAGE_BYTES_MAX: usize = 0x3fff_ffff;

/// The largest request that can be ordered, bytes: a Commit with its certificate, or a maintenance statement.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Requests in one batch.
pub const BATCH_REQUESTS_MAX: usize = 1024;

/// Bytes of requests in one batch. [`WINDOW_MAX`] of them fit into a frame, since STOPDATA and SYNC carry as many.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Consensus instances in flight at once.
pub const WINDOW_MAX: usize = 8;

/// Requests waiting at a replica to be ordered, over all clients. Past it new ones are turned away.
pub const PENDING_REQUESTS_MAX: usize = 65_536;

/// Their bytes. Past it new ones are turned away.
pub const PENDING_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Bytes of one client's requests waiting at a replica to be ordered. Past it that client's new ones are turned away.
pub const PENDING_BYTES_PER_CLIENT_MAX: usize = 64 * 1024 * 1024;

/// Requests of one client waiting at a replica to be ordered. Past it that client's new ones are turned away.
pub const PENDING_REQUESTS_PER_CLIENT_MAX: usize = 8192;

/// Bytes of decided batches that a replica keeps in memory for those that are behind; older ones are read back.
pub const DECISIONS_KEPT_BYTES: usize = 16 * 1024 * 1024;

/// Instances before a stable checkpoint whose decisions stay in the log for replicas that are a little behind.
pub const DECISIONS_KEPT: u64 = 10_000;

/// The largest chunk of a checkpoint, bytes.
pub const CHECKPOINT_CHUNK_BYTES: usize = 1024 * 1024;

/// Chunks in a checkpoint: 64 GiB. Past it none is taken.
pub const CHECKPOINT_CHUNKS_MAX: usize = 65_536;

/// Sessions a replica remembers per client for exactly-once execution; the longest unused one is forgotten.
pub const SESSIONS_REMEMBERED_MAX: usize = 4096;

/// Clients that are joined at once. Past it: one that was idle for long goes, or a newcomer is refused.
pub const JOINED_CLIENTS_MAX: usize = 4096;

/// Joins that wait to be confirmed. Past it: refused.
pub const JOINS_MAX: usize = 1024;

/// Joins of one account that wait to be confirmed. Past it: refused.
pub const JOINS_PER_ACCOUNT_MAX: usize = 16;

/// Sessions remembered per joined client; the longest unused one is forgotten.
pub const SESSIONS_PER_JOINED_CLIENT_MAX: usize = 64;

/// The longest name of an account, bytes. Past it: the join is invalid.
pub const ACCOUNT_BYTES_MAX: usize = 64;

/// The largest credential, bytes. Past it: the join is invalid.
pub const CREDENTIAL_BYTES_MAX: usize = 4096;

/// How long a join waits to be confirmed, in agreed time.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// How far ahead of the agreed time a join may say that it counts: as long it can be replayed to no more use than a challenge.
pub const JOIN_VALID_MAX: Duration = Duration::from_secs(600);

/// For how long, in agreed time, a joined client must have had nothing executed to make room for another.
pub const CLIENT_IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// Registrations waiting at a replica to be ordered. Past it new ones are turned away.
pub const REGISTRATIONS_PENDING_MAX: usize = 1024;

/// Their bytes. Past it new ones are turned away.
pub const REGISTRATION_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Effects of transactions that a replica keeps on disk for those that were away, bytes. The oldest go first.
pub const KEPT_BYTES: u64 = 1024 * 1024 * 1024;

/// The same by age.
pub const KEPT_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The largest write set or script that is kept and fetched, bytes: more than [`TRANSACTION_BYTES_MAX`], since names come
/// with every row. A larger one is not kept.
pub const KEPT_RECORD_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Bytes of effects in one answer to a replica that catches up.
pub const KEPT_PART_BYTES: usize = 1024 * 1024;

/// Rows of peers that wait in a replica for those of earlier commits, bytes. Past it no more are fetched than are needed next.
pub const ROWS_WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The largest statement text, bytes. Past it: 54000.
pub const STATEMENT_BYTES_MAX: usize = 1024 * 1024;

/// Changed rows of one transaction that decoding gathers in memory; past them, as past [`TRANSACTION_BYTES_MAX`] of changes,
/// they go to the disk.
pub const DECODED_ROWS_MAX: usize = 1_000_000;

/// Operations buffered for one transaction on a replica, without COPY data, bytes. Past it: 54000 with a hint.
pub const TRANSACTION_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Operations and COPY data buffered for one client on a replica, in memory and on disk, bytes; what a bulk transaction has
/// beyond [`BULK_BYTES`] is not counted. Past it: 54000 with a hint.
pub const CLIENT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The same for all clients of a replica. Past it: 54000 with a hint.
pub const REPLICA_BYTES_MAX: usize = 2 * 1024 * 1024 * 1024;

/// COPY data of one transaction that a replica keeps in memory, bytes. Past it: on disk.
pub const COPY_MEMORY_BYTES: usize = 16 * 1024 * 1024;

/// COPY data of one transaction, bytes. Past it the transaction is a bulk transaction: one at a time, or 40001.
pub const BULK_BYTES: usize = 64 * 1024 * 1024;

/// Rows of one transaction, as its command tags say. Past it the votes on others that wait beside it are waited for longer.
pub const BULK_ROWS: u64 = 100_000;

/// COPY data of a bulk transaction, bytes, unless configured otherwise. Past it: 54000, on all replicas.
pub const BULK_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Bulk transactions that a role may have at once in a database, one after the other; beyond them one per
/// [`BULK_INTERVAL`]. Past it: 40001.
pub const BULK_BURST: u64 = 60;

/// How far apart a role's further bulk transactions are.
pub const BULK_INTERVAL: Duration = Duration::from_secs(10);

/// Operations in one transaction. Past it: 54000 with a hint.
pub const OPERATIONS_MAX: u32 = 1_000_000;

/// Runs of draws from sequences in one operation; a run is any number of evenly spaced values. Past it: a mismatch.
pub const DRAW_RUNS_MAX: usize = 16_384;

/// Sequences that one operation draws from. Past it: a mismatch.
pub const DRAW_SEQUENCES_MAX: usize = 256;

/// The longest qualified name of a sequence, bytes: two identifiers of 63 bytes, every one of them a quote.
pub const SEQUENCE_NAME_BYTES_MAX: usize = 260;

/// Bytes of entries in one piece of the master's stream; it fits a frame together with one more entry.
pub const STREAM_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Result bytes a master sends ahead of the shim's acknowledgement, per session.
pub const RESULT_WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of one result that a shim holds back until others have vouched for it. Past it: 54000 with a hint.
pub const VERIFIED_RESULT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Named statements of one session. Past it: 54000.
pub const NAMED_STATEMENTS_MAX: usize = 1024;

/// Sessions of one client that are open at once. Past it: 53300.
pub const SESSIONS_PER_CLIENT_MAX: usize = 200;

/// Ended transactions of one client whose outcomes are remembered. Past it the one that ended first is forgotten.
pub const OUTCOMES_PER_CLIENT_MAX: usize = 131_072;

/// Walls (rule 9) that a role may raise at once in a database; beyond them one per [`WALL_INTERVAL`].
pub const WALL_BURST: u64 = 300;

/// How far apart a role's further walls are.
pub const WALL_INTERVAL: Duration = Duration::from_millis(50);

/// Sessions of one client, at once, whose temporary relations are kept. Past it those of the longest unused one are
/// dropped.
pub const TEMPORARY_SESSIONS_PER_CLIENT_MAX: usize = 1024;

/// Transactions of one client that were declared void before they began. Past it no more are, until some of their sessions
/// are forgotten: who asks for one is told that it is unknown, which is no final answer.
pub const TOMBSTONES_PER_CLIENT_MAX: usize = 1024;

/// How often a proxy runs a statement at most that conflicts with others before it had shown anything.
pub const STATEMENT_TRIES_MAX: u32 = 100;

/// For how long a proxy tries a statement again.
pub const STATEMENT_RETRY_PATIENCE: Duration = Duration::from_secs(5);

/// Anchor transactions that hold snapshots, per database.
pub const ANCHORS_MAX: usize = 64;

/// Permits for prepared transactions above the number of sessions (max_prepared_transactions).
pub const PREPARED_MARGIN: usize = 16;

/// Votes signed together under one Merkle root. A path has at most log2 of it entries.
pub const VOTE_BATCH_MAX: usize = 256;

/// Bytes queued towards one peer before the link is closed and its messages are dropped.
pub const LINK_QUEUE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// How long a request waits before it is forwarded to the leader; as long again before the leader is changed.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// T_vote: after a Finish, how long a replica waits for the certificate before it signs Expired.
pub const VOTE_TIMEOUT: Duration = Duration::from_secs(5);

/// Settings that a session takes along to a replica where it is opened again: how many, and their bytes in all. A session
/// with more is not opened again there.
pub const RESTORED_SETTINGS_MAX: usize = 64;
/// See there.
pub const RESTORED_BYTES_MAX: usize = 16 * 1024;

/// How long a master may be silent before the others accuse it. It streams something several times as often.
pub const MASTER_SILENCE: Duration = Duration::from_secs(2);

/// How long a transaction may sit idle before its replicas report it gone.
pub const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(300);

/// How far a leader's timestamp may be from a replica's own clock (A14).
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

/// How long a transaction's DDL waits for the others to end before it starts all the same (rule 9).
pub const DDL_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// T_soft: how long a commit, or a write that the master ran later, is held back for operations that the master ran
/// before it and this replica has not (rule 5). Past it: they go ahead, and the vote finds out if that mattered (B7).
pub const SOFT_BARRIER: Duration = Duration::from_millis(20);

/// How long operations, and the master's word on them, may wait for company on their way to replicas that execute
/// speculatively. Fewer, larger messages cost all less than they delay.
pub const GATHER: Duration = Duration::from_millis(1);

/// The same where nothing is executed before COMMIT.
pub const GATHER_DEFERRED: Duration = Duration::from_millis(50);

/// Events waiting between a node's links and the node. Past it the sockets are read more slowly.
pub const LINK_EVENTS_MAX: usize = 256;

/// Bytes of received frames that a node has not done with, over all its links. Past it the sockets are read more slowly,
/// each link in its turn.
pub const LINK_EVENT_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Connections to a replica that have not yet shown who they are. Past it the oldest one is closed.
pub const HALF_OPEN_MAX: usize = 128;

/// How long a connection may take to show who it is. Past it: closed.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections of one client to one replica that are open at once. Past it: new ones are closed.
pub const CONNECTIONS_PER_CLIENT_MAX: usize = 16;

/// Connections of keys that are not configured and that have not joined, where clients may join. Past it: the oldest is closed.
pub const GUESTS_MAX: usize = 256;

/// The largest frame of a client that is not configured, bytes: a request and what surrounds it. Past it: closed.
pub const GUEST_FRAME_BYTES_MAX: usize = 2 * REQUEST_BYTES_MAX;

/// How long a link that is to be closed may take to send what was queued on it. Past it: dropped.
pub const LINK_LINGER: Duration = Duration::from_secs(5);

/// The longest pause between two attempts to reach a peer.
pub const REDIAL_PAUSE_MAX: Duration = Duration::from_secs(3);

/// Connections at once that ask for metrics or health, and how long each may take. Past it: turned away, cut off.
pub const METRICS_CONNECTIONS_MAX: usize = 16;
/// See there.
pub const METRICS_CONNECTION_TIME: Duration = Duration::from_secs(10);

/// How long a process that is asked to stop waits for what its clients have under way. Past it: broken off.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// How far a replica may be behind the order, in positions, and still be ready. Past it: `/ready` says 503.
pub const READY_LAG_MAX: u64 = 100;
