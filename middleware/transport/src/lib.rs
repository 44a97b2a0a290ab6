//! Links: mutually authenticated, ordered, bounded channels between replicas, and between proxies and replicas.
//!
//! TLS 1.3 over TCP with raw public keys (RFC 7250): a node *is* its Ed25519 key, and each side accepts exactly the
//! keys of its configuration. There are no certificates, no names and no session resumption. Between each pair of
//! replicas there is one link, dialled by the one with the higher number; a client dials every replica. Whoever
//! dialled counts a link as up once the other side has said an empty frame: under TLS 1.3 a dialler otherwise
//! learns only later that its key was refused.
//!
//! Invariants:
//! - On one link frames arrive in the order they were sent, each once, none invented; what was queued when a link went
//!   down is lost. The protocols above retransmit.
//! - For one peer or connection the events are Up, then frames, then Down; never two Ups without a Down between.
//! - Nothing grows without a bound: outgoing queues in bytes (the link is closed past it), incoming events in number
//!   (the socket is read more slowly), unauthenticated connections in number and time.
//! - A connection that has not shown a configured key changes nothing but a counter and, seldom, a log line.

mod arrivals;
mod client;
mod dial;
mod error;
mod frame;
mod guests;
mod half_open;
mod link;
mod options;
mod queue;
mod replica;
mod socket;
#[cfg(test)]
mod tests;
mod throttle;
mod tls;
mod traffic;

pub use client::{ClientConfig, ClientEvent, ClientLinks, ClientTransport};
pub use error::{LinkError, StartError};
pub use frame::take_frame;
pub use options::LinkOptions;
pub use replica::{ConnectionId, LinkEvent, ReplicaConfig, ReplicaLinks, ReplicaTransport};
pub use traffic::Traffic;

use steeldb_types::ReplicaId;
use steeldb_wire::auth::PublicKey;

/// A replica as others reach it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaAddress {
    /// Its number.
    pub id: ReplicaId,
    /// host:port; the host is looked up at every attempt to connect.
    pub address: String,
    /// Its key.
    pub key: PublicKey,
}
