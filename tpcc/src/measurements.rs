//! What the terminals measure, and how it adds up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::transactions::{Completed, Ending, Failure, Kind};

/// Latencies in microseconds, three significant digits.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        // 1 µs to an hour; the bounds and the digits are the documented valid ones, so this cannot fail.
        let histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3);
        Self(histogram.unwrap_or_else(|_| unreachable!("constant histogram bounds are valid")))
    }
}

impl Latencies {
    /// Adds one; what is longer than an hour counts as an hour.
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    fn add(&mut self, other: &Self) {
        // Same bounds on both sides: nothing can fall outside.
        let _ = self.0.add(&other.0);
    }

    /// Milliseconds and the share that took no longer, in hundredths; nothing of nothing.
    pub fn distribution(&self) -> Vec<(f64, f64)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let share = |hundredth: u32| f64::from(hundredth) / 100.0;
        (1..=100)
            .map(|hundredth| (self.0.value_at_quantile(share(hundredth)) as f64 / 1000.0, share(hundredth)))
            .collect()
    }

    /// The figures of the report.
    pub fn summary(&self) -> LatencySummary {
        let ms = |us: u64| us as f64 / 1000.0;
        LatencySummary {
            count: self.0.len(),
            mean_ms: self.0.mean() / 1000.0,
            p50_ms: ms(self.0.value_at_quantile(0.50)),
            p90_ms: ms(self.0.value_at_quantile(0.90)),
            p99_ms: ms(self.0.value_at_quantile(0.99)),
            max_ms: ms(self.0.max()),
        }
    }
}

/// A distribution of latencies in milliseconds; all zero when `count` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencySummary {
    /// How many were measured.
    pub count: u64,
    /// Arithmetic mean.
    pub mean_ms: f64,
    /// Median.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// Longest.
    pub max_ms: f64,
}

/// Figures of one kind of transaction.
#[derive(Clone, Debug, Default)]
pub struct KindMeasurements {
    /// Ended by COMMIT.
    pub committed: u64,
    /// Ended by the ROLLBACK that the specification asks for.
    pub rolled_back: u64,
    /// Given up.
    pub failed: u64,
    /// Attempts that met a conflict and were followed by another.
    pub retries: u64,
    /// Completed transactions, from the first BEGIN to the last answer, retries and their waits included.
    pub latencies: Latencies,
}

/// How often an error occurred, and what it said first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorCount {
    /// Occurrences.
    pub count: u64,
    /// The first message.
    pub example: String,
}

/// The figures of a terminal, or of all.
#[derive(Clone, Debug, Default)]
pub struct Measurements {
    kinds: BTreeMap<Kind, KindMeasurements>,
    /// COMMIT alone of transactions that wrote.
    pub commit_writing: Latencies,
    /// COMMIT alone of READ ONLY transactions.
    pub commit_read_only: Latencies,
    /// Retried conflicts by SQLSTATE.
    pub retries: BTreeMap<String, u64>,
    /// Transactions given up, by SQLSTATE or a name for what has none.
    pub errors: BTreeMap<String, ErrorCount>,
    /// COMMITs whose outcome is unknown; they are among the errors, too.
    pub commits_in_doubt: u64,
    /// Sessions opened again.
    pub reconnects: u64,
    /// Districts that a DELIVERY found without an outstanding order.
    pub skipped_deliveries: u64,
}

impl Measurements {
    /// The figures of one kind.
    pub fn kind(&self, kind: Kind) -> KindMeasurements {
        self.kinds.get(&kind).cloned().unwrap_or_default()
    }

    /// A transaction that completed.
    pub fn completed(&mut self, kind: Kind, latency: Duration, completed: &Completed) {
        let figures = self.kinds.entry(kind).or_default();
        figures.latencies.record(latency);
        match completed.ending {
            Ending::Commit { skipped } => {
                figures.committed += 1;
                self.skipped_deliveries += u64::from(skipped);
            }
            Ending::Rollback => figures.rolled_back += 1,
        }
        if let Some(commit) = completed.commit {
            let histogram =
                if kind.is_read_only() { &mut self.commit_read_only } else { &mut self.commit_writing };
            histogram.record(commit);
        }
    }

    /// A conflict that is tried again.
    pub fn retried(&mut self, kind: Kind, state: &str) {
        self.kinds.entry(kind).or_default().retries += 1;
        *self.retries.entry(state.to_owned()).or_default() += 1;
    }

    /// A transaction given up.
    pub fn failed(&mut self, kind: Kind, failure: &Failure) {
        self.kinds.entry(kind).or_default().failed += 1;
        let (name, message) = match failure {
            Failure::Conflict { state } => (format!("{state}, tries exhausted"), String::new()),
            Failure::Refused { code, message } => (code.clone(), message.clone()),
            Failure::Disconnected { state, message } => {
                (state.clone().unwrap_or_else(|| "disconnected".to_owned()), message.clone())
            }
            Failure::CommitInDoubt { message } => {
                self.commits_in_doubt += 1;
                ("COMMIT in doubt".to_owned(), message.clone())
            }
        };
        let error = self.errors.entry(name).or_default();
        if error.count == 0 {
            error.example = message;
        }
        error.count += 1;
    }

    /// Adds the figures of another terminal.
    pub fn add(&mut self, other: &Self) {
        for (kind, theirs) in &other.kinds {
            let ours = self.kinds.entry(*kind).or_default();
            ours.committed += theirs.committed;
            ours.rolled_back += theirs.rolled_back;
            ours.failed += theirs.failed;
            ours.retries += theirs.retries;
            ours.latencies.add(&theirs.latencies);
        }
        self.commit_writing.add(&other.commit_writing);
        self.commit_read_only.add(&other.commit_read_only);
        for (state, count) in &other.retries {
            *self.retries.entry(state.clone()).or_default() += count;
        }
        for (name, theirs) in &other.errors {
            let ours = self.errors.entry(name.clone()).or_default();
            if ours.count == 0 {
                ours.example.clone_from(&theirs.example);
            }
            ours.count += theirs.count;
        }
        self.commits_in_doubt += other.commits_in_doubt;
        self.reconnects += other.reconnects;
        self.skipped_deliveries += other.skipped_deliveries;
    }
}

/// Running totals of all terminals since the start, for the live line and the timeline.
#[derive(Debug, Default)]
pub struct LiveCounters {
    new_orders: AtomicU64,
    transactions: AtomicU64,
    retries: AtomicU64,
    errors: AtomicU64,
}

/// Totals at one moment, or the difference of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// NEW-ORDERs committed.
    pub new_orders: u64,
    /// Transactions of all kinds committed.
    pub transactions: u64,
    /// Conflicts tried again.
    pub retries: u64,
    /// Transactions given up.
    pub errors: u64,
}

impl LiveCounters {
    pub(crate) fn completed(&self, kind: Kind, ending: Ending) {
        if matches!(ending, Ending::Commit { .. }) {
            self.new_orders.fetch_add(u64::from(kind == Kind::NewOrder), Ordering::Relaxed);
            self.transactions.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// The totals so far.
    pub fn totals(&self) -> Totals {
        Totals {
            new_orders: self.new_orders.load(Ordering::Relaxed),
            transactions: self.transactions.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
        }
    }
}

impl Totals {
    /// What was added since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            new_orders: self.new_orders.saturating_sub(earlier.new_orders),
            transactions: self.transactions.saturating_sub(earlier.transactions),
            retries: self.retries.saturating_sub(earlier.retries),
            errors: self.errors.saturating_sub(earlier.errors),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_add_up() {
        let commit =
            Completed { ending: Ending::Commit { skipped: 2 }, commit: Some(Duration::from_millis(3)) };
        let rollback = Completed { ending: Ending::Rollback, commit: None };
        let mut one = Measurements::default();
        one.completed(Kind::NewOrder, Duration::from_millis(10), &commit);
        one.completed(Kind::NewOrder, Duration::from_millis(20), &rollback);
        one.retried(Kind::Payment, "40001");
        let mut two = Measurements::default();
        two.completed(Kind::NewOrder, Duration::from_millis(30), &commit);
        two.failed(Kind::Payment, &Failure::CommitInDoubt { message: "gone".to_owned() });
        one.add(&two);

        let new_order = one.kind(Kind::NewOrder);
        assert_eq!((new_order.committed, new_order.rolled_back), (2, 1));
        assert_eq!(new_order.latencies.summary().count, 3);
        assert_eq!(one.commit_writing.summary().count, 2);
        assert_eq!((one.kind(Kind::Payment).failed, one.commits_in_doubt, one.skipped_deliveries), (1, 1, 4));
        assert_eq!(one.retries["40001"], 1);
        assert_eq!(one.errors["COMMIT in doubt"], ErrorCount { count: 1, example: "gone".to_owned() });
    }

    #[test]
    fn extreme_latencies_are_kept_within_bounds() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::ZERO);
        latencies.record(Duration::MAX);
        assert_eq!(latencies.summary().count, 2);
    }
}
