//! Histories of a store in memory that keeps snapshot isolation, with interleavings drawn from a seed: all are clean.
//! The same store with one rule broken: each bug is caught, and named.

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use steeldb_isolation::{History, Kind, Operation, Outcome, Transaction, check};

/// A rule that the store may break.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bug {
    /// Writes are based on what is committed at that moment, not on the snapshot: no first updater wins.
    NoConflicts,
    /// A snapshot may be taken while another transaction is half applied.
    SnapshotInsideCommit,
    /// A snapshot may be one of some commits ago.
    StaleSnapshot,
    /// Some commits are acknowledged and forgotten.
    ForgottenCommit,
    /// Rolled back writes stay.
    NoUndo,
}

type State = BTreeMap<String, Vec<u64>>;

struct Running {
    transaction: Transaction,
    snapshot: State,
    version: usize,
    left: usize,
}

/// Runs clients one step at a time, whose turn it is drawn at random.
fn run(seed: u64, bug: Option<Bug>) -> History {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut versions: Vec<State> = vec![State::new()];
    let mut running: BTreeMap<u32, Running> = BTreeMap::new();
    let (mut done, mut now, mut value) = (Vec::new(), 0, 0);
    while done.len() < 150 {
        now += 1;
        let client = rng.random_range(0..6);
        let Some(mine) = running.get_mut(&client) else {
            let last = versions.len() - 1;
            let version = match bug {
                Some(Bug::StaleSnapshot) if rng.random_bool(0.2) => last.saturating_sub(2),
                _ => last,
            };
            let mut snapshot = versions[version].clone();
            if bug == Some(Bug::SnapshotInsideCommit) && last > 0 && rng.random_bool(0.3) {
                // Of the last commit, every second key is not there yet.
                for (key, values) in snapshot.iter_mut().step_by(2) {
                    *values = versions[last - 1].get(key).cloned().unwrap_or_default();
                }
            }
            let id = 1 + done.len() as u64 + running.len() as u64 + now * 1000;
            let (outcome, operations) = (Outcome::Committed, Vec::new());
            let transaction = Transaction { id, client, begin_us: now, end_us: now, outcome, operations };
            running.insert(client, Running { transaction, snapshot, version, left: rng.random_range(1..5) });
            continue;
        };
        let key = format!("k{}", rng.random_range(0..4));
        if mine.left > 0 {
            mine.left -= 1;
            let operation = match rng.random_bool(0.5) {
                true => {
                    value += 1;
                    mine.snapshot.entry(key.clone()).or_default().push(value);
                    Operation::Append { key, value }
                }
                false => {
                    Operation::Read { values: mine.snapshot.get(&key).cloned().unwrap_or_default(), key }
                }
            };
            mine.transaction.operations.push(operation);
            continue;
        }
        let Some(Running { mut transaction, version, .. }) = running.remove(&client) else { continue };
        transaction.end_us = now;
        let appended: Vec<(String, u64)> = transaction
            .operations
            .iter()
            .filter_map(|operation| match operation {
                Operation::Append { key, value } => Some((key.clone(), *value)),
                _ => None,
            })
            .collect();
        let mut next = versions[versions.len() - 1].clone();
        let conflict = appended.iter().any(|(key, _)| versions[version].get(key) != next.get(key));
        let gives_up = rng.random_bool(0.1);
        // An answer that is lost, or a COMMIT that is.
        let in_doubt = rng.random_bool(0.05);
        if (conflict && bug != Some(Bug::NoConflicts)) || gives_up {
            transaction.outcome = Outcome::Aborted;
        }
        let takes_effect = match transaction.outcome {
            Outcome::Aborted => bug == Some(Bug::NoUndo) && gives_up && !conflict,
            _ if bug == Some(Bug::ForgottenCommit) && rng.random_bool(0.1) => false,
            _ => !in_doubt || rng.random_bool(0.5),
        };
        if in_doubt && transaction.outcome == Outcome::Committed {
            transaction.outcome = Outcome::Unknown;
        }
        if takes_effect && !appended.is_empty() {
            for (key, value) in appended {
                next.entry(key).or_default().push(value);
            }
            versions.push(next);
        }
        done.push(transaction);
    }
    let last = versions.last().cloned().unwrap_or_default();
    let operations = last.into_iter().map(|(key, values)| Operation::Read { key, values }).collect();
    let (begin_us, end_us) = (now + 1, now + 2);
    let client = 100;
    done.push(Transaction { id: 1, client, begin_us, end_us, outcome: Outcome::Committed, operations });
    History::new(done).unwrap()
}

#[test]
fn a_store_that_keeps_snapshot_isolation_is_clean() {
    for seed in 0..300 {
        let report = check(&run(seed, None));
        assert!(report.is_clean() && report.lost.is_empty(), "seed {seed}: {report}");
        assert!(report.dependencies.iter().all(|count| *count > 0), "seed {seed}: {report}");
    }
}

/// How many seeds it takes until the bug shows as one of these kinds; fails after fifty.
#[track_caller]
fn caught(bug: Bug, kinds: &[Kind]) {
    for seed in 0..50 {
        let report = check(&run(seed, Some(bug)));
        if kinds.iter().all(|kind| report.kinds().contains(kind)) {
            println!("{bug:?}: seed {seed} shows {:?}", report.kinds());
            return;
        }
    }
    panic!("{bug:?} is not caught in fifty seeds");
}

#[test]
fn a_store_without_conflicts_loses_updates() {
    caught(Bug::NoConflicts, &[Kind::LostUpdate]);
}

#[test]
fn a_store_with_snapshots_inside_commits_shows_read_skew() {
    caught(Bug::SnapshotInsideCommit, &[Kind::GSingle]);
}

#[test]
fn a_store_with_stale_snapshots_breaks_real_time_order() {
    caught(Bug::StaleSnapshot, &[Kind::RealTime]);
}

#[test]
fn a_store_that_forgets_commits_is_caught() {
    caught(Bug::ForgottenCommit, &[Kind::RealTime]);
    let lost: usize = (0..20).map(|seed| check(&run(seed, Some(Bug::ForgottenCommit))).lost.len()).sum();
    assert!(lost > 0);
}

#[test]
fn a_store_that_does_not_undo_is_caught() {
    caught(Bug::NoUndo, &[Kind::G1a]);
}
