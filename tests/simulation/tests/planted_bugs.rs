//! The simulation sees what it should: each planted bug is caught within its number of seeds.

use steeldb_ordering::PlantedBug;
use steeldb_simulation::planted::PLANTS;

#[test]
fn every_planted_bug_is_caught() {
    let mut missed: Vec<PlantedBug> = Vec::new();
    for plant in PLANTS {
        let bug = format!("{:?}", plant.bug);
        match plant.hunt() {
            Some(caught) => {
                println!("{bug:<28} {:<18} after {:>4} seeds", caught.failure.invariant, caught.seeds);
            }
            None => {
                println!("{bug:<28} was not caught in {} seeds", plant.seeds_max);
                missed.push(plant.bug);
            }
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
