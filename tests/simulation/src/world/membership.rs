//! An administrator who changes the membership, one step at a time.

use super::World;
use rand::Rng;
use rand::seq::IndexedRandom;
use std::sync::Arc;
use steeldb_ordering::{Change, Core, Joining, Roster};
use steeldb_types::ReplicaId;
use steeldb_wire::auth::SecretKey;

/// How likely a replica hears of a change.
const HEARS: f64 = 0.8;

pub(super) fn administrator() -> SecretKey {
    SecretKey::from_seed(&[99; 32])
}

impl World<'_> {
    /// Asks for some change of the newest view that a correct replica knows, if it is a legal one.
    pub(super) fn change_membership(&mut self) {
        let correct = self.nodes.iter().filter(|node| !node.faulty);
        let rosters = correct.filter_map(|node| node.core.as_ref().map(Core::roster));
        let Some(roster) = rosters.max_by_key(|roster| roster.view().number()).cloned() else { return };
        let Some(change) = self.some_change(&roster) else { return };
        if roster.changed(&change).is_err() {
            return;
        }
        let request = change.signed(&administrator());
        self.note(&format!("an administrator asks for {change:?}"));
        self.history.signed.entry(request.key()).or_default().push(request.clone());
        let request = Arc::new(request);
        for node in 0..self.nodes.len() {
            if self.rng.random_bool(HEARS) {
                self.request(node, &request);
            }
        }
    }

    fn some_change(&mut self, roster: &Roster) -> Option<Change> {
        let (view, next) = (roster.view(), roster.next_id().0);
        let mut change = Change::of(roster);
        let joining = self.history.replica_keys.get(usize::from(next));
        let joining = joining.map(|key| Joining { key: *key, address: format!("r{next}:1") });
        let some = *view.members().choose(&mut self.rng)?;
        match (self.rng.random_range(0..6), joining) {
            (0, _) => change.remove.push(some),
            (1, Some(joining)) => change.add.push(joining),
            (2, Some(joining)) => {
                change.remove.push(some);
                change.add.push(joining);
            }
            (3, _) => {
                let last = view.members().iter().rev().take(view.heavy().len());
                let heavy: Vec<ReplicaId> = last.copied().collect();
                change.heavy = Some(heavy);
            }
            (4, _) => change.move_to.push((some, format!("r{some}:{}", self.rng.random_range(2..9)))),
            _ => change.first_leader = Some(some),
        }
        Some(change)
    }
}
