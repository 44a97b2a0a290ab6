//! SteelDB's side of PostgreSQL. PostgreSQL itself stays unmodified; what the replicas need of it is here:
//!
//! - [`server`]: a private PostgreSQL that listens on a Unix socket alone and dies with its agent ([`exec`]);
//! - [`connection`]: a raw wire session to one backend, with [`message`] building and reading the bytes;
//! - [`decoding`]: the two-phase logical decoding stream, which turns each PREPARE TRANSACTION into a [`write_set`];
//! - [`apply`]: applying a peer's write set here;
//! - [`digest`]: digests of tables and catalogs, to compare replicas;
//! - [`migrations`]: the schema `steeldb`, with [`transaction`] naming what the agent calls in it;
//! - [`roles`]: roles and databases, and which roles a client may never be.
//!
//! Invariants:
//! - nothing here decides an outcome: COMMIT PREPARED and ROLLBACK PREPARED belong to the caller;
//! - what comes from a server is bounded and checked: a wrong byte is an error with a name, never a panic;
//! - a write set's digest depends on names and values alone, not on OIDs, column order or physical history.

pub mod apply;
pub mod connection;
pub mod decoding;
pub mod digest;
pub mod exec;
pub mod message;
pub mod migrations;
pub mod quote;
pub mod roles;
pub mod server;
pub mod settings;
pub mod transaction;
pub mod write_set;

pub use connection::{Backend, BackendError};
pub use decoding::{Decoded, DecodingStream};
pub use server::{Launcher, Server, ServerConfig, ServerError};
pub use write_set::{Change, Identity, Operation, Row, WriteSet};

/// The superuser of a private server; only the agent connects as it.
pub const AGENT_ROLE: &str = "steeldb_agent";

/// The publication that the decoding stream reads.
pub const PUBLICATION: &str = "steeldb";
