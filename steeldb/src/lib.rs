//! The one command that users meet; thin. It reads configuration, starts what other crates implement, and keeps house
//! in `steeldb demo`.
//!
//! Each subcommand is a module; [`processes`] alone knows how the agent, the proxy and the shim are started.

pub mod cli;
mod cluster;
pub mod config;
pub mod demo;
mod init;
mod ledger;
mod logging;
mod master;
mod parent;
mod plan;
mod ports;
mod processes;
mod proxy_password;
mod reload;
mod signals;
mod status;
mod threads;
mod verify;

use clap::Parser as _;
use cli::{Cli, Command};
use std::future::Future;
use std::process::ExitCode;

/// Runs the command line of this process. Failures are one line on stderr.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("steeldb: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<ExitCode> {
    // What becomes another program, or must be the parent's child alone, goes before any thread is started.
    if let Command::ExecPostgres { args } = cli.command {
        return Err(steeldb_postgres::exec::exec_postgres(args).into());
    }
    if let Some(parent) = cli.command.die_with_parent() {
        parent::die_with(parent)?;
    }
    logging::init(&cli.logging, cli.command.is_server());
    match cli.command {
        Command::Init(args) => init::execute(args),
        Command::Replica(args) => {
            let file = config::ReplicaFile::read(&args.config)?;
            threads::run(file.threads, processes::replica(args, file))
        }
        Command::Proxy(args) => {
            let file = config::ProxyFile::read(&args.config)?;
            threads::run(file.threads, processes::proxy(args, file))
        }
        Command::Demo(args) => demo::execute(args, &cli.logging),
        Command::Bench { command } => bench(command),
        Command::Tpcc { command } => threaded(steeldb_tpcc::execute(command)),
        Command::Verify(args) => threaded(verify::execute(args)),
        Command::Status(args) => threaded(status::execute(args)),
        Command::Cluster { command } => threaded(cluster::execute(command)),
        Command::Master { command } => threaded(master::execute(command)),
        Command::Ledger { command } => ledger::execute(&command),
        Command::ProxyPassword(args) => proxy_password::execute(&args),
        Command::RunCommand(args) => demo::supervise(&args),
        Command::ExecPostgres { .. } => Ok(ExitCode::FAILURE),
    }
}

/// On one thread, the main one: the processes that are compared are tied to the thread that starts them.
fn bench(command: steeldb_bench::BenchCommand) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = signals::Signals::new()?;
        tokio::select! {
            result = steeldb_bench::execute(command) => result,
            // What is running is killed with the values that stand for it.
            signal = signals.recv() => Ok(ExitCode::from(signals::exit_code(signal))),
        }
    })
}

/// Runs `work` as the CPUs are.
fn threaded(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    threads::run(0, work)
}
