//! What a run came to.

use crate::schedule::{Fault, Kind};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use steeldb_types::ReplicaId;

/// What a run came to.
#[derive(Clone, Default, Debug)]
pub struct Report {
    /// Acknowledged transactions of all workloads.
    pub transactions: u64,
    /// Faults done, by kind.
    pub faults: BTreeMap<Kind, u64>,
    /// Acknowledged writes that are not there.
    pub lost: u64,
    /// Replicas that differ at the end, or do not answer.
    pub divergent: u64,
    /// What is wrong otherwise: isolation anomalies, refused writes that are there, consistency conditions that do not
    /// hold, workloads and replicas that could not go on.
    pub anomalies: Vec<String>,
    /// The longest time without any acknowledgement.
    pub longest_stall: Duration,
    /// After which fault that was.
    pub stalled_by: Option<Fault>,
    /// By fault, how long it took from its end until the cluster was whole again: the longest.
    pub recovery: BTreeMap<Kind, Duration>,
    /// Replicas that were never done anything to.
    pub spared: Vec<ReplicaId>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.lost == 0 && self.divergent == 0 && self.anomalies.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:18} {:>6}  whole again after at most", "fault", "times")?;
        for (kind, count) in &self.faults {
            let recovery =
                self.recovery.get(kind).map_or("-".into(), |span| format!("{} ms", span.as_millis()));
            writeln!(f, "{:18} {count:>6}  {recovery}", kind.name())?;
        }
        for replica in &self.spared {
            writeln!(f, "replica {} was spared", replica.0)?;
        }
        if let Some(fault) = &self.stalled_by {
            writeln!(f, "longest stall: {} ms, with {fault}", self.longest_stall.as_millis())?;
        }
        for anomaly in &self.anomalies {
            writeln!(f, "WRONG: {anomaly}")?;
        }
        write!(
            f,
            "transactions={} faults={} lost={} divergent={} anomalies={} longest_stall_ms={}",
            self.transactions,
            self.faults.values().sum::<u64>(),
            self.lost,
            self.divergent,
            self.anomalies.len(),
            self.longest_stall.as_millis()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_for_programs() {
        let mut report = Report { transactions: 7, lost: 1, ..Report::default() };
        report.faults.insert(Kind::Tampered, 2);
        report.anomalies.push("something".into());
        report.longest_stall = Duration::from_millis(1234);
        let text = report.to_string();
        assert_eq!(
            text.lines().last(),
            Some("transactions=7 faults=2 lost=1 divergent=0 anomalies=1 longest_stall_ms=1234")
        );
        assert!(!report.is_good());
        assert!(Report::default().is_good());
    }
}
