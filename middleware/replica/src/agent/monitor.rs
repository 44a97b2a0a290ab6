//! What an agent tells of itself while it runs: its metrics, and whether it is ready. The reactor writes, whoever asks
//! over HTTP reads; neither waits for the other.

use super::metrics::Metrics;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use steeldb_metrics::{Definition, Readiness, Registry};
use steeldb_types::{Position, ReplicaId, Term, ViewNumber, limits};

/// A reactor that has not looked at its clocks for so long stands still.
const STALLED: Duration = Duration::from_secs(5);

/// Within so long whoever waits between two attempts to reach this replica has made one.
const REDIALLED: Duration = limits::REDIAL_PAUSE_MAX.saturating_add(Duration::from_millis(500));

/// What an agent tells. Clones share it.
#[derive(Clone)]
pub struct Monitor(Arc<Shared>);

struct Shared {
    registry: Registry,
    metrics: Metrics,
    standing: Mutex<Option<Standing>>,
    server_runs: AtomicBool,
}

/// Where a replica stands.
#[derive(Clone, PartialEq, Debug)]
pub struct Standing {
    /// When this was so.
    pub at: Instant,
    /// For how long those that dial it have been able to.
    pub up: Duration,
    /// It is a member of the view.
    pub votes: bool,
    /// Its data are not those of the others.
    pub diverged: bool,
    /// Its votes count.
    pub vouches: bool,
    /// Up to where the order is delivered.
    pub delivered: Position,
    /// Up to where it is applied.
    pub applied: Position,
    /// How far the order is delivered at f + 1 others and not here; none before a quorum has said where it stands.
    pub behind: Option<u64>,
    /// Peers whose links are up.
    pub peers: Vec<ReplicaId>,
    /// With them it is a quorum.
    pub quorum: bool,
    /// The view, the regency and its leader.
    pub view: ViewNumber,
    /// See there.
    pub regency: u64,
    /// See there.
    pub leader: ReplicaId,
    /// The master's term.
    pub term: Term,
}

impl Default for Monitor {
    fn default() -> Self {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let server_runs = AtomicBool::new(false);
        Monitor(Arc::new(Shared { registry, metrics, standing: Mutex::default(), server_runs }))
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Monitor")
    }
}

impl Monitor {
    /// Says which program this is: its name in the cluster, and its version.
    pub fn names(&self, name: &str, version: &str) {
        self.0.metrics.build.with(&["replica", name, version]).set(1);
    }

    /// The metrics and what they mean.
    pub fn definitions(&self) -> &[Definition] {
        self.0.registry.definitions()
    }

    /// In OpenMetrics' text format.
    pub fn text(&self) -> String {
        self.0.registry.text()
    }

    /// Whether the replica can do its part: it and its server run, all had the time to dial it (or whoever stops the next
    /// replica would take one from clients that are without this one yet), its data are the others', a quorum is in reach,
    /// and it is no farther behind the order, delivered or applied, than `lag_max` positions.
    pub fn readiness(&self, lag_max: u64) -> Readiness {
        let standing = self.0.standing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match standing {
            None => {
                Readiness { reasons: vec!["it starts, and recovers if need be".into()], ..Default::default() }
            }
            Some(standing) => {
                judge(&standing, self.0.server_runs.load(Ordering::Relaxed), standing.at.elapsed(), lag_max)
            }
        }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(super) fn stands(&self, standing: Standing) {
        *self.0.standing.lock().unwrap_or_else(PoisonError::into_inner) = Some(standing);
    }

    pub(super) fn server_runs(&self, runs: bool) {
        self.0.server_runs.store(runs, Ordering::Relaxed);
    }
}

/// Nothing here quotes what clients sent: why a replica diverged is in its log.
fn judge(standing: &Standing, server_runs: bool, age: Duration, lag_max: u64) -> Readiness {
    let mut reasons = Vec::new();
    let mut unless = |well: bool, reason: &str| {
        if !well {
            reasons.push(reason.to_string());
        }
    };
    unless(server_runs, "its PostgreSQL does not run");
    unless(age < STALLED, "it stands still");
    unless(standing.up > REDIALLED, "not everybody that dials it has had the time to");
    unless(standing.votes, "it is not a member of the view");
    unless(!standing.diverged, "it has diverged: see its log");
    unless(
        standing.vouches || standing.diverged,
        "it has lost what it voted for, and not all of that is settled yet",
    );
    unless(standing.quorum, "it reaches no quorum");
    unless(standing.behind.is_some(), "too few others have said where they stand");
    unless(standing.behind.is_none_or(|behind| behind <= lag_max), "it is behind the order");
    let lag = standing.delivered.0.saturating_sub(standing.applied.0);
    unless(lag <= lag_max, "it has not applied what is ordered");
    let peers: Vec<u16> = standing.peers.iter().map(|peer| peer.0).collect();
    let details: [(&str, serde_json::Value); 11] = [
        ("delivered", standing.delivered.0.into()),
        ("applied", standing.applied.0.into()),
        ("lag", lag.into()),
        ("behind", standing.behind.into()),
        ("lag_max", lag_max.into()),
        ("peers", peers.into()),
        ("view", standing.view.0.into()),
        ("regency", standing.regency.into()),
        ("leader", standing.leader.0.into()),
        ("epoch", standing.term.epoch.into()),
        ("master", standing.term.master.0.into()),
    ];
    let details = details.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
    Readiness { reasons, details }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Standing {
        Standing {
            at: Instant::now(),
            up: Duration::from_secs(60),
            votes: true,
            diverged: false,
            vouches: true,
            delivered: Position(120),
            applied: Position(110),
            behind: Some(10),
            peers: vec![ReplicaId(1), ReplicaId(2)],
            quorum: true,
            view: ViewNumber(0),
            regency: 0,
            leader: ReplicaId(0),
            term: Term::first(ReplicaId(0)),
        }
    }

    #[test]
    fn a_replica_is_ready_up_to_its_bound_and_each_trouble_has_its_reason() {
        let judged = |standing: &Standing, runs, age, lag_max| {
            judge(standing, runs, Duration::from_secs(age), lag_max).reasons.join("; ")
        };
        assert_eq!(judged(&well(), true, 0, 10), "");
        assert_eq!(judged(&well(), true, 0, 9), "it is behind the order; it has not applied what is ordered");
        assert_eq!(judged(&well(), false, 0, 10), "its PostgreSQL does not run");
        assert_eq!(judged(&well(), true, 5, 10), "it stands still");
        for (standing, reason) in [
            (Standing { up: limits::REDIAL_PAUSE_MAX, ..well() }, "has had the time"),
            (Standing { votes: false, ..well() }, "member"),
            (Standing { diverged: true, vouches: false, ..well() }, "diverged: see its log"),
            (Standing { vouches: false, ..well() }, "lost what it voted for"),
            (Standing { quorum: false, ..well() }, "no quorum"),
            (Standing { behind: None, ..well() }, "too few others"),
            (Standing { behind: Some(11), ..well() }, "behind the order"),
            (Standing { applied: Position(109), ..well() }, "not applied"),
        ] {
            let said = judged(&standing, true, 0, 10);
            assert!(said.contains(reason) && !said.contains("; "), "{said} / {reason}");
        }
        assert_eq!(judge(&well(), true, Duration::ZERO, 10).details["lag"], 10);
        let starting = Monitor::default().readiness(10);
        assert!(!starting.is_ready());
    }
}
