//! The client's side of the transaction protocol (design, section 2). [`Core`] is one session as a pure state machine;
//! [`Shim`] drives the sessions of a proxy over links that they share.
//!
//! The shim trusts no replica. What one says is believed when a quorum, or f + 1, say the same; results are shown as the
//! master gives them and vouched for when their transaction ends (rules 6, 8, 10 and 11).

mod core;
mod driver;
mod error;
pub mod message;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod views;

#[cfg(feature = "planted-bugs")]
pub use core::PlantedBug;
pub use core::{Completion, Core, CoreConfig, Event, NewOperation, OperationFlags, Transmit, Waiting};
pub use driver::{Canceller, Links, Patience, RoundTrips, Session, Shim, ShimConfig, VerifiedReplica};
pub use error::{Disagreement, ShimError};
pub use steeldb_wire::transaction::{
    Decision, Modes, OperationKind, StatementText, TableDigest, TransactionState,
};
pub use views::{Learned, Views};
