//! The simulation sees what it should: each planted bug is caught within some seeds.

use steeldb_ordering::PlantedBug;
use steeldb_simulation::{Scenario, run_scenario};

/// Seeds tried; what is caught is caught much earlier.
const SEEDS_MAX: u64 = 4000;

/// Looks for a seed whose schedule makes the bug break one of `invariants`; a bug may show itself otherwise first.
fn assert_caught(bug: PlantedBug, invariants: &[&str]) {
    let caught = (0..SEEDS_MAX).find_map(|seed| {
        let mut scenario = Scenario::from_seed(seed);
        scenario.planted_bug = Some(bug);
        run_scenario(&scenario, None, false).failure.filter(|failure| invariants.contains(&failure.invariant))
    });
    let failure = caught.unwrap_or_else(|| panic!("{bug:?} was not caught in {SEEDS_MAX} seeds"));
    println!("{bug:?}: {failure}");
}

#[test]
fn a_quorum_one_too_small_is_caught() {
    assert_caught(PlantedBug::QuorumOneTooSmall, &["agreement"]);
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
