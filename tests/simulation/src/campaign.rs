//! Many scenarios, on all processors. Each is a function of its number, so the order in which they run does not matter.

use crate::{Failure, Outcome, Scenario, run_scenario};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Which scenarios to run.
pub struct Campaign<F> {
    /// The scenario of a number; nothing: that number has none.
    pub scenario: F,
    /// The first number.
    pub from: u64,
    /// One past the last number.
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
    /// Regencies entered.
    pub regencies: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// What broke, by number, ascending.
    pub violations: Vec<(u64, Failure)>,
}

impl<F: Fn(u64) -> Option<Scenario> + Sync> Campaign<F> {
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
        report.violations.sort_by_key(|(number, _)| *number);
        report.elapsed = started.elapsed();
        report
    }

    fn work(&self, next: &AtomicU64, started: Instant, total: &Mutex<Report>) {
        let mut mine = Report::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= self.to || self.time_max.is_some_and(|max| started.elapsed() >= max) {
                break;
            }
            let Some(scenario) = (self.scenario)(number) else { continue };
            mine.add(number, &scenario, self.shorten);
        }
        if let Ok(mut total) = total.lock() {
            total.seeds += mine.seeds;
            total.simulated_us += mine.simulated_us;
            total.steps += mine.steps;
            total.regencies += mine.regencies;
            total.violations.append(&mut mine.violations);
        }
    }
}

impl Report {
    fn add(&mut self, number: u64, scenario: &Scenario, shorten: bool) {
        self.seeds += 1;
        let reproduce = match &scenario.script {
            Some(script) => format!("--twins {}", script.number),
            None => format!("--seed {}", scenario.seed),
        };
        // A core that panics is a finding like any other.
        let run: Result<Outcome, _> = catch_unwind(AssertUnwindSafe(|| run_scenario(scenario, None, false)));
        match run {
            Ok(outcome) => {
                self.simulated_us += outcome.ended_us;
                self.steps += outcome.steps;
                self.regencies += outcome.regency;
                let failure = match outcome.failure {
                    Some(failure) if shorten => Some(shortest(scenario, failure)),
                    other => other,
                };
                self.violations.extend(failure.map(|failure| (number, failure)));
            }
            Err(_) => {
                let what = "a core or the simulator panicked".into();
                let failure = Failure { reproduce, steps: None, invariant: "no panic", what };
                self.violations.push((number, failure));
            }
        }
    }
}

/// The fewest events after which the same safety property is broken; liveness needs them all.
fn shortest(scenario: &Scenario, failure: Failure) -> Failure {
    if failure.invariant == crate::invariants::LIVENESS.0 {
        return failure;
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
            "seeds={} simulated_hours={hours:.2} steps_per_second={per_second:.0} violations={}",
            self.seeds,
            self.violations.len()
        )
    }
}
