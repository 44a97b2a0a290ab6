//! What must be durable before anything that depends on it leaves (A7), and what a core is rebuilt from.

use crate::{Claim, Decision, InstanceNumber, Proposal, Regency, StableCheckpoint};
use borsh::{BorshDeserialize, BorshSerialize};
use std::sync::Arc;
use steeldb_types::limits;
use steeldb_wire::codec::{self, DecodeError};

/// One entry of a replica's log.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum Record {
    /// A regency was entered: nothing is voted for in lower ones any more.
    Regency(Regency),
    /// A WRITE is about to be sent: no other value will be written in this regency of this instance.
    Write {
        /// In which regency.
        regency: Regency,
        /// The value; it names its instance.
        proposal: Arc<Proposal>,
    },
    /// A WRITE quorum was seen and an ACCEPT is about to be sent.
    Accept {
        /// For which instance.
        instance: InstanceNumber,
        /// In which regency, which value.
        claim: Claim,
        /// The value when no record before this one holds it.
        proposal: Option<Arc<Proposal>>,
    },
    /// An instance was decided.
    Decision(Arc<Decision>),
    /// A checkpoint is stable, and its state is what this replica's is built on or is about to be replaced by.
    Checkpoint(Arc<StableCheckpoint>),
    /// This log was damaged: votes in instances up to this one may have been lost, so none are cast there any more. A
    /// log never lets go of the last one before that instance is decided.
    Passive {
        /// The last instance concerned.
        upto: InstanceNumber,
    },
}

impl Record {
    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes exactly one record.
    ///
    /// # Errors
    /// [`DecodeError`]: the log is damaged.
    pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
        codec::decode(bytes, limits::FRAME_BYTES_MAX)
    }
}

/// What a core starts from: an empty log, or the records read back after a stop.
pub struct Restored {
    pub(crate) delivered: InstanceNumber,
    pub(crate) records: Box<dyn Iterator<Item = Record>>,
}

impl Restored {
    /// A replica that starts for the first time.
    pub fn nothing() -> Restored {
        Restored::new(InstanceNumber(0), Vec::new())
    }

    /// A replica that starts again: all records whose persistence had begun and that survived, in their order, from
    /// the first one on, or from the last stable checkpoint on. `delivered` is the last instance whose delivery the
    /// application has completely taken; decisions after it are delivered again, those up to it are not, even when they
    /// survived at the application and not in the log. When decisions after it are not there any more, the state is
    /// fetched from other replicas.
    ///
    /// After damage, [`Record::Passive`] comes before the records that the damage may have made incomplete; decisions may then
    /// be missing, and are fetched again. Regencies must all be there, whatever happened.
    pub fn new<I>(delivered: InstanceNumber, records: I) -> Restored
    where
        I: IntoIterator<Item = Record>,
        I::IntoIter: 'static,
    {
        Restored { delivered, records: Box::new(records.into_iter()) }
    }
}
