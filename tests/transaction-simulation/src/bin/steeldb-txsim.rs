//! Runs simulated schedules of transactions by seed.

use clap::Parser;
use std::process::ExitCode;
use std::time::Duration;
use steeldb_campaign::{Campaign, many, one, range};
use steeldb_transaction_simulation::Scenario;

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
    /// All with nothing wrong but that an administrator moves the master again and again.
    #[arg(long, conflicts_with = "told_early")]
    moved: bool,
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

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let scenario = match (arguments.told_early, arguments.moved) {
        (true, _) => Scenario::told_early,
        (_, true) => Scenario::moved,
        _ => Scenario::from_seed,
    };
    if let Some(seed) = arguments.seed {
        return one(&scenario(seed), arguments.steps, arguments.explain);
    }
    let endless = if arguments.seconds.is_some() { u64::MAX } else { 1000 };
    let (from, to) = arguments.seeds.unwrap_or((0, endless));
    let time_max = arguments.seconds.map(Duration::from_secs);
    let scenario = |seed| Some(scenario(seed));
    many(&Campaign { scenario, from, to, time_max, shorten: true })
}
