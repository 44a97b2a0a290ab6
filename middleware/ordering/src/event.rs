//! What happens to a core.

use crate::{Decision, InstanceNumber, Message, Request};
use std::sync::Arc;
use steeldb_types::{Digest, ReplicaId, Timestamp};

/// The time of an event, read by the shell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// A clock that never goes back, microseconds from any origin: timers.
    pub monotonic_us: u64,
    /// The wall clock: agreed timestamps.
    pub wall: Timestamp,
}

/// Something that happened.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all events are messages")]
pub enum Event {
    /// A replica's message arrived over its authenticated link.
    Message {
        /// Who sent it.
        from: ReplicaId,
        /// What it says.
        message: Message,
    },
    /// A client, or the local application, wants a request ordered.
    Request(Arc<Request>),
    /// Every record up to this sequence number is durable.
    Persisted {
        /// The highest durable [`Effect::Persist`](crate::Effect::Persist) sequence.
        upto: u64,
    },
    /// Time passed: [`Core::next_timeout`](crate::Core::next_timeout) is due.
    Tick,
    /// A link to a replica is up (again).
    LinkUp(ReplicaId),
    /// The answer to [`Effect::ReadDecisions`](crate::Effect::ReadDecisions).
    DecisionsRead {
        /// Who wants them.
        peer: ReplicaId,
        /// Consecutive decisions from the one asked for; empty when they are not there.
        decisions: Vec<Arc<Decision>>,
    },
    /// The answer to [`Effect::TakeCheckpoint`](crate::Effect::TakeCheckpoint): the state is durable and can be read.
    CheckpointTaken {
        /// After which instance.
        instance: InstanceNumber,
        /// The digest of each chunk, by [`Checkpoint::chunk_digest`](crate::Checkpoint::chunk_digest). Equal states
        /// must give equal chunks on every replica.
        chunks: Vec<Digest>,
    },
    /// The answer to [`Effect::ReadChunk`](crate::Effect::ReadChunk).
    ChunkRead {
        /// Who wants it.
        peer: ReplicaId,
        /// Of which checkpoint.
        instance: InstanceNumber,
        /// Which chunk.
        chunk: u32,
        /// The chunk; nothing when it is not there.
        bytes: Option<Vec<u8>>,
    },
    /// The answer to [`Effect::InstallCheckpoint`](crate::Effect::InstallCheckpoint): the application's state is
    /// durably that of the checkpoint.
    CheckpointInstalled {
        /// Which checkpoint.
        instance: InstanceNumber,
    },
}
