//! Small-scope scenarios by exhaustion: see the module `twins`.

use steeldb_simulation::Campaign;
use steeldb_simulation::twins::{Generator, Scope};

/// How many of them `make test` plays: the same ones each time.
const SAMPLE: usize = 1000;

fn play(generator: &Generator, numbers: &[u64]) {
    let scenario = |index: u64| {
        let number = numbers.get(usize::try_from(index).ok()?)?;
        generator.script(*number).map(|script| script.scenario())
    };
    let to = numbers.len() as u64;
    let report = Campaign { scenario, from: 0, to, time_max: None, shorten: true }.run();
    println!(
        "{} of {} scenarios, {} regencies: {report}",
        numbers.len(),
        generator.len(),
        report.counts.regencies
    );
    let broken: Vec<String> = report.violations.iter().map(|(_, failure)| failure.to_string()).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert_eq!(report.seeds, numbers.len() as u64);
    assert!(
        report.counts.regencies >= 2 * report.seeds,
        "the scripts did not get to the regencies they are about"
    );
}

#[test]
fn a_sample_of_twins_scenarios_keeps_the_invariants() {
    let generator = Generator::new(Scope::USUAL);
    play(&generator, &generator.sample(0, SAMPLE));
}

#[test]
#[ignore = "tens of minutes; make nightly"]
fn all_twins_scenarios_keep_the_invariants() {
    let generator = Generator::new(Scope::USUAL);
    let all: Vec<u64> = generator.all().collect();
    play(&generator, &all);
}
