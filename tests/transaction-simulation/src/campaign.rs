//! Many scenarios, on all processors. Each is a function of its number, so the order in which they run does not matter.

use crate::{Counts, Failure, Outcome, Scenario, run_scenario};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Which scenarios to run.
pub struct Campaign<F> {
    /// The scenario of a seed.
    pub scenario: F,
    /// The first seed.
    pub from: u64,
    /// One past the last seed.
    pub to: u64,
    /// When to start no more.
    pub time_max: Option<Duration>,
    /// Whether to look, for each violation, for the fewest events that lead to it.
    pub shorten: bool,
}

/// What a campaign came to. Shown as its last line.
#[derive(Default)]
pub struct Report {
    /// Scenarios run.
    pub seeds: u64,
    /// Virtual time, microseconds.
    pub simulated_us: u64,
    /// Events handled.
    pub steps: u64,
    /// Transactions of correct clients, and what became of them.
    pub counts: Counts,
    /// How long it took.
    pub elapsed: Duration,
    /// What broke, by seed, ascending.
    pub violations: Vec<(u64, Failure)>,
}

impl<F: Fn(u64) -> Scenario + Sync> Campaign<F> {
    /// Runs them all, or as many as time allows.
    pub fn run(&self) -> Report {
        let started = Instant::now();
        let next = AtomicU64::new(self.from);
        let total = Mutex::new(Report::default());
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| self.work(&next, started, &total));
            }
        });
        let mut report = total.into_inner().unwrap_or_default();
        report.violations.sort_by_key(|(seed, _)| *seed);
        report.elapsed = started.elapsed();
        report
    }

    fn work(&self, next: &AtomicU64, started: Instant, total: &Mutex<Report>) {
        let mut mine = Report::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.to || self.time_max.is_some_and(|max| started.elapsed() >= max) {
                break;
            }
            mine.add(seed, &(self.scenario)(seed), self.shorten);
        }
        if let Ok(mut total) = total.lock() {
            total.seeds += mine.seeds;
            total.simulated_us += mine.simulated_us;
            total.steps += mine.steps;
            total.counts.transactions += mine.counts.transactions;
            total.counts.committed += mine.counts.committed;
            total.counts.ordered += mine.counts.ordered;
            total.counts.ahead += mine.counts.ahead;
            total.violations.append(&mut mine.violations);
        }
    }
}

impl Report {
    fn add(&mut self, seed: u64, scenario: &Scenario, shorten: bool) {
        self.seeds += 1;
        // A core that panics is a finding like any other.
        let run: Result<Outcome, _> = catch_unwind(AssertUnwindSafe(|| run_scenario(scenario, None, false)));
        match run {
            Ok(outcome) => {
                self.simulated_us += outcome.ended_us;
                self.steps += outcome.steps;
                self.counts.transactions += outcome.counts.transactions;
                self.counts.committed += outcome.counts.committed;
                self.counts.ordered += outcome.counts.ordered;
                self.counts.ahead += outcome.counts.ahead;
                let failure = match outcome.failure {
                    Some(failure) if shorten => Some(shortest(scenario, failure)),
                    other => other,
                };
                self.violations.extend(failure.map(|failure| (seed, failure)));
            }
            Err(_) => {
                let what = "a core or the simulator panicked".into();
                let failure = Failure { seed, steps: None, invariant: "no panic", what };
                self.violations.push((seed, failure));
            }
        }
    }
}

/// The fewest events after which the same safety property is broken; what is demanded at the end needs them all.
fn shortest(scenario: &Scenario, failure: Failure) -> Failure {
    if ["liveness", "contents"].contains(&failure.invariant) {
        return Failure { steps: None, ..failure };
    }
    let (mut low, mut high, mut best) = (0, failure.steps.unwrap_or(0), failure);
    while low < high {
        let middle = low + (high - low) / 2;
        let found = run_scenario(scenario, Some(middle), false).failure;
        match found.filter(|found| found.invariant == best.invariant) {
            Some(found) => (high, best) = (middle, found),
            None => low = middle + 1,
        }
    }
    best
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.simulated_us as f64 / 3.6e9;
        let per_second = self.steps as f64 / self.elapsed.as_secs_f64().max(1e-9);
        write!(
            f,
            "seeds={} transactions={} committed={} told_early={} simulated_hours={hours:.2} steps_per_second={per_second:.0} violations={}",
            self.seeds,
            self.counts.transactions,
            self.counts.committed,
            self.counts.ahead,
            self.violations.len()
        )
    }
}
