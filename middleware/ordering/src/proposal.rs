//! Proposals: the values that consensus decides on.

use crate::{InstanceNumber, Request};
use borsh::{BorshDeserialize, BorshSerialize};
use std::sync::Arc;
use steeldb_types::{Digest, Hasher, Timestamp};

/// A batch proposed for an instance, with the time it will count as executed at.
///
/// The regency is no part of it: a later leader re-proposes a bound value unchanged, timestamp included.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Proposal {
    /// For which instance.
    pub instance: InstanceNumber,
    /// The proposing leader's wall clock, made monotone.
    pub timestamp: Timestamp,
    /// The requests, in the order they will be executed in.
    pub requests: Vec<Arc<Request>>,
}

/// The digests of a proposal and of its requests, computed once.
#[derive(Clone, Debug)]
pub(crate) struct Digests {
    pub(crate) value: Digest,
    pub(crate) requests: Vec<Digest>,
}

impl Proposal {
    /// The value digest that WRITE, ACCEPT and proofs name.
    pub fn digest(&self) -> Digest {
        self.digests().value
    }

    pub(crate) fn digests(&self) -> Digests {
        let requests: Vec<Digest> = self.requests.iter().map(|request| request.digest()).collect();
        let mut hasher = Hasher::new("steeldb/proposal");
        hasher.number(self.instance.0).part(&self.timestamp.0.to_le_bytes());
        for digest in &requests {
            hasher.part(&digest.0);
        }
        Digests { value: hasher.finish(), requests }
    }

    /// Its size when it travels, give or take its framing.
    pub fn size_bytes(&self) -> usize {
        self.requests.iter().map(|request| request.size_bytes()).sum()
    }
}
