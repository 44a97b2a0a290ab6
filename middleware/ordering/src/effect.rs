//! What a core wants done, and the queue that keeps effects back until what they depend on is durable.

use crate::{
    Claim, InstanceNumber, Message, Proof, Record, Regency, Registered, Request, RequestKey, Roster,
};
use std::collections::VecDeque;
use std::sync::Arc;
use steeldb_types::{ClientId, Position, ReplicaId, Timestamp};

/// Something to do. A polled effect may be done at once: the core has already waited for what it depends on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Append a record to the log, in the order polled. Once it and all before it are durable, say so with
    /// [`Event::Persisted`](crate::Event::Persisted); one event may cover many records (group commit).
    Persist {
        /// Counts the records of this core's life from 1.
        sequence: u64,
        /// What to append.
        record: Record,
    },
    /// Send a message to one replica. May be lost.
    Send {
        /// To whom; never oneself.
        to: ReplicaId,
        /// What.
        message: Message,
    },
    /// Send a message to every other replica. May be lost.
    Broadcast {
        /// What.
        message: Message,
    },
    /// Execute a decided batch. Instances come in order, each once in the core's life.
    Deliver(Delivery),
    /// Execute a batch that will most likely be decided, so that it can be taken back, and reply with its instance and
    /// claim: a client believes replies of weight Q_v that agree in them. Comes again for the same instance and value
    /// when a later regency holds on to it: then only the replies go out anew. Only with
    /// [`Config::tentative`](crate::Config::tentative).
    Tentative(Tentative),
    /// Take back the tentative delivery of an instance: something else was decided, or is about to be.
    Revoke {
        /// Which.
        instance: InstanceNumber,
    },
    /// A request from [`Event::Request`](crate::Event::Request) will not be ordered on this replica's behalf.
    Refused {
        /// Which.
        request: RequestKey,
        /// Why.
        reason: Refusal,
    },
    /// Read decisions out of the log for a replica that is far behind; answer with
    /// [`Event::DecisionsRead`](crate::Event::DecisionsRead), with none if the first one is not there.
    ReadDecisions {
        /// Who wants them; this replica itself, when its log has a hole that others filled.
        peer: ReplicaId,
        /// The first instance wanted.
        from: InstanceNumber,
        /// How many bytes of proposals are enough ([`Proposal::size_bytes`](crate::Proposal::size_bytes)); at least
        /// one decision is wanted all the same.
        bytes_max: usize,
    },
    /// Take a checkpoint of the application's state: every delivery up to this instance, none after. When it is durable
    /// and can be read in chunks, answer with [`Event::CheckpointTaken`](crate::Event::CheckpointTaken). It may be
    /// left out; then this replica's log is not cut.
    TakeCheckpoint {
        /// After which instance.
        instance: InstanceNumber,
    },
    /// Read a chunk of the application's part of a checkpoint for a replica that fetches it; always answer with
    /// [`Event::ChunkRead`](crate::Event::ChunkRead).
    ReadChunk {
        /// Who wants it.
        peer: ReplicaId,
        /// Of which checkpoint.
        instance: InstanceNumber,
        /// Which, counting the application's chunks from 0.
        chunk: u32,
    },
    /// Keep a chunk of the application's part of a checkpoint that is being fetched. It is the right one; chunks come in
    /// any order, and not all may come.
    StoreChunk {
        /// Of which checkpoint.
        instance: InstanceNumber,
        /// Which, counting the application's chunks from 0.
        chunk: u32,
        /// The chunk.
        bytes: Vec<u8>,
    },
    /// All chunks are there: replace the application's state by the checkpoint, which may then be read in chunks, too.
    /// When that is durable, answer with [`Event::CheckpointInstalled`](crate::Event::CheckpointInstalled). Nothing is
    /// delivered before.
    InstallCheckpoint {
        /// Which checkpoint.
        instance: InstanceNumber,
        /// How many chunks.
        chunks: u32,
    },
    /// Checkpoints, and chunks of them, before this instance are not needed any more.
    DropCheckpoints {
        /// The oldest one still needed.
        before: InstanceNumber,
    },
    /// Decisions before this instance may be dropped from the log, and all records before the last
    /// [`Record::Checkpoint`] but the votes in undecided instances and the regency.
    Truncate {
        /// The oldest decision still wanted.
        before: InstanceNumber,
    },
    /// Correct replicas signed another checkpoint than this replica's: its state is not what the order makes of it.
    StateDiffers {
        /// At which instance.
        instance: InstanceNumber,
    },
    /// A regency is installed: its leader orders from now on. For logs.
    RegencyInstalled {
        /// The regency.
        regency: Regency,
        /// Its leader.
        leader: ReplicaId,
    },
    /// A view begins: who the replicas are from an instance on. Links follow it, and whatever else counts replicas. After a
    /// restart it comes again for every view that was read back.
    ViewInstalled {
        /// The view's replicas.
        roster: Arc<Roster>,
        /// Its first instance.
        first: InstanceNumber,
    },
    /// A replica did what no correct one does. For logs.
    Misbehaved {
        /// Who.
        replica: ReplicaId,
        /// What it did.
        reason: String,
    },
}

/// A batch that is bound, and not yet known to be decided. If it is decided, it is delivered with the same contents.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tentative {
    /// The first instance that is not decided.
    pub instance: InstanceNumber,
    /// The regency and the value of the WRITE quorum that this replica has durably seen.
    pub claim: Claim,
    /// As in [`Delivery`].
    pub timestamp: Timestamp,
    /// As in [`Delivery`].
    pub requests: Vec<(Position, Arc<Request>)>,
}

/// A decided batch, ready for the application.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// The instance that decided it.
    pub instance: InstanceNumber,
    /// The regency it was decided in.
    pub regency: Regency,
    /// The time it counts as executed at: the same on every replica, ascending strictly.
    pub timestamp: Timestamp,
    /// The requests to execute, each with its place in the total order; what was executed before is left out and not
    /// counted. May be empty.
    pub requests: Vec<(Position, Arc<Request>)>,
    /// Who joined and left, in the order. They have no place in the order that the application sees.
    pub registrations: Vec<RegistrationOutcome>,
    /// Why it is decided.
    pub proof: Proof,
}

/// What the order made of a registration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegistrationOutcome {
    /// The request.
    pub request: Arc<Request>,
    /// What its client is told.
    pub registered: Registered,
    /// Who is a client no more by it: who left, or was idle for long and made room.
    pub gone: Vec<ClientId>,
}

/// Why a request was turned away.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// It was executed, and is the last one of its session that was. The client may have missed the reply: the one that
    /// the application keeps is to be sent again.
    #[error("already executed")]
    Executed,
    /// A later one of its session was executed, or its session is too old to be remembered.
    #[error("of a session that is further, or forgotten")]
    Stale,
    /// Unsigned, signed wrongly, or refused by the validator.
    #[error("invalid: {0}")]
    Invalid(String),
    /// Larger than [`limits::REQUEST_BYTES_MAX`](steeldb_types::limits::REQUEST_BYTES_MAX).
    #[error("larger than a request may be")]
    TooLarge,
    /// Too many requests wait, of all clients or of this one. Try again later.
    #[error("too many requests are waiting")]
    Busy,
    /// Its client is not joined, as far as this replica has got in the order: it left, was idle for long and made room for
    /// another, or never joined.
    #[error("the client is not joined: it left, was idle for too long, or never joined")]
    NotJoined,
    /// This replica is not in the current view.
    #[error("this replica is not a member of the current view")]
    NotAMember,
    /// Another request with the same key waits.
    #[error("another request with the same identity is waiting")]
    Conflict,
}

/// Effects in the order they arose. Each depends on all records that arose before it: that is more than needed in
/// places, never less, and one rule covers every message (A7).
#[derive(Default)]
pub(crate) struct EffectQueue {
    records: VecDeque<Effect>,
    held: VecDeque<(u64, Effect)>,
    sequence: u64,
    durable: u64,
    durability_ignored: bool,
    deliveries_early: bool,
}

impl EffectQueue {
    /// A queue; the arguments are planted bugs.
    pub(crate) fn new(durability_ignored: bool, deliveries_early: bool) -> EffectQueue {
        EffectQueue { durability_ignored, deliveries_early, ..EffectQueue::default() }
    }

    /// Effects and records not yet polled.
    pub(crate) fn len(&self) -> usize {
        self.held.len() + self.records.len()
    }

    pub(crate) fn push(&mut self, effect: Effect) {
        if self.deliveries_early && matches!(effect, Effect::Deliver(_)) {
            self.records.push_back(effect);
            return;
        }
        self.held.push_back((self.sequence, effect));
    }

    /// Lets an effect leave before what it depends on is durable: a planted bug.
    pub(crate) fn push_at_once(&mut self, effect: Effect) {
        self.held.push_front((0, effect));
    }

    pub(crate) fn persist(&mut self, record: Record) {
        self.sequence += 1;
        self.records.push_back(Effect::Persist { sequence: self.sequence, record });
    }

    pub(crate) fn send(&mut self, to: ReplicaId, message: Message) {
        self.push(Effect::Send { to, message });
    }

    pub(crate) fn broadcast(&mut self, message: Message) {
        self.push(Effect::Broadcast { message });
    }

    pub(crate) fn misbehaved(&mut self, replica: ReplicaId, reason: impl Into<String>) {
        self.push(Effect::Misbehaved { replica, reason: reason.into() });
    }

    pub(crate) fn persisted(&mut self, upto: u64) {
        self.durable = self.durable.max(upto.min(self.sequence));
    }

    pub(crate) fn poll(&mut self) -> Option<Effect> {
        if let Some(record) = self.records.pop_front() {
            return Some(record);
        }
        let (after, _) = self.held.front()?;
        if *after > self.durable && !self.durability_ignored {
            return None;
        }
        self.held.pop_front().map(|(_, effect)| effect)
    }
}
