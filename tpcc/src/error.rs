//! What can stop a load, a run or a check, each with what to do about it.

use tokio_postgres::error::SqlState;

/// An error that ends the command. Failures of single transactions during a run are counted instead (see
/// [`crate::report::Report`]).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option has a value that makes no sense.
    #[error("{0}")]
    Options(String),

    /// The connection string or a PG* variable cannot be understood.
    #[error(
        "cannot understand {what}: {reason}. Give --url postgresql://user@host:5432/database, or set PGHOST, \
        PGPORT, PGUSER and PGDATABASE"
    )]
    ConnectionSettings {
        /// Which setting.
        what: String,
        /// What is wrong with it.
        reason: String,
    },

    /// The server did not accept the connection.
    #[error(
        "cannot connect to {target}: {reason}. Check that the server runs and that --url (or PGHOST, PGPORT, \
        PGUSER, PGDATABASE, PGPASSWORD) points at it"
    )]
    Connect {
        /// Hosts, port and database.
        target: String,
        /// The driver's explanation with its causes.
        reason: String,
    },

    /// A load over existing tables.
    #[error(
        "these tables exist already: {0}. Give --drop to drop them, with all their data, and load afresh"
    )]
    TablesExist(String),

    /// A run or a check without a load.
    #[error("the TPC-C tables are missing or empty ({0}). Load them first: steeldb tpcc load --warehouses N")]
    NotLoaded(String),

    /// A statement outside the measured transactions failed.
    #[error("{doing}: {reason}")]
    Statement {
        /// What was being done.
        doing: String,
        /// The server's or the driver's message with its SQLSTATE.
        reason: String,
        /// The server's code, when it gave one.
        state: Option<SqlState>,
    },

    /// A transaction of the load was aborted as often as allowed.
    #[error(
        "{doing}: still conflicting after {tries} tries ({state}). Is something else writing to these \
        tables? Otherwise raise --max-tries"
    )]
    TriesExhausted {
        /// What was being done.
        doing: String,
        /// How often it was tried.
        tries: u32,
        /// The SQLSTATE of the last try.
        state: String,
    },

    /// The answer to a COMMIT of the load was lost.
    #[error("{doing}: the outcome of COMMIT is unknown ({reason}). Load again with --drop")]
    CommitInDoubt {
        /// What was being committed.
        doing: String,
        /// Why there was no answer.
        reason: String,
    },

    /// A file could not be written.
    #[error("cannot write {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },

    /// A task of this program ended abnormally: a bug here.
    #[error("internal error, please report: {0}")]
    Internal(String),
}

impl Error {
    /// Wraps a driver error with what was being done.
    pub(crate) fn statement(doing: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        let doing = doing.into();
        move |error| Self::Statement { doing, reason: describe(&error), state: error.code().cloned() }
    }
}

/// A driver error as one line: the server's message with SQLSTATE, detail and hint, or the chain of causes.
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(server) = error.as_db_error() {
        let mut text = format!("{} (SQLSTATE {})", server.message(), server.code().code());
        for (name, value) in [("detail", server.detail()), ("hint", server.hint())] {
            if let Some(value) = value {
                text.push_str(&format!("; {name}: {value}"));
            }
        }
        return text;
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(&format!(": {inner_text}"));
        }
        cause = inner.source();
    }
    text
}

/// Serialization failure and deadlock: nothing happened, the transaction may simply be tried again.
pub(crate) fn is_retryable(state: &SqlState) -> bool {
    *state == SqlState::T_R_SERIALIZATION_FAILURE || *state == SqlState::T_R_DEADLOCK_DETECTED
}

/// Whether an error *answering COMMIT* leaves open if the transaction took effect. No code means that no
/// answer came; class 08 and 40003 say so themselves; class 57P is a server that went down in the middle.
pub(crate) fn leaves_commit_in_doubt(state: Option<&SqlState>) -> bool {
    match state {
        None => true,
        Some(state) => {
            *state == SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN
                || state.code().starts_with("08")
                || state.code().starts_with("57P")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicts_are_retryable_and_settled() {
        for state in [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED] {
            assert!(is_retryable(&state));
            assert!(!leaves_commit_in_doubt(Some(&state)));
        }
        assert!(!is_retryable(&SqlState::UNIQUE_VIOLATION));
    }

    #[test]
    fn a_lost_answer_to_commit_is_in_doubt() {
        assert!(leaves_commit_in_doubt(None));
        assert!(leaves_commit_in_doubt(Some(&SqlState::TRANSACTION_RESOLUTION_UNKNOWN)));
        assert!(leaves_commit_in_doubt(Some(&SqlState::ADMIN_SHUTDOWN)));
        assert!(leaves_commit_in_doubt(Some(&SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN)));
        assert!(!leaves_commit_in_doubt(Some(&SqlState::FOREIGN_KEY_VIOLATION)));
    }
}
