//! What a client believes: what replicas of weight Q_v say alike. Sans-IO.
//!
//! Q_v rather than f+1, so that the same rule holds for replies given before the decision is final (WHEAT).

use crate::message::Refused;
use std::collections::BTreeMap;
use steeldb_ordering::RequestId;
use steeldb_types::{Position, ReplicaId, View};

/// Gathers replies to requests in flight.
pub struct Collector {
    view: View,
    waiting: BTreeMap<RequestId, Said>,
}

/// What replicas said about one request; each counts once, its last word.
#[derive(Default)]
struct Said {
    replies: Vec<(ReplicaId, Position, Vec<u8>)>,
    refusals: Vec<(ReplicaId, Refused)>,
}

/// What became of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Executed; it is no longer waited for.
    Executed {
        /// Where in the order.
        position: Position,
        /// What the application says.
        result: Vec<u8>,
    },
    /// Refused by a correct replica for good; it is no longer waited for. It may still be executed.
    Refused(Refused),
    /// A correct replica has no room for it now: send it again later.
    Busy,
}

impl Collector {
    /// A collector for the replicas of `view`.
    pub fn new(view: View) -> Collector {
        Collector { view, waiting: BTreeMap::new() }
    }

    /// Waits for `id`.
    pub fn begin(&mut self, id: RequestId) {
        self.waiting.entry(id).or_default();
    }

    /// Waits no longer.
    pub fn forget(&mut self, id: RequestId) {
        self.waiting.remove(&id);
    }

    /// A replica executed a request.
    pub fn executed(
        &mut self,
        from: ReplicaId,
        id: RequestId,
        position: Position,
        result: Vec<u8>,
    ) -> Option<Outcome> {
        if !self.view.contains(from) {
            return None;
        }
        let said = self.waiting.get_mut(&id)?;
        said.replies.retain(|(replica, ..)| *replica != from);
        said.replies.push((from, position, result));
        let (_, _, newest) = said.replies.last()?;
        let alike = said.replies.iter().filter(|(_, at, what)| *at == position && what == newest);
        if !self.view.is_quorum(alike.map(|(replica, ..)| *replica)) {
            return None;
        }
        let result = self.waiting.remove(&id)?.replies.pop()?.2;
        Some(Outcome::Executed { position, result })
    }

    /// A replica refused a request.
    pub fn refused(&mut self, from: ReplicaId, id: RequestId, reason: Refused) -> Option<Outcome> {
        if !self.view.contains(from) {
            return None;
        }
        let said = self.waiting.get_mut(&id)?;
        said.refusals.retain(|(replica, _)| *replica != from);
        said.refusals.push((from, reason));
        let of = |busy: bool| {
            let refusals = said.refusals.iter().filter(move |(_, why)| (*why == Refused::Busy) == busy);
            refusals.map(|(replica, _)| *replica)
        };
        if self.view.has_correct(of(false)) {
            let reasons = self.waiting.remove(&id)?.refusals;
            return reasons
                .into_iter()
                .find(|(_, why)| *why != Refused::Busy)
                .map(|(_, why)| Outcome::Refused(why));
        }
        if self.view.has_correct(of(true)) {
            said.refusals.retain(|(_, why)| *why != Refused::Busy);
            return Some(Outcome::Busy);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeldb_types::{ClientId, SessionId, SessionKey};

    const ID: RequestId =
        RequestId { session: SessionKey { client: ClientId(1), session: SessionId(1) }, sequence: 1 };

    fn collector() -> Collector {
        let mut collector = Collector::new(View::of_size(4).unwrap());
        collector.begin(ID);
        collector
    }

    fn says(collector: &mut Collector, replica: u16, position: u64, result: &str) -> Option<Outcome> {
        collector.executed(ReplicaId(replica), ID, Position(position), result.into())
    }

    #[test]
    fn only_a_quorum_of_equal_replies_is_believed() {
        let mut collector = collector();
        assert_eq!(says(&mut collector, 0, 7, "yes"), None);
        assert_eq!(says(&mut collector, 0, 7, "yes"), None, "the same replica again");
        assert_eq!(says(&mut collector, 9, 7, "yes"), None, "a stranger");
        assert_eq!(says(&mut collector, 1, 7, "no"), None, "another result");
        assert_eq!(says(&mut collector, 2, 8, "yes"), None, "another position");
        assert_eq!(says(&mut collector, 3, 7, "yes"), None);
        let outcome = Outcome::Executed { position: Position(7), result: "yes".into() };
        assert_eq!(says(&mut collector, 2, 7, "yes"), Some(outcome));
        assert_eq!(says(&mut collector, 1, 7, "yes"), None, "no longer waited for");
    }

    #[test]
    fn one_replica_alone_can_refuse_nothing() {
        let mut collector = collector();
        assert_eq!(collector.refused(ReplicaId(3), ID, Refused::Stale), None);
        assert_eq!(collector.refused(ReplicaId(3), ID, Refused::Stale), None);
        assert_eq!(collector.refused(ReplicaId(1), ID, Refused::Busy), None);
        assert_eq!(collector.refused(ReplicaId(2), ID, Refused::Busy), Some(Outcome::Busy));
        assert_eq!(
            collector.refused(ReplicaId(2), ID, Refused::Stale),
            Some(Outcome::Refused(Refused::Stale))
        );
    }
}
