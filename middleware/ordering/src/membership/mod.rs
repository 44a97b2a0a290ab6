//! Who the replicas are, in the current view and in those before. Everything in the core that counts replicas or
//! verifies what they signed asks here.

mod chain;
mod change;
mod roster;

pub use chain::ViewChain;
pub(crate) use change::verify_administrator;
pub use change::{Change, ChangeError, Joining};
pub use roster::{Member, Roster, RosterError};

use crate::{Decision, InstanceNumber, Proof, Regency};
use std::sync::Arc;
use steeldb_types::{ReplicaId, View, ViewNumber};
use steeldb_wire::auth::PublicKey;

/// The views so far, as replica `me` sees them.
pub(crate) struct Membership {
    me: ReplicaId,
    key: PublicKey,
    chain: ViewChain,
}

impl Membership {
    pub(crate) fn new(me: ReplicaId, key: PublicKey, genesis: Roster) -> Membership {
        Membership { me, key, chain: ViewChain::new(genesis) }
    }

    pub(crate) fn chain(&self) -> &ViewChain {
        &self.chain
    }

    /// The views so far, for a checkpoint.
    pub(crate) fn views(&self) -> Vec<(InstanceNumber, Arc<Roster>)> {
        self.chain.views()
    }

    /// Goes on with a checkpoint's views, if there are more of them, and the decisions that made them, as far as known.
    pub(crate) fn restore(&mut self, views: Vec<(InstanceNumber, Arc<Roster>)>, made_by: Vec<Arc<Decision>>) {
        self.chain.restore(views, made_by);
    }

    /// The current view's replicas.
    pub(crate) fn roster(&self) -> &Arc<Roster> {
        self.chain.roster()
    }

    /// The current view.
    pub(crate) fn view(&self) -> &View {
        self.roster().view()
    }

    /// Its number.
    pub(crate) fn number(&self) -> ViewNumber {
        self.view().number()
    }

    /// The replicas of a view, if it is known.
    pub(crate) fn roster_of(&self, view: ViewNumber) -> Option<&Arc<Roster>> {
        self.chain.roster_of(view)
    }

    /// Whether `replica` is of the current view.
    pub(crate) fn contains(&self, replica: ReplicaId) -> bool {
        self.view().contains(replica)
    }

    /// Whether this replica is: one that was removed, or has yet to join, does not vote.
    pub(crate) fn votes(&self) -> bool {
        self.roster().key(self.me) == Some(&self.key)
    }

    /// Whether this replica is none of the views known: it is to join.
    pub(crate) fn is_joining(&self) -> bool {
        self.me >= self.roster().next_id()
    }

    /// The other replicas of the current view, ascending.
    pub(crate) fn peers(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        let me = self.me;
        self.view().replicas().filter(move |replica| *replica != me)
    }

    /// The leader of a regency; nothing for one of a view that is not known.
    pub(crate) fn leader(&self, regency: Regency) -> Option<ReplicaId> {
        self.chain.leader(regency)
    }

    /// The first instance of a view, if it is known.
    pub(crate) fn first_of(&self, view: ViewNumber) -> Option<InstanceNumber> {
        self.chain.first_of(view)
    }

    /// Checks a proof with the keys of the view that its instance belongs to.
    pub(crate) fn verify(&self, proof: &Proof) -> Result<(), String> {
        self.chain.verify(proof)
    }

    /// Takes the next view, if a decision that was verified makes one.
    pub(crate) fn take(&mut self, decision: &Arc<Decision>, replays: bool) -> Result<bool, String> {
        self.chain.take(decision, replays)
    }
}
