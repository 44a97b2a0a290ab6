//! A run: a cluster, workloads, faults one after the other, then peace and a verdict.

use crate::cluster::{Cluster, PROXIES, REPLICAS};
use crate::faults::{self, Wholeness};
use crate::load::Load;
use crate::process;
use crate::progress::Progress;
use crate::report::Report;
use crate::schedule::{Fault, Kind, Replies, Schedule};
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;
use steeldb_types::ReplicaId;
use tokio::process::Command;
use tokio::time::Instant;

/// How long the workloads may go without an acknowledgement before that counts as the end of service. Far above what a
/// loaded machine needs.
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// Acknowledgements after the last fault that show that the service goes on.
const PROOFS_OF_LIFE: u64 = 10;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The command under test.
    pub program: PathBuf,
    /// How long faults are done, if their number is not given.
    pub duration: Duration,
    /// How many faults are done.
    pub count: Option<u64>,
    /// The schedule's seed, and that of the workloads' choices.
    pub seed: u64,
    /// What COMMIT waits for.
    pub replies: Replies,
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
pub async fn run(options: &Options, progress: &Progress) -> anyhow::Result<Report> {
    progress.now("a cluster is started".into());
    let mut cluster = Cluster::start(&options.program, &options.folder, options.replies).await?;
    let urls = cluster.urls().to_vec();
    progress.now("tables are created".into());
    let load = Load::start(options, &urls).await?;
    if let Wholeness::Not(_, reason) = faults::whole(&cluster, Some(&load)).await {
        anyhow::bail!("before any fault: {reason}");
    }
    let mut report = Report::default();
    let all = (0..REPLICAS).map(ReplicaId);
    report.spared = all.filter(|replica| !options.replicas.contains(replica)).collect();
    let healed = disturb(options, &mut cluster, &load, &mut report, progress).await;
    report.longest_stall = report.longest_stall.max(load.ledger.longest_stall());
    if healed {
        settle(options, &cluster, load, &mut report, progress).await?;
    }
    progress.now("the cluster is stopped".into());
    cluster.stop().await?;
    Ok(report)
}

/// Does fault after fault. Whether the cluster was whole again after each.
async fn disturb(
    options: &Options,
    cluster: &mut Cluster,
    load: &Load,
    report: &mut Report,
    progress: &Progress,
) -> bool {
    let started = Instant::now();
    let over = |done: u64| match options.count {
        Some(count) => done >= count,
        None => started.elapsed() >= options.duration,
    };
    let schedule = Schedule::new(options.seed, &options.kinds, &options.replicas, PROXIES, options.hold_max);
    for (fault, done) in schedule.zip(0..) {
        progress.now(format!("{} transactions", load.acknowledged()));
        tokio::time::sleep(fault.pause).await;
        if over(done) {
            return true;
        }
        let seconds = started.elapsed().as_secs_f64();
        progress.line(&format!("{seconds:>6.1} s  {} transactions  {fault}", load.acknowledged()));
        progress.now(fault.to_string());
        let stall = load.ledger.longest_stall();
        let told = disturbed(cluster, load, &fault, report).await;
        if let Some(next) = load.ledger.next_commit() {
            progress.line(&format!("{:>10} next commit after {} ms", "", next.as_millis()));
        }
        if load.ledger.longest_stall() > stall {
            report.stalled_by = Some(fault);
        }
        if let Err(anomaly) = told {
            report.anomalies.push(anomaly);
            return false;
        }
    }
    // Without faults the workloads run all the same.
    while !over(0) {
        progress.now(format!("{} transactions", load.acknowledged()));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    true
}

/// Does one fault, and waits until all is well; what is wrong if it does not get so.
async fn disturbed(
    cluster: &mut Cluster,
    load: &Load,
    fault: &Fault,
    report: &mut Report,
) -> Result<(), String> {
    *report.faults.entry(fault.kind).or_default() += 1;
    if let Err(error) = faults::inflict(cluster, fault, load).await {
        report.divergent = 1;
        return Err(format!("{fault}: {error:#}"));
    }
    let ended = Instant::now();
    match faults::whole(cluster, Some(load)).await {
        Wholeness::Whole { held } => report.held += u64::from(held),
        Wholeness::Not(replicas, reason) => {
            report.divergent = replicas as u64;
            return Err(format!("after {fault}: {reason}"));
        }
    }
    let longest = report.recovery.entry(fault.kind).or_default();
    *longest = ended.elapsed().max(*longest);
    // What was sent behind the fault may still be under way.
    while load.ledger.next_commit().is_none() {
        if load.ledger.silence() > SILENCE_MAX {
            return Err(format!("after {fault}: nothing is acknowledged any more"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    report.next_commit.entry(fault.kind).or_default().extend(load.ledger.next_commit());
    Ok(())
}

/// Everything is healed: the workloads end, and what they were told is compared with what is there.
async fn settle(
    options: &Options,
    cluster: &Cluster,
    load: Load,
    report: &mut Report,
    progress: &Progress,
) -> anyhow::Result<()> {
    progress.now("service after the last fault".into());
    let (before, deadline) = (load.ledger.acknowledged(), Instant::now() + SILENCE_MAX);
    while load.ledger.acknowledged() < before + PROOFS_OF_LIFE {
        if Instant::now() > deadline {
            report.anomalies.push("after the last fault nothing is acknowledged".into());
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    report.longest_stall = report.longest_stall.max(load.ledger.longest_stall());
    progress.now("what clients were told is compared with what is there".into());
    let urls = cluster.urls().to_vec();
    load.finish(&options.folder, &urls, report).await?;
    progress.now("the databases are compared".into());
    if let Wholeness::Not(replicas, reason) = faults::whole(cluster, None).await {
        report.divergent = replicas as u64;
        report.anomalies.push(format!("at the end: {reason}"));
    }
    let observer = options.folder.join(format!("proxy-{}/proxy.toml", PROXIES + 1));
    let mut verify = Command::new(&options.program);
    verify.args(["verify", "--patience", "120", "--config"]).arg(observer);
    let verified = process::finished(verify.stdout(File::create(options.folder.join("verify.txt"))?)).await?;
    if !verified && report.divergent == 0 {
        report.divergent = 1;
        let words = "steeldb verify does not say that all replicas are identical: verify.txt";
        report.anomalies.push(words.into());
    }
    Ok(())
}
