//! What several runs of one point say: medians with their range.

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use steeldb_tpcc::Report;
use steeldb_tpcc::transactions::Kind;

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    /// What the driver reports.
    pub(crate) report: Report,
    /// CPU seconds used during the run, warm-up included, by part; empty without control groups.
    pub(crate) cpu_seconds: BTreeMap<String, f64>,
}

impl Run {
    /// CPU per transaction of a part, ms. Warm-up's transactions count, since its CPU does.
    pub(crate) fn cpu_per_transaction(&self, part: &str) -> Option<f64> {
        let transactions: u64 = self.report.timeline.iter().map(|second| second.totals.transactions).sum();
        let seconds = self.cpu_seconds.get(part)?;
        (transactions > 0).then(|| seconds * 1000.0 / transactions as f64)
    }
}

/// What nodes used, by part.
pub(crate) fn difference(
    before: &BTreeMap<String, Duration>,
    after: &BTreeMap<String, Duration>,
) -> BTreeMap<String, f64> {
    let used = |(part, after): (&String, &Duration)| {
        let before = before.get(part).copied().unwrap_or_default();
        (part.clone(), after.saturating_sub(before).as_secs_f64())
    };
    after.iter().map(used).collect()
}

/// A point of a comparison: a system, and where on the axis.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Point {
    /// The system.
    pub(crate) system: String,
    /// The value of what is varied, if anything is: replicas, terminals.
    pub(crate) axis: BTreeMap<String, u64>,
    /// Its runs.
    pub(crate) runs: Vec<Run>,
}

/// Median and range.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Spread {
    /// Of no values, nothing.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Spread { median, low, high })
    }

    fn text(self, digits: usize) -> String {
        if self.low == self.high {
            return format!("{:.digits$}", self.median);
        }
        format!("{:.digits$} ({:.digits$}-{:.digits$})", self.median, self.low, self.high)
    }
}

/// A figure of a table: its heading, digits, and how it is read from a run.
type Figure = (&'static str, usize, fn(&Run) -> Option<f64>);

const FIGURES: [Figure; 10] = [
    ("tpmC", 0, |run| Some(run.report.tpm_c)),
    ("tpmTOTAL", 0, |run| Some(run.report.tpm_total)),
    ("NEW-ORDER p50, ms", 1, |run| new_order(run).map(|latency| latency.0)),
    ("p90", 1, |run| new_order(run).map(|latency| latency.1)),
    ("p99", 1, |run| new_order(run).map(|latency| latency.2)),
    ("COMMIT p50, ms", 1, |run| Some(run.report.commit_writing.p50_ms)),
    ("p90", 1, |run| Some(run.report.commit_writing.p90_ms)),
    ("p99", 1, |run| Some(run.report.commit_writing.p99_ms)),
    ("CPU ms per transaction: servers and agents", 2, |run| run.cpu_per_transaction("replicas")),
    ("proxy", 2, |run| run.cpu_per_transaction("proxy")),
];

fn new_order(run: &Run) -> Option<(f64, f64, f64)> {
    let kind = run.report.kinds.iter().find(|kind| kind.kind == Kind::NewOrder)?;
    Some((kind.latency.p50_ms, kind.latency.p90_ms, kind.latency.p99_ms))
}

impl Point {
    /// Median and range of a figure.
    pub(crate) fn spread(&self, of: impl Fn(&Run) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.runs.iter().filter_map(of))
    }

    /// tpmTOTAL.
    pub(crate) fn throughput(&self) -> Option<Spread> {
        self.spread(|run| Some(run.report.tpm_total))
    }
}

/// The Markdown table of a comparison: a row per point.
pub(crate) fn table(points: &[Point]) -> String {
    let axes: Vec<&String> = points.first().map(|point| point.axis.keys().collect()).unwrap_or_default();
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    let headings = ["system"].into_iter().chain(axes.iter().map(|axis| axis.as_str()));
    table.set_header(headings.chain(FIGURES.iter().map(|figure| figure.0)));
    for point in points {
        let mut row = vec![point.system.clone()];
        row.extend(axes.iter().map(|axis| point.axis.get(*axis).map_or("-".into(), u64::to_string)));
        row.extend(FIGURES.iter().map(|(_, digits, figure)| {
            point.spread(figure).map_or("-".into(), |spread| spread.text(*digits))
        }));
        table.add_row(row);
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ranges() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, low: 1.0, high: 3.0 }));
        assert_eq!(spread(&[4.0, 1.0]).unwrap().median, 2.5);
        assert_eq!(spread(&[4.0, 1.0]).unwrap().text(1), "2.5 (1.0-4.0)");
        assert_eq!(spread(&[4.0]).unwrap().text(0), "4");
    }

    #[test]
    fn what_was_used_is_a_difference() {
        let at = |seconds| BTreeMap::from([("replicas".to_string(), Duration::from_secs(seconds))]);
        assert_eq!(difference(&at(3), &at(5))["replicas"], 2.0);
        assert_eq!(difference(&BTreeMap::new(), &at(5))["replicas"], 5.0);
    }
}
