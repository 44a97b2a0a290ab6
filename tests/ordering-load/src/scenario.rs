//! What is measured: loads of all sizes, then overload, one slow replica, a leader's crash.

use crate::cluster::{Cluster, ClusterOptions};
use crate::load::{self, Load};
use crate::report::{self, Row};
use anyhow::Context as _;
use clap::Args;
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use steeldb_types::ReplicaId;

/// Flags of `ordering-load bench`.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// Seconds of each measurement, after a warm-up
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,

    /// Measurements of each line, each with a cluster of its own: the line is the one with the median throughput
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub runs: u32,

    /// Closed-loop clients, comma-separated
    #[arg(long, value_delimiter = ',', default_value = "1,10,50,200,1000")]
    pub clients: Vec<u64>,

    /// Replicas of the clusters under steady load, comma-separated
    #[arg(long, value_delimiter = ',', default_value = "4")]
    pub replicas: Vec<u16>,

    /// Clients share this many links to each replica
    #[arg(long, default_value_t = 8)]
    pub links: u32,

    /// Bytes of requests and replies, comma-separated
    #[arg(long, value_delimiter = ',', default_value = "0,1024")]
    pub bytes: Vec<usize>,

    /// Logs, comma-separated: on, off
    #[arg(long, value_delimiter = ',', default_value = "on,off")]
    pub log: Vec<String>,

    /// Requests, comma-separated: signed, unsigned
    #[arg(long, value_delimiter = ',', default_value = "signed,unsigned")]
    pub requests: Vec<String>,

    /// When replicas reply, comma-separated: final, tentative (before the decision)
    #[arg(long, value_delimiter = ',', default_value = "final,tentative")]
    pub replies: Vec<String>,

    /// What else is done, comma-separated: overload, slow, crash, none
    #[arg(long, value_delimiter = ',', default_value = "overload,slow,crash")]
    pub faults: Vec<String>,

    /// Where the JSON goes
    #[arg(long)]
    pub json: Option<PathBuf>,
}

const WARM_UP: Duration = Duration::from_secs(1);

/// The time-out of the runs with a crash.
const CRASH_TIMEOUT: Duration = Duration::from_millis(500);

/// Requests that may wait at a replica in the runs with overload.
const OVERLOAD_PENDING: usize = 1000;

struct Bench {
    args: BenchArgs,
    rows: Vec<Row>,
}

/// Runs all of it.
///
/// # Errors
/// When a cluster cannot be started, or the report cannot be written.
pub async fn run(args: BenchArgs) -> anyhow::Result<()> {
    println!("{}", report::HEAD);
    let mut bench = Bench { args: args.clone(), rows: Vec::new() };
    for log in flags(&args.log, "on") {
        for signed in flags(&args.requests, "signed") {
            for payload_bytes in &args.bytes {
                for tentative in flags(&args.replies, "tentative") {
                    for n in &args.replicas {
                        for sessions in &args.clients {
                            let load = bench.load(*sessions, *payload_bytes, signed);
                            let adjust = |options: &mut ClusterOptions| {
                                options.n = *n;
                                options.tentative = tentative;
                            };
                            let scenario = steady(tentative, (args.replicas.len() > 1).then_some(*n));
                            bench.measure(&scenario, log, load, adjust, async |_| Ok(())).await?;
                        }
                    }
                }
            }
        }
    }
    for fault in &args.faults {
        match fault.as_str() {
            "overload" => bench.overload().await?,
            "slow" => bench.slow_replica().await?,
            "crash" => bench.crash().await?,
            _ => {}
        }
    }
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&bench.rows)?)?;
    }
    Ok(())
}

fn steady(tentative: bool, n: Option<u16>) -> String {
    let replies = if tentative { ", tentative replies" } else { "" };
    let size = n.map(|n| format!(", n = {n}")).unwrap_or_default();
    format!("steady{size}{replies}")
}

fn flags(words: &[String], on: &str) -> Vec<bool> {
    words.iter().map(|word| word == on).collect()
}

impl Bench {
    fn load(&self, sessions: u64, payload_bytes: usize, signed: bool) -> Load {
        Load { sessions, clients: self.args.links, payload_bytes, signed, rate: None }
    }

    /// Measures a line; its throughput, per second.
    async fn measure(
        &mut self,
        scenario: &str,
        log: bool,
        load: Load,
        adjust: impl Fn(&mut ClusterOptions),
        disturb: impl AsyncFn(&mut Cluster) -> anyhow::Result<()>,
    ) -> anyhow::Result<f64> {
        let mut runs = Vec::new();
        for _ in 0..self.args.runs.max(1) {
            let mut options = ClusterOptions::new(std::env::current_exe()?);
            options.log = log;
            options.clients = load.clients.max(1);
            adjust(&mut options);
            let mut cluster = Cluster::start(options).await?;
            let seconds = Duration::from_secs(self.args.seconds);
            let measured = load::run(&mut cluster, load, WARM_UP, seconds, &disturb).await?;
            runs.push(Row::new(scenario, log, load, &measured));
        }
        let row = Row::median(runs).context("no run")?;
        println!("{}", report::markdown(&row));
        let throughput = row.throughput_per_second;
        self.rows.push(row);
        Ok(throughput)
    }

    /// Four times what fifty clients get through, with queues that are soon full.
    async fn overload(&mut self) -> anyhow::Result<()> {
        let small = |options: &mut ClusterOptions| options.pending_requests_max = OVERLOAD_PENDING;
        let steady = self.load(200, 0, true);
        let capacity = self.measure("capacity", true, steady, small, async |_| Ok(())).await?;
        let flood = Load { sessions: 4000, rate: Some(4.0 * capacity), ..steady };
        self.measure("4x overload", true, flood, small, async |_| Ok(())).await?;
        Ok(())
    }

    /// One follower runs a fifth of the time.
    async fn slow_replica(&mut self) -> anyhow::Result<()> {
        let load = self.load(50, 0, true);
        let half = Duration::from_secs(self.args.seconds) / 2;
        let slow = async |cluster: &mut Cluster| {
            let until = Instant::now() + half;
            while Instant::now() < until {
                cluster.signal(ReplicaId(3), Signal::SIGSTOP)?;
                tokio::time::sleep(Duration::from_millis(80)).await;
                cluster.signal(ReplicaId(3), Signal::SIGCONT)?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        self.measure("slow replica from the middle on", true, load, |_| {}, slow).await?;
        Ok(())
    }

    /// The leader is killed.
    async fn crash(&mut self) -> anyhow::Result<()> {
        let load = self.load(50, 0, true);
        let timeout = |options: &mut ClusterOptions| options.request_timeout = CRASH_TIMEOUT;
        let scenario = format!("leader's crash, time-out {} ms", CRASH_TIMEOUT.as_millis());
        let kill = async |cluster: &mut Cluster| cluster.crash(ReplicaId(0)).await;
        self.measure(&scenario, true, load, timeout, kill).await?;
        Ok(())
    }
}
