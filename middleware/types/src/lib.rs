//! What every part of SteelDB shares: identifiers, digests, views with their quorum arithmetic, and limits.
//!
//! Nothing here does I/O, reads a clock or draws randomness. Types that travel derive borsh's canonical encoding.

mod digest;
mod execution;
mod ids;
pub mod limits;
mod temporary;
mod term;
mod view;

pub use digest::{Digest, Hasher};
pub use execution::Execution;
pub use ids::{ClientId, InvalidTxId, Position, ReplicaId, SessionId, SessionKey, Slot, Timestamp, TxId};
pub use temporary::{
    TEMPORARY_SCHEMA_PLACEHOLDER, TEMPORARY_SCHEMA_PREFIX, is_temporary_schema, temporary_schema,
};
pub use term::Term;
pub use view::{FaultModel, View, ViewError, ViewNumber, Weight};
