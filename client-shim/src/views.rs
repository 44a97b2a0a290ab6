//! Which replicas there are, as a client learns it: replicas say which view is current, and whoever says so of a newer
//! one is asked for the decisions that made it. Each of these is proven by the view before; no replica is believed.

use std::collections::BTreeMap;
use std::sync::Arc;
use steeldb_ordering::{Decision, Roster, ViewChain};
use steeldb_types::{ReplicaId, ViewNumber, limits};
use steeldb_wire::codec;
use steeldb_wire::transaction::{ClientMessage, MembershipReply, MembershipRequest};

/// The views that a client knows. Sans-IO: replies in, questions out.
pub struct Views {
    chain: ViewChain,
    /// By replica, the newest view that it spoke of and was asked about: a lie costs one question.
    asked: BTreeMap<ReplicaId, ViewNumber>,
}

impl Views {
    /// A client that knows the genesis view, and trusts it.
    pub fn new(genesis: Roster) -> Views {
        Views { chain: ViewChain::new(genesis), asked: BTreeMap::new() }
    }

    /// The newest view's replicas.
    pub fn roster(&self) -> &Arc<Roster> {
        self.chain.roster()
    }

    /// Takes a replica's reply; gives what to ask it, if anything. `changed` tells of a newer view.
    ///
    /// # Errors
    /// Says what is wrong with what the replica showed: it is at fault.
    pub fn receive(&mut self, from: ReplicaId, reply: &MembershipReply) -> Result<Learned, String> {
        match reply {
            MembershipReply::Current { view } => Ok(Learned { ask: self.ask(from, *view), changed: false }),
            MembershipReply::Views { certificates } => {
                let before = self.number();
                for certificate in certificates {
                    let decision: Decision = codec::decode(certificate, limits::FRAME_BYTES_MAX)
                        .map_err(|error| error.to_string())?;
                    self.chain.follow(&Arc::new(decision))?;
                }
                let wanted = self.asked.get(&from).copied().unwrap_or_default();
                let ask = (self.number() > before && wanted > self.number()).then(|| self.question());
                Ok(Learned { ask, changed: self.number() > before })
            }
            MembershipReply::Changed { .. }
            | MembershipReply::Status(_)
            | MembershipReply::RoundTrips { .. } => Ok(Learned::default()),
        }
    }

    fn ask(&mut self, from: ReplicaId, view: ViewNumber) -> Option<ClientMessage> {
        let known = self.asked.get(&from).copied().unwrap_or_default().max(self.number());
        if view <= known {
            return None;
        }
        self.asked.insert(from, view);
        Some(self.question())
    }

    fn question(&self) -> ClientMessage {
        ClientMessage::Membership(MembershipRequest::Views { known: self.number() })
    }

    /// The link to a replica is new: what it was asked for may be lost.
    pub fn link_up(&mut self, replica: ReplicaId) {
        self.asked.remove(&replica);
    }

    fn number(&self) -> ViewNumber {
        self.chain.roster().view().number()
    }
}

/// What a reply brought.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Learned {
    /// To be sent to whom the reply came from.
    pub ask: Option<ClientMessage>,
    /// There is a newer view.
    pub changed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeldb_ordering::{Change, Claim, InstanceNumber, Proof, Proposal, Regency};
    use steeldb_types::{Timestamp, View};
    use steeldb_wire::auth::{Namespace, SecretKey};

    fn key(id: u16) -> SecretKey {
        SecretKey::from_seed(&[id as u8 + 1; 32])
    }

    fn genesis() -> Roster {
        let keys = (0..5).map(|id| key(id).public()).collect();
        Roster::of_keys(View::of_size(5).unwrap(), keys).unwrap()
    }

    /// The decision of `instance` that changes `roster`, signed by `signers`.
    fn certificate(roster: &Roster, change: &Change, instance: u64, signers: &[u16]) -> Vec<u8> {
        let requests = vec![Arc::new(change.signed(&SecretKey::from_seed(&[99; 32])))];
        let instance = InstanceNumber(instance);
        let proposal = Arc::new(Proposal { instance, timestamp: Timestamp(1), requests });
        let claim = Claim { regency: Regency::first(roster.view().number()), value: proposal.digest() };
        let bytes = codec::encode(&(claim.regency, instance, claim.value));
        let accepts = signers.iter().map(|id| (ReplicaId(*id), key(*id).sign(Namespace::Accept, &bytes)));
        let proof = Proof { instance, claim, accepts: accepts.collect() };
        codec::encode(&Decision { proposal, proof })
    }

    fn current(view: u64) -> MembershipReply {
        MembershipReply::Current { view: ViewNumber(view) }
    }

    #[test]
    fn a_newer_view_is_asked_for_once_and_believed_by_its_proof_alone() {
        let mut views = Views::new(genesis());
        assert_eq!(views.receive(ReplicaId(0), &current(0)), Ok(Learned::default()));
        let asked = views.receive(ReplicaId(3), &current(2)).unwrap();
        let known = ViewNumber(0);
        assert_eq!(asked.ask, Some(ClientMessage::Membership(MembershipRequest::Views { known })));
        assert_eq!(views.receive(ReplicaId(3), &current(2)), Ok(Learned::default()), "no second question");
        assert!(views.receive(ReplicaId(4), &current(2)).unwrap().ask.is_some(), "another is asked, too");

        let first = Change { remove: vec![ReplicaId(4)], ..Change::of(&genesis()) };
        let forged = certificate(&genesis(), &first, 7, &[2, 3, 4]);
        let shown = MembershipReply::Views { certificates: vec![forged] };
        assert!(views.receive(ReplicaId(3), &shown).unwrap_err().contains("quorum"));
        assert_eq!(views.roster().view().number(), ViewNumber(0));

        let made = genesis().changed(&first).unwrap();
        let second = Change { first_leader: Some(ReplicaId(2)), ..Change::of(&made) };
        let one = certificate(&genesis(), &first, 7, &[0, 1, 3]);
        let two = certificate(&made, &second, 9, &[1, 2, 3]);
        let shown = MembershipReply::Views { certificates: vec![one.clone()] };
        let learned = views.receive(ReplicaId(4), &shown).unwrap();
        assert!(learned.changed && learned.ask.is_some(), "there is one more");
        let shown = MembershipReply::Views { certificates: vec![one, two] };
        assert_eq!(views.receive(ReplicaId(4), &shown), Ok(Learned { ask: None, changed: true }));
        assert_eq!(views.roster().view().members().len(), 4);
        assert_eq!(views.roster().view().first_leader(), ReplicaId(2));
        assert_eq!(
            views.receive(ReplicaId(0), &current(1)),
            Ok(Learned::default()),
            "older than what is known"
        );
    }

    #[test]
    fn rubbish_is_the_senders_fault() {
        let mut views = Views::new(genesis());
        let shown = MembershipReply::Views { certificates: vec![vec![1, 2, 3]] };
        assert!(views.receive(ReplicaId(0), &shown).is_err());
    }
}
