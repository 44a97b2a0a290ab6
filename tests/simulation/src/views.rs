//! Views, worked out anew: who the members of each are, what they weigh, and what is a quorum of them.

use crate::history::History;
use std::collections::{BTreeMap, BTreeSet};
use steeldb_ordering::{Change, InstanceNumber, Request};
use steeldb_types::{FaultModel, ReplicaId, ViewNumber};

/// The views that the deliveries at correct replicas have made.
pub(crate) struct Views {
    model: FaultModel,
    f: u16,
    /// By first instance.
    views: BTreeMap<InstanceNumber, Members>,
}

/// The members of a view.
#[derive(Clone)]
pub(crate) struct Members {
    pub(crate) number: ViewNumber,
    pub(crate) members: BTreeSet<ReplicaId>,
    heavy: BTreeSet<ReplicaId>,
    next_id: u16,
}

impl Views {
    /// Follows the changes of the membership.
    ///
    /// # Errors
    /// One that does not decode.
    pub(crate) fn of(history: &History) -> Result<Views, String> {
        let members = (0..history.n).map(ReplicaId).collect();
        let genesis = Members { number: ViewNumber(0), members, heavy: BTreeSet::new(), next_id: history.n };
        let mut views = Views { model: history.model, f: history.f, views: BTreeMap::new() };
        let mut last = views.weighted(genesis, None);
        views.views.insert(InstanceNumber(1), last.clone());
        let mut changes = BTreeMap::new();
        for observed in &history.observed {
            if let [(_, request)] = &observed.delivery.requests[..]
                && let Request::Membership { payload, .. } = &**request
            {
                changes.entry(observed.delivery.instance).or_insert(payload);
            }
        }
        for (instance, payload) in changes {
            let change = Change::decode(payload).map_err(|error| error.to_string())?;
            last.number = ViewNumber(last.number.0 + 1);
            last.members.retain(|replica| !change.remove.contains(replica));
            for _ in &change.add {
                last.members.insert(ReplicaId(last.next_id));
                last.next_id += 1;
            }
            last = views.weighted(last, change.heavy.map(|heavy| heavy.into_iter().collect()));
            views.views.insert(instance.next(), last.clone());
        }
        Ok(views)
    }

    /// V_max goes to those that the change names, else to those that had it, else to the first ones.
    fn weighted(&self, mut view: Members, named: Option<BTreeSet<ReplicaId>>) -> Members {
        let (least, count) = match self.model {
            FaultModel::Byzantine => (3 * self.f + 1, 2 * self.f),
            FaultModel::Crash => (2 * self.f + 1, self.f),
        };
        let wanted = named.unwrap_or_else(|| view.heavy.clone());
        let fits = wanted.len() == usize::from(count) && wanted.is_subset(&view.members);
        view.heavy = match view.members.len() > usize::from(least) {
            false => BTreeSet::new(),
            true if fits => wanted,
            true => view.members.iter().copied().take(count.into()).collect(),
        };
        view
    }

    /// The view that an instance belongs to.
    pub(crate) fn at(&self, instance: InstanceNumber) -> Option<&Members> {
        self.views.range(..=instance).next_back().map(|(_, view)| view)
    }

    /// The newest view.
    pub(crate) fn newest(&self) -> Option<&Members> {
        self.views.last_key_value().map(|(_, view)| view)
    }

    /// Whether replicas are a quorum of a view. In units of 1/f, V_min is f and V_max f + spare; F_v is f times the
    /// largest weight, and a quorum 2 F_v + 1, in the crash model F_v + 1.
    pub(crate) fn is_quorum(&self, view: &Members, replicas: &BTreeSet<ReplicaId>) -> bool {
        let (f, n) = (self.f, view.members.len() as u16);
        let spare = match self.model {
            FaultModel::Byzantine => n.saturating_sub(3 * f + 1),
            FaultModel::Crash => n.saturating_sub(2 * f + 1),
        };
        let weigh = |replica: &ReplicaId| if view.heavy.contains(replica) { f + spare } else { f };
        let weight: u16 = replicas.intersection(&view.members).map(weigh).sum();
        let faulty = f * if spare > 0 { f + spare } else { f };
        let needed = match self.model {
            FaultModel::Byzantine => 2 * faulty + f,
            FaultModel::Crash => faulty + f,
        };
        weight >= needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quorum(model: FaultModel, f: u16, n: u16) -> impl Fn(&[u16]) -> bool {
        let views = Views { model, f, views: BTreeMap::new() };
        let members = (0..n).map(ReplicaId).collect();
        let genesis = Members { number: ViewNumber(0), members, heavy: BTreeSet::new(), next_id: n };
        let genesis = views.weighted(genesis, None);
        move |replicas| views.is_quorum(&genesis, &replicas.iter().copied().map(ReplicaId).collect())
    }

    #[test]
    fn quorums_are_the_papers() {
        let four = quorum(FaultModel::Byzantine, 1, 4);
        assert!(four(&[1, 2, 3]) && !four(&[0, 1]) && !four(&[0, 1, 7]));
        // WHEAT's five: the first two weigh 2, the others 1, and a quorum 5.
        let five = quorum(FaultModel::Byzantine, 1, 5);
        assert!(five(&[0, 1, 2]) && five(&[0, 2, 3, 4]) && !five(&[0, 2, 3]) && !five(&[2, 3, 4]));
        let seven = quorum(FaultModel::Byzantine, 2, 7);
        assert!(seven(&[0, 1, 2, 3, 4]) && !seven(&[0, 1, 2, 3]));
        let ten = quorum(FaultModel::Byzantine, 3, 10);
        assert!(ten(&[0, 1, 2, 3, 4, 5, 9]) && !ten(&[0, 1, 2, 3, 4, 5]));
        let three = quorum(FaultModel::Crash, 1, 3);
        assert!(three(&[0, 2]) && !three(&[0]));
        let five = quorum(FaultModel::Crash, 2, 5);
        assert!(five(&[0, 2, 4]) && !five(&[0, 4]));
    }
}
