//! Runs simulated schedules by seed.

use clap::Parser;
use std::process::ExitCode;
use std::time::Duration;
use steeldb_campaign::{Campaign, many, one, range};
use steeldb_simulation::Scenario;
use steeldb_simulation::twins::{Generator, Scope};

/// Runs whole clusters of ordering cores under faults and liars, reproducibly by seed.
#[derive(Parser)]
struct Arguments {
    /// One seed to run.
    #[arg(long, group = "what")]
    seed: Option<u64>,
    /// A range of seeds to run, such as 0..1000.
    #[arg(long, group = "what", value_parser = range)]
    seeds: Option<(u64, u64)>,
    /// Run for so many seconds, from the first seed of the range, or 0, on.
    #[arg(long, conflicts_with = "seed")]
    seconds: Option<u64>,
    /// One scenario of the exhaustive kind, by its number.
    #[arg(long, group = "what")]
    twins: Option<u64>,
    /// Every scenario of the exhaustive kind, or those with numbers of a range.
    #[arg(long, group = "what", value_name = "FROM..TO", value_parser = range, num_args = 0..=1,
        default_missing_value = "0..18446744073709551615")]
    all_twins: Option<(u64, u64)>,
    /// Stop after so many events; liveness is not demanded then. For one seed or scenario.
    #[arg(long)]
    steps: Option<u64>,
    /// Print every event. For one seed or scenario.
    #[arg(long)]
    explain: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        return one(&Scenario::from_seed(seed), arguments.steps, arguments.explain);
    }
    let generator = Generator::new(Scope::USUAL);
    if let Some(number) = arguments.twins {
        let Some(script) = generator.script(number) else {
            eprintln!("scenario {number} is equal to another, or there is none");
            return ExitCode::FAILURE;
        };
        return one(&script.scenario(), arguments.steps, arguments.explain);
    }
    if let Some((from, to)) = arguments.all_twins {
        let scenario = |number| generator.script(number).map(|script| script.scenario());
        return many(&Campaign {
            scenario,
            from,
            to: to.min(generator.len()),
            time_max: arguments.seconds.map(Duration::from_secs),
            shorten: true,
        });
    }
    let endless = if arguments.seconds.is_some() { u64::MAX } else { 1000 };
    let (from, to) = arguments.seeds.unwrap_or((0, endless));
    many(&Campaign {
        scenario: |seed| Some(Scenario::from_seed(seed)),
        from,
        to,
        time_max: arguments.seconds.map(Duration::from_secs),
        shorten: true,
    })
}
