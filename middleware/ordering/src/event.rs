//! What happens to a core.

use crate::{Decision, Message, Request};
use std::sync::Arc;
use steeldb_types::{ReplicaId, Timestamp};

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
}
