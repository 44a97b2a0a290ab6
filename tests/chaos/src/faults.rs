//! Doing a fault, ending it, and waiting until the cluster is whole.

use crate::cluster::{Cluster, Comparison};
use crate::ledger;
use crate::schedule::{Fault, Kind};
use anyhow::Context as _;
use nix::sys::signal::Signal;
use std::time::Duration;
use steeldb_types::ReplicaId;
use tokio::time::Instant;

/// How long an agent may take to end when its server is gone, or to be ready after a start.
const PROCESS_PATIENCE: Duration = Duration::from_secs(60);

/// One comparison of the databases.
const COMPARE_PATIENCE: Duration = Duration::from_secs(20);

/// How a register is changed. Nobody wrote the first value, and the second says that nobody wrote any, so that the checker
/// finds it if a transaction that commits was told of it. Only tables whose key is the row's identity: where the whole
/// old row is, a replica that does not have it cannot take over the new one, and takes itself out.
const TAMPERINGS: [&str; 2] = ["value = 9000000000000000000", "value = 0"];

/// Does a fault, holds it, ends it. What is faulty afterwards is so until [`whole`] says otherwise.
///
/// # Errors
/// When it cannot be done or ended: a replica does not start again, for instance.
pub async fn inflict(cluster: &mut Cluster, fault: &Fault) -> anyhow::Result<()> {
    let replica = fault.replica;
    match fault.kind {
        Kind::AgentKilled => {
            cluster.replica(replica)?.crash().await?;
            tokio::time::sleep(fault.hold).await;
            start(cluster, replica).await?;
        }
        Kind::ServerKilled => {
            cluster.signal_server(replica, Signal::SIGKILL, false)?;
            tokio::time::sleep(fault.hold).await;
            // An agent that goes on without the server that it had would be one that has started it again.
            let deadline = Instant::now() + PROCESS_PATIENCE;
            while !cluster.replica(replica)?.has_ended() && cluster.behind(replica).await.is_err() {
                anyhow::ensure!(Instant::now() < deadline, "{replica} neither ends nor has a server");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            if cluster.replica(replica)?.has_ended() {
                start(cluster, replica).await?;
            }
        }
        Kind::AgentStopped => {
            cluster.replica(replica)?.signal(Signal::SIGSTOP);
            tokio::time::sleep(fault.hold).await;
            cluster.replica(replica)?.signal(Signal::SIGCONT);
        }
        Kind::ServerStopped => {
            cluster.signal_server(replica, Signal::SIGSTOP, true)?;
            tokio::time::sleep(fault.hold).await;
            cluster.signal_server(replica, Signal::SIGCONT, true)?;
        }
        Kind::Partitioned | Kind::Isolated => {
            cluster.cut(replica, fault.kind == Kind::Isolated)?;
            tokio::time::sleep(fault.hold).await;
            cluster.mend();
        }
        Kind::Tampered => {
            let change = TAMPERINGS[usize::try_from(fault.choice % TAMPERINGS.len() as u64)?];
            let id = fault.choice / 7 % 4;
            let mut behind = cluster.behind(replica).await?;
            let tampered = format!("UPDATE public.isolation_register SET {change} WHERE id = {id}");
            behind.simple(&tampered).await.context("tampering")?;
            tokio::time::sleep(fault.hold).await;
            // In case that the workload has not written it meanwhile. It reads nothing that the application is shown.
            let url = cluster.urls().last().context("no proxy")?.clone();
            let rewrite = format!("UPDATE isolation_register SET value = value WHERE id = {id}");
            ledger::query(&url, &rewrite).await?;
        }
        Kind::Byzantine => {
            cluster.replica(replica)?.crash().await?;
            cluster.start_replica(replica, Some(fault.lie)).await?;
            tokio::time::sleep(fault.hold).await;
            cluster.replica(replica)?.crash().await?;
            start(cluster, replica).await?;
        }
        Kind::ProxyKilled => {
            let number = replica.0 + 1;
            cluster.crash_proxy(number).await?;
            cluster.start_proxy(number).await?;
        }
    }
    Ok(())
}

async fn start(cluster: &mut Cluster, replica: ReplicaId) -> anyhow::Result<()> {
    let starting = cluster.start_replica(replica, None);
    match tokio::time::timeout(PROCESS_PATIENCE, starting).await {
        Ok(started) => started,
        Err(_) => anyhow::bail!("{replica} is not ready after {PROCESS_PATIENCE:?}"),
    }
}

/// Waits until all replicas hold the same at one place in the order; the last comparison if they do not in time.
pub async fn whole(cluster: &Cluster, patience: Duration) -> anyhow::Result<Option<Comparison>> {
    let deadline = Instant::now() + patience;
    loop {
        let comparison = cluster.compare(COMPARE_PATIENCE).await;
        match comparison {
            Ok(comparison) if comparison.differing().is_empty() => return Ok(None),
            Ok(comparison) if Instant::now() > deadline => return Ok(Some(comparison)),
            Err(error) if Instant::now() > deadline => return Err(error),
            _ => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
