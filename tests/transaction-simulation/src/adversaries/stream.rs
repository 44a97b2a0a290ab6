//! A master whose word on what it executed is false, differently to each.

use super::barriers::changed;
use super::{Adversary, Stage};
use crate::world::PeerMessage;
use rand::Rng;
use steeldb_types::{Digest, ReplicaId};
use steeldb_wire::transaction::SqlState;

pub(crate) struct StreamForger;

impl Adversary for StreamForger {
    fn to_peer(&mut self, stage: &mut Stage<'_>, _: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        if matches!(message, PeerMessage::Stream(_)) && stage.rng.random_bool(0.1) {
            return vec![];
        }
        vec![changed(stage, message, |entry, draw| match draw {
            0..8 => entry.transcript = Digest([draw as u8; 32]),
            8..14 => entry.adopted = Some(SqlState::parse("40P01")),
            14..18 => entry.adopted = Some(SqlState::parse("23505")),
            18..22 => entry.check = !entry.check,
            22..26 => entry.copied = true,
            26..30 => entry.number += 1,
            _ => {}
        })]
    }
}
