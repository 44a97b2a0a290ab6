//! Transcripts: the hash chain over what a transaction's client asked and was shown (rule 4).

use super::Modes;
use crate::codec::encode;
use steeldb_types::{Digest, Hasher, Slot, TxId};

/// The chain's head: h_i after i operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transcript {
    head: Digest,
    operations: u32,
    /// Whether the slot has entered, which it does with the first operation that is not a leading LOCK TABLE.
    slotted: bool,
}

/// The digest of a session's preamble: what its backend was started with. Both sides compute it, so that a client
/// that starts its session differently on one replica makes its own transcripts differ (G10).
pub fn preamble(database: &str, role: &str, parameters: &[(String, String)]) -> Digest {
    let mut hasher = Hasher::new("steeldb/preamble");
    hasher.part(database.as_bytes()).part(role.as_bytes());
    for (name, value) in parameters {
        hasher.part(name.as_bytes()).part(value.as_bytes());
    }
    hasher.finish()
}

impl Transcript {
    /// h_0 = H(tx, session preamble, BEGIN attributes) (G10).
    pub fn begin(tx: TxId, preamble: Digest, modes: Modes) -> Transcript {
        let mut hasher = Hasher::new("steeldb/transcript/begin");
        hasher.part(&encode(&tx)).part(&preamble.0).part(&encode(&modes));
        Transcript { head: hasher.finish(), operations: 0, slotted: false }
    }

    /// h_i = H(h_{i-1}, operation i, canonical result i). `slot` is that of the BEGIN, or none for a leading LOCK
    /// TABLE; it enters the chain once.
    pub fn extend(&mut self, slot: Option<Slot>, operation: Digest, result: Digest) -> Digest {
        let mut hasher = Hasher::new("steeldb/transcript/step");
        hasher.part(&self.head.0);
        if let Some(slot) = slot.filter(|_| !self.slotted) {
            hasher.number(slot.0);
            self.slotted = true;
        }
        hasher.part(&operation.0).part(&result.0);
        self.head = hasher.finish();
        self.operations += 1;
        self.head
    }

    /// h_i.
    pub fn head(&self) -> Digest {
        self.head
    }

    /// i.
    pub fn operations(&self) -> u32 {
        self.operations
    }
}
