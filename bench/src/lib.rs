//! `steeldb bench`: SteelDB beside PostgreSQL and beside itself, so that others can run it again.
//!
//! Every system runs as real processes: `steeldb replica`, `steeldb proxy`, `postgres`. Each node (a replica with its
//! server, or a server alone) gets the same share of this machine's CPU through a control group, so that one machine
//! stands for several; what drives the load has no quota. One axis is varied at a time, every point is run several
//! times, and what is written is the raw reports, medians with their range, and plots.
//!
//! The systems are set up with the commands and files that their users have; nothing here reaches into SteelDB.

pub mod args;
mod cluster;
mod experiment;
mod geo;
mod lan;
mod node;
mod plot;
mod postgres;
mod quota;
mod scale;
mod summary;
mod timeline;
mod workload;

pub use args::BenchCommand;

use std::process::ExitCode;

/// Runs the comparisons and writes their results.
///
/// To be called on the main thread with a runtime of that thread: processes are tied to the thread that starts them.
///
/// # Errors
/// When a system cannot be set up or driven, or a result not be written.
pub async fn execute(command: BenchCommand) -> anyhow::Result<ExitCode> {
    match command {
        BenchCommand::Lan(args) => lan::run(args).await?,
        BenchCommand::Scale(args) => scale::run(args).await?,
        BenchCommand::Geo(args) => geo::run(args).await?,
        BenchCommand::Timeline(args) => timeline::run(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}
