//! Whoever is behind and asks it gets genuine proofs with altered batches, decisions out of order or with gaps, and the
//! promise of more that never comes.

use super::{Adversary, Said, Stage};
use rand::Rng;
use rand::seq::SliceRandom;
use std::sync::Arc;
use steeldb_ordering::{Decision, Message, Proposal};
use steeldb_types::{ReplicaId, Timestamp};

pub(crate) struct LyingSender;

impl Adversary for LyingSender {
    fn twist(&mut self, stage: &mut Stage<'_>, _to: ReplicaId, message: Message) -> Vec<Said> {
        let Message::Decisions { mut decisions, more } = message else { return vec![message.into()] };
        match stage.rng.random_range(0..6) {
            0 => decisions.iter_mut().for_each(|decision| *decision = altered(decision)),
            1 => decisions.shuffle(stage.rng),
            2 => drop(decisions.drain(..decisions.len().min(1))),
            3 => decisions = stage.loot.decisions.iter().cloned().collect(),
            4 => decisions.iter_mut().for_each(|decision| *decision = renumbered(decision)),
            _ => decisions.clear(),
        }
        vec![Message::Decisions { decisions, more: more || stage.rng.random_bool(0.5) }.into()]
    }

    fn hear(
        &mut self,
        stage: &mut Stage<'_>,
        from: ReplicaId,
        message: &Message,
    ) -> Vec<(ReplicaId, Message)> {
        // It answers though it has nothing, with what it once heard.
        let old = stage.loot.decisions.back().map(altered);
        match (message, old) {
            (Message::FetchDecisions { .. }, Some(old)) if stage.rng.random_bool(0.5) => {
                vec![(from, Message::Decisions { decisions: vec![old], more: true })]
            }
            _ => vec![],
        }
    }

    fn lies_to_clients(&self) -> bool {
        true
    }
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
