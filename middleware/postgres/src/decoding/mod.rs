//! Two-phase logical decoding: each PREPARE TRANSACTION becomes a write set.
//!
//! [`protocol`] reads pgoutput's messages, [`assembly`] puts a transaction together from them (both without I/O), and
//! [`stream`] is the replication connection.
//!
//! Invariants:
//! - transactions come in the order of their PREPARE, COMMIT PREPARED and ROLLBACK PREPARED records in the server's log;
//! - what was rolled back to a savepoint is not in a write set;
//! - transactions that commit without PREPARE (the agent's own) are not reported.

pub mod assembly;
pub mod protocol;
pub mod stream;

pub use assembly::Assembler;
pub use stream::{DecodingStream, create_slot, drop_slot, slot_exists};

use crate::connection::BackendError;
use crate::write_set::{Definitions, Part, WriteSet};
use std::fmt;

/// A place in a server's write-ahead log. Local to that server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// What the stream yields.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decoded {
    /// Changes of the transaction that is being decoded, which has too many to be gathered.
    Part {
        /// The name that it is to be prepared under.
        gid: String,
        /// The changes.
        part: Part,
        /// About how many bytes they take.
        bytes: u64,
    },
    /// A transaction was prepared.
    Prepared {
        /// The name it was prepared under.
        gid: String,
        /// What it did.
        write_set: WriteSet,
        /// The end of its PREPARE record; confirm it once the write set is no longer needed from the stream.
        lsn: Lsn,
    },
    /// A transaction was prepared whose changes came in parts.
    PreparedInParts {
        /// The name it was prepared under.
        gid: String,
        /// The rest of its changes.
        last: Part,
        /// What it did besides.
        definitions: Definitions,
        /// The end of its PREPARE record, as above.
        lsn: Lsn,
    },
    /// A prepared transaction was committed or rolled back.
    Resolved {
        /// The name it was prepared under.
        gid: String,
        /// Whether it was committed.
        committed: bool,
        /// The end of that record.
        lsn: Lsn,
    },
}

/// Why the stream failed.
#[derive(Debug, thiserror::Error)]
pub enum DecodingError {
    /// The replication connection failed or was refused.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The server sent what pgoutput does not say.
    #[error("the decoding stream is not valid: {0}")]
    Protocol(#[from] protocol::ProtocolError),
    /// The server ended the stream.
    #[error("PostgreSQL ended the decoding stream")]
    Ended,
}
