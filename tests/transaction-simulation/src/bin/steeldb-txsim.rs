//! Runs simulated schedules of transactions by seed.

use clap::Parser;
use std::process::ExitCode;
use std::time::Duration;
use steeldb_transaction_simulation::{Campaign, Scenario, run_scenario};

/// Runs whole clusters of schedulers and client shims over an in-memory store, under faults and liars, reproducibly by seed.
#[derive(Parser)]
struct Arguments {
    /// One seed to run.
    #[arg(long, group = "what")]
    seed: Option<u64>,
    /// A range of seeds to run, such as 0..1000.
    #[arg(long, group = "what", value_parser = range)]
    seeds: Option<(u64, u64)>,
    /// All with real ordering cores, tentative replies, and a power cut right behind an answer.
    #[arg(long)]
    told_early: bool,
    /// Run for so many seconds, from the first seed of the range, or 0, on.
    #[arg(long, conflicts_with = "seed")]
    seconds: Option<u64>,
    /// Stop after so many events; liveness is not demanded then. For one seed.
    #[arg(long)]
    steps: Option<u64>,
    /// Print every event. For one seed.
    #[arg(long)]
    explain: bool,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").ok_or("a range is written FROM..TO")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    Ok((number(from)?, number(to)?))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let scenario = if arguments.told_early { Scenario::told_early } else { Scenario::from_seed };
    if let Some(seed) = arguments.seed {
        return one(&scenario(seed), &arguments);
    }
    let endless = if arguments.seconds.is_some() { u64::MAX } else { 1000 };
    let (from, to) = arguments.seeds.unwrap_or((0, endless));
    let time_max = arguments.seconds.map(Duration::from_secs);
    let report = Campaign { scenario, from, to, time_max, shorten: true }.run();
    for (_, failure) in &report.violations {
        println!("{failure}");
    }
    println!("{report}");
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(scenario: &Scenario, arguments: &Arguments) -> ExitCode {
    let outcome = run_scenario(scenario, arguments.steps, arguments.explain);
    for line in outcome.trace.lines() {
        println!("{line}");
    }
    if let Some(failure) = &outcome.failure {
        println!("{failure}");
        return ExitCode::FAILURE;
    }
    println!(
        "{} transactions, {} committed, {} events, {} virtual ms, trace {}",
        outcome.counts.transactions,
        outcome.counts.committed,
        outcome.steps,
        outcome.ended_us / 1000,
        outcome.trace.digest()
    );
    ExitCode::SUCCESS
}
