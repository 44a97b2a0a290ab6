//! What the grammar, or a limit, does not let through.

use std::fmt;

/// A query that PostgreSQL's grammar, or a limit, does not let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// The SQLSTATE: 42601, or 54000, 54001, 53200, 22021 for limits and texts that cannot be parsed at all.
    pub sqlstate: &'static str,
    /// PostgreSQL's own message.
    pub message: String,
    /// What to do about it, for limits.
    pub hint: Option<&'static str>,
    /// The 1-based character position in the query, where it is known.
    pub position: Option<usize>,
    /// The same place as a byte offset from 0.
    pub byte: Option<usize>,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({})", self.message, self.sqlstate)
    }
}

impl std::error::Error for SyntaxError {}
