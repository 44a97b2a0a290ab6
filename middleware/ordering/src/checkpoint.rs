//! Checkpoints: the replicated state after an instance, named by a digest that replicas sign (PBFT, section 4.3).
//!
//! A checkpoint is a row of chunks: first the core's own replicated state, then the application's. Its digest covers the
//! digest of every chunk, so that each can be fetched from anyone and judged by itself. Signatures of more than the
//! faulty weight F_v make it *stable*: a correct replica computed it from the decided order, and holds it.

use crate::clients::Clients;
use crate::{Decision, InstanceNumber, Proof, Roster, ViewChain};
use borsh::{BorshDeserialize, BorshSerialize};
use std::sync::Arc;
use steeldb_types::{Digest, Hasher, Position, ReplicaId, Timestamp, ViewNumber, limits};
use steeldb_wire::auth::{Namespace, SecretKey, Signature};
use steeldb_wire::codec;

/// What a checkpoint consists of.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Checkpoint {
    /// The last instance it contains.
    pub instance: InstanceNumber,
    /// The last position it contains.
    pub position: Position,
    /// When that instance counts as executed.
    pub timestamp: Timestamp,
    /// The chained digest of every decided value up to there.
    pub history: Digest,
    /// How many of the chunks, from the first, are the core's own.
    pub core_chunks: u32,
    /// The digest of each chunk ([`Checkpoint::chunk_digest`]); a chunk has at most
    /// [`limits::CHECKPOINT_CHUNK_BYTES`].
    pub chunks: Vec<Digest>,
}

/// Why a checkpoint is stable: what a replica that lacks it can check by itself.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct CheckpointCertificate {
    /// The view of the signers: the one that the instance after the checkpoint's belongs to.
    pub view: ViewNumber,
    /// The checkpoint's instance.
    pub instance: InstanceNumber,
    /// The checkpoint's digest.
    pub digest: Digest,
    /// Signers of weight above F_v, ascending.
    pub signatures: Vec<(ReplicaId, Signature)>,
    /// That the instance, and those before it that may have been in flight with it, were decided, ascending: what a
    /// replica that starts here shows in its STOPDATA.
    pub last: Vec<Proof>,
}

/// A stable checkpoint as it is logged: with the core's part of the state, without the application's.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct StableCheckpoint {
    /// Why it is stable.
    pub certificate: CheckpointCertificate,
    /// What it consists of.
    pub checkpoint: Checkpoint,
    /// The core's chunks, joined.
    pub core: Vec<u8>,
    /// The decisions that made the views up to there, as far as this replica knows them. Not part of what is certified:
    /// they prove themselves.
    pub views: Vec<Arc<Decision>>,
}

/// The core's own replicated state: what the decided order made of it.
#[derive(Clone, BorshSerialize, BorshDeserialize)]
pub(crate) struct CoreState {
    pub(crate) instance: InstanceNumber,
    pub(crate) position: Position,
    pub(crate) timestamp: Timestamp,
    pub(crate) history: Digest,
    pub(crate) clients: Clients,
    /// The views so far, each with its first instance.
    pub(crate) views: Vec<(InstanceNumber, Arc<Roster>)>,
}

impl CoreState {
    /// The view that the next instance belongs to: its replicas sign the checkpoint.
    pub(crate) fn view(&self) -> ViewNumber {
        self.views.last().map(|(_, roster)| roster.view().number()).unwrap_or_default()
    }
}

impl Checkpoint {
    /// The digest that CHECKPOINT messages sign.
    pub fn digest(&self) -> Digest {
        Digest::of("steeldb/checkpoint", &[&codec::encode(self)])
    }

    /// The digest of a chunk.
    pub fn chunk_digest(bytes: &[u8]) -> Digest {
        Digest::of("steeldb/checkpoint-chunk", &[bytes])
    }

    pub(crate) fn new(state: &CoreState, core: &[u8], application: Vec<Digest>) -> Checkpoint {
        let mut chunks: Vec<Digest> = core_chunks(core).map(Checkpoint::chunk_digest).collect();
        let core_chunks = chunks.len() as u32;
        chunks.extend(application);
        Checkpoint {
            instance: state.instance,
            position: state.position,
            timestamp: state.timestamp,
            history: state.history,
            core_chunks,
            chunks,
        }
    }

    /// Whether its form is one that a correct replica makes.
    pub(crate) fn is_well_formed(&self) -> bool {
        self.chunks.len() <= limits::CHECKPOINT_CHUNKS_MAX
            && self.core_chunks >= 1
            && self.core_chunks as usize <= self.chunks.len()
    }
}

/// The core's state in chunks.
pub(crate) fn core_chunks(core: &[u8]) -> impl Iterator<Item = &[u8]> {
    core.chunks(limits::CHECKPOINT_CHUNK_BYTES)
}

impl CheckpointCertificate {
    /// Checks the signatures, their weight, and the proofs.
    ///
    /// # Errors
    /// Says what is wrong; whoever showed the certificate is at fault.
    pub fn verify(&self, views: &ViewChain) -> Result<(), String> {
        let roster = views.roster_of(self.view).ok_or("the checkpoint is of an unknown view")?;
        let view = roster.view();
        if self.view != views.view_at(self.instance.next()) {
            return Err(format!("the checkpoint is of another view, {:?}", self.view));
        }
        if self.signatures.len() > usize::from(view.n()) || !self.signatures.is_sorted_by(|a, b| a.0 < b.0) {
            return Err("the checkpoint's signers are not ascending".into());
        }
        if !view.exceeds_faulty_weight(self.signatures.iter().map(|(replica, _)| *replica)) {
            return Err("the checkpoint's signers are too few".into());
        }
        for (replica, signature) in &self.signatures {
            verify_vote(self.instance, self.digest, *replica, signature, roster)?;
        }
        let consecutive = self.last.is_sorted_by(|a, b| a.instance.next() == b.instance);
        if !consecutive
            || self.last.len() > limits::WINDOW_MAX
            || self.last.last().is_none_or(|last| last.instance != self.instance)
        {
            return Err("the checkpoint's proofs are of other instances".into());
        }
        self.last.iter().try_for_each(|proof| views.verify(proof))
    }
}

impl StableCheckpoint {
    /// The core's state, if all parts belong together.
    pub(crate) fn core_state(&self) -> Result<CoreState, String> {
        let checkpoint = &self.checkpoint;
        if checkpoint.digest() != self.certificate.digest || !checkpoint.is_well_formed() {
            return Err("the checkpoint is not the certified one".into());
        }
        let digests = core_chunks(&self.core).map(Checkpoint::chunk_digest);
        if !digests.eq(checkpoint.chunks.iter().take(checkpoint.core_chunks as usize).copied()) {
            return Err("the core's state is not the checkpoint's".into());
        }
        let state: CoreState =
            codec::decode(&self.core, self.core.len()).map_err(|error| error.to_string())?;
        let same = state.instance == checkpoint.instance
            && state.position == checkpoint.position
            && state.timestamp == checkpoint.timestamp
            && state.history == checkpoint.history;
        if same { Ok(state) } else { Err("the core's state contradicts the checkpoint".into()) }
    }
}

pub(crate) fn sign_vote(
    view: ViewNumber,
    instance: InstanceNumber,
    digest: Digest,
    key: &SecretKey,
) -> Signature {
    key.sign(Namespace::Checkpoint, &codec::encode(&(view, instance, digest)))
}

pub(crate) fn verify_vote(
    instance: InstanceNumber,
    digest: Digest,
    replica: ReplicaId,
    signature: &Signature,
    roster: &Roster,
) -> Result<(), String> {
    let key = roster.key(replica).ok_or_else(|| format!("unknown replica {replica}"))?;
    let view = roster.view().number();
    key.verify(Namespace::Checkpoint, &codec::encode(&(view, instance, digest)), signature)
        .map_err(|error| format!("CHECKPOINT of {replica} for {instance}: {error}"))
}

/// The history's digest after one more decision.
pub(crate) fn chain(history: Digest, instance: InstanceNumber, value: Digest) -> Digest {
    let mut hasher = Hasher::new("steeldb/history");
    hasher.part(&history.0).number(instance.0).part(&value.0);
    hasher.finish()
}
