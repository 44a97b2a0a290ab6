//! A master that names other barriers than those it read behind (A13).

use super::{Adversary, Stage};
use crate::world::PeerMessage;
use rand::Rng;
use steeldb_types::{Position, ReplicaId};
use steeldb_wire::transaction::{Executed, Stream};

/// Barriers that are too low: others execute too early.
pub(crate) struct Low;

impl Adversary for Low {
    fn to_peer(&mut self, stage: &mut Stage<'_>, _: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        vec![changed(stage, message, |entry, _| entry.barrier = Position(0))]
    }
}

/// Barriers that are too high, or of no commit.
pub(crate) struct High;

impl Adversary for High {
    fn to_peer(&mut self, stage: &mut Stage<'_>, _: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        vec![changed(stage, message, |entry, draw| {
            entry.barrier = Position(entry.barrier.0 + [0, 1, 3, 1_000_000][draw % 4]);
        })]
    }
}

/// The stream with its entries changed, signed again.
pub(super) fn changed(
    stage: &mut Stage<'_>,
    message: PeerMessage,
    change: impl Fn(&mut Executed, usize),
) -> PeerMessage {
    let PeerMessage::Stream(stream) = message else { return message };
    let mut entries = stream.entries.clone();
    for entry in &mut entries {
        change(entry, stage.rng.random_range(0..64));
    }
    PeerMessage::Stream(Stream::new(stream.epoch, stream.first, entries, stage.key))
}
