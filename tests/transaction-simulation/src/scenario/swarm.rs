//! Swarm testing: a seed switches each kind of trouble on or off by itself, then draws its strength.

use super::{
    CLIENT_FAULTS, ClientFault, Clients, CrashAt, FAULTS, Fault, Kind, MASTER, Network, Power, STEPS,
    Scenario,
};
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use steeldb_types::{Execution, ReplicaId};

pub(super) fn draw(seed: u64) -> Scenario {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let cores = rng.random_bool(0.08);
    let n = if rng.random_bool(0.06) && !cores { 7 } else { 4 };
    let calm = rng.random_bool(0.15);
    let mut scenario = Scenario {
        seed,
        kind: Kind::Any,
        n,
        cores,
        execution: if rng.random_bool(0.75) { Execution::Speculative } else { Execution::Deferred },
        tentative: false,
        permits: pick(&mut rng, &[1, 2, 3, 8, 8]),
        faults_us: rng.random_range(1_500_000..=6_000_000),
        faulty: Vec::new(),
        moves: 0,
        network: network(&mut rng, calm, n),
        power: power(&mut rng, calm, n),
        clients: clients(&mut rng),
        #[cfg(feature = "planted-bugs")]
        replica_bug: None,
        #[cfg(feature = "planted-bugs")]
        client_bug: None,
    };
    scenario.faulty = faulty(&mut rng, &scenario);
    scenario.clients.eager = rng.random_bool(0.5);
    scenario.tentative = rng.random_bool(0.5);
    if !calm && rng.random_bool(0.15) {
        scenario.power.at_answer = Some(rng.random_range(1..=6));
    }
    scenario.moves = count(&mut rng, 0.3, 4);
    scenario
}

fn pick<T: Copy>(rng: &mut ChaCha8Rng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

fn count(rng: &mut ChaCha8Rng, chance: f64, most: u32) -> u32 {
    if rng.random_bool(chance) { rng.random_range(1..=most) } else { 0 }
}

fn network(rng: &mut ChaCha8Rng, calm: bool, n: u16) -> Network {
    let some = if calm { 0.0 } else { 1.0 };
    Network {
        delay_max_us: pick(rng, &[1_000, 5_000, 20_000, 100_000]),
        breaks: count(rng, 0.4 * some, 6),
        partitions: count(rng, 0.2 * some, 2),
        slow: rng.random_bool(0.25).then(|| (ReplicaId(rng.random_range(0..n)), pick(rng, &[5, 30, 200]))),
    }
}

fn power(rng: &mut ChaCha8Rng, calm: bool, n: u16) -> Power {
    let some = if calm { 0.0 } else { 1.0 };
    let at_steps = (0..count(rng, 0.4 * some, 3)).map(|_| CrashAt {
        replica: ReplicaId(rng.random_range(0..n)),
        step: pick(rng, &STEPS),
        nth: rng.random_range(1..=4),
        store_first: rng.random_bool(0.3),
    });
    Power {
        at_steps: at_steps.collect(),
        crashes: count(rng, 0.2 * some, 2),
        blackouts: count(rng, 0.1 * some, 1),
        backends: count(rng, 0.2 * some, 3),
        at_answer: None,
    }
}

fn clients(rng: &mut ChaCha8Rng) -> Clients {
    let mut faulty: Vec<ClientFault> = CLIENT_FAULTS.into_iter().filter(|_| rng.random_bool(0.12)).collect();
    faulty.shuffle(rng);
    faulty.truncate(2);
    Clients {
        correct: rng.random_range(2..=4),
        transactions: rng.random_range(2..=4),
        keys: pick(rng, &[2, 4, 8]),
        eager: false,
        faulty,
    }
}

fn faulty(rng: &mut ChaCha8Rng, scenario: &Scenario) -> Vec<(ReplicaId, Vec<Fault>)> {
    let f = scenario.f();
    let liars = if rng.random_bool(0.7) { rng.random_range(1..=f) } else { 0 };
    let mut replicas: Vec<ReplicaId> = scenario.replicas().collect();
    replicas.shuffle(rng);
    // The master is the interesting one.
    if rng.random_bool(0.4) {
        replicas.sort_by_key(|replica| *replica != MASTER);
    }
    let liars = replicas.into_iter().take(usize::from(liars));
    liars.map(|replica| (replica, faults(rng))).collect()
}

/// One fault, or two.
fn faults(rng: &mut ChaCha8Rng) -> Vec<Fault> {
    let mut faults = vec![pick(rng, &FAULTS)];
    if rng.random_bool(0.3) {
        let other = *FAULTS.choose(rng).unwrap_or(&Fault::Silent);
        // Who is silent has nothing else to say.
        if !faults.contains(&other) && !faults.contains(&Fault::Silent) && other != Fault::Silent {
            faults.push(other);
        }
    }
    faults
}
