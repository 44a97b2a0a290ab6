//! Many schedules, and that each is a function of its seed.

use steeldb_transaction_simulation::{Campaign, Counts, Report, Scenario, run};

/// Plays so many seeds of a family: every one keeps every invariant.
fn kept(scenario: fn(u64) -> Scenario, to: u64) -> Report<Counts> {
    let scenario = |seed| Some(scenario(seed));
    let report = Campaign { scenario, from: 0, to, time_max: None, shorten: true }.run();
    let broken: Vec<String> = report.violations.iter().map(|(_, failure)| failure.to_string()).collect();
    println!("{report}");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    report
}

#[test]
fn three_thousand_schedules_keep_the_invariants() {
    let report = kept(Scenario::from_seed, 3000);
    assert!(report.counts.committed > 3000, "too few commits to say anything: {report}");
    assert!(report.counts.ahead > 1000, "too few of them were told before their decision: {report}");
}

/// What clients are told before the decision hangs on what the cores make durable. All crash right behind such an answer.
#[test]
fn a7_what_was_told_before_its_decision_is_not_lost_when_all_crash_behind_it() {
    let report = kept(Scenario::told_early, 200);
    assert!(report.counts.ahead > 200, "too few commits were told before their decision: {report}");
}

/// Nothing is wrong, no client meets another, and the master is moved again and again: nothing ends for that.
#[test]
fn every_transaction_is_vouched_for_in_time_though_the_master_moves() {
    let report = kept(Scenario::moved, 2000);
    assert!(report.counts.committed > 3000, "too few commits to say anything: {report}");
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
