//! Votes for whatever it likes: at once, for values nobody proposed, in regencies to come, twice, and with signatures
//! that do not hold.

use super::{Adversary, Said, Stage};
use rand::Rng;
use steeldb_ordering::{Claim, Message};
use steeldb_types::{Digest, ReplicaId};
use steeldb_wire::auth::Signature;

pub(crate) struct VoteForger;

impl Adversary for VoteForger {
    fn twist(&mut self, stage: &mut Stage<'_>, _to: ReplicaId, message: Message) -> Vec<Said> {
        match message {
            Message::Write { instance, claim } if stage.rng.random_bool(0.5) => {
                let invented = Claim { value: Digest([13; 32]), ..claim };
                let write = if stage.rng.random_bool(0.5) { invented } else { claim };
                let repeated = Message::Write { instance, claim: write };
                vec![repeated.clone().into(), repeated.into(), stage.accept(instance, invented).into()]
            }
            Message::Accept { instance, claim, .. } if stage.rng.random_bool(0.5) => {
                let bad = Message::Accept { instance, claim, signature: Signature([7; 64]) };
                let good = stage.accept(instance, claim);
                // The bad one first takes the place of the good one.
                if stage.rng.random_bool(0.5) { vec![bad.into()] } else { vec![bad.into(), good.into()] }
            }
            other => vec![other.into()],
        }
    }

    fn hear(
        &mut self,
        stage: &mut Stage<'_>,
        _from: ReplicaId,
        message: &Message,
    ) -> Vec<(ReplicaId, Message)> {
        let Message::Propose { regency, proposal } = message else { return vec![] };
        let instance = proposal.instance;
        let later = if stage.rng.random_bool(0.2) { regency.next() } else { *regency };
        let claim = Claim { regency: later, value: proposal.digest() };
        let accept = stage.accept(instance, claim);
        let write = Message::Write { instance, claim };
        stage.peers().flat_map(|peer| [(peer, write.clone()), (peer, accept.clone())]).collect()
    }

    fn lies_to_clients(&self) -> bool {
        true
    }
}
