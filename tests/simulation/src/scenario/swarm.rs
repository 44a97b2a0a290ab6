//! Swarm testing: a seed switches each kind of trouble on or off by itself, then draws its strength. Runs in which
//! only some kinds happen reach states that runs with a little of everything never do.

use super::{
    AMBUSHES, Ambush, CLIENT_FAULTS, Checkpoints, ClientFault, Clients, Clocks, FAULTS, Fault, Membership,
    Network, Power, Scenario,
};
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use steeldb_types::{FaultModel, ReplicaId};

pub(super) fn draw(seed: u64) -> Scenario {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let crash_model = rng.random_bool(0.1);
    let (model, n) = match crash_model {
        true => (FaultModel::Crash, pick(&mut rng, &[3, 3, 5])),
        false => (FaultModel::Byzantine, pick(&mut rng, &[4, 4, 4, 4, 4, 4, 5, 5, 5, 7, 7, 10])),
    };
    // Two in ten runs have nothing wrong but their liars.
    let calm = rng.random_bool(0.2);
    let network = network(&mut rng, calm);
    let power = power(&mut rng, calm, n);
    let ambush = (!calm && rng.random_bool(0.3))
        .then(|| Ambush { instance: rng.random_range(1..=3), kind: pick(&mut rng, &AMBUSHES) });
    let faults_us = rng.random_range(300_000..=1_500_000) + if ambush.is_some() { 1_000_000 } else { 0 };
    let window = pick(&mut rng, &[1, 1, 1, 2, 4, 8]);
    let mut scenario = Scenario {
        seed,
        model,
        n,
        faulty: Vec::new(),
        faults_us,
        network,
        power,
        clocks: clocks(&mut rng),
        clients: clients(&mut rng, window),
        window,
        checkpoints: None,
        membership: None,
        ambush,
        script: None,
        #[cfg(feature = "planted-bugs")]
        planted_bug: None,
    };
    if rng.random_bool(0.35) {
        checkpoints(&mut rng, &mut scenario);
    }
    if rng.random_bool(0.35) {
        let (spares, changes) = (rng.random_range(0..=2), rng.random_range(1..=4));
        scenario.membership = Some(Membership { spares, changes });
        // Somebody has to ask while it changes.
        scenario.clients.requests_per_session += 1;
    }
    scenario.faulty = faulty(&mut rng, &scenario);
    scenario
}

fn pick<T: Copy>(rng: &mut ChaCha8Rng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

/// A strength between the two, in `chance` of all runs; otherwise none.
fn strength(rng: &mut ChaCha8Rng, chance: f64, low: f64, high: f64) -> f64 {
    if rng.random_bool(chance) { rng.random_range(low..=high) } else { 0.0 }
}

fn count(rng: &mut ChaCha8Rng, chance: f64, most: u32) -> u32 {
    if rng.random_bool(chance) { rng.random_range(1..=most) } else { 0 }
}

fn network(rng: &mut ChaCha8Rng, calm: bool) -> Network {
    let some = if calm { 0.0 } else { 1.0 };
    Network {
        loss: strength(rng, 0.5 * some, 0.01, 0.3),
        accepts_lost: strength(rng, 0.3 * some, 0.3, 0.95),
        duplication: strength(rng, 0.3, 0.01, 0.2),
        delay_max_us: pick(rng, &[2_000, 20_000, 120_000]),
        in_order: rng.random_bool(0.3),
        encoded: rng.random_bool(0.1),
        partitions: count(rng, 0.5 * some, 3),
        one_way_partitions: count(rng, 0.3 * some, 3),
    }
}

fn power(rng: &mut ChaCha8Rng, calm: bool, n: u16) -> Power {
    let some = if calm { 0.0 } else { 1.0 };
    Power {
        crashes: count(rng, 0.5 * some, 3),
        blackouts: count(rng, 0.3 * some, 2),
        restarts_of_all: count(rng, 0.2 * some, 2),
        disk_max_us: pick(rng, &[1_000, 3_000, 50_000]),
        away: None,
        slow_disk: rng.random_bool(0.2).then(|| ReplicaId(rng.random_range(0..n))),
    }
}

fn clocks(rng: &mut ChaCha8Rng) -> Clocks {
    let skewed = rng.random_bool(0.5);
    let drifting = rng.random_bool(0.3);
    Clocks {
        skew_max_us: if skewed { rng.random_range(1_000..=400_000) } else { 0 },
        drift_max_ppm: if drifting { rng.random_range(100..=50_000) } else { 0 },
    }
}

fn clients(rng: &mut ChaCha8Rng, window: usize) -> Clients {
    let mut faulty: Vec<ClientFault> = CLIENT_FAULTS.into_iter().filter(|_| rng.random_bool(0.15)).collect();
    faulty.shuffle(rng);
    faulty.truncate(2);
    Clients {
        // Enough of them to fill the window.
        sessions: rng.random_range(1..=3) + window as u32 / 2,
        requests_per_session: rng.random_range(1..=3),
        certified: rng.random_range(0..=1),
        faulty,
    }
}

/// Checkpoints, and in half of these runs a replica for which the others' logs do not wait.
fn checkpoints(rng: &mut ChaCha8Rng, scenario: &mut Scenario) {
    scenario.checkpoints =
        Some(Checkpoints { interval: rng.random_range(1..=4), kept: rng.random_range(0..=2) });
    if rng.random_bool(0.5) {
        scenario.power.away = Some(ReplicaId(rng.random_range(0..scenario.n)));
        scenario.clients.requests_per_session += 3;
    }
}

fn faulty(rng: &mut ChaCha8Rng, scenario: &Scenario) -> Vec<(ReplicaId, Vec<Fault>)> {
    let f = scenario.f();
    let liars = if rng.random_bool(0.8) { rng.random_range(1..=f) } else { 0 };
    let mut replicas: Vec<u16> = (0..scenario.n).collect();
    replicas.shuffle(rng);
    // The first leaders are the interesting ones.
    if rng.random_bool(0.5) {
        replicas.sort();
        replicas.rotate_left(rng.random_range(0..=1));
    }
    let liars = replicas[..usize::from(liars)].iter().map(|replica| ReplicaId(*replica));
    let mut faulty: Vec<(ReplicaId, Vec<Fault>)> =
        liars.map(|replica| (replica, faults(rng, scenario.model))).collect();
    // Whoever is given states should meet somebody who lies about them.
    let lies = scenario.power.away.is_some() && scenario.model == FaultModel::Byzantine;
    if let Some((_, faults)) = faulty.first_mut().filter(|_| lies && rng.random_bool(0.5)) {
        *faults = vec![Fault::LyingSender];
    }
    if scenario.membership.is_some() {
        // Who runs twice is one node behind the replicas, where those are that may join.
        for (_, faults) in &mut faulty {
            faults
                .iter_mut()
                .filter(|fault| **fault == Fault::Twins)
                .for_each(|fault| *fault = Fault::Replayer);
            faults.dedup();
        }
    }
    faulty
}

/// One fault, or two that go together.
fn faults(rng: &mut ChaCha8Rng, model: FaultModel) -> Vec<Fault> {
    if model == FaultModel::Crash {
        return vec![Fault::Crash];
    }
    let mut faults = vec![pick(rng, &FAULTS)];
    if rng.random_bool(0.3) {
        let other = *FAULTS.choose(rng).unwrap_or(&Fault::Crash);
        // Who is silent has nothing else to say.
        if !faults.contains(&other) && !faults.contains(&Fault::Silent) && other != Fault::Silent {
            faults.push(other);
        }
    }
    faults
}
