//! Terms that never began, and transactions that could go on and are said not to.

use super::{Adversary, Stage};
use rand::Rng;
use steeldb_types::ReplicaId;
use steeldb_wire::transaction::ReplicaMessage;

pub(crate) struct TermForger;

impl Adversary for TermForger {
    fn to_client(&mut self, stage: &mut Stage<'_>, _: usize, message: ReplicaMessage) -> Vec<ReplicaMessage> {
        let mut messages = Vec::new();
        if stage.rng.random_bool(0.1) {
            let mut term = stage.term.under(ReplicaId(stage.rng.random_range(0..4)));
            term.epoch += stage.rng.random_range(0..3);
            messages.push(ReplicaMessage::Term(term));
        }
        if let ReplicaMessage::Begun { tx, .. }
        | ReplicaMessage::Executed { tx, .. }
        | ReplicaMessage::Tentative { tx, .. }
        | ReplicaMessage::Outcome { tx, .. } = &message
            && stage.rng.random_bool(0.1)
        {
            messages.push(ReplicaMessage::NotReproduced { tx: *tx });
        }
        messages.push(message);
        messages
    }
}
