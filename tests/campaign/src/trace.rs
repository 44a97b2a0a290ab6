//! The trace of a run: a digest over everything that happened, and the lines themselves when asked for.

use steeldb_types::{Digest, Hasher};

/// What happened, in order.
pub struct Trace {
    hasher: Hasher,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// An empty one. `simulator` keeps digests of different ones apart; `explain` keeps the lines.
    pub fn new(simulator: &'static str, explain: bool) -> Trace {
        Trace { hasher: Hasher::new(simulator), lines: explain.then(Vec::new) }
    }

    /// Something happened.
    pub fn line(&mut self, at_us: u64, line: &str) {
        self.hasher.number(at_us).part(line.as_bytes());
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>9}.{:03} ms  {line}", at_us / 1000, at_us % 1000));
        }
    }

    /// The digest over every line so far.
    pub fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// The lines, if they were kept.
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}
