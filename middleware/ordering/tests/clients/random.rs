//! Random schedules, each a function of its seed: guests join, work, leave, lie and repeat themselves, while messages are
//! lost and come in any order, replicas stop and start, and a leader proposes what it should not.

use crate::cluster::{Bug, Cluster, N, SECOND_US, account, confirm, join, key, leave, request};
use crate::model::Model;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use steeldb_ordering::{Account, Message, Proposal, Registered, Request, RequestKey, Step};
use steeldb_types::{ClientId, Digest};
use steeldb_wire::auth::PublicKey;

const SEEDS: u64 = 40;
const ACTIONS: usize = 300;
const GUESTS: u8 = 7;

#[test]
fn guests_come_and_go_as_the_model_says() {
    let mut seen = Seen::default();
    for seed in 0..SEEDS {
        match Schedule::new(seed, None).run() {
            Ok(more) => seen.add(&more),
            Err(reason) => panic!("seed {seed}: {reason}"),
        }
    }
    let enough = seen.joins > 100 && seen.cleared > 5 && seen.void > 10 && seen.regencies > 50;
    assert!(enough, "{seen:?} in {SEEDS} schedules is too little to tell anything");
}

#[cfg(feature = "planted-bugs")]
mod planted {
    use super::Schedule;
    use steeldb_ordering::PlantedBug;

    /// Looks for a seed whose schedule shows the bug by `sign`.
    fn assert_caught(bug: PlantedBug, sign: &str) {
        let caught = (0..200).find_map(|seed| {
            let failure = Schedule::new(seed, Some(bug)).run().err()?;
            failure.contains(sign).then_some((seed, failure))
        });
        let (seed, failure) = caught.unwrap_or_else(|| panic!("{bug:?} was not caught"));
        println!("{bug:?} after {} seeds: {failure}", seed + 1);
    }

    #[test]
    fn any_challenge_that_joins_is_caught() {
        assert_caught(PlantedBug::ChallengeNotChecked, "WrongChallenge");
    }

    #[test]
    fn a_forged_leave_is_caught() {
        assert_caught(PlantedBug::ForgedLeaveAccepted, "NotJoined");
    }

    #[test]
    fn a_right_that_outlives_its_client_is_caught() {
        assert_caught(PlantedBug::WithdrawnRightExecuted, "rights");
    }
}

/// How much happened.
#[derive(Default, Debug)]
struct Seen {
    joins: u32,
    cleared: u32,
    void: u32,
    regencies: u64,
}

impl Seen {
    fn add(&mut self, other: &Seen) {
        self.joins += other.joins;
        self.cleared += other.cleared;
        self.void += other.void;
        self.regencies += other.regencies;
    }
}

struct Schedule {
    rng: ChaCha8Rng,
    cluster: Cluster,
    /// Everything that was ever asked for, to be asked for again, and for a leader to propose.
    asked: Rc<RefCell<Vec<Arc<Request>>>>,
    sequence: u64,
    lies: bool,
    down: Option<usize>,
}

fn account_of(guest: u8) -> Account {
    match guest % 3 {
        0 => account("a", 1),
        1 => account("b", 2),
        _ => account("c", 1),
    }
}

impl Schedule {
    fn new(seed: u64, bug: Bug) -> Schedule {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut cluster = Cluster::new(*[1, 1, 2, 4].choose(&mut rng).unwrap(), bug);
        let loss = *[0.0, 0.02, 0.2].choose(&mut rng).unwrap();
        cluster.chaos = Some((ChaCha8Rng::seed_from_u64(seed + 1_000_000), loss));
        let asked = Rc::new(RefCell::new(Vec::new()));
        let lies = rng.random_bool(0.5);
        if lies {
            cluster.twist = forging_leader(ChaCha8Rng::seed_from_u64(seed + 2_000_000), Rc::clone(&asked));
        }
        Schedule { rng, cluster, asked, sequence: 0, lies, down: None }
    }

    fn run(mut self) -> Result<Seen, String> {
        for _ in 0..ACTIONS {
            self.act();
            let steps = self.rng.random_range(0..150);
            self.cluster.steps(steps);
        }
        self.heal()?;
        let seen = self.judge()?;
        self.accusations()?;
        Ok(seen)
    }

    fn act(&mut self) {
        let guest = self.rng.random_range(1..=GUESTS);
        let own = key(guest);
        let known = self.known();
        let number = known.numbers.get(&own.public()).copied();
        let some_number = known.numbers.values().copied().collect::<Vec<_>>().choose(&mut self.rng).copied();
        match self.rng.random_range(0..20) {
            0..=4 => {
                let ahead_us = *[5, 30, 30, 100].choose(&mut self.rng).unwrap() * SECOND_US;
                self.ask(join(&own, account_of(guest), self.cluster.now_us + ahead_us));
            }
            5..=8 => {
                let challenge = known.challenges.get(&own.public()).copied();
                let wrong = self.rng.random_bool(0.2);
                self.ask(confirm(&own, challenge.filter(|_| !wrong).unwrap_or(Digest([9; 32]))));
            }
            9..=11 => {
                if let Some(number) = number {
                    self.sequence += 1;
                    self.ask(request(&own, number, self.sequence));
                }
            }
            12 => {
                // What leaves and what is asked for are in flight together.
                if let Some(number) = number {
                    self.ask(leave(&own, number));
                    let steps = self.rng.random_range(0..4);
                    self.cluster.steps(steps);
                    self.sequence += 1;
                    self.ask(request(&own, number, self.sequence));
                }
            }
            13 => {
                if let Some(number) = some_number {
                    self.ask(leave(&own, number));
                    self.sequence += 1;
                    self.ask(request(&own, number, self.sequence));
                }
            }
            14 => {
                let again = self.asked.borrow().choose(&mut self.rng).cloned();
                if let Some(again) = again {
                    self.ask(again);
                }
            }
            15 | 16 => {
                let us = *[SECOND_US / 4, SECOND_US, 10 * SECOND_US].choose(&mut self.rng).unwrap();
                self.cluster.pass(us);
            }
            17 => self.cluster.pass(110 * SECOND_US),
            18 => match self.down.take() {
                Some(at) => self.cluster.start(at),
                None => {
                    let at = self.rng.random_range(0..N);
                    self.cluster.stop(at);
                    self.down = Some(at);
                }
            },
            _ => {
                let at = self.rng.random_range(0..N);
                let cut = self.cluster.cut_off.is_empty() && self.down.is_none();
                self.cluster.cut_off = if cut { BTreeSet::from([at]) } else { BTreeSet::new() };
            }
        }
    }

    /// Some replicas hear of a request, or all.
    fn ask(&mut self, request: Arc<Request>) {
        let to: Vec<usize> = (0..N).filter(|_| self.rng.random_bool(0.85)).collect();
        self.cluster.submit(&to, &request);
        self.asked.borrow_mut().push(request);
    }

    /// What guests have been told so far.
    fn known(&self) -> Known {
        let mut known = Known::default();
        let deliveries = self.cluster.nodes.iter().max_by_key(|node| node.delivered.len());
        let made =
            deliveries.into_iter().flat_map(|node| node.delivered.values()).flat_map(|d| &d.registrations);
        for outcome in made {
            let RequestKey::Registration(key, step) = outcome.request.key() else { continue };
            match outcome.registered {
                Registered::Challenge(challenge) => {
                    known.challenges.insert(key, challenge);
                }
                Registered::Joined(client) if step == Step::Confirm => {
                    known.numbers.insert(key, client);
                }
                _ => {}
            }
        }
        known
    }

    /// No more faults: everything that waits is settled, and a newcomer joins.
    fn heal(&mut self) -> Result<(), String> {
        self.cluster.chaos = None;
        self.cluster.cut_off.clear();
        self.cluster.twist = Box::new(|_, message| message);
        if let Some(at) = self.down.take() {
            self.cluster.start(at);
        }
        self.cluster.pass(200 * SECOND_US);
        for (at, node) in self.cluster.nodes.iter().enumerate() {
            let waiting = node.core.as_ref().map_or(0, |core| core.pending_requests());
            if waiting > 0 {
                return Err(format!("liveness: {waiting} requests wait at {at}"));
            }
            if node.differs {
                return Err(format!("agreement: the state of {at} differs"));
            }
        }
        let newcomer = key(99);
        let made = self.made_of(&join(&newcomer, account("z", 1), self.cluster.now_us + 50 * SECOND_US))?;
        let Registered::Challenge(challenge) = made else {
            return Err(format!("liveness: a newcomer is told {made:?}"));
        };
        match self.made_of(&confirm(&newcomer, challenge))? {
            Registered::Joined(_) => Ok(()),
            made => Err(format!("liveness: a newcomer is told {made:?}")),
        }
    }

    /// Waits until all replicas have made something of a registration: some may have to fetch what they missed.
    fn made_of(&mut self, request: &Arc<Request>) -> Result<Registered, String> {
        self.cluster.submit(&[0, 1, 2, 3], request);
        for _ in 0..15 {
            self.cluster.pass(SECOND_US);
            let made = self.cluster.nodes.iter().filter_map(|node| {
                let made = node.delivered.values().flat_map(|delivery| &delivery.registrations);
                made.into_iter().find(|made| made.request == *request)
            });
            let made: Vec<_> = made.collect();
            if made.len() == N {
                return Ok(made[0].registered.clone());
            }
        }
        Err(format!("liveness: {:?} is not delivered everywhere", request.key()))
    }

    fn judge(&self) -> Result<Seen, String> {
        let decisions = self.cluster.decisions(&[0, 1, 2, 3]);
        let mut model = Model::default();
        for (instance, decision) in &decisions {
            let mut deliveries = self.cluster.nodes.iter().filter_map(|node| node.delivered.get(instance));
            let Some(first) = deliveries.next() else { return Err(format!("nobody delivered {instance}")) };
            for other in deliveries {
                if (&other.requests, &other.registrations) != (&first.requests, &first.registrations) {
                    return Err(format!("agreement: instance {instance}"));
                }
            }
            model.judge(decision, first)?;
        }
        let regencies =
            self.cluster.nodes.iter().filter_map(|node| Some(node.core.as_ref()?.regency().number));
        let regencies = regencies.max().unwrap_or_default();
        Ok(Seen { joins: model.joins, cleared: model.cleared, void: model.void, regencies })
    }

    fn accusations(&self) -> Result<(), String> {
        for (at, node) in self.cluster.nodes.iter().enumerate() {
            let wrongly = node.accused.iter().find(|(replica, _)| replica.0 != 0 || !self.lies);
            if let Some((replica, reason)) = wrongly {
                return Err(format!("accusations: {at} accuses {replica}: {reason}"));
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Known {
    challenges: BTreeMap<PublicKey, Digest>,
    numbers: BTreeMap<PublicKey, ClientId>,
}

/// As a leader, replica 0 puts old requests of anyone into its batches now and then: the same to all, so that they would
/// be decided if they were believed.
fn forging_leader(
    mut rng: ChaCha8Rng,
    asked: Rc<RefCell<Vec<Arc<Request>>>>,
) -> Box<dyn FnMut(usize, Message) -> Message> {
    let mut said: BTreeMap<Digest, Arc<Proposal>> = BTreeMap::new();
    Box::new(move |at, message| match message {
        Message::Propose { regency, proposal } if at == 0 => {
            let forged = said.entry(proposal.digest()).or_insert_with(|| {
                let mut forged = (*proposal).clone();
                if rng.random_bool(0.3) {
                    forged.requests.extend(asked.borrow().choose(&mut rng).cloned());
                }
                Arc::new(forged)
            });
            Message::Propose { regency, proposal: Arc::clone(forged) }
        }
        other => other,
    })
}
