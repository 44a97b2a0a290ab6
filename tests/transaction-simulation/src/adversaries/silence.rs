//! Silence.

use super::{Adversary, Stage};
use crate::world::PeerMessage;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use steeldb_types::ReplicaId;
use steeldb_wire::transaction::ReplicaMessage;

/// Says nothing; its ordering core, if it has one, still does.
pub(crate) struct Silent;

impl Adversary for Silent {
    fn to_peer(&mut self, _: &mut Stage<'_>, _: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        match message {
            PeerMessage::Ordering(_) => vec![message],
            _ => vec![],
        }
    }

    fn to_client(&mut self, _: &mut Stage<'_>, _: usize, _: ReplicaMessage) -> Vec<ReplicaMessage> {
        vec![]
    }
}

/// Says nothing to some replicas and clients.
pub(crate) struct SilentToSome {
    replicas: u32,
    clients: u32,
}

impl SilentToSome {
    pub(crate) fn new(n: u16, rng: &mut ChaCha8Rng) -> SilentToSome {
        let one = 1 << rng.random_range(0..n);
        let more = if rng.random_bool(0.3) { rng.random_range(0..1 << n) } else { 0 };
        SilentToSome {
            replicas: one | more,
            clients: if rng.random_bool(0.3) { rng.random_range(0..4) } else { 0 },
        }
    }
}

impl Adversary for SilentToSome {
    fn to_peer(&mut self, _: &mut Stage<'_>, to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        match message {
            PeerMessage::Ordering(_) => vec![message],
            _ if self.replicas >> to.0 & 1 == 1 => vec![],
            _ => vec![message],
        }
    }

    fn to_client(
        &mut self,
        _: &mut Stage<'_>,
        client: usize,
        message: ReplicaMessage,
    ) -> Vec<ReplicaMessage> {
        if self.clients >> client & 1 == 1 { vec![] } else { vec![message] }
    }
}
