//! Many scenarios, on all processors. Each is a function of its number, so the order in which they run does not matter.

use crate::{Counts, Failure, Simulate};
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
pub struct Report<C> {
    /// Scenarios run.
    pub seeds: u64,
    /// Virtual time, microseconds.
    pub simulated_us: u64,
    /// Events handled.
    pub steps: u64,
    /// What was counted in all of them.
    pub counts: C,
    /// How long it took.
    pub elapsed: Duration,
    /// What broke, by number, ascending.
    pub violations: Vec<(u64, Failure)>,
}

impl<F> Campaign<F> {
    /// Runs them all, or as many as time allows.
    pub fn run<S: Simulate>(&self) -> Report<S::Counts>
    where
        F: Fn(u64) -> Option<S> + Sync,
    {
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

    fn work<S: Simulate>(&self, next: &AtomicU64, started: Instant, total: &Mutex<Report<S::Counts>>)
    where
        F: Fn(u64) -> Option<S>,
    {
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
            total.counts += mine.counts;
            total.violations.append(&mut mine.violations);
        }
    }
}

impl<C: Counts> Report<C> {
    fn add<S: Simulate<Counts = C>>(&mut self, number: u64, scenario: &S, shorten: bool) {
        self.seeds += 1;
        // A core that panics is a finding like any other.
        match catch_unwind(AssertUnwindSafe(|| scenario.simulate(None, false))) {
            Ok(outcome) => {
                self.simulated_us += outcome.ended_us;
                self.steps += outcome.steps;
                self.counts += outcome.counts;
                let failure = match outcome.failure {
                    Some(failure) if shorten => Some(shortest(scenario, failure)),
                    other => other,
                };
                self.violations.extend(failure.map(|failure| (number, failure)));
            }
            Err(_) => {
                let what = "a core or the simulator panicked".into();
                let reproduce = scenario.reproduce();
                self.violations
                    .push((number, Failure { reproduce, steps: None, invariant: "no panic", what }));
            }
        }
    }
}

/// The fewest events after which the same invariant is broken; what is demanded at the end needs them all.
fn shortest<S: Simulate>(scenario: &S, failure: Failure) -> Failure {
    if S::AT_THE_END.contains(&failure.invariant) {
        return Failure { steps: None, ..failure };
    }
    let (mut low, mut high, mut best) = (0, failure.steps.unwrap_or(0), failure);
    while low < high {
        let middle = low + (high - low) / 2;
        let found = scenario.simulate(Some(middle), false).failure;
        match found.filter(|found| found.invariant == best.invariant) {
            Some(found) => (high, best) = (middle, found),
            None => low = middle + 1,
        }
    }
    best
}

impl<C: Counts> fmt::Display for Report<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.simulated_us as f64 / 3.6e9;
        let per_second = self.steps as f64 / self.elapsed.as_secs_f64().max(1e-9);
        write!(f, "seeds={} ", self.seeds)?;
        for (name, value) in self.counts.fields() {
            write!(f, "{name}={value} ")?;
        }
        let violations = self.violations.len();
        write!(f, "simulated_hours={hours:.2} steps_per_second={per_second:.0} violations={violations}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Outcome, Trace};
    use std::ops::AddAssign;

    /// Breaks from its tenth event on, if it is an odd one; panics if it is the last.
    struct Toy(u64);

    #[derive(Default)]
    struct Events(u64);

    impl AddAssign for Events {
        fn add_assign(&mut self, other: Events) {
            self.0 += other.0;
        }
    }

    impl Counts for Events {
        fn fields(&self) -> Vec<(&'static str, u64)> {
            vec![("events", self.0)]
        }

        fn sentence(&self) -> String {
            format!("{} events", self.0)
        }
    }

    impl Simulate for Toy {
        type Counts = Events;

        const AT_THE_END: &'static [&'static str] = &["liveness"];

        fn simulate(&self, steps_max: Option<u64>, explain: bool) -> Outcome<Events> {
            assert!(self.0 < 9, "the last one");
            let steps = steps_max.unwrap_or(100);
            let failure = (self.0 % 2 == 1 && steps >= 10).then(|| Failure {
                reproduce: self.reproduce(),
                steps: Some(steps),
                invariant: if self.0 == 1 { "liveness" } else { "safety" },
                what: "it broke".into(),
            });
            let trace = Trace::new("steeldb/campaign-test", explain);
            Outcome { counts: Events(steps), steps, ended_us: 36_000_000, trace, failure }
        }

        fn reproduce(&self) -> String {
            format!("toy --seed {}", self.0)
        }
    }

    #[test]
    fn what_breaks_is_told_by_number_with_the_fewest_events_and_panics_are_findings() {
        let scenario = |number| (number != 4).then_some(Toy(number));
        let report = Campaign { scenario, from: 0, to: 10, time_max: None, shorten: true }.run();
        let told: Vec<_> = report
            .violations
            .iter()
            .map(|(number, failure)| (*number, failure.invariant, failure.steps))
            .collect();
        assert_eq!(
            told,
            [
                (1, "liveness", None),
                (3, "safety", Some(10)),
                (5, "safety", Some(10)),
                (7, "safety", Some(10)),
                (9, "no panic", None)
            ]
        );
        assert_eq!(
            report.violations[1].1.to_string(),
            "safety broken: it broke\ntoy --seed 3 --steps 10 --explain"
        );
        assert_eq!((report.seeds, report.counts.0), (9, 800), "one number has none, one panicked");
        assert!(
            report.to_string().starts_with("seeds=9 events=800 simulated_hours=0.08 steps_per_second="),
            "{report}"
        );
    }
}
