//! The PostgreSQL face of SteelDB: what a client's driver talks to.
//!
//! [`run`] listens for PostgreSQL clients and runs one [`session`] for each, on one task: start-up and authentication,
//! both query protocols, COPY, cancel requests. SQL is analysed ([`sql`]); transactions are run by the client shim.
//!
//! Of the wire format, backend messages are relayed as they come and frontend messages are taken apart by functions of
//! this crate. The message layer of `pgwire` reads past the end of truncated bodies (it panics), and owns what it
//! decodes where parameters and rows are only to be passed on; `postgres-protocol` has the client's side alone.
//!
//! Invariants:
//! - A client is told that its transaction committed only after the shim said so.
//! - With `steeldb.verify = 'eager'`, nothing of a result is sent that only the master vouches for ([`verify`]).
//! - No bytes of a client make the proxy panic or keep more than the limits allow.
//! - A client that vanishes takes its session with it at once, whatever the session does.

mod authentication;
mod backend;
mod client;
mod copy;
mod disagreement;
mod error;
mod extended_query;
mod frontend;
mod monitor;
mod outcome;
mod portal;
mod relay;
mod retry;
mod server;
mod session;
mod settings;
mod simple_query;
pub mod sql;
mod startup;
mod statement;
mod transaction;
mod verify;

pub use authentication::{Authentication, Users, UsersError};
pub use monitor::Monitor;
pub use server::{ListenError, Proxy, ProxyOptions, STATEMENT_TRIES, run};
pub use settings::{Controls, ProxySettings};
pub use verify::Verify;
