//! The result of a run, for people (a table) and for programs (JSON).

use std::collections::BTreeMap;
use std::fmt;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::measurements::{ErrorCount, LatencySummary, Measurements, Totals};
use crate::scale::Scale;
use crate::transactions::Kind;

/// What was run, and for how long.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// Start, seconds since 1970.
    pub started_at_unix_s: u64,
    /// Host, port, database and user.
    pub target: String,
    /// As the server names it.
    pub server_version: Option<String>,
    /// Cardinalities worked on.
    pub scale: Scale,
    /// Whether they are the specification's.
    pub specification_scale: bool,
    /// Number of terminals.
    pub terminals: usize,
    /// Whether the terminals waited as clause 5.2.5 says.
    pub keying_and_think_times: bool,
    /// Whether independent statements shared round trips.
    pub pipelining: bool,
    /// Tries of a transaction against serialization failures.
    pub max_tries: u32,
    /// Seed of the inputs.
    pub seed: u64,
    /// Span left out of the figures.
    pub warmup_seconds: f64,
    /// Span of the figures.
    pub measured_seconds: f64,
    /// Whether the run was ended early.
    pub interrupted: bool,
    /// Terminals that could not reach the server any more.
    pub terminals_lost: usize,
    /// Terminals whose last transaction did not end.
    pub terminals_hung: usize,
}

/// Figures of one kind of transaction.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KindReport {
    /// Which.
    pub kind: Kind,
    /// Ended by COMMIT.
    pub committed: u64,
    /// Ended by the ROLLBACK that the specification asks for; not in tpmC.
    pub rolled_back: u64,
    /// Given up.
    pub failed: u64,
    /// Attempts that met a conflict and were followed by another.
    pub retries: u64,
    /// Share of the completed transactions.
    pub share_percent: f64,
    /// From the first BEGIN to the last answer, retries and their waits included.
    pub latency: LatencySummary,
}

/// What was done in one whole second of the run; a last part of a second has no entry.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Second {
    /// Counted from 1 at the start of the run.
    pub second: u64,
    /// Whether it ended within the warm-up.
    pub warmup: bool,
    /// Done in it.
    #[serde(flatten)]
    pub totals: Totals,
}

/// The result of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// What was run.
    pub setup: Setup,
    /// NEW-ORDERs committed per minute.
    pub tpm_c: f64,
    /// Transactions of all kinds committed per minute.
    pub tpm_total: f64,
    /// Per kind, in the specification's order.
    pub kinds: Vec<KindReport>,
    /// Round trip of COMMIT alone, transactions that write.
    pub commit_writing: LatencySummary,
    /// Round trip of COMMIT alone, READ ONLY transactions.
    pub commit_read_only: LatencySummary,
    /// Retried conflicts by SQLSTATE.
    pub retries: BTreeMap<String, u64>,
    /// Transactions given up, by SQLSTATE or a name for what has none.
    pub errors: BTreeMap<String, ErrorCount>,
    /// COMMITs whose outcome is unknown.
    pub commits_in_doubt: u64,
    /// Sessions opened again after the server ended them.
    pub reconnects: u64,
    /// Districts that a DELIVERY found without an outstanding order (2.7.4.2).
    pub skipped_deliveries: u64,
    /// Second by second, warm-up included.
    pub timeline: Vec<Second>,
    /// NEW-ORDER's latency as a distribution: milliseconds, and the share that took no longer.
    #[serde(default)]
    pub new_order_distribution: Vec<(f64, f64)>,
    /// The same of COMMIT alone, transactions that write.
    #[serde(default)]
    pub commit_distribution: Vec<(f64, f64)>,
}

impl Report {
    pub(crate) fn new(setup: Setup, figures: &Measurements, timeline: Vec<Second>) -> Self {
        let completed: u64 = Kind::ALL
            .iter()
            .map(|kind| figures.kind(*kind))
            .map(|figures| figures.committed + figures.rolled_back)
            .sum();
        let kinds: Vec<KindReport> = Kind::ALL
            .iter()
            .map(|kind| {
                let figures = figures.kind(*kind);
                KindReport {
                    kind: *kind,
                    committed: figures.committed,
                    rolled_back: figures.rolled_back,
                    failed: figures.failed,
                    retries: figures.retries,
                    share_percent: ratio(100 * (figures.committed + figures.rolled_back), completed as f64),
                    latency: figures.latencies.summary(),
                }
            })
            .collect();
        let minutes = setup.measured_seconds / 60.0;
        let committed_total = kinds.iter().map(|kind| kind.committed).sum();
        Self {
            tpm_c: ratio(figures.kind(Kind::NewOrder).committed, minutes),
            tpm_total: ratio(committed_total, minutes),
            kinds,
            commit_writing: figures.commit_writing.summary(),
            commit_read_only: figures.commit_read_only.summary(),
            retries: figures.retries.clone(),
            errors: figures.errors.clone(),
            commits_in_doubt: figures.commits_in_doubt,
            reconnects: figures.reconnects,
            skipped_deliveries: figures.skipped_deliveries,
            timeline,
            new_order_distribution: figures.kind(Kind::NewOrder).latencies.distribution(),
            commit_distribution: figures.commit_writing.distribution(),
            setup,
        }
    }

    /// Transactions of all kinds that were committed in the measured span.
    pub fn committed(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.committed).sum()
    }

    /// Transactions of all kinds that were given up in the measured span.
    pub fn failed(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.failed).sum()
    }
}

/// Zero instead of a division by zero.
fn ratio(count: u64, by: f64) -> f64 {
    if by > 0.0 { count as f64 / by } else { 0.0 }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let setup = &self.setup;
        writeln!(f, "TPC-C on {}", setup.target)?;
        if let Some(version) = &setup.server_version {
            writeln!(f, "server {version}")?;
        }
        writeln!(
            f,
            "{}, {} terminals, {}, {:.1} s measured after {:.1} s of warm-up, seed {}",
            setup.scale,
            setup.terminals,
            if setup.keying_and_think_times { "keying and think times" } else { "no keying or think times" },
            setup.measured_seconds,
            setup.warmup_seconds,
            setup.seed
        )?;
        writeln!(f, "\ntpmC      {:>12.1}\ntpmTOTAL  {:>12.1}\n", self.tpm_c, self.tpm_total)?;
        writeln!(f, "{}", self.table())?;
        self.write_counts(f)?;
        if !setup.specification_scale || !setup.keying_and_think_times {
            write!(
                f,
                "These figures do not conform to the TPC-C specification and must not be compared with \
                published results."
            )?;
        }
        Ok(())
    }
}

impl Report {
    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header([
            "transaction",
            "share %",
            "committed",
            "rolled back",
            "failed",
            "retries",
            "mean ms",
            "p50",
            "p90",
            "p99",
            "max",
        ]);
        for kind in &self.kinds {
            let mut row = vec![
                kind.kind.name().to_owned(),
                format!("{:.1}", kind.share_percent),
                kind.committed.to_string(),
                kind.rolled_back.to_string(),
                kind.failed.to_string(),
                kind.retries.to_string(),
            ];
            row.extend(latency_cells(&kind.latency));
            table.add_row(row);
        }
        for (name, latency) in
            [("COMMIT, writing", &self.commit_writing), ("COMMIT, read only", &self.commit_read_only)]
        {
            let mut row = vec![name.to_owned(), String::new(), latency.count.to_string()];
            row.extend(std::iter::repeat_n(String::new(), 3));
            row.extend(latency_cells(latency));
            table.add_row(row);
        }
        table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        table
    }

    fn write_counts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (state, count) in &self.retries {
            writeln!(f, "retried {state}: {count}")?;
        }
        for (name, error) in &self.errors {
            let example =
                if error.example.is_empty() { String::new() } else { format!(" ({})", error.example) };
            writeln!(f, "error {name}: {}{example}", error.count)?;
        }
        let setup = &self.setup;
        for (count, what) in [
            (self.commits_in_doubt, "COMMITs whose outcome is unknown"),
            (self.reconnects, "sessions opened again"),
            (self.skipped_deliveries, "districts without an order to deliver"),
            (setup.terminals_lost as u64, "terminals that lost the server for good"),
            (setup.terminals_hung as u64, "terminals whose last transaction did not end"),
        ] {
            if count > 0 {
                writeln!(f, "{what}: {count}")?;
            }
        }
        if setup.interrupted {
            writeln!(f, "The run was ended early.")?;
        }
        Ok(())
    }
}

fn latency_cells(latency: &LatencySummary) -> Vec<String> {
    if latency.count == 0 {
        return vec!["-".to_owned(); 5];
    }
    [latency.mean_ms, latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.max_ms]
        .iter()
        .map(|ms| format!("{ms:.2}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::transactions::{Completed, Ending, Failure};

    fn report(measured_seconds: f64) -> Report {
        let mut figures = Measurements::default();
        let commit =
            Completed { ending: Ending::Commit { skipped: 0 }, commit: Some(Duration::from_millis(2)) };
        for _ in 0..30 {
            figures.completed(Kind::NewOrder, Duration::from_millis(8), &commit);
        }
        figures.completed(
            Kind::NewOrder,
            Duration::from_millis(8),
            &Completed { ending: Ending::Rollback, commit: None },
        );
        figures.completed(Kind::StockLevel, Duration::from_millis(1), &commit);
        let refused = Failure::Refused { code: "23505".to_owned(), message: "duplicate key".to_owned() };
        figures.failed(Kind::Payment, &refused);
        let scale = Scale { items: 100, ..Scale::specification(2) };
        let setup = Setup {
            started_at_unix_s: 0,
            target: "here".to_owned(),
            server_version: Some("15".to_owned()),
            scale,
            specification_scale: scale.is_specification(),
            terminals: 2,
            keying_and_think_times: false,
            pipelining: false,
            max_tries: 10,
            seed: 1,
            warmup_seconds: 0.0,
            measured_seconds,
            interrupted: false,
            terminals_lost: 0,
            terminals_hung: 0,
        };
        Report::new(setup, &figures, Vec::new())
    }

    #[test]
    fn throughput_counts_commits_alone() {
        let report = report(30.0);
        assert_eq!((report.tpm_c, report.tpm_total), (60.0, 62.0));
        assert_eq!((report.committed(), report.failed()), (31, 1));
        assert_eq!((report.commit_writing.count, report.commit_read_only.count), (30, 1));
    }

    #[test]
    fn an_empty_span_divides_by_nothing() {
        assert_eq!(report(0.0).tpm_c, 0.0);
    }

    #[test]
    fn people_see_scale_errors_and_the_disclaimer() {
        let text = report(30.0).to_string();
        for part in [
            "SCALED DOWN",
            "NEW-ORDER",
            "error 23505: 1 (duplicate key)",
            "do not conform",
            "COMMIT, writing",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
    }

    #[test]
    fn json_can_be_read_back() {
        let report = report(30.0);
        let json = serde_json::to_string(&report).expect("a report is plain data");
        let back: Report = serde_json::from_str(&json).expect("what was written can be read");
        assert_eq!(back.tpm_c, report.tpm_c);
        assert_eq!(back.kinds.len(), 5);
    }
}
