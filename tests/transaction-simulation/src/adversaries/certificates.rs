//! Certificates that prove nothing, handed in to be ordered: with too few votes, with what the votes did not say, with votes
//! for another slot.

use super::{Adversary, Stage, request};
use crate::world::PeerMessage;
use rand::Rng;
use std::collections::BTreeMap;
use steeldb_ordering::Request;
use steeldb_types::{Digest, Position, ReplicaId, Slot, TxId};
use steeldb_wire::transaction::{AbortCertificate, CommitCertificate, Ordered, SignedVote, VoteKind};

#[derive(Default)]
pub(crate) struct CertificateForger {
    votes: BTreeMap<(TxId, Slot), BTreeMap<(ReplicaId, bool), SignedVote>>,
}

impl Adversary for CertificateForger {
    fn hear(&mut self, stage: &mut Stage<'_>, from: ReplicaId, message: &PeerMessage) -> Vec<Request> {
        let PeerMessage::Votes(bundle) = message else { return vec![] };
        let mut requests = Vec::new();
        // What is not signed by `from` only makes a worse forgery.
        let votes = bundle.clone().open_own(from);
        for (vote, _) in votes {
            let of = self.votes.entry((vote.vote.tx, vote.vote.slot)).or_default();
            of.insert((vote.replica, vote.vote.kind.is_against()), vote.clone());
            let gathered: Vec<SignedVote> = of.values().cloned().collect();
            requests.extend(forge(stage, &vote, &gathered).and_then(|ordered| request(&ordered)));
        }
        requests
    }
}

fn forge(stage: &mut Stage<'_>, vote: &SignedVote, gathered: &[SignedVote]) -> Option<Ordered> {
    let (tx, slot) = (vote.vote.tx, vote.vote.slot);
    match vote.vote.kind {
        VoteKind::Prepared { operations, transcript, write_set, wall } => {
            let same = gathered.iter().filter(|other| other.vote == vote.vote);
            let votes = same.map(|vote| (vote.replica, vote.path.clone(), vote.signature)).collect();
            let mut certificate =
                CommitCertificate { tx, slot, operations, transcript, write_set, wall, votes };
            match stage.rng.random_range(0..4) {
                0 => certificate.write_set = Digest([5; 32]),
                1 => certificate.slot = Position(slot.0 + 1),
                2 => certificate.operations += 1,
                // With too few votes, mostly.
                _ => {}
            }
            Some(Ordered::Commit(certificate))
        }
        _ => {
            let votes = gathered.iter().filter(|vote| vote.vote.kind.is_against()).cloned().collect();
            Some(Ordered::Abort(AbortCertificate { tx, slot, votes }))
        }
    }
}
