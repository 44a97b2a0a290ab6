//! TPC-C over a wide-area network, clients at the master's site: what weights, tentative replies and several
//! consensus instances in flight do for latency.
//!
//! Round trips bound it, so the network is emulated and everything else is as on one site.

use crate::args::GeoArgs;
use crate::cluster::{Cluster, Shape, Sites};
use crate::experiment::{Progress, System, measure, prepare, quota, write};
use crate::plot;
use anyhow::{Context as _, ensure};
use std::collections::BTreeMap;
use steeldb_wan::{EC2, Emulator, Matrix};

const NAME: &str = "geo";
const TITLE: &str = "TPC-C over a wide-area network, clients at the master's site";

/// f of all clusters.
const FAULTS: u16 = 1;

/// Runs the comparison.
///
/// # Errors
/// When a system fails, or the matrix lacks a site.
pub(crate) async fn run(args: GeoArgs) -> anyhow::Result<()> {
    let common = &args.common;
    prepare(common)?;
    ensure!(
        args.sites.len() == 5,
        "--sites: {} sites; it takes four and one for the spare replica",
        args.sites.len()
    );
    let text = match &args.matrix {
        Some(file) => {
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?
        }
        None => EC2.to_string(),
    };
    let network = Emulator::new(&Matrix::parse(&text)?, args.seed);
    for site in &args.sites {
        network.pair(site, site).context("--sites")?;
    }
    // The emulator has threads of its own: this one must stay free for the processes.
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    // The first 2f replicas have V_max: the master's site and the nearest one.
    let wheat =
        Shape { faults: Some(FAULTS), heavy: heavy(&network, &args.sites)?, ..Shape::of(5, "speculative") };
    let shapes = [
        ("equal weights, n = 4", Shape { faults: Some(FAULTS), ..Shape::of(4, "speculative") }),
        ("WHEAT weights, n = 5", wheat.clone()),
        ("WHEAT with tentative replies, n = 5", Shape { tentative: true, ..wheat.clone() }),
        ("the same, 4 instances in flight", Shape { tentative: true, window: 4, ..wheat }),
    ];
    let progress = Progress::new(shapes.len() as u64 * u64::from(common.runs));
    let mut points = Vec::new();
    for (name, mut shape) in shapes {
        shape.wide_area = true;
        // With the leader and the clients: every other choice costs a round trip more.
        shape.master = Some(0);
        let sites = Sites { network: &network, names: &args.sites };
        progress.say(format!("{name}: loading {} warehouses", common.warehouses));
        let cluster = {
            let _threads = threads.enter();
            Cluster::start(&shape, quota(common), Some(sites)).await?
        };
        let mut system = System::Cluster(Box::new(cluster));
        system.load(common).await?;
        points.push(measure(&mut system, name, BTreeMap::new(), common, common.terminals, &progress).await?);
        system.verify(common).await?;
        system.stop().await;
    }
    progress.end();
    threads.shutdown_background();
    write(NAME, TITLE, common, &points, &plot::latencies(NAME, common, &points)?)
}

/// The 2f replicas of weight V_max: the master's own and those nearest to it.
fn heavy(network: &Emulator, sites: &[String]) -> anyhow::Result<Vec<u16>> {
    let mut by_distance = Vec::new();
    for (id, site) in (0u16..).zip(sites) {
        let there = network.pair(&sites[0], site)?.conditions().latency_ms;
        let back = network.pair(site, &sites[0])?.conditions().latency_ms;
        by_distance.push((if id == 0 { -1.0 } else { there + back }, id));
    }
    by_distance.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut heavy: Vec<u16> =
        by_distance.into_iter().take(usize::from(2 * FAULTS)).map(|(_, id)| id).collect();
    heavy.sort_unstable();
    Ok(heavy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heavy_replicas_are_the_nearest() {
        let network = Emulator::new(&Matrix::parse(EC2).unwrap(), 1);
        let sites = ["oregon", "ireland", "sydney", "sao-paulo", "virginia"].map(String::from);
        assert_eq!(heavy(&network, &sites).unwrap(), [0, 4]);
    }
}
