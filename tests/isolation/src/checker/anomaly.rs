//! Anomalies and their names.

use std::fmt;

/// What went wrong. The names are those of Adya and of Elle.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// A cycle of ww.
    G0,
    /// An aborted transaction's write was read.
    G1a,
    /// A write was read that its transaction replaced before its end.
    G1b,
    /// A cycle of ww and wr.
    G1c,
    /// A cycle with one rw.
    GSingle,
    /// Two transactions wrote a key on the strength of the same version of it.
    LostUpdate,
    /// A cycle with several rw, no two of them in a row.
    LongFork,
    /// A cycle with rt.
    RealTime,
    /// A transaction's answers contradict each other.
    Internal,
    /// Two reads of a list are not one the beginning of the other.
    IncompatibleOrder,
    /// A value is in a list twice.
    Duplicate,
    /// A value was read that nobody wrote.
    Unwritten,
}

impl Kind {
    /// All.
    pub const ALL: [Kind; 12] = [
        Kind::G0,
        Kind::G1a,
        Kind::G1b,
        Kind::G1c,
        Kind::GSingle,
        Kind::LostUpdate,
        Kind::LongFork,
        Kind::RealTime,
        Kind::Internal,
        Kind::IncompatibleOrder,
        Kind::Duplicate,
        Kind::Unwritten,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::G0 => "G0",
            Kind::G1a => "G1a",
            Kind::G1b => "G1b",
            Kind::G1c => "G1c",
            Kind::GSingle => "G-single",
            Kind::LostUpdate => "lost update",
            Kind::LongFork => "long fork",
            Kind::RealTime => "real-time violation",
            Kind::Internal => "internal contradiction",
            Kind::IncompatibleOrder => "incompatible order",
            Kind::Duplicate => "duplicate",
            Kind::Unwritten => "unwritten value",
        }
    }

    /// What it means, in one sentence.
    pub fn meaning(self) -> &'static str {
        match self {
            Kind::G0 => "each wrote after the other: their writes are interleaved",
            Kind::G1a => "what was rolled back was read",
            Kind::G1b => "a transaction was seen half done",
            Kind::G1c => "each depends on what the other wrote",
            Kind::GSingle => "one saw part of another's effects (read skew)",
            Kind::LostUpdate => "a write is based on a version that was already replaced",
            Kind::LongFork => "two saw the same writes in different orders",
            Kind::RealTime => "a commit that was acknowledged before a transaction began was not seen by it",
            Kind::Internal => "a transaction does not see one state of the database",
            Kind::IncompatibleOrder => "a list has had two different histories",
            Kind::Duplicate => "a write took effect twice",
            Kind::Unwritten => "what was read comes from nowhere",
        }
    }
}

/// One anomaly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Anomaly {
    /// What.
    pub kind: Kind,
    /// The transactions that show it, in the cycle's order where it is one.
    pub transactions: Vec<u64>,
    /// What these did, and how they depend on each other, line by line.
    pub explanation: Vec<String>,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.kind.meaning())?;
        for line in &self.explanation {
            write!(f, "\n  {line}")?;
        }
        Ok(())
    }
}
