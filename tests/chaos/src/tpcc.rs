//! `steeldb tpcc`, beside: a small one.

use crate::process;
use crate::report::Report;
use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::{Child, Command};

/// Terminals. The machine is one.
const TERMINALS: &str = "1";

/// A run that goes on until it is finished.
pub struct Tpcc {
    child: Child,
    program: PathBuf,
    folder: PathBuf,
    url: String,
}

impl Tpcc {
    /// Loads the tables and starts the run; its log and its report go to `folder`.
    ///
    /// # Errors
    /// When the tables cannot be loaded.
    pub async fn start(program: &Path, folder: &Path, seed: u64, urls: &[String]) -> anyhow::Result<Tpcc> {
        let url = several(urls)?;
        let (program, folder) = (program.to_path_buf(), folder.to_path_buf());
        let log = || File::options().create(true).append(true).open(folder.join("tpcc.txt"));
        let seed = seed.to_string();
        let mut load = Command::new(&program);
        load.args(["tpcc", "load", "--warehouses", "1", "--items", "500", "--customers-per-district", "20"]);
        load.args(["--no-analyze", "--connections", "2", "--seed", &seed, "--url", &url]);
        let loaded = process::finished(load.stdout(log()?).stderr(log()?)).await?;
        anyhow::ensure!(loaded, "steeldb tpcc load: tpcc.txt");
        let mut run = Command::new(&program);
        run.args(["tpcc", "run", "--terminals", TERMINALS, "--duration", "24h", "--seed", &seed]);
        run.args(["--max-tries", "200", "--url", &url, "--json"]).arg(folder.join("tpcc.json"));
        run.stdin(Stdio::null()).stdout(log()?).stderr(log()?).process_group(0).kill_on_drop(true);
        let child = run.spawn().context("cannot start steeldb tpcc run")?;
        Ok(Tpcc { child, program, folder, url })
    }

    /// Stops the process for a while, or has it go on.
    pub(crate) fn hold(&self, held: bool) {
        self.signal(if held { Signal::SIGSTOP } else { Signal::SIGCONT });
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Ends the run, then checks the consistency conditions.
    ///
    /// # Errors
    /// When the run does not end, or left no report.
    pub async fn finish(mut self, report: &mut Report) -> anyhow::Result<()> {
        self.signal(Signal::SIGINT);
        process::ended(&mut self.child).await.context("steeldb tpcc run")?;
        let path = self.folder.join("tpcc.json");
        let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let run: serde_json::Value = serde_json::from_slice(&text)?;
        let kinds = run["kinds"].as_array().context("tpcc.json has no kinds")?;
        let committed: u64 = kinds.iter().filter_map(|kind| kind["committed"].as_u64()).sum();
        report.notes.push(format!("tpcc: {committed} committed, {} in doubt", run["commits_in_doubt"]));
        report.transactions += committed;
        let log = File::options().create(true).append(true).open(self.folder.join("tpcc.txt"))?;
        let mut check = Command::new(&self.program);
        check.args(["tpcc", "check", "--url", &self.url]);
        if !process::finished(check.stdout(log.try_clone()?).stderr(log)).await? {
            report.anomalies.push("TPC-C's consistency conditions do not hold: tpcc.txt".into());
        }
        Ok(())
    }
}

/// One connection string with all proxies: a terminal that loses its session tries one after the other.
fn several(urls: &[String]) -> anyhow::Result<String> {
    let parts = urls.iter().map(|url| url.strip_prefix("postgresql://")?.split_once('/'));
    let parts: Vec<(&str, &str)> = parts.collect::<Option<_>>().context("a proxy without an address")?;
    let (_, database) = parts.first().context("no proxy")?;
    let (user, _) = parts[0].0.split_once('@').context("a proxy without a role")?;
    let hosts = parts.iter().filter_map(|(address, _)| Some(address.rsplit_once('@')?.1));
    Ok(format!("postgresql://{user}@{}/{database}", hosts.collect::<Vec<_>>().join(",")))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_terminal_knows_all_proxies() {
        let urls = ["postgresql://app@h:1/app".to_string(), "postgresql://app@h:2/app".to_string()];
        assert_eq!(super::several(&urls).unwrap(), "postgresql://app@h:1,h:2/app");
    }
}
