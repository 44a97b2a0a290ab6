//! Wrong write sets for who catches up.

use super::{Adversary, Stage};
use crate::world::PeerMessage;
use rand::Rng;
use steeldb_types::ReplicaId;

pub(crate) struct WriteSetForger;

impl Adversary for WriteSetForger {
    fn to_peer(&mut self, stage: &mut Stage<'_>, _: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        match message {
            PeerMessage::WriteSet { tx, write_set: Some(mut write_set) } => {
                for (_, after) in write_set.rows.values_mut() {
                    *after = Some(vec![stage.rng.random_range(0..9)]);
                }
                vec![PeerMessage::WriteSet { tx, write_set: Some(write_set) }]
            }
            other => vec![other],
        }
    }
}
