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
    /// By fault, how long it took each time until something was acknowledged that was sent after it.
    pub next_commit: BTreeMap<Kind, Vec<Duration>>,
    /// By fault, how long it took from its end until the cluster was whole again: the longest.
    pub recovery: BTreeMap<Kind, Duration>,
    /// How often clients were held so that a replica could catch up.
    pub held: u64,
    /// Replicas that were never done anything to.
    pub spared: Vec<ReplicaId>,
    /// What the workloads came to, in words.
    pub notes: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.lost == 0 && self.divergent == 0 && self.anomalies.is_empty()
    }
}

/// Least, median and greatest; nothing of nothing.
fn spread(times: &[Duration]) -> Option<(Duration, Duration, Duration)> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let median = sorted.get(sorted.len() / 2)?;
    Some((*sorted.first()?, *median, *sorted.last()?))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        writeln!(f)?;
        writeln!(f, "{:16} {:>6}   next commit after, ms          whole again", "fault", "times")?;
        writeln!(f, "{:16} {:>6} {:>8} {:>8} {:>8}   after at most, ms", "", "", "min", "median", "max")?;
        for (kind, count) in &self.faults {
            let times = self.next_commit.get(kind).map_or(&[][..], Vec::as_slice);
            let cells = spread(times).map(|(least, median, greatest)| [least, median, greatest]);
            let cell = |index: usize| {
                cells.map_or("-".to_string(), |cells: [Duration; 3]| cells[index].as_millis().to_string())
            };
            let whole = self.recovery.get(kind).map_or("-".into(), |span| span.as_millis().to_string());
            writeln!(
                f,
                "{:16} {count:>6} {:>8} {:>8} {:>8}   {whole:>17}",
                kind.name(),
                cell(0),
                cell(1),
                cell(2)
            )?;
        }
        for kind in Kind::TIMED {
            let mut times = self.next_commit.get(&kind).cloned().unwrap_or_default();
            times.sort_unstable();
            let words: Vec<String> = times.iter().map(|time| time.as_millis().to_string()).collect();
            if !words.is_empty() {
                writeln!(f, "all of {}, ms: {}", kind.name(), words.join(" "))?;
            }
        }
        for replica in &self.spared {
            writeln!(f, "replica {} was spared", replica.0)?;
        }
        if let Some(fault) = &self.stalled_by {
            writeln!(f, "longest stall: {} ms, with {fault}", self.longest_stall.as_millis())?;
        }
        if self.held > 0 {
            writeln!(
                f,
                "clients were held {} times: a replica caught up more slowly than they wrote",
                self.held
            )?;
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

    #[test]
    fn times_to_the_next_commit_are_told_by_kind() {
        let mut report = Report::default();
        report.faults.insert(Kind::MasterKilled, 3);
        report.faults.insert(Kind::ProxyKilled, 1);
        let times = [30, 10, 20].map(Duration::from_millis).to_vec();
        report.next_commit.insert(Kind::MasterKilled, times);
        let text = report.to_string();
        let words = |kind: &str| -> Vec<String> {
            let line = text.lines().find(|line| line.starts_with(kind)).unwrap();
            line.split_whitespace().map(str::to_string).collect()
        };
        assert_eq!(words("master-killed"), ["master-killed", "3", "10", "20", "30", "-"]);
        assert_eq!(words("proxy-killed"), ["proxy-killed", "1", "-", "-", "-", "-"]);
        assert!(text.lines().any(|line| line == "all of master-killed, ms: 10 20 30"));
    }
}
