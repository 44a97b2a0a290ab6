//! What can be wrong with a log.

use std::fmt;
use std::io;

/// Why a log cannot be used. Every message names the place and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk is full. Nothing that was not written is relied upon.
    #[error("{place}: the disk is full; make room and start the replica again, nothing is lost")]
    Full {
        /// Which file.
        place: String,
    },
    /// The disk or the file system failed.
    #[error("{place}: {error}")]
    Io {
        /// Which file.
        place: String,
        /// What failed.
        error: io::Error,
    },
    /// It cannot be told any more what this replica has promised to others.
    #[error(
        "{place}: {reason}; what this replica promised to others is lost with it, so it must not go on: restore the file, or rebuild this replica from the others"
    )]
    Lost {
        /// Which file, where.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// A write failed before; the log is not used any more.
    #[error("the log has failed before")]
    Failed,
}

impl LogError {
    pub(crate) fn io(place: impl Into<String>, error: io::Error) -> LogError {
        let place = place.into();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => LogError::Full { place },
            _ => LogError::Io { place, error },
        }
    }
}

/// Damage that was found and can be lived with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Which file.
    pub file: String,
    /// From which byte on.
    pub offset: u64,
    /// How many bytes; 0: the file is missing.
    pub bytes: u64,
    /// What was found.
    pub reason: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}, {} bytes: {}", self.file, self.offset, self.bytes, self.reason)
    }
}
