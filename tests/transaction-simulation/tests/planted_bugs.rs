//! The simulation sees what it should: each planted bug is caught within its number of seeds.

use steeldb_transaction_simulation::planted::{PLANTS, Plant};

/// Looks for each bug and says how it was caught; those that were not.
fn hunt(plants: &[Plant]) -> Vec<String> {
    let mut missed = Vec::new();
    for plant in plants {
        let bug = plant.bug.to_string();
        match plant.hunt() {
            Some(caught) => {
                println!("{bug:<30} {:<20} after {:>4} seeds", caught.failure.invariant, caught.seeds);
            }
            None => {
                println!("{bug} was not caught");
                missed.push(bug);
            }
        }
    }
    missed
}

#[test]
fn every_planted_bug_is_caught() {
    let missed = hunt(PLANTS);
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

/// What a plant needs is no fault by itself: without the bug nothing is broken.
#[test]
fn without_their_bugs_the_plants_scenarios_keep_the_invariants() {
    for plant in PLANTS {
        let broken = plant.control(25);
        assert!(broken.is_empty(), "{} without the bug: {}", plant.bug, broken.join("\n"));
    }
}
