//! A run: a cluster, workloads, faults one after the other, then peace and a verdict.

use crate::cluster::{Cluster, PROXIES, REPLICAS};
use crate::faults;
use crate::ledger::Ledger;
use crate::report::Report;
use crate::schedule::{Kind, Schedule};
use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use steeldb_isolation::workload::{Options as IsolationOptions, Workload};
use steeldb_isolation::{History, check};
use steeldb_types::ReplicaId;
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// How long a replica may take until it holds what the others do, once nothing is done to it any more.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(90);

/// How long the workloads may go without an acknowledgement before that counts as the end of service.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// How long a child of ours, such as TPC-C's checks, may take.
const CHILD_PATIENCE: Duration = Duration::from_secs(300);

/// Clients of the isolation workload and of the ledger; terminals of TPC-C. The machine is one.
const ISOLATION_CLIENTS: u32 = 6;
const ISOLATION_PAUSE: Duration = Duration::from_millis(100);
const LEDGER_CLIENTS: u64 = 2;
const TERMINALS: &str = "1";

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The command under test.
    pub program: PathBuf,
    /// How long faults are done.
    pub duration: Duration,
    /// The schedule's seed, and that of the workloads' choices.
    pub seed: u64,
    /// What is done.
    pub kinds: Vec<Kind>,
    /// To whom.
    pub replicas: Vec<ReplicaId>,
    /// The longest that a fault lasts.
    pub hold_max: Duration,
    /// Whether TPC-C runs besides.
    pub tpcc: bool,
    /// Where configuration, data, logs and the history go.
    pub folder: PathBuf,
}

/// Runs it.
///
/// # Errors
/// When the run itself cannot be made; what the cluster does wrong is in the report.
pub async fn run(options: &Options) -> anyhow::Result<Report> {
    let mut cluster = Cluster::start(&options.program, &options.folder).await?;
    let urls = cluster.urls().to_vec();
    let mut tpcc = match options.tpcc {
        true => Some(Tpcc::start(options, &urls).await?),
        false => None,
    };
    let ledger = Ledger::start(&urls, LEDGER_CLIENTS).await?;
    let isolation = IsolationOptions {
        clients: ISOLATION_CLIENTS,
        pause: ISOLATION_PAUSE,
        ..IsolationOptions::new(urls.clone(), options.seed)
    };
    let isolation = Workload::start(isolation).await?;
    if let Some(comparison) = faults::whole(&cluster, RECOVERY_PATIENCE).await? {
        anyhow::bail!("before any fault: {}", comparison.describe());
    }
    let mut report = Report::default();
    let all = (0..REPLICAS).map(ReplicaId);
    report.spared = all.filter(|replica| !options.replicas.contains(replica)).collect();
    let healed = disturb(options, &mut cluster, &ledger, &isolation, &mut report).await?;
    report.longest_stall = report.longest_stall.max(ledger.longest_stall());
    if healed {
        settle(options, &mut cluster, (tpcc.take(), ledger, isolation), &mut report).await?;
    }
    cluster.stop().await?;
    Ok(report)
}

/// Does fault after fault. Whether the cluster was whole again after each.
async fn disturb(
    options: &Options,
    cluster: &mut Cluster,
    ledger: &Ledger,
    isolation: &Workload,
    report: &mut Report,
) -> anyhow::Result<bool> {
    let started = Instant::now();
    let schedule = Schedule::new(options.seed, &options.kinds, &options.replicas, options.hold_max);
    for fault in schedule {
        tokio::time::sleep(fault.pause).await;
        if started.elapsed() >= options.duration {
            break;
        }
        let stall = ledger.longest_stall();
        eprintln!(
            "{:>6.1} s  {} transactions  {fault}",
            started.elapsed().as_secs_f64(),
            ledger.acknowledged() + isolation.committed()
        );
        *report.faults.entry(fault.kind).or_default() += 1;
        if let Err(error) = faults::inflict(cluster, &fault).await {
            report.anomalies.push(format!("{fault}: {error:#}"));
            report.divergent = 1;
            return Ok(false);
        }
        let ended = Instant::now();
        let differing = faults::whole(cluster, RECOVERY_PATIENCE).await;
        let span = ended.elapsed();
        let longest = report.recovery.entry(fault.kind).or_default();
        *longest = span.max(*longest);
        if ledger.longest_stall() > stall {
            report.stalled_by = Some(fault);
        }
        match differing {
            Ok(None) => {}
            Ok(Some(comparison)) => {
                report.divergent = comparison.differing().len() as u64;
                report.anomalies.push(format!("after {fault}: {}", comparison.describe()));
                return Ok(false);
            }
            Err(error) => {
                report.anomalies.push(format!("after {fault}: the replicas cannot be compared: {error:#}"));
                return Ok(false);
            }
        }
        if ledger.silence() > SILENCE_MAX {
            report.anomalies.push(format!("after {fault}: nothing is acknowledged any more"));
            return Ok(false);
        }
    }
    // Without faults the workloads run all the same.
    tokio::time::sleep(options.duration.saturating_sub(started.elapsed())).await;
    Ok(true)
}

/// Everything is healed: the workloads end, and what they were told is compared with what is there.
async fn settle(
    options: &Options,
    cluster: &mut Cluster,
    (tpcc, ledger, isolation): (Option<Tpcc>, Ledger, Workload),
    report: &mut Report,
) -> anyhow::Result<()> {
    // Service after the last fault: more is acknowledged.
    let (before, deadline) = (ledger.acknowledged(), Instant::now() + SILENCE_MAX);
    while ledger.acknowledged() < before + 10 {
        if Instant::now() > deadline {
            report.anomalies.push("after the last fault nothing is acknowledged".into());
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    report.longest_stall = report.longest_stall.max(ledger.longest_stall());
    let urls = cluster.urls().to_vec();
    let history = isolation.finish().await?;
    write(&history, &options.folder.join("history.jsonl"))?;
    let checked = check(&history);
    std::fs::write(options.folder.join("isolation.txt"), checked.to_string())?;
    report.transactions += checked.committed as u64;
    report.lost += checked.lost.len() as u64;
    report.anomalies.extend(checked.anomalies.iter().map(|anomaly| anomaly.to_string()));
    eprintln!("isolation: {}", checked.to_string().lines().take(2).collect::<Vec<_>>().join("; "));
    let balance = ledger.balance(&urls).await?;
    eprintln!("ledger: {} acknowledged, {} in doubt", balance.acknowledged, balance.in_doubt);
    report.transactions += balance.acknowledged;
    report.lost += balance.lost.len() as u64;
    for id in &balance.risen {
        report.anomalies.push(format!("number {id} of the ledger was refused, and is there"));
    }
    if let Some(tpcc) = tpcc {
        tpcc.finish(report).await?;
    }
    if let Some(comparison) = faults::whole(cluster, RECOVERY_PATIENCE).await? {
        report.divergent = comparison.differing().len() as u64;
        report.anomalies.push(format!("at the end: {}", comparison.describe()));
    }
    let observer = options.folder.join(format!("proxy-{}/proxy.toml", PROXIES + 1));
    let mut verify = Command::new(&options.program);
    verify.args(["verify", "--patience", "60", "--config"]).arg(observer);
    let verified = finished(verify.stdout(File::create(options.folder.join("verify.txt"))?)).await?;
    if !verified && report.divergent == 0 {
        report.divergent = 1;
        report
            .anomalies
            .push("steeldb verify does not say that all replicas are identical: verify.txt".into());
    }
    Ok(())
}

fn write(history: &History, path: &Path) -> anyhow::Result<()> {
    let mut output = BufWriter::new(File::create(path).with_context(|| path.display().to_string())?);
    history.write(&mut output).and_then(|()| output.flush()).with_context(|| path.display().to_string())
}

/// Whether a child ends well.
async fn finished(command: &mut Command) -> anyhow::Result<bool> {
    let mut child = command.stdin(Stdio::null()).kill_on_drop(true).spawn()?;
    let status = tokio::time::timeout(CHILD_PATIENCE, child.wait()).await;
    Ok(status.context("a child of this program does not end")??.success())
}

/// `steeldb tpcc`, beside.
struct Tpcc {
    child: Child,
    program: PathBuf,
    folder: PathBuf,
    url: String,
}

impl Tpcc {
    /// Loads a small TPC-C and runs it until it is finished.
    async fn start(options: &Options, urls: &[String]) -> anyhow::Result<Tpcc> {
        // Not the proxy that is killed: a terminal does not look for another one.
        let url = urls.last().context("no proxy")?.clone();
        let (program, folder) = (options.program.clone(), options.folder.clone());
        let log = || File::options().create(true).append(true).open(folder.join("tpcc.txt"));
        let seed = options.seed.to_string();
        let mut load = Command::new(&program);
        load.args(["tpcc", "load", "--warehouses", "1", "--items", "500", "--customers-per-district", "20"]);
        load.args(["--no-analyze", "--connections", "2", "--seed", &seed, "--url", &url]);
        anyhow::ensure!(finished(load.stdout(log()?).stderr(log()?)).await?, "steeldb tpcc load: tpcc.txt");
        let mut run = Command::new(&program);
        run.args(["tpcc", "run", "--terminals", TERMINALS, "--duration", "24h", "--seed", &seed]);
        run.args(["--max-tries", "200", "--url", &url, "--json"]).arg(folder.join("tpcc.json"));
        run.stdin(Stdio::null()).stdout(log()?).stderr(log()?).process_group(0).kill_on_drop(true);
        let child = run.spawn().context("cannot start steeldb tpcc run")?;
        Ok(Tpcc { child, program, folder, url })
    }

    /// Ends the run, then checks the consistency conditions.
    async fn finish(mut self, report: &mut Report) -> anyhow::Result<()> {
        if let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
        let ended = tokio::time::timeout(CHILD_PATIENCE, self.child.wait()).await;
        ended.context("steeldb tpcc run does not end")??;
        let path = self.folder.join("tpcc.json");
        let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let run: serde_json::Value = serde_json::from_slice(&text)?;
        let kinds = run["kinds"].as_array().context("tpcc.json has no kinds")?;
        let committed: u64 = kinds.iter().filter_map(|kind| kind["committed"].as_u64()).sum();
        eprintln!("tpcc: {committed} committed, {} in doubt", run["commits_in_doubt"]);
        report.transactions += committed;
        let log = File::options().create(true).append(true).open(self.folder.join("tpcc.txt"))?;
        let mut check = Command::new(&self.program);
        check.args(["tpcc", "check", "--url", &self.url]);
        if !finished(check.stdout(log.try_clone()?).stderr(log)).await? {
            report.anomalies.push("TPC-C's consistency conditions do not hold: tpcc.txt".into());
        }
        Ok(())
    }
}
