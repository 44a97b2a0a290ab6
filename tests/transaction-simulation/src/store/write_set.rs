//! What a transaction changed, as decoding shows it: the rows and the transaction's record.

use crate::sql::{Key, Value};
use std::collections::BTreeMap;
use steeldb_types::{Digest, Hasher, Slot, TxId};

/// A row before and after.
pub(crate) type Change = (Option<Value>, Option<Value>);

/// The changes of one transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct WriteSet {
    pub(crate) tx: TxId,
    pub(crate) slot: Slot,
    /// k, of its record.
    pub(crate) operations: u32,
    /// h_k, of its record.
    pub(crate) transcript: Digest,
    pub(crate) rows: BTreeMap<Key, Change>,
}

impl WriteSet {
    /// w.
    pub(crate) fn digest(&self) -> Digest {
        let mut hasher = Hasher::new("simulation/write-set");
        hasher.part(&steeldb_wire::codec::encode(&self.tx)).number(self.slot.0);
        hasher.number(u64::from(self.operations)).part(&self.transcript.0);
        for (key, (before, after)) in &self.rows {
            hasher.number(u64::from(*key));
            for value in [before, after] {
                hasher.number(value.as_ref().map_or(0, |value| value.len() as u64 + 1));
                for token in value.iter().flatten() {
                    hasher.number(u64::from(*token));
                }
            }
        }
        hasher.finish()
    }
}
