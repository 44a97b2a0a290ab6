//! Many schedules, and that each is a function of its seed.

use steeldb_simulation::run;

/// Every seed keeps every invariant.
#[test]
fn a_thousand_schedules_keep_the_invariants() {
    let broken: Vec<String> =
        (0..1000).filter_map(|seed| run(seed, false).failure).map(|failure| failure.to_string()).collect();
    assert!(broken.is_empty(), "{} broken:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn the_same_seed_gives_the_same_trace_byte_for_byte() {
    for seed in 0..20 {
        let (first, second) = (run(seed, true), run(seed, true));
        assert_eq!(first.trace.lines(), second.trace.lines(), "seed {seed}");
        assert_eq!(first.trace.digest(), second.trace.digest(), "seed {seed}");
        assert_eq!(run(seed, false).trace.digest(), first.trace.digest(), "seed {seed}, lines not kept");
    }
    assert_ne!(run(1, false).trace.digest(), run(2, false).trace.digest());
}
