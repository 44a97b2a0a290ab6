//! `ordering-load`: one replica, or a cluster under load.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use std::path::PathBuf;
use steeldb_ordering_load::{geo, node, scenario};

#[derive(Parser)]
#[command(
    name = "ordering-load",
    about = "The ordering server without a database: one replica, or a cluster under load."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one replica
    Replica {
        /// As a cluster writes it
        #[arg(long)]
        config: PathBuf,
        /// End when this process, the parent, ends
        #[arg(long)]
        die_with_parent: u32,
    },
    /// Start clusters, load them, report
    Bench(scenario::BenchArgs),
    /// Order over an emulated wide-area network, clients in each region
    Geo(geo::GeoArgs),
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
        )
        .init();
    // One thread per process: replicas and driver share few cores, and a replica's work is one task's.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match Cli::parse().command {
        Command::Replica { config, die_with_parent } => {
            prctl::set_pdeathsig(Signal::SIGKILL).context("cannot ask to be ended with the parent")?;
            let parent = u32::try_from(nix::unistd::getppid().as_raw())?;
            anyhow::ensure!(parent == die_with_parent, "the parent has ended");
            let text = std::fs::read(&config).with_context(|| config.display().to_string())?;
            runtime.block_on(node::run(serde_json::from_slice(&text)?))
        }
        Command::Bench(args) => runtime.block_on(scenario::run(args)),
        Command::Geo(args) => runtime.block_on(geo::run(args)),
    }
}
