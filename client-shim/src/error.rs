//! What a session's user is told when something fails: an SQLSTATE and texts, in PostgreSQL's own terms.

use std::fmt;
use steeldb_wire::transaction::SqlState;

/// An error to show to the application.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShimError {
    /// The SQLSTATE.
    pub sqlstate: SqlState,
    /// One sentence.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// What replicas disagree on, if that is the error.
    pub disagreement: Option<Box<Disagreement>>,
}

/// What replicas disagree on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disagreement {
    /// The effects of the transaction, where its results agree.
    pub effects: bool,
    /// The statement that it is, or most likely is; empty if there is none to name.
    pub statement: String,
}

impl ShimError {
    /// An error without detail and hint. `sqlstate` has five characters.
    pub fn new(sqlstate: &str, message: impl Into<String>) -> ShimError {
        ShimError {
            sqlstate: SqlState::parse(sqlstate),
            message: message.into(),
            detail: None,
            hint: None,
            disagreement: None,
        }
    }

    /// Adds a detail.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> ShimError {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> ShimError {
        self.hint = Some(hint.into());
        self
    }

    /// The error of every statement after a failed one in its transaction.
    pub fn in_failed_transaction() -> ShimError {
        ShimError::new(
            "25P02",
            "current transaction is aborted, commands ignored until end of transaction block",
        )
    }

    /// The proxy called out of turn: a fault of SteelDB's, never of a peer's.
    pub(crate) fn misuse(what: &str) -> ShimError {
        ShimError::new("XX000", format!("client shim used out of turn: {what}"))
    }
}

impl fmt::Display for ShimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.sqlstate)
    }
}

impl std::error::Error for ShimError {}
