//! One core and what it needs of the world: clock, log, links to its peers.

use crate::clock::Clock;
use crate::storage::Storage;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use steeldb_ordering::{
    Core, Decision, Delivery, Effect, Event, InstanceNumber, Message, Refusal, Regency, RequestKey,
    Tentative, Validator,
};
use steeldb_transport::ReplicaLinks;
use steeldb_types::ReplicaId;
use tokio::sync::mpsc;

/// What a core says to the program around it.
#[derive(Debug)]
pub enum Report {
    /// Execute a decided batch.
    Deliver {
        /// The batch.
        delivery: Delivery,
        /// The decision as it went to the log; nothing for one that was read back from it.
        decision: Option<Arc<Decision>>,
    },
    /// Execute a batch ahead of its decision.
    Tentative(Tentative),
    /// Take back what was executed ahead in this instance.
    Revoke(InstanceNumber),
    /// A request given to this core will not be ordered on its behalf.
    Refused {
        /// Which.
        request: RequestKey,
        /// Why.
        reason: Refusal,
    },
    /// A leader took over.
    RegencyInstalled {
        /// Its regency.
        regency: Regency,
        /// Who.
        leader: ReplicaId,
    },
    /// A replica did what no correct one does.
    Misbehaved {
        /// Who.
        replica: ReplicaId,
        /// What.
        reason: String,
    },
}

/// Runs a core. Feed it with [`handle`](Shell::handle), then take reports with [`poll`](Shell::poll) until there are
/// none; call [`tick`](Shell::tick) when [`next_timeout`](Shell::next_timeout) has passed.
pub struct Shell<S> {
    core: Core,
    clock: Clock,
    storage: S,
    links: ReplicaLinks,
    envelope: fn(Message) -> Bytes,
    /// Decisions on their way to the log, until they are delivered.
    logged: VecDeque<Arc<Decision>>,
    reads: mpsc::UnboundedSender<ReadBack>,
}

/// Decisions read out of the log for a replica that is behind. At most one per peer and question is under way: the core
/// sees to that.
#[derive(Debug)]
pub struct ReadBack {
    peer: ReplicaId,
    decisions: Vec<Arc<Decision>>,
}

impl<S: Storage> Shell<S> {
    /// A shell around `core`. `envelope` makes a frame of a message to peers; the receiver gives what is to be handed to
    /// [`read_back`](Shell::read_back).
    pub fn new(
        core: Core,
        storage: S,
        links: ReplicaLinks,
        envelope: fn(Message) -> Bytes,
    ) -> (Shell<S>, mpsc::UnboundedReceiver<ReadBack>) {
        let (reads, receiver) = mpsc::unbounded_channel();
        let clock = Clock::start();
        let logged = VecDeque::new();
        (Shell { core, clock, storage, links, envelope, logged, reads }, receiver)
    }

    /// The core, to be asked.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The links with peers and clients.
    pub fn links(&self) -> &ReplicaLinks {
        &self.links
    }

    /// The log.
    pub fn storage(&mut self) -> &mut S {
        &mut self.storage
    }

    /// Takes in what happened.
    pub fn handle(&mut self, event: Event, validator: &dyn Validator) {
        self.core.handle(self.clock.now(), event, validator);
    }

    /// Time has passed.
    pub fn tick(&mut self, validator: &dyn Validator) {
        self.handle(Event::Tick, validator);
    }

    /// Hands decisions that were read to the core.
    pub fn read_back(&mut self, read: ReadBack, validator: &dyn Validator) {
        let ReadBack { peer, decisions } = read;
        self.handle(Event::DecisionsRead { peer, decisions }, validator);
    }

    /// How long until [`tick`](Shell::tick) is due; nothing while nothing waits.
    pub fn next_timeout(&self) -> Option<Duration> {
        let now = self.clock.monotonic_us();
        self.core.next_timeout().map(|at| Duration::from_micros(at.saturating_sub(now)))
    }

    /// The next report, after doing every effect before it.
    pub fn poll(&mut self, validator: &dyn Validator) -> Option<Report> {
        loop {
            match self.core.poll_effect()? {
                Effect::Persist { sequence, record } => {
                    if let steeldb_ordering::Record::Decision(decision) = &record {
                        self.logged.push_back(Arc::clone(decision));
                    }
                    if let Some(upto) = self.storage.append(sequence, record) {
                        self.handle(Event::Persisted { upto }, validator);
                    }
                }
                Effect::Send { to, message } => {
                    self.links.send_peer(to, (self.envelope)(message));
                }
                // Encoded once for all peers.
                Effect::Broadcast { message } => self.links.broadcast((self.envelope)(message)),
                Effect::ReadDecisions { peer, from, bytes_max } => self.read(peer, from, bytes_max),
                Effect::Deliver(delivery) => {
                    let decision = self.take_logged(delivery.instance);
                    return Some(Report::Deliver { delivery, decision });
                }
                Effect::Refused { request, reason } => return Some(Report::Refused { request, reason }),
                Effect::RegencyInstalled { regency, leader } => {
                    return Some(Report::RegencyInstalled { regency, leader });
                }
                Effect::ReadChunk { peer, instance, chunk } => {
                    self.handle(Event::ChunkRead { peer, instance, chunk, bytes: None }, validator);
                }
                Effect::Tentative(tentative) => return Some(Report::Tentative(tentative)),
                Effect::Revoke { instance } => return Some(Report::Revoke(instance)),
                // Applications take no checkpoints yet: the log is never cut, and no state travels.
                Effect::TakeCheckpoint { .. }
                | Effect::StoreChunk { .. }
                | Effect::InstallCheckpoint { .. }
                | Effect::DropCheckpoints { .. }
                | Effect::Truncate { .. }
                | Effect::StateDiffers { .. }
                | Effect::ViewInstalled { .. } => {}
                Effect::Misbehaved { replica, reason } => {
                    return Some(Report::Misbehaved { replica, reason });
                }
            }
        }
    }

    fn read(&mut self, peer: ReplicaId, from: InstanceNumber, bytes_max: usize) {
        let reads = self.reads.clone();
        let answer = move |decisions| {
            // A shell that is gone needs no answer.
            let _ = reads.send(ReadBack { peer, decisions });
        };
        self.storage.read_decisions(from, bytes_max, Box::new(answer));
    }

    fn take_logged(&mut self, instance: InstanceNumber) -> Option<Arc<Decision>> {
        while self.logged.front().is_some_and(|decision| decision.instance() < instance) {
            self.logged.pop_front();
        }
        let next = self.logged.front()?;
        if next.instance() == instance { self.logged.pop_front() } else { None }
    }
}
