//! TPC-C over numbers of replicas and terminals: one axis at a time.

use crate::args::ScaleArgs;
use crate::cluster::{Cluster, Shape};
use crate::experiment::{Progress, System, measure, prepare, quota, write};
use crate::plot;
use std::collections::BTreeMap;

const NAME: &str = "scale";
const TITLE: &str = "TPC-C over replicas and terminals";

/// Runs the comparison.
///
/// # Errors
/// When a system fails.
pub(crate) async fn run(args: ScaleArgs) -> anyhow::Result<()> {
    let common = &args.common;
    prepare(common)?;
    let points = args.replicas.len() * args.over.len();
    let progress = Progress::new(points as u64 * u64::from(common.runs));
    let mut points = Vec::new();
    let mut series: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for replicas in &args.replicas {
        let name = format!("{replicas} replicas");
        progress.say(format!("{name}: loading {} warehouses", common.warehouses));
        let cluster = Cluster::start(&Shape::of(*replicas, "speculative"), quota(common), None).await?;
        let mut system = System::Cluster(Box::new(cluster));
        system.load(common).await?;
        for terminals in &args.over {
            let axis = BTreeMap::from([("terminals".to_string(), u64::from(*terminals))]);
            let point = measure(&mut system, &name, axis, common, *terminals, &progress).await?;
            if let Some(spread) = point.throughput() {
                series.entry(name.clone()).or_default().push((f64::from(*terminals), spread.median));
            }
            points.push(point);
        }
        system.verify(common).await?;
        system.stop().await;
    }
    progress.end();
    let title = "All transactions committed per minute";
    let plot = plot::lines(&format!("{NAME}-throughput"), title, ("terminals", "tpmTOTAL"), common, &series)?;
    write(NAME, TITLE, common, &points, &[plot])
}
