//! False votes, other ones to each replica.

use super::{Adversary, Stage};
use crate::world::PeerMessage;
use rand::Rng;
use steeldb_types::{Digest, Position, ReplicaId};
use steeldb_wire::transaction::{VoteBundle, VoteKind};

pub(crate) struct VoteForger;

impl Adversary for VoteForger {
    fn to_peer(&mut self, stage: &mut Stage<'_>, _: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        let PeerMessage::Votes(bundle) = message else { return vec![message] };
        let mut votes = bundle.votes.clone();
        for (vote, _) in &mut votes {
            vote.kind = match (stage.rng.random_range(0..8), vote.kind) {
                (0, _) => VoteKind::Gone,
                (1, _) => VoteKind::Mismatch { operation: 1 },
                (2, _) => VoteKind::Expired,
                (3, VoteKind::Prepared { operations, transcript, wall, .. }) => {
                    let write_set = Digest([stage.rng.random_range(0..3); 32]);
                    VoteKind::Prepared { operations, transcript, write_set, wall }
                }
                (4, VoteKind::Prepared { operations, write_set, wall, .. }) => {
                    VoteKind::Prepared { operations, transcript: Digest([9; 32]), write_set, wall }
                }
                (_, kind) => kind,
            };
            if stage.rng.random_range(0..20) == 0 {
                vote.slot = Position(vote.slot.0 + stage.rng.random_range(0..3));
            }
        }
        if stage.rng.random_bool(0.1) {
            return vec![];
        }
        // Both the true and the false.
        let both = stage.rng.random_bool(0.3).then_some(PeerMessage::Votes(bundle));
        let forged = VoteBundle::new(votes, stage.key).map(PeerMessage::Votes);
        forged.into_iter().chain(both).collect()
    }
}
