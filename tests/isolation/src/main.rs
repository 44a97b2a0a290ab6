//! `isolation`: checks a history, or makes one on a running database.

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use steeldb_isolation::workload::{Options, Workload};
use steeldb_isolation::{History, check};

#[derive(Parser)]
#[command(name = "isolation", about = "Finds isolation anomalies in what clients were told.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check a history: JSON lines, one transaction each
    #[command(
        after_help = "The exit status is 0 if there is no anomaly, 1 if there is one, 2 if it cannot be told."
    )]
    Check {
        /// The history
        file: PathBuf,
    },
    /// Run the workload, write the history, check it
    Run(RunArgs),
}

#[derive(Args)]
struct RunArgs {
    /// A connection string; give one for each proxy, clients take turns
    #[arg(long, required = true)]
    url: Vec<String>,
    /// Clients, each with a connection of its own
    #[arg(long, default_value_t = 8)]
    clients: u32,
    /// How long, seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// What the clients' choices are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The isolation level that transactions ask for
    #[arg(long, default_value = "REPEATABLE READ")]
    level: String,
    /// Where the history goes
    #[arg(long)]
    history: PathBuf,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Check { file } => checked(&file),
        Command::Run(args) => run(&args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("isolation: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn checked(file: &Path) -> anyhow::Result<bool> {
    let named = || file.display().to_string();
    let opened = File::open(file).with_context(named)?;
    let report = check(&History::read(BufReader::new(opened)).with_context(named)?);
    println!("{report}");
    Ok(report.is_clean())
}

fn run(args: &RunArgs) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let defaults = Options::new(args.url.clone(), args.seed);
    let options = Options { clients: args.clients, level: args.level.clone(), ..defaults };
    let history = runtime.block_on(async {
        let workload = Workload::start(options).await?;
        tokio::time::sleep(Duration::from_secs(args.seconds)).await;
        workload.finish().await
    })?;
    let mut output = BufWriter::new(File::create(&args.history).context("the history cannot be written")?);
    history.write(&mut output).and_then(|()| output.flush()).context("the history cannot be written")?;
    checked(&args.history)
}
