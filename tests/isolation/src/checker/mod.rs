//! The checker: a pure function from a history to the anomalies in it.
//!
//! The way is that of Elle (Kingsbury and Alvaro, VLDB 2020). A list that is only appended to shows the order of its
//! versions in every read, and a register that is only written by who has read it shows it link by link, so the
//! dependencies between transactions follow from what clients were told, and nothing is guessed:
//!
//! - ww: the second wrote the version after the first one's;
//! - wr: the second read what the first wrote;
//! - rw: the first read a version that the second replaced;
//! - rt: the first was acknowledged before the second's first statement was sent.
//!
//! Snapshot isolation gives each transaction a start and a later commit, such that ww, wr and rt lead from the first
//! one's commit to the second one's start, and rw from the first one's start to the second one's commit. Such times
//! exist if and only if these arrows make no cycle (Adya; Cerone and Gotsman). So two rw in a row (write skew) are
//! allowed, and every other cycle is an anomaly; with rt the isolation is strong snapshot isolation.
//!
//! Invariants:
//! - What the checker reports is in the history: a transaction whose outcome is unknown counts as committed only if
//!   what it wrote was read by one that is committed, and an aborted one is no witness.
//! - A transaction is acknowledged when its client was told so: an unknown one has no rt to others.

mod anomaly;
mod cycles;
mod digest;
mod edges;
mod graph;
mod versions;

pub use anomaly::{Anomaly, Kind};

use crate::history::{History, Outcome, Value};
use digest::Digest;
use edges::{Edge, EdgeKind};
use std::collections::BTreeMap;
use std::fmt;
use versions::Versions;

/// What was found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Transactions that were acknowledged.
    pub committed: usize,
    /// Transactions that did not take effect.
    pub aborted: usize,
    /// Transactions that may have taken effect; those that did are in `revealed`, too.
    pub unknown: usize,
    /// Transactions of unknown outcome that were seen to have taken effect.
    pub revealed: usize,
    /// Dependencies by kind: ww, wr, rw. Few of them mean that the history could not show much.
    pub dependencies: [usize; 3],
    /// Values whose commit was acknowledged and that no later read shows: transaction, key, value.
    pub lost: Vec<(u64, String, Value)>,
    /// The anomalies. Of many alike, some.
    pub anomalies: Vec<Anomaly>,
}

/// Checks a history against strong snapshot isolation.
pub fn check(history: &History) -> Report {
    let mut anomalies = Vec::new();
    let digests: Vec<Digest<'_>> = history.transactions().iter().map(Digest::new).collect();
    let versions = Versions::new(history, &digests);
    versions.anomalies(&mut anomalies);
    let edges = Edge::all(history, &digests, &versions);
    cycles::find(history, &versions, &edges, &mut anomalies);
    let count = |kind: EdgeKind| edges.iter().filter(|edge| edge.kind == kind).count();
    Report {
        committed: history.count(Outcome::Committed),
        aborted: history.count(Outcome::Aborted),
        unknown: history.count(Outcome::Unknown),
        revealed: versions.revealed(),
        dependencies: [count(EdgeKind::WriteWrite), count(EdgeKind::WriteRead), count(EdgeKind::ReadWrite)],
        lost: lost(history, &digests),
        anomalies,
    }
}

/// What was appended and acknowledged, and is in none of the committed reads that began later, of which there are some.
fn lost(history: &History, digests: &[Digest<'_>]) -> Vec<(u64, String, Value)> {
    let transactions = history.transactions();
    let committed = |index: &usize| transactions[*index].outcome == Outcome::Committed;
    // Lists only grow: the read that began last is the one to ask, and any one that has the value clears it.
    let mut reads: BTreeMap<&str, Vec<(u64, &[Value])>> = BTreeMap::new();
    for index in (0..transactions.len()).filter(committed) {
        for (key, values) in &digests[index].lists {
            reads.entry(key).or_default().push((transactions[index].begin_us, values));
        }
    }
    let mut lost = Vec::new();
    for (key, reads) in &mut reads {
        reads.sort_by_key(|(begin_us, _)| *begin_us);
        let mut last_seen: BTreeMap<Value, u64> = BTreeMap::new();
        for (begin_us, values) in reads.iter() {
            for value in *values {
                last_seen.insert(*value, *begin_us);
            }
        }
        let last = reads.last().map_or(0, |(begin_us, _)| *begin_us);
        for index in (0..transactions.len()).filter(committed) {
            let end_us = transactions[index].end_us;
            for value in digests[index].appended.get(key).into_iter().flatten() {
                let seen_later = last_seen.get(value).is_some_and(|seen| *seen > end_us);
                if last > end_us && !seen_later {
                    lost.push((transactions[index].id, key.to_string(), *value));
                }
            }
        }
    }
    lost
}

impl Report {
    /// Whether the history is one of strong snapshot isolation.
    pub fn is_clean(&self) -> bool {
        self.anomalies.is_empty()
    }

    /// The kinds of the anomalies, each once.
    pub fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<Kind> = self.anomalies.iter().map(|anomaly| anomaly.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [ww, wr, rw] = self.dependencies;
        writeln!(
            f,
            "{} transactions committed, {} aborted, {} of unknown outcome ({} of them seen to have committed)",
            self.committed, self.aborted, self.unknown, self.revealed
        )?;
        writeln!(f, "dependencies: {ww} ww, {wr} wr, {rw} rw")?;
        for (index, anomaly) in self.anomalies.iter().enumerate() {
            writeln!(f, "\nanomaly {} of {}: {anomaly}", index + 1, self.anomalies.len())?;
        }
        match self.is_clean() {
            true => write!(f, "no anomaly: the history is one of strong snapshot isolation"),
            false => {
                let names: Vec<&str> = self.kinds().into_iter().map(Kind::name).collect();
                write!(f, "ANOMALIES: {}", names.join(", "))
            }
        }
    }
}
