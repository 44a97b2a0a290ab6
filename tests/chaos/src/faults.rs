//! Doing a fault, ending it, and waiting until the cluster is whole.

use crate::cluster::{Cluster, REPLICAS, Roles};
use crate::load::Load;
use crate::proxies;
use crate::schedule::{Fault, Kind};
use anyhow::Context as _;
use nix::sys::signal::Signal;
use std::time::Duration;
use steeldb_types::ReplicaId;
use tokio::time::Instant;

/// How long an agent may take to be ready after a start, its server to be started again, a commit to come. Far above what
/// a loaded machine needs: slowness is no violation.
const PATIENCE: Duration = Duration::from_secs(300);

/// One comparison of the databases.
const COMPARE_PATIENCE: Duration = Duration::from_secs(20);

/// How long the clients go on before they are held, so that a replica which catches up more slowly than they write gets
/// there.
const BEFORE_HELD: Duration = Duration::from_secs(20);

/// How a register is changed. Nobody wrote the first value, and the second says that nobody wrote any, so that the checker
/// finds it if a transaction that commits was told of it. Only tables whose key is the row's identity: where the whole
/// old row is, a replica that does not have it cannot take over the new one, and takes itself out.
const TAMPERINGS: [&str; 2] = ["value = 9000000000000000000", "value = 0"];

/// Does a fault, holds it, ends it. What is faulty afterwards is so until [`whole`] says otherwise.
///
/// # Errors
/// When it cannot be done or ended: a replica does not start again, for instance.
pub async fn inflict(cluster: &mut Cluster, fault: &Fault, load: &Load) -> anyhow::Result<()> {
    let replica = fault.replica;
    match fault.kind {
        Kind::AgentKilled => {
            cluster.replica(replica)?.crash().await?;
            load.ledger.strike();
            tokio::time::sleep(fault.hold).await;
            start(cluster, replica).await?;
        }
        Kind::AgentRestarted => {
            load.ledger.strike();
            cluster.replica(replica)?.stop().await?;
            tokio::time::sleep(fault.hold).await;
            start(cluster, replica).await?;
        }
        Kind::HostKilled => {
            cluster.crash_host(replica).await?;
            load.ledger.strike();
            tokio::time::sleep(fault.hold).await;
            start(cluster, replica).await?;
        }
        Kind::MasterKilled | Kind::LeaderKilled | Kind::BothKilled | Kind::FollowerKilled => {
            let victim = victim(cluster, fault, load).await?;
            cluster.crash_host(victim).await?;
            load.ledger.strike();
            tokio::time::sleep(fault.hold).await;
            // Gone until the others go on without it: its return is not what is timed.
            let deadline = Instant::now() + PATIENCE;
            while load.ledger.next_commit().is_none() {
                anyhow::ensure!(Instant::now() < deadline, "no commit without {victim} in {PATIENCE:?}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            start(cluster, victim).await?;
        }
        Kind::ServerKilled => {
            cluster.signal_server(replica, Signal::SIGKILL, false)?;
            load.ledger.strike();
            tokio::time::sleep(fault.hold).await;
            let deadline = Instant::now() + PATIENCE;
            while cluster.behind(replica).await.is_err() {
                anyhow::ensure!(
                    !cluster.replica(replica)?.has_ended(),
                    "{replica} ended instead of starting its server again"
                );
                anyhow::ensure!(Instant::now() < deadline, "{replica} does not start its server again");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Kind::AgentStopped => {
            cluster.replica(replica)?.signal(Signal::SIGSTOP);
            load.ledger.strike();
            tokio::time::sleep(fault.hold).await;
            cluster.replica(replica)?.signal(Signal::SIGCONT);
        }
        Kind::ServerStopped => {
            cluster.signal_server(replica, Signal::SIGSTOP, true)?;
            load.ledger.strike();
            tokio::time::sleep(fault.hold).await;
            cluster.signal_server(replica, Signal::SIGCONT, true)?;
        }
        Kind::HostStopped => {
            cluster.replica(replica)?.signal(Signal::SIGSTOP);
            cluster.signal_server(replica, Signal::SIGSTOP, true)?;
            load.ledger.strike();
            tokio::time::sleep(fault.hold).await;
            cluster.signal_server(replica, Signal::SIGCONT, true)?;
            cluster.replica(replica)?.signal(Signal::SIGCONT);
        }
        Kind::Partitioned | Kind::Isolated => {
            cluster.cut(replica, fault.kind == Kind::Isolated)?;
            load.ledger.strike();
            tokio::time::sleep(fault.hold).await;
            cluster.mend();
        }
        Kind::Tampered => {
            let change = TAMPERINGS[usize::try_from(fault.choice % TAMPERINGS.len() as u64)?];
            let id = fault.choice / 7 % 4;
            let mut behind = cluster.behind(replica).await?;
            let tampered = format!("UPDATE public.isolation_register SET {change} WHERE id = {id}");
            behind.simple(&tampered).await.context("tampering")?;
            load.ledger.strike();
            tokio::time::sleep(fault.hold).await;
            // In case that the workload has not written it meanwhile. It reads nothing that the application is shown.
            let rewrite = format!("UPDATE isolation_register SET value = value WHERE id = {id}");
            proxies::query(cluster.urls(), &rewrite).await?;
        }
        Kind::Byzantine => {
            cluster.tell(replica, Some(fault.lie))?;
            load.ledger.strike();
            tokio::time::sleep(fault.hold).await;
            cluster.tell(replica, None)?;
            // What it kept to itself while it lied it would not say again.
            cluster.crash_host(replica).await?;
            start(cluster, replica).await?;
        }
        Kind::ProxyKilled => {
            let number = replica.0 + 1;
            cluster.crash_proxy(number).await?;
            load.ledger.strike();
            cluster.start_proxy(number).await?;
        }
    }
    Ok(())
}

/// Who is to be killed. The master is moved where it has to be for that, and clients have committed since.
async fn victim(cluster: &Cluster, fault: &Fault, load: &Load) -> anyhow::Result<ReplicaId> {
    let Roles { term, leader } = cluster.roles().await?;
    let others = (0..REPLICAS).map(ReplicaId).filter(|replica| *replica != leader);
    let others: Vec<ReplicaId> = others.collect();
    let chosen = others[usize::try_from(fault.choice % others.len() as u64)?];
    let together = fault.kind == Kind::BothKilled;
    let master = match term.master == leader {
        _ if together => leader,
        true => chosen,
        false => term.master,
    };
    if master != term.master {
        cluster.move_master(term, master).await?;
    }
    let (before, deadline) = (load.ledger.acknowledged(), Instant::now() + PATIENCE);
    while load.ledger.acknowledged() < before + 10 {
        anyhow::ensure!(Instant::now() < deadline, "nothing is acknowledged before {fault}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(match fault.kind {
        Kind::MasterKilled => master,
        Kind::FollowerKilled => others.into_iter().find(|replica| *replica != master).unwrap_or(chosen),
        _ => leader,
    })
}

async fn start(cluster: &mut Cluster, replica: ReplicaId) -> anyhow::Result<()> {
    match tokio::time::timeout(PATIENCE, cluster.start_replica(replica)).await {
        Ok(started) => started,
        Err(_) => anyhow::bail!("{replica} is not ready after {PATIENCE:?}"),
    }
}

/// The cluster after a fault.
pub enum Wholeness {
    /// All replicas hold the same at one place in the order. If `held`, clients had to wait for that.
    Whole {
        /// Whether they had to.
        held: bool,
    },
    /// So many replicas do not, and why.
    Not(usize, String),
}

/// Waits until all replicas hold the same at one place in the order.
pub async fn whole(cluster: &Cluster, load: Option<&Load>) -> Wholeness {
    let started = Instant::now();
    let mut held = false;
    let wholeness = loop {
        let problem = match cluster.compare(COMPARE_PATIENCE).await {
            Ok(comparison) if comparison.differing().is_empty() => break Wholeness::Whole { held },
            Ok(comparison) => (comparison.differing().len(), comparison.describe()),
            Err(error) => (1, format!("the replicas cannot be compared: {error:#}")),
        };
        // Who has taken itself out does not come back by itself.
        let diverged = cluster.diverged().await;
        if !diverged.is_empty() {
            let words = diverged.iter().map(|(replica, why)| format!("{replica} has diverged: {why}"));
            break Wholeness::Not(diverged.len(), words.collect::<Vec<_>>().join("; "));
        }
        if started.elapsed() > PATIENCE {
            break Wholeness::Not(problem.0, problem.1);
        }
        if let Some(load) = load
            && !held
            && started.elapsed() > BEFORE_HELD
        {
            held = true;
            load.hold(true);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    if let Some(load) = load
        && held
    {
        load.hold(false);
    }
    wholeness
}
