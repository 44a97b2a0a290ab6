//! TPC-C as the load, by the command that users have, in a process of its own.

use crate::args::Common;
use anyhow::{Context as _, bail};
use std::path::Path;
use std::process::Stdio;
use steeldb_tpcc::Report;
use tokio::process::{Child, Command};

/// Cardinalities of `--small`.
const SMALL: [&str; 4] = ["--items", "1000", "--customers-per-district", "60"];

fn tpcc(subcommand: &str, url: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this executable")?);
    command
        .args(["tpcc", subcommand, "--url", url])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    Ok(command)
}

/// Loads the database.
///
/// # Errors
/// When loading fails; what was said about it is on standard error.
pub(crate) async fn load(url: &str, common: &Common) -> anyhow::Result<()> {
    let mut command = tpcc("load", url)?;
    command.args(["--seed", "1", "--warehouses", &common.warehouses.to_string()]);
    if common.small {
        command.args(SMALL);
    }
    let output = command.stderr(Stdio::piped()).output().await?;
    if !output.status.success() {
        bail!("loading failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// A run that has begun.
pub(crate) struct Running {
    child: Child,
    report: tempfile::NamedTempFile,
}

/// Begins a run. `seed` makes the inputs, so that systems are given the same.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn start(url: &str, common: &Common, terminals: u32, seed: u32) -> anyhow::Result<Running> {
    let report = tempfile::Builder::new().prefix("steeldb-bench-").suffix(".json").tempfile()?;
    let mut command = tpcc("run", url)?;
    command.args(["--terminals", &terminals.to_string(), "--seed", &seed.to_string()]);
    command.args(["--duration", &format!("{}s", common.seconds), "--warmup", &format!("{}s", common.warmup)]);
    let child = command.arg("--json").arg(report.path()).stderr(Stdio::piped()).spawn()?;
    Ok(Running { child, report })
}

impl Running {
    /// Waits for its end and reads what it reports.
    ///
    /// # Errors
    /// When it failed or committed nothing.
    pub(crate) async fn finish(self) -> anyhow::Result<Report> {
        let output = self.child.wait_with_output().await?;
        if !output.status.success() {
            bail!("the run failed: {}", last_line(&output.stderr));
        }
        read(self.report.path())
    }
}

fn read(file: &Path) -> anyhow::Result<Report> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no report", file.display()))
}

/// Progress is written over itself; what matters is at the end.
fn last_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.split(['\n', '\r'])
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .unwrap_or("nothing was said")
        .to_string()
}

/// Checks the specification's consistency conditions.
///
/// # Errors
/// When one does not hold.
pub(crate) async fn check(url: &str) -> anyhow::Result<()> {
    let output = tpcc("check", url)?.stderr(Stdio::piped()).stdout(Stdio::piped()).output().await?;
    if !output.status.success() {
        bail!("TPC-C's consistency conditions do not hold:\n{}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_found_behind_progress() {
        assert_eq!(last_line(b"12 %\r13 %\rsteeldb: no server\n\n"), "steeldb: no server");
        assert_eq!(last_line(b""), "nothing was said");
    }
}
