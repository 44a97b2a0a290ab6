//! What the simulators' executables have in common.

use crate::{Campaign, Counts as _, Simulate};
use std::process::ExitCode;

/// Reads a range of numbers, `FROM..TO`.
///
/// # Errors
/// Why it is none.
pub fn range(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").ok_or("a range is written FROM..TO")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    Ok((number(from)?, number(to)?))
}

/// Runs one scenario and prints what became of it, with `explain` every event.
pub fn one<S: Simulate>(scenario: &S, steps: Option<u64>, explain: bool) -> ExitCode {
    let outcome = scenario.simulate(steps, explain);
    for line in outcome.trace.lines() {
        println!("{line}");
    }
    if let Some(failure) = &outcome.failure {
        println!("{failure}");
        return ExitCode::FAILURE;
    }
    println!(
        "{}, {} events, {} virtual ms, trace {}",
        outcome.counts.sentence(),
        outcome.steps,
        outcome.ended_us / 1000,
        outcome.trace.digest()
    );
    ExitCode::SUCCESS
}

/// Runs many and prints what broke, and in the last line what they came to.
pub fn many<S: Simulate, F: Fn(u64) -> Option<S> + Sync>(campaign: &Campaign<F>) -> ExitCode {
    let report = campaign.run();
    for (_, failure) in &report.violations {
        println!("{failure}");
    }
    println!("{report}");
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
