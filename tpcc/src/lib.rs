//! TPC-C for any server that speaks PostgreSQL's protocol: loader, driver, consistency checks, report.
//!
//! Clauses cited are those of the TPC Benchmark C Standard Specification, revision 5.11. Transactions are
//! explicit and REPEATABLE READ (under which TPC-C's executions are serializable); conflicts are retried a
//! bounded number of times; a COMMIT whose answer is lost is reported, never retried.
//!
//! [`load::load`], [`run::run`] and [`check::check`] are the library; [`execute`] is the command.

pub mod args;
pub mod backoff;
pub mod check;
pub mod connection;
pub mod deck;
pub mod error;
pub mod load;
pub mod measurements;
pub mod progress;
pub mod random;
pub mod report;
pub mod run;
pub mod scale;
pub mod schema;
mod terminal;
pub mod transactions;

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use crate::args::{CheckArgs, LoadArgs, RunArgs, TpccCommand};
pub use crate::check::{CheckReport, check};
pub use crate::connection::Connection;
pub use crate::error::Error;
pub use crate::load::{LoadOptions, LoadReport, load};
pub use crate::report::Report;
pub use crate::run::{RunOptions, run, run_until};
pub use crate::scale::Scale;

/// Executes a command: progress on standard error, the report on standard output and, if asked for, as JSON.
///
/// The exit code is 1 if a check finds violations or a run commits nothing. Interrupting a run (Ctrl-C) ends
/// it early, with its report.
///
/// # Errors
/// Whatever prevented the command, as an [`Error`].
pub async fn execute(command: TpccCommand) -> anyhow::Result<ExitCode> {
    match command {
        TpccCommand::Load(args) => {
            let report = load(&LoadOptions::from(&args)).await?;
            present(&report, args.json.as_deref())?;
            Ok(ExitCode::SUCCESS)
        }
        TpccCommand::Run(args) => {
            let interrupt = CancellationToken::new();
            let on_signal = interrupt.clone();
            let signal = tokio::spawn(async move {
                if tokio::signal::ctrl_c().await.is_ok() {
                    on_signal.cancel();
                }
            });
            let report = run_until(&RunOptions::from(&args), &interrupt).await;
            signal.abort();
            let report = report?;
            present(&report, args.json.as_deref())?;
            Ok(if report.committed() > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        TpccCommand::Check(args) => {
            let report = check(&Connection::from(&args.connection)).await?;
            present(&report, args.json.as_deref())?;
            Ok(if report.is_consistent() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

fn present(report: &(impl Serialize + std::fmt::Display), json: Option<&Path>) -> anyhow::Result<()> {
    println!("{report}");
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(report)?;
        std::fs::write(path, text + "\n")
            .map_err(|source| Error::File { path: path.display().to_string(), source })?;
    }
    Ok(())
}
