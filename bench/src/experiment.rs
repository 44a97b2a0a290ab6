//! Running a point: load, runs, check; and writing what came out.

use crate::args::Common;
use crate::cluster::Cluster;
use crate::node::Node;
use crate::postgres::Postgres;
use crate::quota::Quota;
use crate::summary::{Point, Run, difference, table};
use crate::workload;
use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A system under load.
pub(crate) enum System {
    Cluster(Box<Cluster>),
    Postgres(Postgres),
}

impl System {
    fn url(&self) -> &str {
        match self {
            System::Cluster(cluster) => cluster.url(),
            System::Postgres(postgres) => postgres.url(),
        }
    }

    fn nodes(&self) -> Vec<(&'static str, &Node)> {
        match self {
            System::Cluster(cluster) => cluster.nodes().collect(),
            System::Postgres(postgres) => postgres.nodes().collect(),
        }
    }

    fn check(&mut self) -> anyhow::Result<()> {
        match self {
            System::Cluster(cluster) => cluster.check(),
            System::Postgres(postgres) => postgres.check(),
        }
    }

    /// Stops its processes.
    pub(crate) async fn stop(&mut self) {
        match self {
            System::Cluster(cluster) => cluster.stop().await,
            System::Postgres(postgres) => postgres.stop().await,
        }
    }

    /// CPU time used so far by part.
    fn used(&self) -> anyhow::Result<BTreeMap<String, Duration>> {
        let mut used = BTreeMap::new();
        for (part, node) in self.nodes() {
            if let Some(time) = node.used()? {
                *used.entry(part.to_string()).or_insert(Duration::ZERO) += time;
            }
        }
        Ok(used)
    }

    fn limit(&self, quota: Quota) -> anyhow::Result<()> {
        self.nodes().into_iter().try_for_each(|(_, node)| node.limit(quota))
    }

    /// Loads TPC-C, without a limit on the CPUs: loading is not what is measured. Then the nodes get their shares.
    ///
    /// # Errors
    /// When loading fails.
    pub(crate) async fn load(&mut self, common: &Common) -> anyhow::Result<()> {
        workload::load(self.url(), common).await?;
        self.check()?;
        quota(common).map_or(Ok(()), |quota| self.limit(quota))
    }

    /// One run.
    ///
    /// # Errors
    /// When it fails, or a process ends meanwhile.
    pub(crate) async fn run(&mut self, common: &Common, terminals: u32, seed: u32) -> anyhow::Result<Run> {
        let before = self.used()?;
        let report = workload::start(self.url(), common, terminals, seed)?.finish().await?;
        let cpu_seconds = difference(&before, &self.used()?);
        self.check()?;
        Ok(Run { report, cpu_seconds })
    }

    /// Checks TPC-C's consistency conditions, without a limit on the CPUs.
    ///
    /// # Errors
    /// When one does not hold.
    pub(crate) async fn verify(&self, common: &Common) -> anyhow::Result<()> {
        if let Some(quota) = quota(common) {
            self.limit(Quota { cpus: None, ..quota })?;
        }
        workload::check(self.url()).await
    }
}

/// The share of each node.
pub(crate) fn quota(common: &Common) -> Option<Quota> {
    let period = Duration::from_millis(common.period);
    (!common.no_quota).then_some(Quota { cpus: Some(common.cpus), period })
}

/// The runs of a point on a loaded system.
///
/// # Errors
/// When one fails.
pub(crate) async fn measure(
    system: &mut System,
    name: &str,
    axis: BTreeMap<String, u64>,
    common: &Common,
    terminals: u32,
    progress: &Progress,
) -> anyhow::Result<Point> {
    let mut runs = Vec::new();
    for run in 1..=common.runs {
        progress.say(format!("{name}, {terminals} terminals, run {run} of {}", common.runs));
        let failed = || format!("{name}, {terminals} terminals, run {run}");
        runs.push(system.run(common, terminals, run).await.with_context(failed)?);
        progress.step();
    }
    Ok(Point { system: name.into(), axis, runs })
}

/// How far a comparison is.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Of so many runs.
    pub(crate) fn new(runs: u64) -> Progress {
        let bar = ProgressBar::new(runs);
        if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} [{bar:30}] {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        Progress(bar)
    }

    /// What is being done. Where nobody looks at a bar, a line.
    pub(crate) fn say(&self, what: String) {
        if self.0.is_hidden() {
            eprintln!("{what}");
        }
        self.0.set_message(what);
    }

    /// A run is done.
    pub(crate) fn step(&self) {
        self.0.inc(1);
    }

    /// All is done.
    pub(crate) fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// How a comparison was made; beside its results.
#[derive(Serialize)]
struct Method<'a> {
    command: String,
    version: &'static str,
    cpus_of_the_machine: usize,
    cpus_per_node: Option<f64>,
    quota_period_ms: Option<u64>,
    warehouses: u32,
    specification_scale: bool,
    terminals: u32,
    runs: u32,
    measured_seconds: u64,
    warmup_seconds: u64,
    points: &'a [Point],
}

/// Writes `NAME.json` with everything and `NAME.md` with the table and its plots, and prints the table.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn write(
    name: &str,
    title: &str,
    common: &Common,
    points: &[Point],
    plots: &[String],
) -> anyhow::Result<()> {
    let mut command: Vec<String> = std::env::args().skip(1).collect();
    command.insert(0, "steeldb".into());
    let command = command.join(" ");
    let quota = quota(common);
    let method = Method {
        command: command.clone(),
        version: env!("CARGO_PKG_VERSION"),
        cpus_of_the_machine: std::thread::available_parallelism().map_or(0, usize::from),
        cpus_per_node: quota.and_then(|quota| quota.cpus),
        quota_period_ms: quota.map(|_| common.period),
        warehouses: common.warehouses,
        specification_scale: !common.small,
        terminals: common.terminals,
        runs: common.runs,
        measured_seconds: common.seconds,
        warmup_seconds: common.warmup,
        points,
    };
    put(&file(common, name, "json"), &serde_json::to_string(&method)?)?;
    let share = quota.and_then(|quota| quota.cpus).map_or_else(
        || "nodes share the machine's CPUs as they come".to_string(),
        |cpus| format!("{cpus} CPUs per node, in periods of {} ms", common.period),
    );
    let images: String = plots.iter().map(|plot| format!("\n![{title}]({plot})\n")).collect();
    let table = table(points);
    let text = format!(
        "# {title}\n\n`{command}`: {} of {} s after {} s of warm-up, medians with range; {} warehouses; {share}; a machine with {} CPUs.\n\n{table}\n{images}",
        if common.runs == 1 { "one run".to_string() } else { format!("{} runs", common.runs) },
        common.seconds,
        common.warmup,
        common.warehouses,
        method.cpus_of_the_machine,
    );
    put(&file(common, name, "md"), &text)?;
    println!("{table}\n\nwritten to {}", common.out.display());
    Ok(())
}

/// A file of the results.
pub(crate) fn file(common: &Common, name: &str, extension: &str) -> PathBuf {
    common.out.join(format!("{name}.{extension}"))
}

fn put(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Makes the folder of the results, before an hour is spent on what cannot be written.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn prepare(common: &Common) -> anyhow::Result<()> {
    std::fs::create_dir_all(&common.out).with_context(|| format!("cannot create {}", common.out.display()))
}
