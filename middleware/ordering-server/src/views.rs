//! Which replicas there are, as a client learns it. Sans-IO: servers say which view is current, and whoever says so of a
//! newer one is asked for the decisions that made it. Each is proved by the view before; no server is believed.

use crate::message::ClientMessage;
use std::collections::BTreeMap;
use std::sync::Arc;
use steeldb_ordering::{Decision, Roster, ViewChain};
use steeldb_types::{Digest, ReplicaId, ViewNumber};

pub(crate) struct Views {
    chain: ViewChain,
    /// By server, the newest view that it spoke of and was asked about: a lie costs one question.
    asked: BTreeMap<ReplicaId, ViewNumber>,
    /// The changes that made views, since this client began.
    made_by: BTreeMap<Digest, ViewNumber>,
}

/// What a server's word brought.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    /// To be sent to it.
    pub(crate) ask: Option<ClientMessage>,
    /// Whether there is a newer view.
    pub(crate) changed: bool,
}

impl Views {
    /// A client that knows the genesis view, and trusts it.
    pub(crate) fn new(genesis: Roster) -> Views {
        Views { chain: ViewChain::new(genesis), asked: BTreeMap::new(), made_by: BTreeMap::new() }
    }

    /// The newest view's replicas.
    pub(crate) fn roster(&self) -> &Arc<Roster> {
        self.chain.roster()
    }

    /// The newest view's number.
    pub(crate) fn number(&self) -> ViewNumber {
        self.roster().view().number()
    }

    /// The view that a change made, by the digest of its request.
    pub(crate) fn made_by(&self, change: Digest) -> Option<&Arc<Roster>> {
        self.chain.roster_of(*self.made_by.get(&change)?)
    }

    /// A server says which view is current.
    pub(crate) fn heard(&mut self, from: ReplicaId, view: ViewNumber) -> Option<ClientMessage> {
        let known = self.asked.get(&from).copied().unwrap_or_default().max(self.number());
        if view <= known {
            return None;
        }
        self.asked.insert(from, view);
        Some(self.question())
    }

    /// A server shows decisions that made views.
    ///
    /// # Errors
    /// Says what is wrong with them: the server is at fault.
    pub(crate) fn shown(&mut self, from: ReplicaId, decisions: &[Arc<Decision>]) -> Result<Learned, String> {
        let before = self.number();
        for decision in decisions {
            if self.chain.follow(decision)?
                && let [change] = &decision.proposal.requests[..]
            {
                self.made_by.insert(change.digest(), self.number());
            }
        }
        let changed = self.number() > before;
        let wanted = self.asked.get(&from).copied().unwrap_or_default();
        // One that shows nothing new is not asked again.
        let ask = (changed && wanted > self.number()).then(|| self.question());
        Ok(Learned { ask, changed })
    }

    /// The link to a server is new: what it was asked for may be lost.
    pub(crate) fn link_up(&mut self, replica: ReplicaId) {
        self.asked.remove(&replica);
    }

    fn question(&self) -> ClientMessage {
        ClientMessage::Views { known: self.number() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeldb_ordering::{Change, Claim, InstanceNumber, Proof, Proposal, Regency};
    use steeldb_types::{Timestamp, View};
    use steeldb_wire::auth::{Namespace, SecretKey};
    use steeldb_wire::codec;

    fn key(id: u16) -> SecretKey {
        SecretKey::from_seed(&[id as u8 + 1; 32])
    }

    fn genesis() -> Roster {
        Roster::of_keys(View::of_size(5).unwrap(), (0..5).map(|id| key(id).public()).collect()).unwrap()
    }

    fn decision(roster: &Roster, change: &Change, instance: u64, signers: &[u16]) -> Arc<Decision> {
        let requests = vec![Arc::new(change.signed(&SecretKey::from_seed(&[99; 32])))];
        let instance = InstanceNumber(instance);
        let proposal = Arc::new(Proposal { instance, timestamp: Timestamp(1), requests });
        let claim = Claim { regency: Regency::first(roster.view().number()), value: proposal.digest() };
        let bytes = codec::encode(&(claim.regency, instance, claim.value));
        let accepts = signers.iter().map(|id| (ReplicaId(*id), key(*id).sign(Namespace::Accept, &bytes)));
        let proof = Proof { instance, claim, accepts: accepts.collect() };
        Arc::new(Decision { proposal, proof })
    }

    #[test]
    fn a_newer_view_is_asked_for_once_and_believed_by_its_proof_alone() {
        let mut views = Views::new(genesis());
        assert_eq!(views.heard(ReplicaId(0), ViewNumber(0)), None);
        let question = ClientMessage::Views { known: ViewNumber(0) };
        assert_eq!(views.heard(ReplicaId(3), ViewNumber(2)), Some(question.clone()));
        assert_eq!(views.heard(ReplicaId(3), ViewNumber(2)), None, "no second question");
        views.link_up(ReplicaId(3));
        assert_eq!(views.heard(ReplicaId(3), ViewNumber(2)), Some(question), "its answer may be lost");

        let first = Change { remove: vec![ReplicaId(4)], ..Change::of(&genesis()) };
        let forged = decision(&genesis(), &first, 7, &[2, 3, 4]);
        assert!(views.shown(ReplicaId(3), &[forged]).unwrap_err().contains("quorum"));
        assert_eq!(views.number(), ViewNumber(0));

        let made = genesis().changed(&first).unwrap();
        let one = decision(&genesis(), &first, 7, &[0, 1, 3]);
        let learned = views.shown(ReplicaId(3), &[Arc::clone(&one)]).unwrap();
        assert!(learned.changed && learned.ask.is_some(), "it spoke of one more");
        assert_eq!(views.made_by(one.proposal.requests[0].digest()), Some(&Arc::new(made)));
        let learned = views.shown(ReplicaId(3), &[one]).unwrap();
        assert!(!learned.changed && learned.ask.is_none(), "nothing new, nothing more");
    }
}
