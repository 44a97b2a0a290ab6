//! A replicated service over TCP: the ordering core ([`steeldb_ordering`]), links ([`steeldb_transport`]) and a log,
//! around any [`Application`] that is a deterministic state machine. Nothing here knows SQL.
//!
//! - [`Shell`] runs one core: it carries out what concerns order alone (records, messages to peers, decisions for those
//!   that are behind) and hands up the rest. A program with inputs of its own builds on it.
//! - [`Server`] is such a program: clients' requests in, the application's replies out.
//! - [`Client`] sends requests to all replicas and believes what a quorum of them says.
//!
//! # A replicated counter
//!
//! ```
//! use steeldb_ordering_server::{Application, Command};
//!
//! /// Adds what it is sent; answers with the sum.
//! #[derive(Default)]
//! struct Counter {
//!     sum: u64,
//!     saved: u64,
//! }
//!
//! impl Application for Counter {
//!     fn execute(&mut self, command: &Command<'_>) -> Vec<u8> {
//!         self.sum += command.payload.iter().map(|byte| u64::from(*byte)).sum::<u64>();
//!         self.sum.to_le_bytes().to_vec()
//!     }
//!
//!     fn query(&self, _payload: &[u8]) -> Vec<u8> {
//!         self.sum.to_le_bytes().to_vec()
//!     }
//!
//!     fn savepoint(&mut self) {
//!         self.saved = self.sum;
//!     }
//!
//!     fn rollback(&mut self) {
//!         self.sum = self.saved;
//!     }
//!
//!     fn release(&mut self) {}
//!
//!     fn snapshot(&self) -> Vec<u8> {
//!         self.sum.to_le_bytes().to_vec()
//!     }
//!
//!     fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
//!         self.sum = u64::from_le_bytes(snapshot.try_into().map_err(|_| "not eight bytes")?);
//!         Ok(())
//!     }
//! }
//! ```
//!
//! Invariants:
//! - A reply leaves only after what it follows from is durable: the core keeps its delivery back until then.
//! - A tentative reply names instance, regency and value. A client believes only Q_v of one and the same: then nothing
//!   else can be decided any more.
//! - The same decided order gives the same replies on every replica: an application sees nothing but commands.
//! - An unordered read that is believed sees every request that was completed before it.
//! - Which replicas count, clients learn from decisions that prove it, from the genesis view on.
//! - A request that was executed is answered again from the cache, never executed again.
//! - What clients can fill is bounded: waiting requests by the core, replies by [`limits`], streams by the follower's
//!   own pace.

mod application;
mod archive;
mod checkpoints;
mod client;
mod clock;
mod collector;
mod follow;
mod followers;
mod guests;
mod joining;

mod membership;
mod message;
mod operation;
mod reactor;
mod reads;
mod registrations;
mod replies;
mod server;
mod service;
mod shell;
mod storage;
mod views;

pub use application::{Application, Command};
pub use archive::{Archive, ArchiveError, verify_archive};
pub use checkpoints::{CheckpointStore, TakeChunk, TakeDigests, TakeState};
pub use client::{Client, Executed, InvokeError, Read, Session};
pub use collector::{Acceptance, Collector, Outcome, Said};
pub use follow::{Blocks, FollowError, Follower};
pub use joining::JoinError;
pub use message::{Answer, ClientMessage, Refused, Reply, ServerMessage};
pub use reads::{ReadOutcome, Reads};
pub use server::{Server, ServerConfig, ServerError};
pub use shell::{ReadBack, Report, Shell};
pub use storage::{DurableLog, Held, MemoryLog, Storage, TakeDecisions};

/// Bounds of a server and a client.
pub mod limits {
    use std::time::Duration;

    /// Sessions whose last reply a replica keeps; the one that was used longest ago is forgotten.
    pub const REPLIES_MAX: usize = 65_536;

    /// Bytes of replies that a replica keeps.
    pub const REPLIES_BYTES_MAX: usize = 64 * 1024 * 1024;

    /// The largest reply, bytes. An application that answers with more is cut off with an error in the log.
    pub const REPLY_BYTES_MAX: usize = 1024 * 1024;

    /// The largest state of an application, as a snapshot.
    pub const STATE_BYTES_MAX: usize = 1024 * 1024 * 1024;

    /// Decisions that made views in one answer.
    pub const VIEWS_AT_ONCE: usize = 64;

    /// Connections that follow the ledger at one replica.
    pub const FOLLOWERS_MAX: usize = 64;

    /// Bytes of decisions on their way to one follower before it is left to catch up from the log.
    pub const FOLLOWER_BACKLOG_BYTES_MAX: usize = 8 * 1024 * 1024;

    /// Bytes of decisions read from the log at once for a follower.
    pub const FOLLOWER_READ_BYTES: usize = 1024 * 1024;

    /// Events taken in before effects are run.
    pub const EVENTS_AT_ONCE: usize = 256;

    /// How long a client waits for a quorum before it sends a request again.
    pub const RESEND_INTERVAL: Duration = Duration::from_secs(1);

    /// How long a client waits after replicas said that they are busy; doubles up to [`RESEND_INTERVAL`].
    pub const BUSY_PAUSE: Duration = Duration::from_millis(10);

    /// How long a client waits for equal answers to a query before it has it ordered.
    pub const READ_TIMEOUT: Duration = Duration::from_millis(250);

    /// Requests and queries that one client may have in flight, each.
    pub const IN_FLIGHT_MAX: usize = 4096;
}
