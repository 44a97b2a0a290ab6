//! What replicas tell each other. Links are authenticated, so only what is shown to third parties is signed: ACCEPTs,
//! in decision proofs, and STOPDATAs, in SYNC.

use crate::stopdata::SignedStopData;
use crate::{CheckpointCertificate, Claim, Decision, InstanceNumber, Proposal, Regency, Request};
use borsh::{BorshDeserialize, BorshSerialize};
use std::sync::Arc;
use steeldb_types::{Digest, limits};
use steeldb_wire::auth::Signature;
use steeldb_wire::codec::{self, DecodeError};

/// A message from one replica to another.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum Message {
    /// Requests that timed out once, for the leader (Mod-SMaRt, section 4.3).
    Forward {
        /// The requests.
        requests: Vec<Arc<Request>>,
    },
    /// The leader's proposal.
    Propose {
        /// The leader's regency.
        regency: Regency,
        /// What it proposes.
        proposal: Arc<Proposal>,
    },
    /// VP-Consensus' WRITE: the sender found the proposal valid.
    Write {
        /// For which instance.
        instance: InstanceNumber,
        /// In which regency, which value.
        claim: Claim,
    },
    /// VP-Consensus' ACCEPT: the sender saw WRITEs of weight Q_v.
    Accept {
        /// For which instance.
        instance: InstanceNumber,
        /// In which regency, which value.
        claim: Claim,
        /// Over (regency with its view, instance, value).
        signature: Signature,
    },
    /// The sender wants to leave every regency below this one.
    Stop {
        /// The regency it wants.
        regency: Regency,
        /// Some requests that timed out, which others may never have seen.
        requests: Vec<Arc<Request>>,
    },
    /// For the leader of a new regency: where the sender stands.
    StopData {
        /// The signed part.
        data: SignedStopData,
        /// The values that the sender saw WRITE quorums for, by instance.
        values: Vec<Arc<Proposal>>,
    },
    /// Installs a regency. The STOPDATAs prove it whoever passes them on; the proposal counts from the leader only.
    Sync {
        /// The regency.
        regency: Regency,
        /// STOPDATAs of weight Q_v.
        stop_data: Vec<SignedStopData>,
        /// The bound values, by instance; without one, what the leader proposes freely, or nothing yet.
        proposals: Vec<Arc<Proposal>>,
    },
    /// Asks for decisions, and for the SYNC of a regency.
    FetchDecisions {
        /// The first instance wanted.
        from: InstanceNumber,
        /// The lowest regency whose SYNC the sender lacks.
        regency: Regency,
    },
    /// Answers a fetch.
    Decisions {
        /// Consecutive decisions, ascending.
        decisions: Vec<Arc<Decision>>,
        /// Whether the sender has more.
        more: bool,
    },
    /// The sender computed this checkpoint (PBFT, section 4.3).
    Checkpoint {
        /// After which instance.
        instance: InstanceNumber,
        /// Its digest.
        digest: Digest,
        /// Over (view, instance, digest).
        signature: Signature,
    },
    /// Answers a fetch of decisions, or of a part, that the sender does not have any more.
    CheckpointOffer {
        /// The newest checkpoint that it has.
        certificate: Arc<CheckpointCertificate>,
        /// The decisions that made the views up to then, for who does not know them.
        views: Vec<Arc<Decision>>,
    },
    /// Asks for a part of a checkpoint.
    FetchState {
        /// Of which checkpoint.
        instance: InstanceNumber,
        /// Which part.
        part: Part,
    },
    /// A part of a checkpoint.
    State {
        /// Of which checkpoint.
        instance: InstanceNumber,
        /// Which part.
        part: Part,
        /// An encoded [`Checkpoint`](crate::Checkpoint), or a chunk.
        bytes: Vec<u8>,
    },
}

/// A part of a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum Part {
    /// What it consists of.
    Contents,
    /// The chunk of this number.
    Chunk(u32),
}

impl Message {
    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Decodes exactly one message of at most [`limits::FRAME_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// [`DecodeError`]: the sender misbehaved.
    pub fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
        codec::decode(bytes, limits::FRAME_BYTES_MAX)
    }

    /// Its name in the papers, for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Message::Forward { .. } => "FORWARD",
            Message::Propose { .. } => "PROPOSE",
            Message::Write { .. } => "WRITE",
            Message::Accept { .. } => "ACCEPT",
            Message::Stop { .. } => "STOP",
            Message::StopData { .. } => "STOPDATA",
            Message::Sync { .. } => "SYNC",
            Message::FetchDecisions { .. } => "FETCH-DECISIONS",
            Message::Decisions { .. } => "DECISIONS",
            Message::Checkpoint { .. } => "CHECKPOINT",
            Message::CheckpointOffer { .. } => "CHECKPOINT-OFFER",
            Message::FetchState { .. } => "FETCH-STATE",
            Message::State { .. } => "STATE",
        }
    }
}
