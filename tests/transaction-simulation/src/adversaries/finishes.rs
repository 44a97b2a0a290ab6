//! Ends of transactions that no client signed: as soon as the master's word on an operation comes, that was the last one.

use super::{Adversary, Stage};
use crate::world::PeerMessage;
use rand::Rng;
use steeldb_types::{ReplicaId, Slot, TxId};
use steeldb_wire::transaction::{
    Decision, Executed, Finish, Ordered, SignedFinish, Vote, VoteBundle, VoteKind,
};

pub(crate) struct FinishForger;

impl Adversary for FinishForger {
    fn to_peer(&mut self, stage: &mut Stage<'_>, _: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        let forged = match &message {
            PeerMessage::Stream(stream) => forge(stage, &stream.entries),
            PeerMessage::Votes(bundle) => with_votes(stage, bundle),
            _ => None,
        };
        std::iter::once(message).chain(forged).collect()
    }
}

fn slot(stage: &Stage<'_>, of: TxId) -> Option<Slot> {
    let begins = stage.order.iter().rev();
    let mut slots = begins.filter_map(|ordinal| match ordinal.payload {
        Ordered::Begin { tx, .. } if tx == of => Some(ordinal.position),
        _ => None,
    });
    slots.next()
}

fn finish(stage: &Stage<'_>, finish: Finish) -> SignedFinish {
    SignedFinish::new(finish, stage.key)
}

/// From the master's own stream: what it has executed is all there is.
fn forge(stage: &mut Stage<'_>, entries: &[Executed]) -> Option<PeerMessage> {
    let mut votes = Vec::new();
    for entry in entries.iter().filter(|entry| !entry.check) {
        let slot = slot(stage, entry.tx)?;
        let (tx, operations, transcript) = (entry.tx, entry.number, entry.transcript);
        let decision = Decision::Commit;
        let finish = finish(stage, Finish { tx, slot, decision, operations, transcript });
        votes.push((Vote { tx, slot, kind: VoteKind::Expired }, Some(finish)));
    }
    VoteBundle::new(votes, stage.key).map(PeerMessage::Votes)
}

/// With true votes: it is to be undone.
fn with_votes(stage: &mut Stage<'_>, bundle: &VoteBundle) -> Option<PeerMessage> {
    if stage.rng.random_bool(0.5) {
        return None;
    }
    let mut votes = bundle.votes.clone();
    for (vote, end) in &mut votes {
        if let VoteKind::Prepared { operations, transcript, .. } = vote.kind {
            let (tx, slot, decision) = (vote.tx, vote.slot, Decision::Rollback);
            *end = Some(finish(stage, Finish { tx, slot, decision, operations, transcript }));
        }
    }
    VoteBundle::new(votes, stage.key).map(PeerMessage::Votes)
}
