//! Errors as a client sees them, and what ends a session.

use crate::sql::{Refusal, SyntaxError};
use bytes::BytesMut;
use steeldb_client_shim::ShimError;
use steeldb_wire::transaction::SqlState;

/// An error or notice of the proxy's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PgError {
    pub severity: &'static str,
    pub sqlstate: SqlState,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// 1-based, in characters of the client's text.
    pub position: Option<usize>,
}

impl PgError {
    pub(crate) fn new(sqlstate: &str, message: impl Into<String>) -> PgError {
        PgError {
            severity: "ERROR",
            sqlstate: SqlState::parse(sqlstate),
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
        }
    }

    pub(crate) fn warning(sqlstate: &str, message: impl Into<String>) -> PgError {
        PgError { severity: "WARNING", ..PgError::new(sqlstate, message) }
    }

    pub(crate) fn fatal(sqlstate: &str, message: impl Into<String>) -> PgError {
        PgError { severity: "FATAL", ..PgError::new(sqlstate, message) }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> PgError {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn message_too_long(bytes: usize) -> PgError {
        let max = steeldb_types::limits::MESSAGE_BYTES_MAX;
        PgError::new("54000", format!("a message of {bytes} bytes is too long: at most {max} are taken"))
            .hint("Send large values in several statements, or use COPY.")
    }

    pub(crate) fn in_failed_transaction() -> PgError {
        ShimError::in_failed_transaction().into()
    }
}

impl From<ShimError> for PgError {
    fn from(error: ShimError) -> PgError {
        PgError {
            severity: "ERROR",
            sqlstate: error.sqlstate,
            message: error.message,
            detail: error.detail,
            hint: error.hint,
            position: None,
        }
    }
}

impl From<SyntaxError> for PgError {
    fn from(error: SyntaxError) -> PgError {
        let hint = error.hint.map(str::to_string);
        PgError { hint, position: error.position, ..PgError::new(error.sqlstate, error.message) }
    }
}

impl From<&Refusal> for PgError {
    fn from(refusal: &Refusal) -> PgError {
        let hint = Some(refusal.hint.clone()).filter(|hint| !hint.is_empty());
        PgError {
            hint,
            position: refusal.position,
            ..PgError::new(refusal.sqlstate, refusal.message.clone())
        }
    }
}

/// Why a statement or a session goes no further.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The statement failed: what the client is told. The session goes on.
    Statement(ErrorMessage),
    /// The session ends with this word.
    Fatal(PgError),
    /// The client is gone: nobody to tell.
    Gone,
}

/// An ErrorResponse.
#[derive(Debug)]
pub(crate) enum ErrorMessage {
    /// The proxy's own.
    Own(PgError),
    /// The backend's, as a whole message, its position mapped.
    Backend(BytesMut),
}

impl From<PgError> for Failure {
    fn from(error: PgError) -> Failure {
        Failure::Statement(ErrorMessage::Own(error))
    }
}

impl From<ShimError> for Failure {
    fn from(error: ShimError) -> Failure {
        PgError::from(error).into()
    }
}

impl From<std::io::Error> for Failure {
    fn from(_: std::io::Error) -> Failure {
        Failure::Gone
    }
}

impl From<crate::frontend::ProtocolError> for Failure {
    fn from(error: crate::frontend::ProtocolError) -> Failure {
        Failure::Fatal(PgError::fatal("08P01", error.0))
    }
}
