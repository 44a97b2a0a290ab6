//! Many schedules, and that each is a function of its seed.

use steeldb_simulation::{Campaign, Scenario, Simulate as _, run};

/// Every seed keeps every invariant.
#[test]
fn five_thousand_schedules_keep_the_invariants() {
    let scenario = |seed| Some(Scenario::from_seed(seed));
    let report = Campaign { scenario, from: 0, to: 5000, time_max: None, shorten: true }.run();
    let broken: Vec<String> = report.violations.iter().map(|(_, failure)| failure.to_string()).collect();
    println!("{report}");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_same_seed_gives_the_same_trace_byte_for_byte() {
    for seed in 0..40 {
        let (first, second) = (run(seed, true), run(seed, true));
        assert_eq!(first.trace.lines(), second.trace.lines(), "seed {seed}");
        assert_eq!(first.trace.digest(), second.trace.digest(), "seed {seed}");
        assert_eq!(run(seed, false).trace.digest(), first.trace.digest(), "seed {seed}, lines not kept");
    }
    assert_ne!(run(1, false).trace.digest(), run(2, false).trace.digest());
}

/// What a run prints for being repeated leads to the same place.
#[test]
fn a_run_that_stops_after_its_own_number_of_steps_is_the_same_run() {
    for seed in 0..10 {
        let scenario = Scenario::from_seed(seed);
        let whole = scenario.simulate(None, false);
        let again = scenario.simulate(Some(whole.steps), false);
        assert_eq!(whole.trace.digest(), again.trace.digest(), "seed {seed}");
        assert!(again.failure.is_none());
    }
}
