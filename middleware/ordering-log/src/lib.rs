//! The ordering core's log on disk: what must be durable before anything that depends on it leaves (A7), and what a
//! replica starts again from.
//!
//! A log is a row of segments, each a row of batches, each a row of records; a batch is written and synced at once
//! (group commit). Every record has a checksum, every batch header says where it belongs and how far the segment was
//! durable when it was written. So a torn tail, which nothing depended on, can be told from damage. An index in memory says
//! where each decision is, so that any that is kept can be read for a replica that is behind.
//!
//! Invariants:
//! - What [`Log::commit`] has returned for is there after any crash.
//! - A segment begins with all that is needed of those before it, decisions excepted: regency, votes in undecided
//!   instances, the last stable checkpoint. So whole segments can be dropped, and damage in any but the last costs
//!   decisions only, which others have, certified.
//! - Damage is never passed over. Where it may have cost votes, the core is told not to vote
//!   ([`Record::Passive`](steeldb_ordering::Record::Passive)); where that is not enough, the log does not open.
//!
//! File work is behind [`Disk`]: the same code runs over [`Directory`] and over [`SimulatedDisk`], which forgets, tears and
//! rots.

mod batch;
mod directory;
mod disk;
mod error;
mod history;
mod index;
mod journal;
mod live;
mod log;
mod manifest;
mod reader;
mod recovery;
mod simulated;

pub use directory::Directory;
pub use disk::Disk;
pub use error::{Damage, LogError};
pub use history::History;
pub use journal::Journal;
pub use log::{Log, Options};
pub use reader::Reader;
pub use recovery::Recovered;
pub use simulated::SimulatedDisk;
