//! Throughput second by second while a host is killed and comes back.

use crate::args::{TimelineArgs, Victim};
use crate::cluster::{Cluster, Shape};
use crate::experiment::{Progress, System, prepare, quota, write};
use crate::plot::{self, Timeline};
use crate::summary::{Point, Run};
use crate::workload;
use anyhow::{bail, ensure};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

const NAME: &str = "timeline";
const TITLE: &str = "Throughput while a host is killed and comes back";

const REPLICAS: u16 = 4;

/// The ordering leader before any change of the regency.
const FIRST_LEADER: u16 = 0;

/// Runs the comparison.
///
/// # Errors
/// When a system fails, or one that should survive does not.
pub(crate) async fn run(args: TimelineArgs) -> anyhow::Result<()> {
    let common = &args.common;
    ensure!(!common.no_quota, "--no-quota: hosts are killed by their control groups");
    ensure!(common.seconds >= 10, "--seconds: at least 10, to see before, without and after");
    prepare(common)?;
    let progress = Progress::new(args.victims.len() as u64 * u64::from(common.runs));
    let (mut points, mut plots) = (Vec::new(), Vec::new());
    for victim in &args.victims {
        let name = format!("{} killed and started again", victim.name());
        let mut point = Point { system: name.clone(), axis: BTreeMap::new(), runs: Vec::new() };
        for run in 1..=common.runs {
            progress.say(format!("{name}: run {run} of {}", common.runs));
            // Each run has its own cluster: after a change of the master or the regency nothing is as before.
            let cluster = Cluster::start(&Shape::of(REPLICAS, "speculative"), quota(common), None).await?;
            let mut system = System::Cluster(Box::new(cluster));
            system.load(common).await?;
            let (result, timeline) = once(&mut system, *victim, &args, run).await?;
            if run == 1 {
                let plot = format!("{NAME}-{}", victim.name());
                plots.push(plot::timeline(&plot, &name, common, &timeline)?);
            }
            point.runs.push(result);
            system.verify(common).await?;
            system.stop().await;
            progress.step();
        }
        points.push(point);
    }
    progress.end();
    write(NAME, TITLE, common, &points, &plots)
}

async fn once(
    system: &mut System,
    victim: Victim,
    args: &TimelineArgs,
    seed: u32,
) -> anyhow::Result<(Run, Timeline)> {
    let System::Cluster(cluster) = system else { bail!("only a cluster survives a host") };
    let common = &args.common;
    let begin = Instant::now();
    let load = workload::start(cluster.url(), common, common.terminals, seed)?;
    let span = Duration::from_secs(common.warmup + common.seconds);
    let id = number(victim, cluster.master());
    let (killed, back) = (span.mul_f64(0.3), span.mul_f64(0.6));
    sleep_until(begin + killed).await;
    cluster.replica(id).crash().await?;
    sleep_until(begin + back).await;
    cluster.replica(id).start()?;
    cluster.replica(id).ready().await?;
    let ready = begin.elapsed();
    let report = load.finish().await?;
    cluster.check()?;
    let seconds =
        report.timeline.iter().map(|second| (second.second as f64, second.totals.transactions as f64));
    let events = vec![
        (killed.as_secs_f64(), format!("{} (replica {id}) killed", victim.name())),
        (back.as_secs_f64(), "started again".to_string()),
        (ready.as_secs_f64(), "ready".to_string()),
    ];
    let timeline = Timeline { seconds: seconds.collect(), events };
    Ok((Run { report, cpu_seconds: BTreeMap::new() }, timeline))
}

fn number(victim: Victim, master: u16) -> u16 {
    let neither = |id: &u16| *id != master && *id != FIRST_LEADER;
    match victim {
        Victim::Master => master,
        Victim::Leader => FIRST_LEADER,
        Victim::Replica => (0..REPLICAS).rfind(neither).unwrap_or(REPLICAS - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_replica_is_neither_master_nor_leader() {
        assert_eq!(number(Victim::Replica, 3), 2);
        assert_eq!(number(Victim::Replica, 0), 3);
        assert_eq!(number(Victim::Master, 2), 2);
    }
}
