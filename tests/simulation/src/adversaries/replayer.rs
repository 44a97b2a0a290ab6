//! Says again what was said before, by itself or by others: votes of old regencies, STOPs, SYNCs and decisions, word
//! for word.

use super::{Adversary, Said, Stage};
use rand::Rng;
use std::collections::VecDeque;
use steeldb_ordering::Message;
use steeldb_types::ReplicaId;

const KEPT_MAX: usize = 48;

#[derive(Default)]
pub(crate) struct Replayer {
    said: VecDeque<Message>,
}

impl Replayer {
    fn keep(&mut self, message: &Message) {
        self.said.push_back(message.clone());
        if self.said.len() > KEPT_MAX {
            self.said.pop_front();
        }
    }
}

impl Adversary for Replayer {
    fn twist(&mut self, stage: &mut Stage<'_>, _to: ReplicaId, message: Message) -> Vec<Said> {
        self.keep(&message);
        let mut said = vec![message.clone().into()];
        if stage.rng.random_bool(0.3) {
            said.push(message.into());
        }
        said
    }

    fn hear(
        &mut self,
        stage: &mut Stage<'_>,
        _from: ReplicaId,
        message: &Message,
    ) -> Vec<(ReplicaId, Message)> {
        // Links show who speaks, so that of others' words only those that prove themselves are worth repeating.
        if matches!(message, Message::Sync { .. } | Message::Decisions { .. } | Message::Forward { .. }) {
            self.keep(message);
        }
        if self.said.is_empty() || stage.rng.random_bool(0.7) {
            return vec![];
        }
        let old = self.said[stage.rng.random_range(0..self.said.len())].clone();
        vec![(stage.any_peer(), old)]
    }
}
