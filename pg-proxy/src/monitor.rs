//! What a proxy tells of itself: its metrics, and whether it is ready.

use std::sync::Arc;
use std::time::Duration;
use steeldb_client_shim::Shim;
use steeldb_metrics::{Counter, Counters, Definition, Gauge, Gauges, Histogram, Readiness, Registry, mirror};

/// The classes of PostgreSQL's error codes (appendix A of its manual). A function can raise any code; what is none of
/// these is counted as one.
const CLASSES: [&str; 43] = [
    "00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "20", "21", "22", "23", "24",
    "25", "26", "27", "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40", "42", "44", "53",
    "54", "55", "57", "58", "72", "F0", "HV", "P0", "XX",
];

/// What a proxy tells. Clones share it.
#[derive(Clone)]
pub struct Monitor(Arc<Shared>);

struct Shared {
    registry: Registry,
    metrics: Metrics,
}

pub(crate) struct Metrics {
    build: Gauges,
    pub connections: Counter,
    pub starting: Gauge,
    pub sessions: Gauge,
    pub sessions_max: Gauge,
    pub refused_sessions: Counters,
    pub authentication_failures: Counter,
    pub cancels: Counter,
    pub begun: Counter,
    committed: Counter,
    rolled_back: Counter,
    aborted: Counters,
    pub in_doubt: Counter,
    pub abandoned: Counter,
    commit: Histogram,
    rollback: Histogram,
    pub retries: Counter,
    errors: Counters,
    master: Gauge,
    epoch: Gauge,
    view: Gauge,
    links_up: Gauges,
    link_bytes: Counters,
    link_frames: Counters,
    links: Counters,
    link_failures: Counters,
}

impl Default for Monitor {
    fn default() -> Self {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        Monitor(Arc::new(Shared { registry, metrics }))
    }
}

impl Monitor {
    /// Says which program this is: its name in the cluster, and its version.
    pub fn names(&self, name: &str, version: &str) {
        self.0.metrics.build.with(&["proxy", name, version]).set(1);
    }

    /// The metrics and what they mean.
    pub fn definitions(&self) -> &[Definition] {
        self.0.registry.definitions()
    }

    /// In OpenMetrics' text format; `shim` tells of links and master.
    pub fn text(&self, shim: &Shim) -> String {
        self.0.metrics.look(shim);
        self.0.registry.text()
    }

    /// Whether transactions can be begun: the master and a quorum are in reach.
    pub fn readiness(&self, shim: &Shim) -> Readiness {
        let (up, term, view) = (shim.links_up(), shim.term(), shim.view());
        let mut reasons = Vec::new();
        if !view.is_quorum(up.iter().copied()) {
            reasons.push("it reaches no quorum of the replicas".to_string());
        }
        if !up.contains(&term.master) {
            reasons.push("it does not reach the master".to_string());
        }
        let up: Vec<u16> = up.iter().map(|replica| replica.0).collect();
        let details: [(&str, serde_json::Value); 5] = [
            ("replicas_up", up.into()),
            ("view", view.number().0.into()),
            ("epoch", term.epoch.into()),
            ("master", term.master.0.into()),
            ("sessions", self.0.metrics.sessions.get().into()),
        ];
        let details = details.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
        Readiness { reasons, details }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }
}

/// The class of an error code, as labels tell it.
fn class(sqlstate: &str) -> &'static str {
    let wanted = sqlstate.get(..2).unwrap_or_default();
    CLASSES.into_iter().find(|class| *class == wanted).unwrap_or("other")
}

impl Metrics {
    fn new(r: &mut Registry) -> Metrics {
        Metrics {
            build: r.gauges("steeldb_build_info", "", &["role", "name", "version"], "1; what runs here"),
            connections: r.counter(
                "steeldb_proxy_connections_total",
                "connections",
                "Connections of applications, cancel requests among them",
            ),
            starting: r.gauge(
                "steeldb_proxy_starting_connections",
                "connections",
                "Connections that have not logged in yet",
            ),
            sessions: r.gauge("steeldb_proxy_sessions", "sessions", "Sessions of applications"),
            sessions_max: r.gauge("steeldb_proxy_sessions_max", "sessions", "How many there may be"),
            refused_sessions: r.counters(
                "steeldb_proxy_refused_connections_total",
                "connections",
                &["class"],
                "Connections that became no session, by the class of the error that they were told: 28 who they are, 53 too many, \
                 57 nobody in reach or too slow, 3D the database, 08 the protocol",
            ),
            authentication_failures: r.counter(
                "steeldb_proxy_authentication_failures_total",
                "connections",
                "Those of them with a wrong password or an unknown user",
            ),
            cancels: r.counter("steeldb_proxy_cancels_total", "requests", "Requests to cancel a statement"),
            begun: r.counter("steeldb_proxy_transactions_begun_total", "transactions", "Transactions that were begun"),
            committed: r.counter(
                "steeldb_proxy_transactions_committed_total",
                "transactions",
                "Those whose COMMIT was confirmed, read-only ones among them",
            ),
            rolled_back: r.counter(
                "steeldb_proxy_transactions_rolled_back_total",
                "transactions",
                "Those whose ROLLBACK was confirmed, by the application or behind a failed statement",
            ),
            aborted: r.counters(
                "steeldb_proxy_transactions_aborted_total",
                "transactions",
                &["class"],
                "Those whose COMMIT or ROLLBACK ended in an error, by its SQLSTATE's class: 40 conflicts (40001) and disagreeing \
                 replicas (40000), 23 deferred constraints",
            ),
            in_doubt: r.counter(
                "steeldb_proxy_transactions_in_doubt_total",
                "transactions",
                "Those whose COMMIT has an outcome that this proxy does not know (08007)",
            ),
            abandoned: r.counter(
                "steeldb_proxy_transactions_abandoned_total",
                "transactions",
                "Those whose session ended before they did: the application is gone, or its session was lost",
            ),
            commit: r.latency(
                "steeldb_proxy_commit_seconds",
                "From COMMIT to its confirmation or error, of transactions that were begun",
            ),
            rollback: r.latency("steeldb_proxy_rollback_seconds", "The same of ROLLBACK"),
            retries: r.counter(
                "steeldb_proxy_retries_total",
                "statements",
                "Statements that conflicted with others, had shown nothing and were run again",
            ),
            errors: r.counters(
                "steeldb_proxy_errors_total",
                "errors",
                &["class"],
                "Errors that applications were told, by their SQLSTATE's class",
            ),
            master: r.gauge("steeldb_proxy_master", "", "The number of the master, as f + 1 replicas say"),
            epoch: r.gauge("steeldb_proxy_master_epoch", "", "Its term"),
            view: r.gauge("steeldb_proxy_view", "", "The newest view that was proven to this proxy"),
            links_up: r.gauges("steeldb_link_up", "", &["peer"], "1: the link with the replica is up"),
            link_bytes: r.counters(
                "steeldb_link_bytes_total",
                "bytes",
                &["peer", "direction"],
                "Bytes of messages over the links with a replica (r1) or a client (c1): sent, received. Without TLS' own",
            ),
            link_frames: r.counters(
                "steeldb_link_messages_total",
                "messages",
                &["peer", "direction"],
                "The messages",
            ),
            links: r.counters(
                "steeldb_link_ups_total",
                "links",
                &["peer"],
                "Links with it that came up: reconnects, but for the first",
            ),
            link_failures: r.counters(
                "steeldb_link_failures_total",
                "",
                &["peer"],
                "Attempts of this process to make such a link that failed: nobody there, or not with the key that is expected",
            ),
        }
    }

    /// A transaction's COMMIT or ROLLBACK was answered: by nothing, or an error of this code.
    pub(crate) fn ended(&self, commit: bool, committed: bool, error: Option<&str>, took: Duration) {
        let latency = if commit { &self.commit } else { &self.rollback };
        latency.observe(took.as_secs_f64());
        match error {
            None if committed => self.committed.inc(),
            None => self.rolled_back.inc(),
            Some("08007") => self.in_doubt.inc(),
            Some(sqlstate) => self.aborted.with(&[class(sqlstate)]).inc(),
        };
    }

    /// An application is told of an error.
    pub(crate) fn error(&self, sqlstate: &str) {
        self.errors.with(&[class(sqlstate)]).inc();
    }

    /// A connection becomes no session.
    pub(crate) fn refused(&self, sqlstate: &str) {
        self.refused_sessions.with(&[class(sqlstate)]).inc();
    }

    fn look(&self, shim: &Shim) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let (up, term) = (shim.links_up(), shim.term());
        self.master.set(term.master.0.into());
        self.epoch.set(number(term.epoch));
        self.view.set(number(shim.view().number().0));
        self.links_up.clear();
        for replica in shim.view().replicas() {
            self.links_up.with(&[&replica.to_string()]).set(up.contains(&replica).into());
        }
        for (replica, traffic) in shim.traffic() {
            let peer = replica.to_string();
            mirror(&self.link_bytes.with(&[&peer, "sent"]), traffic.bytes_sent);
            mirror(&self.link_bytes.with(&[&peer, "received"]), traffic.bytes_received);
            mirror(&self.link_frames.with(&[&peer, "sent"]), traffic.frames_sent);
            mirror(&self.link_frames.with(&[&peer, "received"]), traffic.frames_received);
            mirror(&self.links.with(&[&peer]), traffic.links);
            mirror(&self.link_failures.with(&[&peer]), traffic.failures);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_postgresql_whatever_a_function_raises() {
        for (sqlstate, expected) in [("40001", "40"), ("0A000", "0A"), ("ZZ999", "other"), ("", "other")] {
            assert_eq!(class(sqlstate), expected);
        }
    }

    #[test]
    fn each_end_of_a_transaction_is_counted_once() {
        let monitor = Monitor::default();
        let metrics = monitor.metrics();
        metrics.ended(true, true, None, Duration::ZERO);
        metrics.ended(false, false, None, Duration::ZERO);
        metrics.ended(true, false, Some("40001"), Duration::ZERO);
        metrics.ended(true, false, Some("08007"), Duration::ZERO);
        let text = monitor.0.registry.text();
        for line in [
            "steeldb_proxy_transactions_committed_total 1",
            "steeldb_proxy_transactions_rolled_back_total 1",
            "steeldb_proxy_transactions_aborted_total{class=\"40\"} 1",
            "steeldb_proxy_transactions_in_doubt_total 1",
            "steeldb_proxy_commit_seconds_count 3",
            "steeldb_proxy_rollback_seconds_count 1",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
        }
    }
}
