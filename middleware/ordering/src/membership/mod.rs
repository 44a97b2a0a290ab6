//! Who the replicas are, in the current view and in those before. Everything in the core that counts replicas or
//! verifies what they signed asks here.
//!
//! Invariants: views follow each other without gaps, each from a later instance on than the one before; every instance
//! belongs to exactly one view, the last one that begins at it or before.

mod roster;

pub use roster::{Member, Roster, RosterError};

use crate::{InstanceNumber, Proof, Regency};
use std::sync::Arc;
use steeldb_types::{ReplicaId, View, ViewNumber};

/// The views so far.
pub(crate) struct Membership {
    me: ReplicaId,
    /// By number, from the genesis view on: the first instance of each, and its replicas.
    views: Vec<(InstanceNumber, Arc<Roster>)>,
    /// The last of them.
    current: Arc<Roster>,
}

impl Membership {
    pub(crate) fn new(me: ReplicaId, genesis: Roster) -> Membership {
        let current = Arc::new(genesis);
        Membership { me, views: vec![(InstanceNumber(1), Arc::clone(&current))], current }
    }

    /// The views so far, for a checkpoint.
    pub(crate) fn views(&self) -> Vec<(InstanceNumber, Arc<Roster>)> {
        self.views.clone()
    }

    /// Goes on with a checkpoint's views.
    pub(crate) fn restore(&mut self, views: Vec<(InstanceNumber, Arc<Roster>)>) {
        if let Some((_, last)) = views.last() {
            self.current = Arc::clone(last);
            self.views = views;
        }
    }

    /// The current view's replicas.
    pub(crate) fn roster(&self) -> &Arc<Roster> {
        &self.current
    }

    /// The current view.
    pub(crate) fn view(&self) -> &View {
        self.current.view()
    }

    /// Its number.
    pub(crate) fn number(&self) -> ViewNumber {
        self.current.view().number()
    }

    /// The replicas of a view, if it is known.
    pub(crate) fn roster_of(&self, view: ViewNumber) -> Option<&Arc<Roster>> {
        let genesis = self.views.first()?.1.view().number();
        let index = usize::try_from(view.0.checked_sub(genesis.0)?).ok()?;
        self.views.get(index).map(|(_, roster)| roster)
    }

    /// Whether `replica` is of the current view.
    pub(crate) fn contains(&self, replica: ReplicaId) -> bool {
        self.view().contains(replica)
    }

    /// The other replicas of the current view, ascending.
    pub(crate) fn peers(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        let me = self.me;
        self.view().replicas().filter(move |replica| *replica != me)
    }

    /// Checks a proof with the keys of the view it names, which must be the one that its instance belongs to.
    pub(crate) fn verify(&self, proof: &Proof) -> Result<(), String> {
        let roster = self.roster_of(proof.view()).ok_or("the proof is of an unknown view")?;
        if self.view_at(proof.instance) != proof.view() {
            return Err(format!("the proof of {} is of another view than its", proof.instance));
        }
        proof.verify(roster)
    }

    /// The view that an instance belongs to, as far as views are known.
    pub(crate) fn view_at(&self, instance: InstanceNumber) -> ViewNumber {
        let begun = self.views.iter().rev().find(|(first, _)| *first <= instance);
        begun.map_or(self.number(), |(_, roster)| roster.view().number())
    }

    /// The leader of a regency; nothing for one of a view that is not known.
    pub(crate) fn leader(&self, regency: Regency) -> Option<ReplicaId> {
        self.roster_of(regency.view).map(|roster| roster.view().leader(regency.number))
    }
}
