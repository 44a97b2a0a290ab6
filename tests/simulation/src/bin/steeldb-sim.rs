//! Runs simulated schedules by seed.

use clap::Parser;
use std::process::ExitCode;
use steeldb_simulation::{Scenario, run_scenario};

/// Runs whole clusters of ordering cores under faults and liars, reproducibly by seed.
#[derive(Parser)]
struct Arguments {
    /// One seed to run.
    #[arg(long, conflicts_with = "seeds", required_unless_present = "seeds")]
    seed: Option<u64>,
    /// A range of seeds to run, such as 0..1000.
    #[arg(long, value_parser = range)]
    seeds: Option<(u64, u64)>,
    /// Stop after so many events; liveness is not demanded then.
    #[arg(long)]
    steps: Option<u64>,
    /// Print every event.
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
    let (from, to) = match (arguments.seed, arguments.seeds) {
        (Some(seed), _) => (seed, seed.saturating_add(1)),
        (None, seeds) => seeds.unwrap_or((0, 1)),
    };
    let mut broken = 0;
    let mut regencies = 0;
    for seed in from..to {
        let outcome = run_scenario(&Scenario::from_seed(seed), arguments.steps, arguments.explain);
        for line in outcome.trace.lines() {
            println!("{line}");
        }
        regencies += outcome.regency;
        if let Some(failure) = &outcome.failure {
            broken += 1;
            println!("seed {seed}: {failure}");
        } else if arguments.seed.is_some() {
            println!(
                "seed {seed}: {} requests everywhere, regency {}, {} events, {} virtual ms, trace {}",
                outcome.delivered,
                outcome.regency,
                outcome.steps,
                outcome.ended_us / 1000,
                outcome.trace.digest()
            );
        }
    }
    if arguments.seed.is_none() {
        println!("{} seeds, {broken} broken, {regencies} regency changes", to.saturating_sub(from));
    }
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
