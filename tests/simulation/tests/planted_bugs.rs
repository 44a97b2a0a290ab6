//! The simulation sees what it should: each planted bug is caught within some seeds.

use steeldb_ordering::PlantedBug;
use steeldb_simulation::{Failure, Scenario, run_scenario};

fn caught(bug: PlantedBug) -> Option<Failure> {
    (0..2000).find_map(|seed| {
        let mut scenario = Scenario::from_seed(seed);
        scenario.planted_bug = Some(bug);
        run_scenario(&scenario, None, false).failure
    })
}

fn assert_caught(bug: PlantedBug, invariants: &[&str]) {
    let failure = caught(bug).unwrap_or_else(|| panic!("{bug:?} was not caught"));
    println!("{bug:?}: {failure}");
    assert!(invariants.contains(&failure.invariant), "{bug:?} was caught by chance: {failure}");
}

#[test]
fn a_quorum_one_too_small_is_caught() {
    assert_caught(PlantedBug::QuorumOneTooSmall, &["agreement", "decision proofs", "accusations"]);
}

#[test]
fn a_lock_forgotten_between_regencies_is_caught() {
    assert_caught(PlantedBug::LockForgotten, &["agreement"]);
}

#[test]
fn an_unchecked_proof_is_caught() {
    assert_caught(PlantedBug::ProofNotChecked, &["agreement", "integrity"]);
}

#[test]
fn an_unchecked_selection_is_caught() {
    assert_caught(PlantedBug::SelectionNotChecked, &["agreement"]);
}

#[test]
fn messages_that_do_not_wait_for_the_disk_are_caught() {
    assert_caught(PlantedBug::DurabilityIgnored, &["agreement"]);
}

#[test]
fn an_unchecked_client_signature_is_caught() {
    assert_caught(PlantedBug::SignatureNotChecked, &["integrity"]);
}

#[test]
fn executing_twice_is_caught() {
    assert_caught(PlantedBug::ExecutesTwice, &["integrity"]);
}
