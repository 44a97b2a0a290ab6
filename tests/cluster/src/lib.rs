//! A cluster for tests: replicas in this process, each beside a real PostgreSQL server of its own, and a proxy on top.
//!
//! - [`Cluster`]: replicas, started and stopped one by one; their servers end with it, also when a test panics.
//! - [`Proxy`]: the PostgreSQL face; drivers ([`Proxy::connect`]) and programs ([`Proxy::psql`]) talk to it.
//! - [`Doomed`]: a proxy that is killed at a chosen point of a COMMIT.
//! - [`Client`]: talks to the shim without a proxy.
//! - [`Plain`]: one PostgreSQL server without SteelDB, to compare answers with.
//! - [`identical`]: all databases are equal, row by row.
//! - [`Memory`]: what the servers and this process take.

mod client;
mod cluster;
mod memory;
mod plain;
mod program;
mod proxy;
mod severed;
mod trap;
mod verify;

pub use client::{Answer, Client};
pub use cluster::{BULK_BYTES_MAX, Cluster, administrator_key};
pub use memory::Memory;
pub use plain::Plain;
pub use program::{Program, Said, python_with_psycopg};
pub use proxy::{Connection, Proxy, sqlstate};
pub use severed::{Cut, Doomed, Severed};
pub use trap::Crash;
pub use verify::{differing_tables, identical};

/// The database and the role of tests.
pub const APP: &str = "app";
