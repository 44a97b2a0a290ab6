//! What clients and replicas say to each other about who the replicas are. Changes and the decisions that made views
//! are the ordering core's, which signs and proves them: here they are bytes.

use super::{Cause, MasterMove};
use crate::auth::{PublicKey, Signature};
use borsh::{BorshDeserialize, BorshSerialize};
use steeldb_types::{Digest, Position, ReplicaId, Term, ViewNumber};

/// From a client.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum MembershipRequest {
    /// Orders a change that an administrator signed; whoever passes it on.
    Change {
        /// The encoded change.
        payload: Vec<u8>,
        /// Who signed it.
        administrator: PublicKey,
        /// Over the payload.
        signature: Signature,
    },
    /// Orders an administrator's wish for another master; whoever passes it on.
    Move(MasterMove),
    /// Asks where the replica stands.
    Status,
    /// Asks for the decisions that made the views after one.
    Views {
        /// The newest view that the client knows.
        known: ViewNumber,
    },
    /// Asks for the round trips that the replica measured; the answer's own is the client's.
    RoundTrips {
        /// Comes back with the answer.
        number: u64,
    },
}

/// From a replica.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum MembershipReply {
    /// The current view: sent when a client connects, and whenever a view begins.
    Current {
        /// Which.
        view: ViewNumber,
    },
    /// What became of a change that was asked for on this connection.
    Changed {
        /// The digest of its payload ([`change_digest`]).
        change: Digest,
        /// The view that it made; or why it was turned away.
        result: Result<ViewNumber, String>,
    },
    /// Where the replica stands.
    Status(ReplicaStatus),
    /// The decisions that made the views after the one asked for, encoded, in their order.
    Views {
        /// Each proves itself, to whoever knows the view before.
        certificates: Vec<Vec<u8>>,
    },
    /// Round trips between the replica and its peers, by its own word.
    RoundTrips {
        /// The question's.
        number: u64,
        /// Microseconds, of each peer that has answered.
        micros: Vec<(ReplicaId, u32)>,
    },
}

/// Where a replica stands, by its own word.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct ReplicaStatus {
    /// Its view.
    pub view: ViewNumber,
    /// Whether it is a member of it.
    pub votes: bool,
    /// Its regency in that view.
    pub regency: u64,
    /// The leader of that regency.
    pub leader: ReplicaId,
    /// The last instance decided here.
    pub instance: u64,
    /// Up to where the order is delivered here.
    pub delivered: Position,
    /// Up to where it is applied to the database.
    pub applied: Position,
    /// Requests that wait here to be ordered.
    pub pending: u64,
    /// Why its data can no longer be trusted, if so.
    pub diverged: Option<String>,
    /// The master's term.
    pub term: Term,
    /// What replicas accuse the master of at the moment, as this one has heard.
    pub accusations: Vec<(ReplicaId, Cause)>,
    /// Of its program.
    pub version: String,
    /// How long it has run.
    pub uptime_s: u64,
    /// Whether its votes count.
    pub vouches: bool,
    /// How far the order is delivered at f + 1 others and not here; none before a quorum has said where it stands.
    pub behind: Option<u64>,
    /// Transactions that are prepared here, or about to be.
    pub prepared: u64,
    /// Sessions with a backend here.
    pub sessions: u64,
}

/// What a change is known by in [`MembershipReply::Changed`].
pub fn change_digest(payload: &[u8]) -> Digest {
    Digest::of("steeldb/change", &[payload])
}
