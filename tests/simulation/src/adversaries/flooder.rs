//! Sends what may fill a queue: votes for instances and regencies to come, proposals far ahead, STOPs, questions,
//! requests. So many in all, that a run ends.

use super::{Adversary, Stage};
use rand::Rng;
use std::sync::Arc;
use steeldb_ordering::{Claim, InstanceNumber, Message, Proposal, Regency};
use steeldb_types::{Digest, ReplicaId, Timestamp};

const MESSAGES_MAX: u32 = 600;
const BURST: u32 = 6;

pub(crate) struct Flooder {
    left: u32,
    count: u64,
}

impl Default for Flooder {
    fn default() -> Self {
        Flooder { left: MESSAGES_MAX, count: 0 }
    }
}

impl Adversary for Flooder {
    fn hear(
        &mut self,
        stage: &mut Stage<'_>,
        _from: ReplicaId,
        message: &Message,
    ) -> Vec<(ReplicaId, Message)> {
        let burst = self.left.min(BURST);
        self.left -= burst;
        let near = match message {
            Message::Propose { regency, proposal } => (proposal.instance, *regency),
            Message::Write { instance, claim } | Message::Accept { instance, claim, .. } => {
                (*instance, claim.regency)
            }
            _ => (InstanceNumber(1), Regency::default()),
        };
        (0..burst).map(|_| (stage.any_peer(), self.one(stage, near))).collect()
    }
}

impl Flooder {
    fn one(&mut self, stage: &mut Stage<'_>, near: (InstanceNumber, Regency)) -> Message {
        self.count += 1;
        let far = |rng: &mut rand_chacha::ChaCha8Rng| match rng.random_range(0..3) {
            0 => rng.random_range(0..4),
            1 => self.count,
            _ => u64::MAX - self.count,
        };
        let instance = InstanceNumber(near.0.0.saturating_add(far(stage.rng)));
        let regency = Regency { number: near.1.number.saturating_add(far(stage.rng)), ..near.1 };
        let mut value = [0; 32];
        stage.rng.fill(&mut value);
        let claim = Claim { regency, value: Digest(value) };
        match stage.rng.random_range(0..6) {
            0 => Message::Write { instance, claim },
            1 => stage.accept(instance, claim),
            2 => Message::Stop { regency, requests: vec![] },
            3 => Message::FetchDecisions { from: instance, regency },
            4 => {
                let round = regency.number - regency.number % u64::from(stage.n);
                let number = round.saturating_add(u64::from(stage.me.0));
                let requests = stage.loot.requests.values().cloned().collect();
                let proposal = Arc::new(Proposal { instance, timestamp: Timestamp(i64::MAX), requests });
                Message::Propose { regency: Regency { number, ..regency }, proposal }
            }
            _ => Message::Forward { requests: stage.loot.requests.values().cloned().collect() },
        }
    }
}
