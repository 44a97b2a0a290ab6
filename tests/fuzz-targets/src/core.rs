//! One core under arbitrary messages that look valid: rightly signed, in small ranges, so that they agree with each other
//! now and then. All other replicas may lie at once here, so agreement is not to be expected; what one replica
//! promises by itself is, across restarts too.

use crate::world::{self, ME};
use arbitrary::{Arbitrary, Unstructured};
use std::collections::BTreeMap;
use std::sync::Arc;
use steeldb_ordering::{
    AcceptAll, Claim, Core, Delivery, Effect, Event, InstanceNumber, Message, Now, Proposal, Record, Regency,
    Request, RequestKey, Restored, Roster, StartError, StopData, Votes,
};
use steeldb_types::{Digest, Position, ReplicaId, Timestamp};

/// Steps of one run.
const STEPS_MAX: usize = 60;

/// Effects of one event: far more than any should have.
const EFFECTS_MAX: usize = 10_000;

#[derive(Arbitrary, Debug)]
enum Step {
    Hear {
        from: u8,
        said: Said,
    },
    /// Several say the same.
    All {
        voters: u8,
        said: Common,
        regency: u8,
        batch: Batch,
    },
    Ask(Asked),
    Pass {
        milliseconds: u16,
    },
    LinkUp {
        peer: u8,
    },
    /// Records are durable from now on only when this comes again.
    HoldDisk(bool),
    Restart,
}

#[derive(Arbitrary, Debug)]
enum Common {
    Propose,
    Write,
    Accept,
    Stop,
    /// The leader proposes, then they write, then they accept.
    Round,
}

#[derive(Arbitrary, Debug)]
enum Said {
    Forward(Vec<Asked>),
    Propose {
        regency: u8,
        batch: Batch,
    },
    Write {
        regency: u8,
        batch: Batch,
    },
    Accept {
        regency: u8,
        batch: Batch,
        forged: u8,
    },
    Stop {
        regency: u8,
        requests: Vec<Asked>,
    },
    StopData {
        data: Stopped,
        values: Vec<Batch>,
    },
    Sync {
        regency: u8,
        stop_data: Vec<Stopped>,
        proposals: Vec<Batch>,
    },
    Fetch {
        from: u8,
        regency: u8,
    },
    Decisions {
        regency: u8,
        batches: Vec<Batch>,
        signers: u8,
        more: bool,
    },
    /// Anything that can be decoded.
    Bytes(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
struct Asked {
    session: u8,
    sequence: u8,
    forged: u8,
}

/// One of few batches for an instance near the running one.
#[derive(Arbitrary, Debug)]
struct Batch {
    ahead: u8,
    variant: u8,
}

#[derive(Arbitrary, Debug)]
struct Stopped {
    replica: u8,
    regency: u8,
    last: Vec<(Batch, u8)>,
    votes: Vec<Voted>,
}

#[derive(Arbitrary, Debug)]
struct Voted {
    batch: Batch,
    regency: u8,
    bound: bool,
    written: bool,
}

/// Where the core is: what is said is mostly about there.
struct Place {
    decided: u64,
    regency: Regency,
    leader: ReplicaId,
    roster: Arc<Roster>,
}

impl Place {
    /// Mostly the core's regency, sometimes a later or an earlier one, seldom of a view that nobody knows.
    fn regency(&self, byte: u8) -> Regency {
        let Regency { view, number } = self.regency;
        match byte % 16 {
            0..=10 => self.regency,
            11..=13 => Regency::new(view.0, number + u64::from(byte % 3)),
            14 => Regency::new(view.0, number.saturating_sub(1)),
            _ => Regency::new(view.0 + 1, number),
        }
    }

    /// Mostly a quorum; else the replicas whose bits are set.
    fn signers(&self, mask: u8) -> Vec<ReplicaId> {
        let quorum = self.roster.view().replicas().filter(|replica| *replica != ME).collect();
        let some = (0..5u16).filter(|replica| mask >> replica & 1 == 1).map(ReplicaId).collect();
        if mask < 192 { quorum } else { some }
    }
}

fn replica(byte: u8) -> ReplicaId {
    ReplicaId(u16::from(byte % 5))
}

impl Asked {
    fn request(&self, place: &Place) -> Arc<Request> {
        let sequence = place.decided + u64::from(self.sequence % 4);
        match self.session {
            192..=239 => return Arc::new(world::guest_request(self.session, u64::from(self.sequence % 3))),
            240.. => return Arc::new(world::change(&place.roster, self.sequence)),
            _ => {}
        }
        let mut request = world::request(u64::from(self.session % 3), sequence, vec![self.session % 2]);
        if let Request::Client { signature, .. } = &mut request
            && self.forged > 240
        {
            signature.0[0] ^= 1;
        }
        Arc::new(request)
    }
}

impl Batch {
    fn proposal(&self, place: &Place) -> Arc<Proposal> {
        let ahead = [1, 1, 1, 1, 2, 2, 3, 0][usize::from(self.ahead % 8)];
        let instance = place.decided + ahead;
        let request = |session| Arc::new(world::request(session, instance, vec![0]));
        let guest = |kind| vec![Arc::new(world::guest_request(kind, instance))];
        let requests = match self.variant % 8 {
            0 | 1 if self.variant >= 128 => guest(self.variant / 8),
            2 if self.variant >= 128 => vec![Arc::new(world::change(&place.roster, self.variant / 8))],
            0..=4 => vec![request(0)],
            5 => vec![request(1), request(2)],
            6 => vec![],
            _ => vec![request(0), request(0)],
        };
        let timestamp = 10 * instance as i64 - i64::from(self.variant == u8::MAX) * 1000;
        world::proposal(instance, timestamp, requests)
    }

    fn claim(&self, place: &Place, regency: u8) -> (InstanceNumber, Claim) {
        let proposal = self.proposal(place);
        (proposal.instance, Claim { regency: place.regency(regency), value: proposal.digest() })
    }
}

impl Stopped {
    fn data(&self, place: &Place) -> StopData {
        let proof = |(batch, mask): &(Batch, u8)| {
            let regency = Regency::new(place.regency.view.0, 0);
            world::proof(&batch.proposal(place), regency, &place.signers(*mask))
        };
        let last = self.last.iter().take(2).map(proof).collect();
        let votes = self.votes.iter().take(3).map(|voted| voted.votes(place)).collect();
        StopData { replica: replica(self.replica), regency: place.regency(self.regency), last, votes }
    }
}

impl Voted {
    fn votes(&self, place: &Place) -> Votes {
        let (instance, claim) = self.batch.claim(place, self.regency);
        let bound = self.bound.then_some(claim);
        Votes { instance, bound, written: self.written.then_some(claim).into_iter().collect() }
    }
}

impl Said {
    /// Who says it: what only the leader may say is mostly the leader's.
    fn speaker(&self, place: &Place, from: u8) -> ReplicaId {
        match self {
            Said::Propose { .. } | Said::Sync { .. } if from < 192 => place.leader,
            _ => replica(from),
        }
    }

    fn message(&self, place: &Place, from: ReplicaId) -> Option<Message> {
        let requests = |asked: &[Asked]| asked.iter().take(4).map(|asked| asked.request(place)).collect();
        let proposals =
            |batches: &[Batch]| batches.iter().take(3).map(|batch| batch.proposal(place)).collect();
        let stopped = |data: &Stopped| world::stop_data(data.data(place));
        Some(match self {
            Said::Forward(asked) => Message::Forward { requests: requests(asked) },
            Said::Propose { regency, batch } => {
                Message::Propose { regency: place.regency(*regency), proposal: batch.proposal(place) }
            }
            Said::Write { regency, batch } => {
                let (instance, claim) = batch.claim(place, *regency);
                Message::Write { instance, claim }
            }
            Said::Accept { regency, batch, forged } => {
                let (instance, claim) = batch.claim(place, *regency);
                let mut signature = world::accept(instance, &claim, from);
                signature.0[9] ^= u8::from(*forged > 240);
                Message::Accept { instance, claim, signature }
            }
            Said::Stop { regency, requests: asked } => {
                Message::Stop { regency: place.regency(*regency), requests: requests(asked) }
            }
            Said::StopData { data, values } => {
                Message::StopData { data: stopped(data), values: proposals(values) }
            }
            Said::Sync { regency, stop_data, proposals: batches } => Message::Sync {
                regency: place.regency(*regency),
                stop_data: stop_data.iter().take(4).map(stopped).collect(),
                proposals: proposals(batches),
            },
            Said::Fetch { from, regency } => {
                let from = InstanceNumber(u64::from(*from));
                Message::FetchDecisions { from, regency: place.regency(*regency) }
            }
            Said::Decisions { regency, batches, signers: mask, more } => {
                let (regency, signers) = (place.regency(*regency), place.signers(*mask));
                let decision = |batch: &Batch| world::decision(batch.proposal(place), regency, &signers);
                let decisions = batches.iter().take(3).map(decision).collect();
                Message::Decisions { decisions, more: *more }
            }
            Said::Bytes(bytes) => return Message::decode(bytes).ok(),
        })
    }
}

/// The core, its disk, and what it has promised.
struct World {
    window: usize,
    core: Core,
    records: Vec<Record>,
    durable: usize,
    /// Records appended before this life.
    before: usize,
    disk_holds: bool,
    now_us: u64,
    written: BTreeMap<(InstanceNumber, Regency), Digest>,
    accepted: BTreeMap<(InstanceNumber, Regency), Digest>,
    delivered: InstanceNumber,
    position: Position,
    executed: BTreeMap<RequestKey, Position>,
}

pub(crate) fn run(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let window = if bool::arbitrary(&mut input).unwrap_or_default() { 3 } else { 1 };
    let mut world = World::new(window);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            return;
        }
        let Ok(step) = Step::arbitrary(&mut input) else { return };
        if !world.step(&step) {
            return;
        }
    }
}

impl World {
    fn new(window: usize) -> World {
        World {
            window,
            core: Core::new(world::config(window), Restored::nothing()).expect("a sound configuration"),
            records: Vec::new(),
            durable: 0,
            before: 0,
            disk_holds: false,
            now_us: 0,
            written: BTreeMap::new(),
            accepted: BTreeMap::new(),
            delivered: InstanceNumber(0),
            position: Position(0),
            executed: BTreeMap::new(),
        }
    }

    /// False at the end.
    fn step(&mut self, step: &Step) -> bool {
        match step {
            Step::Hear { from, said } => {
                let place = &self.place();
                let from = said.speaker(place, *from);
                if let Some(message) = said.message(place, from) {
                    self.event(Event::Message { from, message });
                }
            }
            Step::All { voters, said, regency, batch } => self.all(*voters, said, *regency, batch),
            Step::Ask(asked) => self.event(Event::Request(asked.request(&self.place()))),
            Step::Pass { milliseconds } => {
                self.now_us += 1000 * u64::from(*milliseconds);
                self.event(Event::Tick);
            }
            Step::LinkUp { peer } => self.event(Event::LinkUp(replica(*peer))),
            Step::HoldDisk(hold) => {
                self.disk_holds = *hold;
                self.sync();
            }
            Step::Restart => return self.restart(),
        }
        true
    }

    fn all(&mut self, voters: u8, said: &Common, regency: u8, batch: &Batch) {
        // Signed for the place as it is before anything of it arrives.
        let place = &self.place();
        let regency = place.regency(regency);
        let proposal = batch.proposal(place);
        let (instance, claim) = (proposal.instance, Claim { regency, value: proposal.digest() });
        if matches!(said, Common::Propose | Common::Round) {
            let message = Message::Propose { regency, proposal };
            self.event(Event::Message { from: place.leader, message });
        }
        for round in [Common::Write, Common::Accept, Common::Stop] {
            let wanted = std::mem::discriminant(&round) == std::mem::discriminant(said);
            if !wanted && (!matches!(said, Common::Round) || matches!(round, Common::Stop)) {
                continue;
            }
            for from in place.signers(voters) {
                let signature = world::accept(instance, &claim, from);
                let message = match round {
                    Common::Write => Message::Write { instance, claim },
                    Common::Accept => Message::Accept { instance, claim, signature },
                    _ => Message::Stop { regency: place.regency.next(), requests: vec![] },
                };
                self.event(Event::Message { from, message });
            }
        }
    }

    fn place(&self) -> Place {
        let decided = self.core.last_decided().0;
        let (regency, leader) = (self.core.regency(), self.core.leader());
        Place { decided, regency, leader, roster: Arc::clone(self.core.roster()) }
    }

    fn now(&self) -> Now {
        Now { monotonic_us: self.now_us, wall: Timestamp(100) }
    }

    fn event(&mut self, event: Event) {
        self.core.handle(self.now(), event, &AcceptAll);
        self.effects();
    }

    fn sync(&mut self) {
        if !self.disk_holds {
            self.durable = self.records.len();
            let upto = (self.durable - self.before) as u64;
            self.core.handle(self.now(), Event::Persisted { upto }, &AcceptAll);
            self.effects();
        }
    }

    fn effects(&mut self) {
        let mut count = 0;
        while let Some(effect) = self.core.poll_effect() {
            count += 1;
            assert!(count < EFFECTS_MAX, "effects without end");
            match effect {
                Effect::Persist { record, .. } => {
                    assert_eq!(Record::decode(&record.encode()).as_ref(), Ok(&record));
                    self.records.push(record);
                    if !self.disk_holds {
                        self.durable = self.records.len();
                        let upto = (self.durable - self.before) as u64;
                        self.core.handle(self.now(), Event::Persisted { upto }, &AcceptAll);
                    }
                }
                Effect::Broadcast { message } => self.said(&message),
                Effect::Send { to, message } => {
                    assert_ne!(to, ME, "a message to itself");
                    self.said(&message);
                }
                Effect::Deliver(delivery) => self.deliver(&delivery),
                _ => {}
            }
        }
    }

    /// One value per instance and regency, whatever was forgotten in between.
    fn said(&mut self, message: &Message) {
        let (known, instance, claim) = match message {
            Message::Write { instance, claim } => (&mut self.written, *instance, *claim),
            Message::Accept { instance, claim, .. } => (&mut self.accepted, *instance, *claim),
            _ => return,
        };
        let value = known.entry((instance, claim.regency)).or_insert(claim.value);
        assert_eq!(*value, claim.value, "two votes in {instance}, {}", claim.regency);
    }

    fn deliver(&mut self, delivery: &Delivery) {
        assert_eq!(delivery.instance, self.delivered.next(), "a gap in the order");
        self.delivered = delivery.instance;
        let proof = self.core.views().verify(&delivery.proof);
        assert!(proof.is_ok(), "delivered without proof: {proof:?}");
        for (position, request) in &delivery.requests {
            assert_eq!(*position, self.position.next(), "a gap in the positions");
            self.position = *position;
            let RequestKey::Client(_) = request.key() else { continue };
            let before = self.executed.insert(request.key(), *position);
            assert_eq!(before, None, "{:?} was delivered twice", request.key());
        }
    }

    /// What was not durable is gone; all that was is delivered again. Where all others lie an illegal change of the membership
    /// may be decided; who finds one in its log does not start.
    fn restart(&mut self) -> bool {
        self.records.truncate(self.durable);
        self.before = self.records.len();
        let restored = Restored::new(InstanceNumber(0), self.records.clone());
        self.core = match Core::new(world::config(self.window), restored) {
            Err(StartError::Config(_)) => return false,
            core => core.expect("its own records"),
        };
        (self.delivered, self.position) = (InstanceNumber(0), Position(0));
        self.executed.clear();
        self.effects();
        true
    }
}
