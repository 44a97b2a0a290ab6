//! The chain of views: each next one is certified by the decision that contains its change, made in the view before. So
//! whoever knows the genesis view can follow the chain, and verify any decision, by signatures alone.

use super::{Change, Roster};
use crate::{Decision, InstanceNumber, Proof, Regency, Request};
use std::collections::BTreeMap;
use std::sync::Arc;
use steeldb_types::{ReplicaId, ViewNumber};

/// The views from the genesis view to the newest known one.
///
/// Invariants: views follow each other without gaps, each from a later instance on than the one before; every instance
/// belongs to exactly one view, the last one that begins at it or before.
#[derive(Clone, Debug)]
pub struct ViewChain {
    /// By number, from the genesis view on.
    views: Vec<Link>,
}

#[derive(Clone, Debug)]
struct Link {
    /// The first instance that belongs to the view.
    first: InstanceNumber,
    roster: Arc<Roster>,
    /// The decision that made it; none for the genesis view.
    certificate: Option<Arc<Decision>>,
}

impl ViewChain {
    /// The chain that begins with `genesis`, which is trusted.
    pub fn new(genesis: Roster) -> ViewChain {
        let link = Link { first: InstanceNumber(1), roster: Arc::new(genesis), certificate: None };
        ViewChain { views: vec![link] }
    }

    /// The newest view's replicas.
    pub fn roster(&self) -> &Arc<Roster> {
        &self.last().roster
    }

    /// The first instance of the newest view.
    pub fn first(&self) -> InstanceNumber {
        self.last().first
    }

    /// The replicas of a view, if it is known.
    pub fn roster_of(&self, view: ViewNumber) -> Option<&Arc<Roster>> {
        self.link(view).map(|link| &link.roster)
    }

    /// The first instance of a view, if it is known.
    pub fn first_of(&self, view: ViewNumber) -> Option<InstanceNumber> {
        self.link(view).map(|link| link.first)
    }

    /// The view that this very request made, if it made one: a change that comes again is no refused one.
    pub fn made_by(&self, request: &Request) -> Option<ViewNumber> {
        let made = |link: &&Link| {
            let requests = link.certificate.iter().flat_map(|decision| &decision.proposal.requests);
            requests.into_iter().any(|other| **other == *request)
        };
        self.views.iter().find(made).map(|link| link.roster.view().number())
    }

    /// The view that an instance belongs to, as far as views are known.
    pub fn view_at(&self, instance: InstanceNumber) -> ViewNumber {
        let begun = self.views.iter().rev().find(|link| link.first <= instance);
        begun.unwrap_or(&self.views[0]).roster.view().number()
    }

    /// The leader of a regency; nothing for one of a view that is not known.
    pub fn leader(&self, regency: Regency) -> Option<ReplicaId> {
        self.roster_of(regency.view).map(|roster| roster.view().leader(regency.number))
    }

    /// The decisions that made the views after `known`, in their order: what [`ViewChain::follow`] takes. At most `max`;
    /// none when this replica does not have the first of them.
    pub fn certificates(&self, known: ViewNumber, max: usize) -> Vec<Arc<Decision>> {
        let later = self.views.iter().filter(|link| link.roster.view().number() > known);
        later.map_while(|link| link.certificate.clone()).take(max).collect()
    }

    /// The decisions that made the views up to `last`, as far as this replica has them.
    pub(crate) fn certificates_upto(&self, last: ViewNumber) -> Vec<Arc<Decision>> {
        let earlier = self.views.iter().filter(|link| link.roster.view().number() <= last);
        earlier.filter_map(|link| link.certificate.clone()).collect()
    }

    /// The views, each with its first instance.
    pub(crate) fn views(&self) -> Vec<(InstanceNumber, Arc<Roster>)> {
        self.views.iter().map(|link| (link.first, Arc::clone(&link.roster))).collect()
    }

    /// Goes on with the views of a checkpoint, which is certified, if there are more of them.
    pub(crate) fn restore(&mut self, views: Vec<(InstanceNumber, Arc<Roster>)>, made_by: Vec<Arc<Decision>>) {
        let mut certificates: BTreeMap<InstanceNumber, Arc<Decision>> =
            made_by.into_iter().map(|decision| (decision.instance().next(), decision)).collect();
        for (first, roster) in views.into_iter().skip(self.views.len()) {
            let certificate = certificates.remove(&first);
            self.views.push(Link { first, roster, certificate });
        }
    }

    /// Checks a proof with the keys of the view it names, which must be the one that its instance belongs to.
    ///
    /// # Errors
    /// Says what is wrong; whoever showed the proof is at fault, unless the chain is shorter than the prover's.
    pub fn verify(&self, proof: &Proof) -> Result<(), String> {
        let roster = self.roster_of(proof.view()).ok_or("the proof is of an unknown view")?;
        if self.view_at(proof.instance) != proof.view() {
            return Err(format!("the proof of {} is of another view than its", proof.instance));
        }
        proof.verify(roster)
    }

    /// Takes the next view from the decision that makes it, after checking its proof. False when the chain has it.
    ///
    /// # Errors
    /// Says what is wrong; whoever showed the decision is at fault.
    pub fn follow(&mut self, decision: &Arc<Decision>) -> Result<bool, String> {
        let instance = decision.instance();
        if instance < self.first() && self.views.iter().any(|link| link.first == instance.next()) {
            return Ok(false);
        }
        if instance < self.first() {
            return Err(format!("{instance} made no view"));
        }
        decision.verify(self.roster())?;
        match self.take(decision, false)? {
            true => Ok(true),
            false => Err(format!("{instance} changes no view")),
        }
    }

    /// Takes the next view, if the decision of an instance makes one: it is verified already. `replays` plants a bug.
    pub(crate) fn take(&mut self, decision: &Arc<Decision>, replays: bool) -> Result<bool, String> {
        // A change is alone in its batch: so its decision is a short certificate, and shows all there is to show.
        let [request] = &decision.proposal.requests[..] else { return Ok(false) };
        let Request::Membership { payload, .. } = &**request else { return Ok(false) };
        let mut change = Change::decode(payload).map_err(|error| error.to_string())?;
        if replays {
            (change.from, change.of) = (self.roster().view().number(), self.roster().digest());
        }
        let roster = self.roster().changed(&change).map_err(|error| error.to_string())?;
        self.views.push(Link {
            first: decision.instance().next(),
            roster: Arc::new(roster),
            certificate: Some(Arc::clone(decision)),
        });
        Ok(true)
    }

    fn last(&self) -> &Link {
        // Never empty: it begins with the genesis view.
        &self.views[self.views.len() - 1]
    }

    fn link(&self, view: ViewNumber) -> Option<&Link> {
        let genesis = self.views.first()?.roster.view().number();
        self.views.get(usize::try_from(view.0.checked_sub(genesis.0)?).ok()?)
    }
}
