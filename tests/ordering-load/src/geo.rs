//! Ordering over a wide-area network: what weights, tentative replies and several consensus instances in flight do for
//! clients of each region, with faulty replicas that lie or that stop alone (the thesis' Table 5.8).

use crate::cluster::{Cluster, ClusterOptions, Sites};
use anyhow::Context as _;
use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use steeldb_ordering_server::Session;
use steeldb_types::{ClientId, FaultModel, SessionId};
use steeldb_wan::{EC2, Matrix};
use tokio::task::JoinSet;

/// Flags of `ordering-load geo`.
#[derive(Args, Clone, Debug)]
pub struct GeoArgs {
    /// Seconds of each measurement, after a warm-up
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,

    /// Runs of each
    #[arg(long, default_value_t = 3)]
    pub runs: u64,

    /// Round trips between the sites, as TOML; five EC2 regions unless given
    #[arg(long, value_name = "FILE")]
    pub matrix: Option<PathBuf>,

    /// Sites of the replicas: the leader's, the three others of equal weights, the spare one
    #[arg(long, value_delimiter = ',', default_value = "oregon,ireland,sydney,sao-paulo,virginia")]
    pub sites: Vec<String>,

    /// Consensus instances in flight, comma-separated: each is measured
    #[arg(long, value_delimiter = ',', default_value = "1,4", value_parser = windows())]
    pub windows: Vec<u64>,

    /// Where the JSON goes
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// As many as the core allows.
fn windows() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=steeldb_types::limits::WINDOW_MAX as u64)
}

const WARM_UP: Duration = Duration::from_secs(3);

/// Well above the longest round trip.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A way of ordering.
struct Mode {
    name: &'static str,
    model: FaultModel,
    tentative: bool,
    /// Indices into the sites given; the first ones weigh more where there is a spare replica.
    replicas: &'static [usize],
}

/// The spare replica is the one nearest to the leader; with weights the two of them weigh the most (in the crash model
/// the leader alone), so it stands second.
const MODES: [Mode; 6] = [
    Mode {
        name: "BFT, equal weights, n = 4",
        model: FaultModel::Byzantine,
        tentative: false,
        replicas: &[0, 1, 2, 3],
    },
    Mode {
        name: "BFT, WHEAT weights, n = 5",
        model: FaultModel::Byzantine,
        tentative: false,
        replicas: &[0, 4, 1, 2, 3],
    },
    Mode {
        name: "BFT, WHEAT weights, tentative replies, n = 5",
        model: FaultModel::Byzantine,
        tentative: true,
        replicas: &[0, 4, 1, 2, 3],
    },
    Mode {
        name: "CFT, equal weights, n = 3",
        model: FaultModel::Crash,
        tentative: false,
        replicas: &[0, 1, 2],
    },
    Mode {
        name: "CFT, WHEAT weights, n = 4",
        model: FaultModel::Crash,
        tentative: false,
        replicas: &[0, 4, 1, 2],
    },
    Mode {
        name: "CFT, WHEAT weights, tentative replies, n = 4",
        model: FaultModel::Crash,
        tentative: true,
        replicas: &[0, 4, 1, 2],
    },
];

/// Latencies of the clients of one region.
#[derive(Clone, Debug, Serialize)]
struct Row {
    mode: &'static str,
    /// Consensus instances in flight.
    window: u64,
    region: String,
    /// Medians of the runs, ms.
    p50_ms: Vec<f64>,
    p90_ms: Vec<f64>,
    requests: u64,
}

/// Runs all of it; a Markdown table on standard output, a row per mode, columns per region.
///
/// # Errors
/// When the matrix lacks a site, a cluster cannot be started, or the report cannot be written.
pub async fn run(args: GeoArgs) -> anyhow::Result<()> {
    anyhow::ensure!(args.sites.len() == 5, "--sites: five sites, the last one the spare replica's");
    let text = match &args.matrix {
        Some(file) => std::fs::read_to_string(file).with_context(|| file.display().to_string())?,
        None => EC2.to_string(),
    };
    let matrix = Matrix::parse(&text)?;
    // Everybody's regions: the spare one has clients as well.
    println!("| ordering, p50 / p90 ms by the client's region | in flight | {} |", args.sites.join(" | "));
    println!("|---|---|{}", "---|".repeat(args.sites.len()));
    let mut rows = Vec::new();
    for (mode, &window) in MODES.iter().flat_map(|mode| args.windows.iter().map(move |window| (mode, window)))
    {
        let mut of_mode: Vec<Row> = Vec::new();
        for seed in 1..=args.runs {
            for (region, latency) in measure(mode, window, &matrix, &args, seed).await? {
                let quantile = |q| latency.value_at_quantile(q) as f64 / 1000.0;
                let row = match of_mode.iter_mut().find(|row| row.region == region) {
                    Some(row) => row,
                    None => {
                        let (p50_ms, p90_ms) = (Vec::new(), Vec::new());
                        of_mode.push(Row { mode: mode.name, window, region, p50_ms, p90_ms, requests: 0 });
                        of_mode.last_mut().context("just pushed")?
                    }
                };
                row.p50_ms.push(quantile(0.5));
                row.p90_ms.push(quantile(0.9));
                row.requests += latency.len();
            }
        }
        let cells =
            of_mode.iter().map(|row| format!("{:.0} / {:.0}", median(&row.p50_ms), median(&row.p90_ms)));
        println!("| {} | {window} | {} |", mode.name, cells.collect::<Vec<_>>().join(" | "));
        rows.extend(of_mode);
    }
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&rows)?)?;
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

async fn measure(
    mode: &Mode,
    window: u64,
    matrix: &Matrix,
    args: &GeoArgs,
    seed: u64,
) -> anyhow::Result<Vec<(String, Histogram<u64>)>> {
    let mut options = ClusterOptions::new(std::env::current_exe()?);
    options.n = u16::try_from(mode.replicas.len())?;
    options.model = mode.model;
    options.tentative = mode.tentative;
    options.window = usize::try_from(window)?;
    options.request_timeout = REQUEST_TIMEOUT;
    let replicas = mode.replicas.iter().map(|index| args.sites[*index].clone()).collect();
    options.sites = Some(Sites { matrix: matrix.clone(), replicas, seed });
    let cluster = Cluster::start(options).await?;
    let mut tasks = JoinSet::new();
    let mut kept = Vec::new();
    for (number, region) in (0..).zip(&args.sites) {
        let (client, relays) = cluster.client_at(region, ClientId(number + 1)).await?;
        let session = client.session(SessionId(1));
        tasks.spawn(closed_loop(number, session, Duration::from_secs(args.seconds)));
        kept.push((client, relays));
    }
    let mut latencies = Vec::new();
    while let Some(done) = tasks.join_next().await {
        let (number, latency) = done??;
        latencies.push((number, latency));
    }
    for (client, _relays) in &kept {
        client.stop();
    }
    latencies.sort_by_key(|(number, _)| *number);
    let named = latencies.into_iter().map(|(number, latency)| (args.sites[number as usize].clone(), latency));
    Ok(named.collect())
}

/// One request after the other; latencies in microseconds after the warm-up.
async fn closed_loop(
    number: u32,
    mut session: Session,
    measured: Duration,
) -> anyhow::Result<(u32, Histogram<u64>)> {
    let mut latency = Histogram::new_with_bounds(1, 60_000_000, 3)?;
    let begin = Instant::now();
    while begin.elapsed() < WARM_UP + measured {
        let sent = Instant::now();
        session.invoke(&[]).await?;
        if begin.elapsed() > WARM_UP {
            latency.saturating_record(u64::try_from(sent.elapsed().as_micros())?);
        }
    }
    Ok((number, latency))
}
