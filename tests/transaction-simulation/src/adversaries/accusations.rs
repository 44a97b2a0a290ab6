//! Accusations of a master that has done nothing, and certificates that depose it on too few of them.

use super::{Adversary, Stage};
use crate::world::PeerMessage;
use rand::Rng;
use steeldb_ordering::Request;
use steeldb_types::{Digest, ReplicaId, Term};
use steeldb_wire::codec;
use steeldb_wire::transaction::{
    Accusation, Cause, DeposeCertificate, MasterMove, Ordered, SignedAccusation,
};

const CAUSES: [Cause; 4] = [Cause::Silent, Cause::NoVotes, Cause::Disproved, Cause::Doubted];

/// A term: the one that runs, mostly; one before or after it, or of another master.
fn some_term(stage: &mut Stage<'_>) -> Term {
    let term = stage.term;
    match stage.rng.random_range(0..6) {
        0 => term.under(ReplicaId(stage.rng.random_range(0..4))),
        1 => Term { epoch: term.epoch.saturating_sub(1), ..term },
        2 => Term { master: stage.me, ..term },
        _ => term,
    }
}

/// In its own name, or in another's and not with its key.
fn accuse(stage: &mut Stage<'_>, by: ReplicaId, term: Term) -> SignedAccusation {
    let cause = CAUSES[stage.rng.random_range(0..CAUSES.len())];
    SignedAccusation::new(by, Accusation { term, cause }, stage.key)
}

/// Accuses the master all the time, to some more often than to others.
pub(crate) struct Accuser;

impl Adversary for Accuser {
    fn to_peer(&mut self, stage: &mut Stage<'_>, to: ReplicaId, message: PeerMessage) -> Vec<PeerMessage> {
        if !stage.rng.random_bool(0.1) {
            return vec![message];
        }
        let by = if stage.rng.random_bool(0.8) { stage.me } else { to };
        let term = some_term(stage);
        let accusation = PeerMessage::Accusation(accuse(stage, by, term));
        vec![accusation, message]
    }
}

/// Has certificates ordered that prove nothing: of its own word under several names, with others' accusations of another
/// term, and moves that no administrator signed.
#[derive(Default)]
pub(crate) struct DeposeForger {
    heard: Vec<SignedAccusation>,
}

impl Adversary for DeposeForger {
    fn hear(&mut self, stage: &mut Stage<'_>, _: ReplicaId, message: &PeerMessage) -> Vec<Request> {
        if let PeerMessage::Accusation(signed) = message {
            self.heard.push(*signed);
        } else if !stage.rng.random_bool(0.05) {
            return vec![];
        }
        let (me, term) = (stage.me, some_term(stage));
        if stage.rng.random_bool(0.2) {
            let to = ReplicaId(stage.rng.random_range(0..4));
            return request(&Ordered::Move(MasterMove::new(term, Digest::default(), to, stage.key)));
        }
        let mut accusations = vec![accuse(stage, me, term)];
        match stage.rng.random_range(0..4) {
            0 => accusations.push(accusations[0]),
            1 => accusations.push(accuse(stage, ReplicaId((me.0 + 1) % 4), term)),
            // True ones, of whatever term.
            2 => accusations.extend(self.heard.iter().rev().take(2)),
            _ => {}
        }
        request(&Ordered::Depose(DeposeCertificate { term, accusations }))
    }
}

fn request(ordered: &Ordered) -> Vec<Request> {
    let payload = codec::encode(ordered);
    ordered.certified_key().map(|key| Request::Certified { key, payload }).into_iter().collect()
}
