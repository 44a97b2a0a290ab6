//! Whoever is behind and asks it gets genuine proofs with altered batches, decisions out of order or with gaps, and the
//! promise of more that never comes; certificates and states that never were, damaged chunks, or nothing. It vouches for
//! states that nobody has.

use super::{Adversary, Said, Stage};
use crate::history::Batch;
use rand::Rng;
use rand::seq::SliceRandom;
use std::sync::Arc;
use steeldb_ordering::{
    Checkpoint, CheckpointCertificate, Decision, InstanceNumber, Message, Part, Proposal, StableCheckpoint,
};
use steeldb_types::{Digest, Position, ReplicaId, Timestamp, ViewNumber};
use steeldb_wire::auth::{Namespace, Signature};
use steeldb_wire::codec;

pub(crate) struct LyingSender;

impl Adversary for LyingSender {
    fn twist(&mut self, stage: &mut Stage<'_>, _to: ReplicaId, message: Message) -> Vec<Said> {
        match message {
            Message::Decisions { decisions, more } => vec![decisions_twisted(stage, decisions, more).into()],
            Message::Checkpoint { instance, .. } if stage.rng.random_bool(0.5) => {
                let view = stage.loot.checkpoint(None).map(|stable| stable.certificate.view);
                let digest = Digest([55; 32]);
                let signature = sign(stage, view.unwrap_or_default(), instance, digest);
                vec![Message::Checkpoint { instance, digest, signature }.into()]
            }
            Message::CheckpointOffer { certificate, views } => {
                let false_one = stage.loot.checkpoint(Some(certificate.instance)).cloned();
                let certificate = match false_one.filter(|_| stage.rng.random_bool(0.7)) {
                    Some(stable) => offer(stage, &stable),
                    None => {
                        let mut altered = CheckpointCertificate::clone(&certificate);
                        altered.instance = InstanceNumber(altered.instance.0 + stage.rng.random_range(0..9));
                        Arc::new(altered)
                    }
                };
                vec![Message::CheckpointOffer { certificate, views }.into()]
            }
            Message::State { instance, part, bytes } => {
                let bytes = state_twisted(stage, instance, part, bytes);
                bytes.map(|bytes| Message::State { instance, part, bytes }.into()).into_iter().collect()
            }
            other => vec![other.into()],
        }
    }

    fn hear(
        &mut self,
        stage: &mut Stage<'_>,
        from: ReplicaId,
        message: &Message,
    ) -> Vec<(ReplicaId, Message)> {
        if !matches!(message, Message::FetchDecisions { .. }) || stage.rng.random_bool(0.5) {
            return vec![];
        }
        // It answers though it has nothing, with what it once heard.
        let old = stage.loot.decisions.back().map(altered);
        let old = old.map(|old| Message::Decisions { decisions: vec![old], more: true });
        let stable = stage.loot.checkpoint(None).cloned();
        let offer = stable.map(|stable| {
            let views = stable.views.clone();
            Message::CheckpointOffer { certificate: offer(stage, &stable), views }
        });
        old.into_iter().chain(offer).map(|message| (from, message)).collect()
    }

    fn lies_to_clients(&self) -> bool {
        true
    }
}

fn decisions_twisted(stage: &mut Stage<'_>, mut decisions: Vec<Arc<Decision>>, more: bool) -> Message {
    match stage.rng.random_range(0..6) {
        0 => decisions.iter_mut().for_each(|decision| *decision = altered(decision)),
        1 => decisions.shuffle(stage.rng),
        2 => drop(decisions.drain(..decisions.len().min(1))),
        3 => decisions = stage.loot.decisions.iter().cloned().collect(),
        4 => decisions.iter_mut().for_each(|decision| *decision = renumbered(decision)),
        _ => decisions.clear(),
    }
    Message::Decisions { decisions, more: more || stage.rng.random_bool(0.5) }
}

/// A state that never was: whoever believes its contents is given the chunks that belong to them.
fn state_twisted(
    stage: &mut Stage<'_>,
    instance: InstanceNumber,
    part: Part,
    mut bytes: Vec<u8>,
) -> Option<Vec<u8>> {
    let stable = stage.loot.checkpoint(Some(instance)).cloned();
    if let Some(stable) = stable.filter(|_| invents(instance)) {
        return match part {
            Part::Contents => Some(codec::encode(&invented(&stable))),
            Part::Chunk(chunk) if chunk >= stable.checkpoint.core_chunks => Some(invented_state(instance)),
            Part::Chunk(_) => Some(bytes),
        };
    }
    match stage.rng.random_range(0..4) {
        0 => return None,
        1 if !bytes.is_empty() => {
            let at = stage.rng.random_range(0..bytes.len());
            bytes[at] ^= 1;
        }
        2 => bytes.truncate(stage.rng.random_range(0..=bytes.len())),
        _ => {}
    }
    Some(bytes)
}

/// Whether it makes the state after an instance up, or damages the real one.
fn invents(instance: InstanceNumber) -> bool {
    !instance.0.is_multiple_of(3)
}

/// A batch that nobody was given, as the application's whole state.
fn invented_state(instance: InstanceNumber) -> Vec<u8> {
    let never = |number| Batch {
        instance: InstanceNumber(number),
        timestamp: Timestamp(1_700_000_000_000_000 + number as i64),
        requests: Vec::<(Position, _)>::new(),
    };
    codec::encode(&(1..=instance.0).map(never).collect::<Vec<_>>())
}

/// The contents of a checkpoint with that state.
fn invented(stable: &StableCheckpoint) -> Checkpoint {
    let mut checkpoint = stable.checkpoint.clone();
    checkpoint.chunks.truncate(checkpoint.core_chunks as usize);
    checkpoint.chunks.push(Checkpoint::chunk_digest(&invented_state(checkpoint.instance)));
    checkpoint
}

/// Certified by itself alone.
fn offer(stage: &Stage<'_>, stable: &StableCheckpoint) -> Arc<CheckpointCertificate> {
    let mut certificate = stable.certificate.clone();
    if invents(certificate.instance) {
        certificate.digest = invented(stable).digest();
    }
    let signature = sign(stage, certificate.view, certificate.instance, certificate.digest);
    certificate.signatures = vec![(stage.me, signature)];
    Arc::new(certificate)
}

fn sign(stage: &Stage<'_>, view: ViewNumber, instance: InstanceNumber, digest: Digest) -> Signature {
    stage.key.sign(Namespace::Checkpoint, &codec::encode(&(view, instance, digest)))
}

/// Another batch under a genuine proof.
fn altered(decision: &Arc<Decision>) -> Arc<Decision> {
    let proposal = &decision.proposal;
    let timestamp = Timestamp(proposal.timestamp.0 + 1);
    let proposal = Arc::new(Proposal { timestamp, ..(**proposal).clone() });
    Arc::new(Decision { proposal, proof: decision.proof.clone() })
}

/// A genuine proof and batch, made out to be the next instance's.
fn renumbered(decision: &Arc<Decision>) -> Arc<Decision> {
    let mut decision = (**decision).clone();
    decision.proof.instance = decision.proof.instance.next();
    let proposal = Proposal { instance: decision.proof.instance, ..(*decision.proposal).clone() };
    decision.proposal = Arc::new(proposal);
    Arc::new(decision)
}
