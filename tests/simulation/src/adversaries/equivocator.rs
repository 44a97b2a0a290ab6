//! A leader with two faces: the same requests at another time for some replicas, and its votes for each at once.

use super::{Adversary, Said, Stage};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use steeldb_ordering::{Claim, Message, Proposal};
use steeldb_types::{Digest, ReplicaId, Timestamp};

pub(crate) struct Equivocator {
    /// Bit i: replica i is told the other thing.
    others: u32,
    /// By original value: what the others were told instead.
    told: BTreeMap<Digest, Arc<Proposal>>,
}

impl Equivocator {
    pub(crate) fn new(n: u16, rng: &mut ChaCha8Rng) -> Equivocator {
        Equivocator { others: rng.random_range(1..(1u32 << n) - 1), told: BTreeMap::new() }
    }

    fn proposal(&mut self, to: ReplicaId, proposal: Arc<Proposal>) -> Arc<Proposal> {
        if self.others >> to.0 & 1 == 0 {
            return proposal;
        }
        let other = self.told.entry(proposal.digest()).or_insert_with(|| {
            let timestamp = Timestamp(proposal.timestamp.0 + 1);
            Arc::new(Proposal { timestamp, ..(*proposal).clone() })
        });
        Arc::clone(other)
    }

    fn claim(&self, to: ReplicaId, claim: Claim) -> Claim {
        match self.told.get(&claim.value) {
            Some(other) if self.others >> to.0 & 1 == 1 => Claim { value: other.digest(), ..claim },
            _ => claim,
        }
    }
}

impl Adversary for Equivocator {
    fn twist(&mut self, stage: &mut Stage<'_>, to: ReplicaId, message: Message) -> Vec<Said> {
        match message {
            Message::Propose { regency, proposal } => {
                let instance = proposal.instance;
                let proposal = self.proposal(to, proposal);
                let claim = Claim { regency, value: proposal.digest() };
                let accept = stage.accept(instance, claim);
                vec![
                    Message::Propose { regency, proposal }.into(),
                    Message::Write { instance, claim }.into(),
                    accept.into(),
                ]
            }
            Message::Sync { regency, stop_data, proposals } => {
                let told = proposals.into_iter().map(|proposal| self.proposal(to, proposal));
                vec![Message::Sync { regency, stop_data, proposals: told.collect() }.into()]
            }
            Message::Write { instance, claim } => {
                vec![Message::Write { instance, claim: self.claim(to, claim) }.into()]
            }
            Message::Accept { instance, claim, .. } => {
                vec![stage.accept(instance, self.claim(to, claim)).into()]
            }
            other => vec![other.into()],
        }
    }

    fn lies_to_clients(&self) -> bool {
        true
    }
}
