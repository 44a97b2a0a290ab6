//! Runs simulated schedules by seed.

use clap::Parser;
use std::process::ExitCode;
use std::time::Duration;
use steeldb_simulation::twins::{Generator, Scope};
use steeldb_simulation::{Campaign, Scenario, run_scenario};

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

fn range(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").ok_or("a range is written FROM..TO")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    Ok((number(from)?, number(to)?))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        return one(&Scenario::from_seed(seed), &arguments);
    }
    let generator = Generator::new(Scope::USUAL);
    if let Some(number) = arguments.twins {
        let Some(script) = generator.script(number) else {
            eprintln!("scenario {number} is equal to another, or there is none");
            return ExitCode::FAILURE;
        };
        return one(&script.scenario(), &arguments);
    }
    if let Some((from, to)) = arguments.all_twins {
        let scenario = |number| generator.script(number).map(|script| script.scenario());
        return many(Campaign {
            scenario,
            from,
            to: to.min(generator.len()),
            time_max: arguments.seconds.map(Duration::from_secs),
            shorten: true,
        });
    }
    let endless = if arguments.seconds.is_some() { u64::MAX } else { 1000 };
    let (from, to) = arguments.seeds.unwrap_or((0, endless));
    many(Campaign {
        scenario: |seed| Some(Scenario::from_seed(seed)),
        from,
        to,
        time_max: arguments.seconds.map(Duration::from_secs),
        shorten: true,
    })
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
        "{} requests acknowledged, regency {}, {} events, {} virtual ms, trace {}",
        outcome.delivered,
        outcome.regency,
        outcome.steps,
        outcome.ended_us / 1000,
        outcome.trace.digest()
    );
    ExitCode::SUCCESS
}

fn many<F: Fn(u64) -> Option<Scenario> + Sync>(campaign: Campaign<F>) -> ExitCode {
    let report = campaign.run();
    for (_, failure) in &report.violations {
        println!("{failure}");
    }
    println!("{report}");
    if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
