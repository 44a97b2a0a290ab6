//! A leader that takes as long as it may: its proposals leave just before, or just after, the others lose patience.

use super::{Adversary, Said, Stage};
use crate::world::REQUEST_TIMEOUT;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use steeldb_ordering::Message;
use steeldb_types::ReplicaId;

pub(crate) struct SlowLeader {
    delay_us: u64,
}

impl SlowLeader {
    pub(crate) fn new(rng: &mut ChaCha8Rng) -> SlowLeader {
        // Suspected after two time-outs.
        let patience_us = 2 * REQUEST_TIMEOUT.as_micros() as u64;
        SlowLeader { delay_us: patience_us * rng.random_range(40..=110) / 100 }
    }
}

impl Adversary for SlowLeader {
    fn twist(&mut self, _stage: &mut Stage<'_>, _to: ReplicaId, message: Message) -> Vec<Said> {
        let leads = matches!(message, Message::Propose { .. } | Message::Sync { .. });
        vec![Said { message, after_us: if leads { self.delay_us } else { 0 } }]
    }
}
