//! Wrong results: of a store that its agent believes, or of an agent that shows others than it has.

use super::{Adversary, Stage};
use crate::scenario::Fault;
use crate::store::{Answer, join, split};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use steeldb_wire::transaction::ReplicaMessage;

/// How often an answer is twisted.
const CHANCE: f64 = 0.4;

/// A store that answers wrongly.
pub(crate) struct LyingStore(pub(crate) Fault);

impl Adversary for LyingStore {
    fn answer(&mut self, stage: &mut Stage<'_>, messages: Vec<u8>) -> Vec<u8> {
        if stage.rng.random_bool(CHANCE) { twist(self.0, &messages, stage.rng) } else { messages }
    }
}

/// An agent that shows clients one thing and tells replicas another.
pub(crate) struct TwoFaced;

impl Adversary for TwoFaced {
    fn to_client(&mut self, stage: &mut Stage<'_>, _: usize, message: ReplicaMessage) -> Vec<ReplicaMessage> {
        match message {
            ReplicaMessage::Result { tx, number, messages } if stage.rng.random_bool(CHANCE) => {
                let kinds = [
                    Fault::WrongRows,
                    Fault::MissingRows,
                    Fault::PermutedRows,
                    Fault::WrongCounts,
                    Fault::FakeErrors,
                ];
                let kind = kinds[stage.rng.random_range(0..kinds.len())];
                vec![ReplicaMessage::Result { tx, number, messages: twist(kind, &messages, stage.rng) }]
            }
            other => vec![other],
        }
    }
}

fn twist(kind: Fault, bytes: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut messages = split(bytes);
    let rows: Vec<usize> =
        messages.iter().enumerate().filter(|(_, (tag, _))| *tag == b'D').map(|(index, _)| index).collect();
    match kind {
        Fault::WrongRows => {
            if let Some(index) = rows.first()
                && let Some(last) = messages[*index].1.last_mut()
            {
                // Another digit.
                *last = if *last == b'7' { b'8' } else { b'7' };
            }
        }
        Fault::MissingRows => {
            if let Some(index) = rows.last() {
                messages.remove(*index);
            }
        }
        Fault::PermutedRows => {
            let mut bodies: Vec<Vec<u8>> = rows.iter().map(|index| messages[*index].1.clone()).collect();
            bodies.shuffle(rng);
            for (index, body) in rows.into_iter().zip(bodies) {
                messages[index].1 = body;
            }
        }
        Fault::WrongCounts => {
            if let Some((_, body)) = messages.iter_mut().find(|(tag, _)| *tag == b'C') {
                *body = [b"UPDATE 41".as_slice(), &[0]].concat();
            }
        }
        _ => {
            let sqlstate = ["40001", "40P01", "23505", "XX000"][rng.random_range(0..4)];
            let mut answer = Answer::default();
            answer.error(sqlstate);
            return answer.bytes();
        }
    }
    join(&messages)
}
