//! One core and what it needs of the world: clock, log, links to its peers.

use crate::clock::Clock;
use crate::storage::Storage;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use steeldb_ordering::{
    Core, Decision, Delivery, Effect, Event, InstanceNumber, Message, Refusal, Regency, RequestKey, Roster,
    Tentative, Validator,
};
use steeldb_transport::ReplicaLinks;
use steeldb_types::{Digest, ReplicaId};
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
    /// Take a checkpoint of the state as it is and hand it to [`Shell::save`]. It may be left out; then the log is not
    /// cut.
    TakeCheckpoint {
        /// After which instance.
        instance: InstanceNumber,
    },
    /// The state is not needed any more: a later one was fetched, and is about to come.
    StateFetched {
        /// After which instance.
        instance: InstanceNumber,
    },
    /// Take over a state, then call [`Shell::installed`].
    Install {
        /// After which instance.
        instance: InstanceNumber,
        /// The state, or why it could not be kept.
        state: Result<Vec<u8>, String>,
    },
    /// Correct replicas signed another state than this replica's: nothing that it says is to be relied upon.
    StateDiffers {
        /// After which instance.
        instance: InstanceNumber,
    },
    /// A request given to this core will not be ordered on its behalf.
    Refused {
        /// Which.
        request: RequestKey,
        /// Why.
        reason: Refusal,
    },
    /// A view begins: links and clients are to follow it.
    ViewInstalled(Arc<Roster>),
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
    /// A state that was fetched, to be reported.
    fetched: Option<(InstanceNumber, Result<Vec<u8>, String>)>,
}

/// What storage has done. The core bounds what is under way: one read of decisions per peer, few chunks, two checkpoints.
#[derive(Debug)]
pub struct ReadBack(Back);

#[derive(Debug)]
enum Back {
    /// Decisions for a replica that is behind.
    Decisions(ReplicaId, Vec<Arc<Decision>>),
    /// A chunk for a replica that fetches a checkpoint.
    Chunk(ReplicaId, InstanceNumber, u32, Option<Vec<u8>>),
    /// A checkpoint of this replica's is durable, with these chunks; or could not be written.
    Taken(InstanceNumber, Option<Vec<Digest>>),
    /// A checkpoint that was fetched is durable, or why not.
    Fetched(InstanceNumber, Result<Vec<u8>, String>),
}

/// Where storage answers.
struct Answer(mpsc::UnboundedSender<ReadBack>);

impl Answer {
    fn send(self, back: Back) {
        // A shell that is gone needs no answer.
        let _ = self.0.send(ReadBack(back));
    }
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
        (Shell { core, clock, storage, links, envelope, logged, reads, fetched: None }, receiver)
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

    /// Takes in what storage has done.
    pub fn read_back(&mut self, ReadBack(back): ReadBack, validator: &dyn Validator) {
        let event = match back {
            Back::Decisions(peer, decisions) => Event::DecisionsRead { peer, decisions },
            Back::Chunk(peer, instance, chunk, bytes) => Event::ChunkRead { peer, instance, chunk, bytes },
            Back::Taken(instance, Some(chunks)) => Event::CheckpointTaken { instance, chunks },
            Back::Taken(_, None) => return,
            Back::Fetched(instance, state) => {
                self.fetched = Some((instance, state));
                return;
            }
        };
        self.handle(event, validator);
    }

    /// Keeps a checkpoint, and tells the core when it is durable.
    pub fn save(&mut self, instance: InstanceNumber, state: Vec<u8>) {
        let taken = self.answer();
        let taken = Box::new(move |chunks| taken.send(Back::Taken(instance, chunks)));
        self.storage.checkpoints().write(instance, state, taken);
    }

    /// The state after an instance was taken over.
    pub fn installed(&mut self, instance: InstanceNumber, validator: &dyn Validator) {
        self.handle(Event::CheckpointInstalled { instance }, validator);
    }

    fn answer(&self) -> Answer {
        Answer(self.reads.clone())
    }

    /// How long until [`tick`](Shell::tick) is due; nothing while nothing waits.
    pub fn next_timeout(&self) -> Option<Duration> {
        let now = self.clock.monotonic_us();
        self.core.next_timeout().map(|at| Duration::from_micros(at.saturating_sub(now)))
    }

    /// The next report, after doing every effect before it.
    pub fn poll(&mut self, validator: &dyn Validator) -> Option<Report> {
        if let Some((instance, state)) = self.fetched.take() {
            return Some(Report::Install { instance, state });
        }
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
                    let read = self.answer();
                    let read = Box::new(move |bytes| read.send(Back::Chunk(peer, instance, chunk, bytes)));
                    self.storage.checkpoints().read_chunk(instance, chunk, read);
                }
                Effect::StoreChunk { instance, chunk, bytes } => {
                    self.storage.checkpoints().store_chunk(instance, chunk, bytes);
                }
                Effect::InstallCheckpoint { instance, chunks } => {
                    let fetched = self.answer();
                    let fetched = Box::new(move |state| fetched.send(Back::Fetched(instance, state)));
                    self.storage.checkpoints().complete(instance, chunks, fetched);
                    return Some(Report::StateFetched { instance });
                }
                Effect::DropCheckpoints { before } => self.storage.checkpoints().drop_before(before),
                Effect::Truncate { before } => self.storage.truncate(before),
                Effect::TakeCheckpoint { instance } => return Some(Report::TakeCheckpoint { instance }),
                Effect::StateDiffers { instance } => return Some(Report::StateDiffers { instance }),
                Effect::Tentative(tentative) => return Some(Report::Tentative(tentative)),
                Effect::Revoke { instance } => return Some(Report::Revoke(instance)),
                Effect::ViewInstalled { roster, .. } => return Some(Report::ViewInstalled(roster)),
                Effect::Misbehaved { replica, reason } => {
                    return Some(Report::Misbehaved { replica, reason });
                }
            }
        }
    }

    fn read(&mut self, peer: ReplicaId, from: InstanceNumber, bytes_max: usize) {
        let read = self.answer();
        let read = Box::new(move |decisions| read.send(Back::Decisions(peer, decisions)));
        self.storage.read_decisions(from, bytes_max, read);
    }

    fn take_logged(&mut self, instance: InstanceNumber) -> Option<Arc<Decision>> {
        while self.logged.front().is_some_and(|decision| decision.instance() < instance) {
            self.logged.pop_front();
        }
        let next = self.logged.front()?;
        if next.instance() == instance { self.logged.pop_front() } else { None }
    }
}
