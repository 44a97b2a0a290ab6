//! The state of one consensus instance at one replica (VP-Consensus: the epochs of one instance are the regencies).
//!
//! Invariants: at most one WRITE per regency; `bound` only ever rises in regency; its value is held.

use crate::message::Message;
use crate::proof::Claim;
use crate::stopdata::Votes;
use crate::{Decision, InstanceNumber, Proposal, Regency};
use std::collections::BTreeMap;
use std::sync::Arc;
use steeldb_types::{Digest, ReplicaId, ViewNumber};
use steeldb_wire::auth::Signature;

/// An instance in flight.
pub(crate) struct Instance {
    pub(crate) number: InstanceNumber,
    /// The proposal of the latest regency that had an acceptable one.
    pub(crate) held: Option<Held>,
    /// By replica, the WRITE and the ACCEPT of the highest regency.
    pub(crate) writes: BTreeMap<ReplicaId, Claim>,
    pub(crate) accepts: BTreeMap<ReplicaId, Accept>,
    /// VP-Consensus' writeset: by value, the latest regency this replica wrote it in.
    pub(crate) written: BTreeMap<Digest, Regency>,
    /// VP-Consensus' (valts, val): set when a WRITE quorum was seen, which is when the ACCEPT goes out.
    pub(crate) bound: Option<(Claim, Arc<Proposal>)>,
    /// Set while it waits for those before it to be decided, too.
    pub(crate) decided: Option<Arc<Decision>>,
}

/// A proposal found acceptable in a regency.
pub(crate) struct Held {
    pub(crate) claim: Claim,
    pub(crate) proposal: Arc<Proposal>,
    /// Whether this replica's WRITE went out; not while the proposal's timestamp is too far from its clock.
    pub(crate) written: bool,
}

pub(crate) struct Accept {
    pub(crate) claim: Claim,
    pub(crate) signature: Signature,
    pub(crate) verified: bool,
}

impl Instance {
    pub(crate) fn new(number: InstanceNumber) -> Instance {
        Instance {
            number,
            held: None,
            writes: BTreeMap::new(),
            accepts: BTreeMap::new(),
            written: BTreeMap::new(),
            bound: None,
            decided: None,
        }
    }

    /// Whether anything was heard of it.
    pub(crate) fn is_running(&self) -> bool {
        self.held.is_some()
            || !self.writes.is_empty()
            || !self.accepts.is_empty()
            || self.bound.is_some()
            || self.decided.is_some()
    }

    /// The proposal accepted in `regency`.
    pub(crate) fn held_in(&self, regency: Regency) -> Option<&Held> {
        self.held.as_ref().filter(|held| held.claim.regency == regency)
    }

    /// It belongs to `view`: forgets what was proposed, voted for and decided in earlier ones. Others' votes go by
    /// themselves as newer ones come.
    pub(crate) fn begin_view(&mut self, view: ViewNumber) {
        self.held.take_if(|held| held.claim.regency.view < view);
        self.bound.take_if(|(claim, _)| claim.regency.view < view);
        self.written.retain(|_, regency| regency.view >= view);
        self.decided.take_if(|decision| decision.proof.view() < view);
    }

    /// The batch that it has, as far as is known in `regency`: decided, or accepted from its leader.
    pub(crate) fn value_in(&self, regency: Regency) -> Option<&Arc<Proposal>> {
        let decided = self.decided.as_ref().map(|decision| &decision.proposal);
        decided.or_else(|| self.held_in(regency).map(|held| &held.proposal))
    }

    /// What this replica wrote in `regency`.
    pub(crate) fn written_in(&self, regency: Regency) -> Option<Digest> {
        self.written.iter().find(|(_, r)| **r == regency).map(|(value, _)| *value)
    }

    /// The batch whose digest is `value`, if it is here.
    pub(crate) fn batch(&self, value: Digest) -> Option<Arc<Proposal>> {
        let held = self.held.as_ref().map(|held| (held.claim, &held.proposal));
        let bound = self.bound.as_ref().map(|(claim, proposal)| (*claim, proposal));
        let found = held.into_iter().chain(bound).find(|(claim, _)| claim.value == value);
        found.map(|(_, proposal)| Arc::clone(proposal))
    }

    pub(crate) fn note_write(&mut self, from: ReplicaId, claim: Claim) {
        let known = self.writes.get(&from);
        if known.is_none_or(|known| known.regency < claim.regency) {
            self.writes.insert(from, claim);
        }
    }

    pub(crate) fn note_accept(&mut self, from: ReplicaId, accept: Accept) {
        let known = self.accepts.get(&from);
        if known.is_none_or(|known| known.claim.regency < accept.claim.regency) {
            self.accepts.insert(from, accept);
        }
    }

    /// Takes note of this replica's own WRITE.
    pub(crate) fn write(&mut self, me: ReplicaId, claim: Claim) {
        let latest = self.written.entry(claim.value).or_insert(claim.regency);
        *latest = (*latest).max(claim.regency);
        if self.written.len() > crate::stopdata::WRITTEN_MAX {
            // The oldest matters least; forgetting one can cost a later leader time, never safety.
            let oldest = self.written.iter().min_by_key(|(_, regency)| **regency).map(|(value, _)| *value);
            oldest.map(|value| self.written.remove(&value));
        }
        self.note_write(me, claim);
    }

    /// Who wrote `claim`.
    pub(crate) fn writers(&self, claim: Claim) -> Vec<ReplicaId> {
        self.writes.iter().filter(|(_, other)| **other == claim).map(|(replica, _)| *replica).collect()
    }

    /// Who accepted `value`, in whatever regencies.
    pub(crate) fn accepters_of(&self, value: Digest) -> Vec<ReplicaId> {
        let of_value = self.accepts.iter().filter(|(_, accept)| accept.claim.value == value);
        of_value.map(|(replica, _)| *replica).collect()
    }

    /// Who accepted `claim`.
    pub(crate) fn accepters(&self, claim: Claim) -> Vec<ReplicaId> {
        let of_claim = self.accepts.iter().filter(|(_, accept)| accept.claim == claim);
        of_claim.map(|(replica, _)| *replica).collect()
    }

    /// What this replica has voted for in a view, for STOPDATA; nothing when it has not.
    pub(crate) fn votes(&self, view: ViewNumber) -> Option<Votes> {
        let of_view = |regency: Regency| regency.view == view;
        let bound = self.bound.as_ref().map(|(claim, _)| *claim).filter(|claim| of_view(claim.regency));
        let written = self.written.iter().filter(|(_, regency)| of_view(**regency));
        let written = written.map(|(value, regency)| Claim { regency: *regency, value: *value });
        let votes = Votes { instance: self.number, bound, written: written.collect() };
        (bound.is_some() || !votes.written.is_empty()).then_some(votes)
    }

    /// This replica's last WRITE and ACCEPT, to be sent again while it is in `regency`.
    pub(crate) fn own_votes(&self, me: ReplicaId, regency: Regency) -> Vec<Message> {
        let instance = self.number;
        let write = self.writes.get(&me).filter(|claim| claim.regency == regency);
        let write = write.map(|claim| Message::Write { instance, claim: *claim });
        let accept = self.accepts.get(&me).map(|accept| Message::Accept {
            instance,
            claim: accept.claim,
            signature: accept.signature,
        });
        write.into_iter().chain(accept).collect()
    }
}
