//! What the simulators have in common: scenarios of which a run is a function, many of them at once, the fewest events that
//! break an invariant, traces to compare two runs by, and how a failing run says what repeats it.

mod campaign;
mod command;
mod trace;

pub use campaign::{Campaign, Report};
pub use command::{many, one, range};
pub use trace::Trace;

use std::fmt;
use std::ops::AddAssign;

/// What a run is a function of.
pub trait Simulate {
    /// What is counted in a run besides events and time.
    type Counts: Counts;

    /// Invariants that are judged at the end: fewer events do not tell whether they hold.
    const AT_THE_END: &'static [&'static str];

    /// Runs it, up to `steps_max` events if given. `explain` keeps a line per event in the trace.
    fn simulate(&self, steps_max: Option<u64>, explain: bool) -> Outcome<Self::Counts>;

    /// The command that runs it again.
    fn reproduce(&self) -> String;
}

/// What is counted in runs.
pub trait Counts: Default + Send + AddAssign {
    /// For the last line of a campaign: `name=value` each.
    fn fields(&self) -> Vec<(&'static str, u64)>;

    /// For people, of one run.
    fn sentence(&self) -> String;
}

/// What a run came to.
pub struct Outcome<C> {
    /// How much happened.
    pub counts: C,
    /// Events handled.
    pub steps: u64,
    /// Virtual time at the end, microseconds.
    pub ended_us: u64,
    /// What happened.
    pub trace: Trace,
    /// The invariant that did not hold, if any.
    pub failure: Option<Failure>,
}

/// A broken invariant.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The command that runs it again.
    pub reproduce: String,
    /// How many events it takes; nothing: all there are.
    pub steps: Option<u64>,
    /// The invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} broken: {}\n{}", self.invariant, self.what, self.reproduce)?;
        if let Some(steps) = self.steps {
            write!(f, " --steps {steps}")?;
        }
        f.write_str(" --explain")
    }
}
