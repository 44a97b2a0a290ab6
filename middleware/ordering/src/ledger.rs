//! The verifiable history: every decided batch is a block, and the blocks are a hash chain.
//!
//! A replica's ACCEPT signs the batch's digest for its instance, not the header: a header names its predecessor, which a
//! replica that votes in several instances at once does not know yet. Nothing is lost. Agreement makes the batch of an
//! instance unique, so headers, computed from the batches alone, are the same wherever they are computed; and a chain is
//! proved by proving each block. What differs between replicas, the regency of a decision and which quorum signed it, is
//! in the proof beside the header, never in it.
//!
//! Who knows the genesis view needs nothing else: later views are made by decisions in the chain itself.

use crate::membership::ViewChain;
use crate::{Decision, InstanceNumber, Request, Roster};
use borsh::{BorshDeserialize, BorshSerialize};
use std::sync::Arc;
use steeldb_types::{Digest, Hasher, ViewNumber};

/// A block's header. The same on every correct replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct BlockHeader {
    /// The instance that decided it.
    pub number: InstanceNumber,
    /// The hash of the header before; for the first block, of the genesis view.
    pub previous: Digest,
    /// The digest of the batch ([`Proposal::digest`](crate::Proposal::digest)): what ACCEPTs sign.
    pub batch: Digest,
    /// The view it was decided in.
    pub view: ViewNumber,
}

impl BlockHeader {
    /// What the next header names.
    pub fn hash(&self) -> Digest {
        let mut hasher = Hasher::new("steeldb/block");
        hasher.number(self.number.0).part(&self.previous.0).part(&self.batch.0).number(self.view.0);
        hasher.finish()
    }
}

/// Why a block does not continue a chain.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another block than the next one.
    #[error("block {expected} is missing: block {got} comes after block {}", expected - 1)]
    Gap {
        /// The next block's number.
        expected: u64,
        /// The one given.
        got: u64,
    },
    /// The proof does not hold, or is for another batch.
    #[error("block {block} is not proved: {reason}")]
    Proof {
        /// Its number.
        block: u64,
        /// What is wrong.
        reason: String,
    },
    /// A header that does not follow from the chain and the batch.
    #[error("block {block}: its header says another {field} than the chain")]
    Header {
        /// Its number.
        block: u64,
        /// Which field.
        field: &'static str,
    },
}

/// A chain being followed or checked, block by block, from the genesis view on.
#[derive(Clone, Debug)]
pub struct Ledger {
    views: ViewChain,
    next: InstanceNumber,
    tip: Digest,
}

impl Ledger {
    /// The empty chain of a cluster. `genesis` is trusted.
    pub fn new(genesis: Roster) -> Ledger {
        let tip = genesis.digest();
        Ledger { views: ViewChain::new(genesis), next: InstanceNumber(1), tip }
    }

    /// The number of the next block.
    pub fn next(&self) -> InstanceNumber {
        self.next
    }

    /// The hash of the last header: it stands for the whole history. Equal tips of equal numbers, equal histories.
    pub fn tip(&self) -> Digest {
        self.tip
    }

    /// The header that makes a decision the next block. Its proof is not looked at.
    ///
    /// # Errors
    /// [`LedgerError::Gap`].
    pub fn header(&self, decision: &Decision) -> Result<BlockHeader, LedgerError> {
        let (expected, got) = (self.next.0, decision.instance().0);
        if expected != got {
            return Err(LedgerError::Gap { expected, got });
        }
        let view = self.views.view_at(self.next);
        Ok(BlockHeader { number: self.next, previous: self.tip, batch: decision.proposal.digest(), view })
    }

    /// Checks a decision's proof and adds it as the next block.
    ///
    /// # Errors
    /// [`LedgerError::Gap`], [`LedgerError::Proof`]; the chain is unchanged.
    pub fn append(&mut self, decision: &Arc<Decision>) -> Result<BlockHeader, LedgerError> {
        let header = self.header(decision)?;
        let wrong = |reason| LedgerError::Proof { block: header.number.0, reason };
        if decision.proposal.instance != header.number || header.batch != decision.proof.claim.value {
            return Err(wrong("it is for another batch".into()));
        }
        self.views.verify(&decision.proof).map_err(wrong)?;
        if let [request] = &decision.proposal.requests[..]
            && matches!(**request, Request::Membership { .. })
        {
            self.views.follow(decision).map_err(wrong)?;
        }
        (self.next, self.tip) = (self.next.next(), header.hash());
        Ok(header)
    }

    /// As [`append`](Ledger::append), for a block that came with its header.
    ///
    /// # Errors
    /// As [`append`](Ledger::append), and [`LedgerError::Header`]; the chain is unchanged.
    pub fn append_with_header(
        &mut self,
        header: &BlockHeader,
        decision: &Arc<Decision>,
    ) -> Result<(), LedgerError> {
        let right = self.header(decision)?;
        let differs = [
            ("number", header.number != right.number),
            ("previous hash", header.previous != right.previous),
            ("batch digest", header.batch != right.batch),
            ("view", header.view != right.view),
        ];
        if let Some((field, _)) = differs.iter().find(|(_, differs)| *differs) {
            return Err(LedgerError::Header { block: right.number.0, field });
        }
        self.append(decision).map(|_| ())
    }
}
