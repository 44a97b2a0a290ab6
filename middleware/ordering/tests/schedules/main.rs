//! Random schedules of changes of the membership, each a function of its seed.

mod oracle;
mod world;

use world::World;

const SEEDS: u64 = 150;

#[test]
fn changes_of_the_membership_keep_the_invariants_under_faults() {
    let mut views = 0;
    for seed in 0..SEEDS {
        match World::new(seed, None).run() {
            Ok(last) => views += last,
            Err(reason) => panic!("seed {seed}: {reason}"),
        }
    }
    assert!(views > SEEDS, "{views} changes in {SEEDS} schedules are too few to tell anything");
}

#[cfg(feature = "planted-bugs")]
mod planted {
    use super::World;
    use steeldb_ordering::PlantedBug;

    /// Looks for a seed whose schedule shows the bug by one of `signs`.
    fn assert_caught(bug: PlantedBug, signs: &[&str]) {
        let caught = (0..2000).find_map(|seed| {
            let failure = World::new(seed, Some(bug)).run().err()?;
            signs.iter().any(|sign| failure.contains(sign)).then_some((seed, failure))
        });
        let (seed, failure) = caught.unwrap_or_else(|| panic!("{bug:?} was not caught"));
        println!("{bug:?} after {} seeds: {failure}", seed + 1);
    }

    #[test]
    fn the_quorums_of_the_view_before_are_caught() {
        assert_caught(PlantedBug::OldViewQuorum, &["proofs", "agreement"]);
    }

    #[test]
    fn weights_that_are_mis_summed_are_caught() {
        assert_caught(PlantedBug::WeightsMisSummed, &["proofs", "agreement"]);
    }

    #[test]
    fn an_unsigned_change_is_caught() {
        assert_caught(PlantedBug::UnsignedChangeAccepted, &["nobody asked for"]);
    }

    #[test]
    fn a_replayed_change_is_caught() {
        assert_caught(PlantedBug::ReplayedChangeAccepted, &["nobody asked for, or again"]);
    }
}
