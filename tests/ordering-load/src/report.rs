//! What a run says: a table for people, JSON for programs.

use crate::load::{Load, Measured};
use serde::Serialize;
use std::fmt::Write as _;

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was done besides the load.
    pub scenario: String,
    /// Whether records went to disk.
    pub log: bool,
    /// Whether requests were signed.
    pub signed: bool,
    /// Of a request and its reply.
    pub payload_bytes: usize,
    /// Sessions with one request in flight each.
    pub clients: u64,
    /// Links to each replica that they share.
    pub links: u64,
    /// Requests per second offered; nothing for closed loops.
    pub offered_per_second: Option<f64>,
    /// How often it was measured; what follows is of the measurement with the median throughput.
    pub runs: usize,
    /// Executed per second.
    pub throughput_per_second: f64,
    /// The lowest and the highest of the runs.
    pub throughput_range: [f64; 2],
    /// Latency.
    pub p50_ms: f64,
    /// Latency.
    pub p99_ms: f64,
    /// The longest time without any completion.
    pub longest_gap_ms: f64,
    /// Arrivals turned away by the driver because all sessions were busy.
    pub shed: u64,
    /// CPU of all replicas, per request.
    pub replicas_cpu_us: f64,
    /// CPU of the clients, per request.
    pub clients_cpu_us: f64,
}

impl Row {
    /// The line of one measurement.
    pub fn new(scenario: &str, log: bool, load: Load, measured: &Measured) -> Row {
        let quantile = |q| measured.latency_us.value_at_quantile(q) as f64 / 1000.0;
        Row {
            scenario: scenario.to_string(),
            log,
            signed: load.signed,
            payload_bytes: load.payload_bytes,
            clients: load.sessions,
            links: u64::from(load.clients).min(load.sessions),
            offered_per_second: load.rate,
            runs: 1,
            throughput_per_second: measured.throughput,
            throughput_range: [measured.throughput; 2],
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            longest_gap_ms: measured.longest_gap.as_secs_f64() * 1000.0,
            shed: measured.shed,
            replicas_cpu_us: measured.replicas_cpu_us,
            clients_cpu_us: measured.clients_cpu_us,
        }
    }
}

impl Row {
    /// Of several measurements the one with the median throughput (of an even number the lower one), and the range; nothing of
    /// none.
    pub fn median(mut rows: Vec<Row>) -> Option<Row> {
        rows.sort_by(|a, b| a.throughput_per_second.total_cmp(&b.throughput_per_second));
        let range = [rows.first()?.throughput_per_second, rows.last()?.throughput_per_second];
        let runs = rows.len();
        let middle = rows.swap_remove((runs - 1) / 2);
        Some(Row { runs, throughput_range: range, ..middle })
    }

    fn throughput(&self) -> String {
        let [low, high] = self.throughput_range;
        match self.runs {
            1 => format!("{:.0}", self.throughput_per_second),
            _ => format!("{:.0} ({low:.0}-{high:.0})", self.throughput_per_second),
        }
    }
}

/// The table's head.
pub const HEAD: &str = "| scenario | log | requests | bytes | clients | offered/s | ops/s | p50 ms | p99 ms | longest gap ms | replicas CPU µs/op | clients CPU µs/op |
|---|---|---|---|---|---|---|---|---|---|---|---|";

/// A row in Markdown.
pub fn markdown(row: &Row) -> String {
    let mut line = String::new();
    let offered = row.offered_per_second.map(|rate| format!("{rate:.0}")).unwrap_or_default();
    // Writing into a string cannot fail.
    let _ = write!(
        line,
        "| {} | {} | {} | {} | {} | {} | {} | {:.2} | {:.2} | {:.0} | {:.0} | {:.0} |",
        row.scenario,
        if row.log { "on" } else { "off" },
        if row.signed { "signed" } else { "unsigned" },
        row.payload_bytes,
        row.clients,
        offered,
        row.throughput(),
        row.p50_ms,
        row.p99_ms,
        row.longest_gap_ms,
        row.replicas_cpu_us,
        row.clients_cpu_us,
    );
    line
}
