//! TPC-C on one site: what replication and agreement cost.

use crate::args::{LanArgs, LanSystem};
use crate::cluster::{Cluster, Shape};
use crate::experiment::{Progress, System, measure, prepare, quota, write};
use crate::plot;
use crate::postgres::Postgres;
use std::collections::BTreeMap;

const NAME: &str = "lan";
const TITLE: &str = "TPC-C on one site";

/// n of the clusters, and as many servers as synchronous replication has here.
const REPLICAS: u16 = 4;

/// Runs the comparison.
///
/// # Errors
/// When a system fails.
pub(crate) async fn run(args: LanArgs) -> anyhow::Result<()> {
    let common = &args.common;
    prepare(common)?;
    let progress = Progress::new(args.systems.len() as u64 * u64::from(common.runs));
    let mut points = Vec::new();
    for kind in &args.systems {
        progress.say(format!("{}: loading {} warehouses", kind.name(), common.warehouses));
        let mut system = start(*kind, &args).await?;
        system.load(common).await?;
        points.push(
            measure(&mut system, kind.name(), BTreeMap::new(), common, common.terminals, &progress).await?,
        );
        system.verify(common).await?;
        system.stop().await;
    }
    progress.end();
    let throughput = plot::bars(
        &format!("{NAME}-throughput"),
        "All transactions committed per minute",
        "tpmTOTAL",
        common,
        &points,
    )?;
    let [new_order, commit] = plot::latencies(NAME, common, &points)?;
    write(NAME, TITLE, common, &points, &[throughput, new_order, commit])
}

async fn start(kind: LanSystem, args: &LanArgs) -> anyhow::Result<System> {
    let quota = quota(&args.common);
    Ok(match kind {
        LanSystem::Plain => System::Postgres(Postgres::start(0, 0, quota).await?),
        LanSystem::Synchronous => {
            System::Postgres(Postgres::start(usize::from(REPLICAS) - 1, 2, quota).await?)
        }
        LanSystem::Deferred => cluster("deferred", quota).await?,
        LanSystem::Speculative => cluster("speculative", quota).await?,
    })
}

async fn cluster(execution: &'static str, quota: Option<crate::quota::Quota>) -> anyhow::Result<System> {
    Ok(System::Cluster(Box::new(Cluster::start(&Shape::of(REPLICAS, execution), quota, None).await?)))
}
