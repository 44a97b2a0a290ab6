//! The world: a queue of happenings in virtual time, and what each does.

mod ahead;
mod backends;
mod catching_up;
mod clients;
mod links;
mod ordering;
mod replicas;
mod schedule;

use crate::adversaries::{self, Adversary, Stage};
use crate::client::Client;
use crate::history::History;
use crate::node::{Lane, Node};
use crate::scenario::{Scenario, Step};
use crate::sequencer::Sequencer;
use crate::store::{Output, Pid, Store, WriteSet};
use crate::{Failure, Outcome, Simulate as _, TRACE, Trace, invariants};
use links::{End, Frame, Links};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::BTreeMap;
use steeldb_ordering::{Request, Roster};
use steeldb_replica::scheduler::{AnchorId, ClientRights, Event};
use steeldb_types::{ClientId, ReplicaId, SessionKey, Slot, TxId, View};
use steeldb_wire::auth::SecretKey;
use steeldb_wire::transaction::{SignedAccusation, Stream, VoteBundle};

/// How long after the faults everything must have ended, virtual microseconds.
const LIVENESS_BOUND_US: u64 = 400_000_000;
/// How often the history is looked at, virtual microseconds.
const INSPECTION_US: u64 = 1_000_000;
/// The time-outs: short, so that faults are long beside them.
pub(crate) const VOTE_TIMEOUT_US: u64 = 1_000_000;
pub(crate) const IDLE_TIMEOUT_US: u64 = 4_000_000;
/// The wall clock at virtual time 0, microseconds since 1970.
pub(crate) const EPOCH_US: i64 = 1_700_000_000_000_000;
/// The one database, and the role of all clients.
pub(crate) const DATABASE: &str = "app";
pub(crate) const ROLE: &str = "alice";

/// What replicas say to each other.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "most are messages of the core or votes")]
pub(crate) enum PeerMessage {
    Ordering(steeldb_ordering::Message),
    Votes(VoteBundle),
    Stream(Stream),
    Accusation(SignedAccusation),
    FetchWriteSet { tx: TxId, slot: Slot },
    WriteSet { tx: TxId, write_set: Option<WriteSet> },
}

/// Something that happens at a time.
#[allow(clippy::large_enum_variant, reason = "nearly all are messages")]
enum Happening {
    Arrive {
        from: End,
        to: End,
        epoch: u64,
        frame: Frame,
    },
    LinkUp(End, End),
    Break(End, End),
    Cut(Vec<usize>),
    Mend,
    /// Something within a replica; void in another life.
    Within {
        at: usize,
        life: u32,
        what: Within,
    },
    Crash {
        at: usize,
        store_first: bool,
    },
    Start {
        at: usize,
    },
    KillBackend {
        at: usize,
    },
    Tamper {
        at: usize,
    },
    /// A request reaches whoever orders.
    Sequence(Request),
    /// What has reached whoever orders is a batch.
    CloseBatch,
    /// A client's next move, unless it has moved on.
    Act {
        client: usize,
        move_number: u64,
    },
    /// The administrator moves the master.
    Move {
        to: ReplicaId,
    },
    /// A client looks at its clock.
    Alarm {
        client: usize,
        alarm: u64,
    },
    Heal,
    Inspect,
}

/// What happens within a replica.
enum Within {
    Tick,
    Wake,
    CoreTick,
    /// The agent notices that its store is down.
    Stop,
    Persisted(u64),
    /// The order is known up to here.
    Deliver(usize),
    /// A batch of the ideal order is bound; and that is durable.
    Bind(usize),
    Bound(usize),
    /// It is bound in another regency, to what is decided.
    BoundAgain(usize),
    Opened {
        session: SessionKey,
        pid: Pid,
    },
    Step(Pid),
    Deadlock {
        pid: Pid,
        since: u64,
    },
    Output {
        session: SessionKey,
        pid: Pid,
        output: Output,
    },
    Decoded {
        gid: String,
        write_set: WriteSet,
    },
    TakeAnchor(AnchorId),
    Commit {
        tx: TxId,
        gid: String,
    },
    Rollback {
        gid: String,
    },
    Blockers {
        tx: TxId,
        pid: Pid,
    },
    /// The first rows that a peer sent are made.
    Apply {
        tries: u32,
    },
    Event(Event),
}

pub(crate) struct World<'a> {
    scenario: &'a Scenario,
    rng: ChaCha8Rng,
    /// What adversaries draw from.
    adversary_rng: ChaCha8Rng,
    now_us: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    queued: u64,
    view: View,
    roster: Roster,
    rights: BTreeMap<ClientId, ClientRights>,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    links: Links,
    sequencer: Sequencer,
    /// Who moves the master.
    administrator: SecretKey,
    /// How often each step was reached where a crash waits for it.
    reached: BTreeMap<(usize, Step), u32>,
    healed: bool,
    history: History,
    trace: Trace,
    steps: u64,
    failure: Option<(&'static str, String)>,
    /// How many commits clients were told of.
    answered: u32,
}

impl<'a> World<'a> {
    /// The ways in which a replica is faulty, one after the other; none of a correct one.
    fn each_adversary(&mut self, at: usize, mut act: impl FnMut(&mut dyn Adversary, &mut Stage<'_>)) {
        let node = &mut self.nodes[at];
        let term = node.term();
        for adversary in &mut node.adversaries {
            let mut stage = Stage {
                key: &node.key,
                rng: &mut self.adversary_rng,
                order: &self.history.order,
                me: node.id,
                term,
            };
            act(adversary.as_mut(), &mut stage);
        }
    }

    pub(crate) fn new(scenario: &'a Scenario, explain: bool) -> Result<World<'a>, String> {
        let stream = |stream| {
            let mut rng = ChaCha8Rng::seed_from_u64(scenario.seed);
            rng.set_stream(stream);
            rng
        };
        let (rng, mut adversary_rng, mut client_rng) = (stream(1), stream(2), stream(3));
        let keys: Vec<SecretKey> =
            (0..scenario.n).map(|i| SecretKey::from_seed(&[i as u8 + 1; 32])).collect();
        let public: Vec<_> = keys.iter().map(SecretKey::public).collect();
        let view = View::of_size(scenario.n).map_err(|error| error.to_string())?;
        let roster = Roster::of_keys(view.clone(), public).map_err(|error| error.to_string())?;
        let clients = Client::all(scenario, &view, &mut client_rng);
        let rights: BTreeMap<ClientId, ClientRights> = clients.iter().map(Client::rights).collect();
        let rows = crate::workload::rows(scenario);
        let mut nodes = Vec::new();
        for (id, key) in scenario.replicas().zip(keys) {
            let faults = scenario.faults(id);
            let liars =
                faults.iter().filter_map(|fault| adversaries::of(*fault, scenario.n, &mut adversary_rng));
            let slow = scenario.network.slow.filter(|(slow, _)| *slow == id);
            nodes.push(Node {
                id,
                key,
                faulty: !faults.is_empty(),
                adversaries: liars.collect(),
                slowness: slow.map_or(1, |(_, times)| times),
                store: Store::new(u32::from(id.0), &rows),
                store_down: false,
                journal: 0,
                disk: Default::default(),
                write_sets: BTreeMap::new(),
                life: 0,
                running: None,
            });
        }
        let administrator = SecretKey::from_seed(&[99; 32]);
        let sequencer = Sequencer::new(rights.clone(), &roster, administrator.public());
        #[cfg(feature = "planted-bugs")]
        let sequencer = crate::planted::judge(sequencer, scenario);
        Ok(World {
            links: Links::default(),
            sequencer,
            administrator,
            history: History::new(scenario, rows),
            scenario,
            rng,
            adversary_rng,
            now_us: 0,
            queue: BTreeMap::new(),
            queued: 0,
            view,
            roster,
            rights,
            nodes,
            clients,
            reached: BTreeMap::new(),
            healed: false,
            trace: Trace::new(TRACE, explain),
            steps: 0,
            failure: None,
            answered: 0,
        })
    }

    /// Runs to the end, or for so many events.
    pub(crate) fn run(mut self, steps_max: Option<u64>) -> Outcome {
        self.trace.line(0, &format!("{:?}", self.scenario));
        self.schedule();
        let last_us = self.scenario.faults_us + LIVENESS_BOUND_US;
        let mut complete = true;
        while self.failure.is_none() && !(self.healed && self.is_done()) {
            let Some(next) = self.queue.first_entry().filter(|next| next.key().0 <= last_us) else { break };
            if steps_max.is_some_and(|max| self.steps >= max) {
                complete = false;
                break;
            }
            let ((at_us, _), happening) = next.remove_entry();
            self.now_us = at_us;
            self.steps += 1;
            self.happen(happening);
        }
        self.judge(complete)
    }

    fn at(&mut self, at_us: u64, happening: Happening) {
        self.queued += 1;
        self.queue.insert((at_us.max(self.now_us), self.queued), happening);
    }

    fn note(&mut self, line: &str) {
        self.trace.line(self.now_us, line);
    }

    fn fail(&mut self, invariant: &'static str, what: String) {
        self.failure.get_or_insert((invariant, what));
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrive { from, to, epoch, frame } => self.arrive(from, to, epoch, frame),
            Happening::LinkUp(a, b) => self.link_up(a, b),
            Happening::Break(a, b) => self.break_link(a, b),
            Happening::Cut(group) => self.cut(&group),
            Happening::Mend => self.mend(),
            Happening::Within { at, life, what } => {
                if self.nodes[at].life == life && self.nodes[at].is_up() {
                    self.within(at, what);
                }
            }
            Happening::Crash { at, store_first } => self.crash(at, store_first),
            Happening::Start { at } => self.start(at),
            Happening::KillBackend { at } => self.kill_backend(at),
            Happening::Tamper { at } => self.tamper(at),
            Happening::Sequence(request) => self.sequence(&request),
            Happening::CloseBatch => self.close_batch(),
            Happening::Act { client, move_number } => self.act(client, move_number),
            Happening::Move { to } => self.move_master(to),
            Happening::Alarm { client, alarm } => self.alarm(client, alarm),
            Happening::Heal => self.heal(),
            Happening::Inspect => self.inspect(),
        }
    }

    fn within(&mut self, at: usize, what: Within) {
        match what {
            Within::Tick => self.tick(at),
            Within::Wake => self.wake(at),
            Within::CoreTick => self.core_tick(at),
            Within::Stop => self.crash(at, false),
            Within::Persisted(upto) => self.persisted(at, upto),
            Within::Deliver(upto) => self.deliver_upto(at, upto),
            Within::Bind(batch) => self.on_lane(at, Lane::Disk, 3_000, Within::Bound(batch)),
            Within::Bound(batch) => self.batch_bound(at, batch),
            Within::BoundAgain(batch) => self.batch_bound_again(at, batch),
            Within::Opened { session, pid } => self.backend_opened(at, session, pid),
            Within::Step(pid) => self.step_backend(at, pid),
            Within::Deadlock { pid, since } => self.look_for_deadlock(at, pid, since),
            Within::Output { session, pid, output } => self.output(at, session, pid, output),
            Within::Decoded { gid, write_set } => self.decoded(at, gid, write_set),
            Within::TakeAnchor(anchor) => self.take_anchor(at, anchor),
            Within::Commit { tx, gid } => self.commit(at, tx, &gid),
            Within::Rollback { gid } => self.rollback(at, &gid),
            Within::Blockers { tx, pid } => self.blockers(at, tx, pid),
            Within::Apply { tries } => self.apply(at, tries),
            Within::Event(event) => self.event(at, event),
        }
    }

    /// Sets something within a replica for later.
    fn later(&mut self, at: usize, after_us: u64, what: Within) {
        let life = self.nodes[at].life;
        self.at(self.now_us + after_us, Happening::Within { at, life, what });
    }

    /// How long something that takes a replica up to `most_us` takes now.
    fn takes(&mut self, at: usize, most_us: u64) -> u64 {
        let slowness = if self.healed { 1 } else { self.nodes[at].slowness };
        self.rng.random_range(10..=most_us) * slowness
    }

    /// Looks whether all is safe, so that a run that is not need not go on.
    fn inspect(&mut self) {
        for (name, check) in invariants::SAFETY {
            if let Err(what) = check(&self.history) {
                self.fail(name, what);
            }
        }
        self.at(self.now_us + INSPECTION_US, Happening::Inspect);
    }

    /// The faults end; liars stay liars.
    fn heal(&mut self) {
        self.note("healed");
        self.healed = true;
        self.mend();
        for at in 0..self.nodes.len() {
            self.nodes[at].slowness = 1;
            self.start(at);
        }
        self.send_faulty_clients_away();
    }

    fn is_done(&self) -> bool {
        self.clients.iter().all(Client::is_done) && self.unsettled().is_none()
    }

    /// What is still open somewhere, when it should not be.
    fn unsettled(&self) -> Option<String> {
        if let Some((index, client)) = self.clients.iter().enumerate().find(|(_, client)| !client.is_done()) {
            return Some(format!("client {index} is not done: {}", client.state()));
        }
        if let Some(index) = self.clients.iter().position(Client::probe_failed) {
            return Some(format!("client {index} cannot commit any more"));
        }
        for node in self.nodes.iter().filter(|node| !node.faulty) {
            let id = node.id;
            let Some(running) = &node.running else { return Some(format!("{id} is down")) };
            let sizes = running.scheduler.sizes();
            if !sizes.is_settled() {
                return Some(format!("{id}: {sizes:?}"));
            }
            if let Some((gid, write_set)) = node.store.prepared().next() {
                return Some(format!("{id} holds {} prepared as {gid}", write_set.tx));
            }
            if node.store.backends() > 0 {
                return Some(format!("{id} has {} backends", node.store.backends()));
            }
            let ordered = self.history.order.len() as u64;
            if running.scheduler.applied().0 != ordered {
                let applied = running.scheduler.applied();
                return Some(format!("{id} has applied up to {applied} of {ordered}"));
            }
        }
        None
    }

    fn judge(mut self, complete: bool) -> Outcome {
        for node in self.nodes.iter().filter(|node| !node.faulty) {
            self.history.contents.insert(node.id, node.store.rows.contents());
        }
        for (name, check) in invariants::SAFETY {
            if let Err(what) = check(&self.history) {
                self.fail(name, what);
            }
        }
        if complete && self.failure.is_none() {
            if let Some(what) = self.unsettled() {
                self.fail("liveness", what);
            }
            for (name, check) in invariants::END {
                if let Err(what) = check(&self.history) {
                    self.fail(name, what);
                }
            }
        }
        if let Some((invariant, what)) = &self.failure {
            self.trace.line(self.now_us, &format!("{invariant} broken: {what}"));
        }
        Outcome {
            counts: self.history.counts(),
            steps: self.steps,
            ended_us: self.now_us,
            trace: self.trace,
            failure: self.failure.map(|(invariant, what)| Failure {
                reproduce: self.scenario.reproduce(),
                steps: Some(self.steps),
                invariant,
                what,
            }),
        }
    }
}
