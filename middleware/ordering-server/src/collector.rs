//! What a client believes. Sans-IO.
//!
//! - **Tentative replies** of weight Q_v that agree in instance, regency and value, and in what came of the request: each
//!   correct sender has durably seen the WRITE quorum, so together they are an ACCEPT quorum, and nothing else can be
//!   decided (PROTOCOL A7). Replies of different regencies are never added up.
//! - **Final replies** count with the tentative ones of any one claim. If a correct replica is among those that say
//!   final, what it says is decided. If none is, all correct ones of the Q_v have said tentative, of that one claim.
//! - **Final replies alone** are enough from f+1 replicas, since one is correct. But then as few as one correct replica
//!   may have executed the request, and an unordered read of others would miss it. So this holds only where nobody reads
//!   unordered ([`Acceptance`]); else Q_v.
//! - **Of one view alone** are the replies that count: that of the client. Its quorums say nothing of what was decided in
//!   another one.

use crate::message::{Refused, Reply};
use std::collections::BTreeMap;
use steeldb_ordering::{Claim, InstanceNumber, RequestId};
use steeldb_types::{ReplicaId, View, ViewNumber};

/// When final replies alone are believed. One choice for all clients of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Acceptance {
    /// From Q_v replicas: unordered reads see everything that any client was told.
    #[default]
    Quorum,
    /// From replicas that cannot all be faulty. For services that nobody reads unordered.
    Correct,
}

/// What a replica says of a request that it executed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
    /// The batch that it executed ahead, in which regency; nothing: its place in the order is decided.
    pub ahead: Option<(InstanceNumber, Claim)>,
    /// What came of it.
    pub reply: Reply,
    /// The view that the replica is in; of a batch ahead, the view that it is to be decided in.
    pub view: ViewNumber,
}

/// Gathers replies to requests in flight.
pub struct Collector {
    view: View,
    acceptance: Acceptance,
    waiting: BTreeMap<RequestId, Words>,
}

/// What replicas said about one request; each counts once, its last word.
#[derive(Default)]
struct Words {
    replies: Vec<(ReplicaId, Said)>,
    refusals: Vec<(ReplicaId, Refused)>,
}

/// What became of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Executed; it is no longer waited for.
    Executed {
        /// What came of it.
        reply: Reply,
        /// Whether that was believed before enough replicas knew the decision.
        ahead: bool,
    },
    /// Refused by a correct replica for good; it is no longer waited for. It may still be executed.
    Refused(Refused),
    /// A correct replica has no room for it now: send it again later.
    Busy,
}

impl Collector {
    /// A collector for the replicas of `view`.
    pub fn new(view: View, acceptance: Acceptance) -> Collector {
        Collector { view, acceptance, waiting: BTreeMap::new() }
    }

    /// The replicas of another view count from now on, and have said nothing yet.
    pub fn set_view(&mut self, view: View) {
        self.view = view;
        for words in self.waiting.values_mut() {
            *words = Words::default();
        }
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
    pub fn executed(&mut self, from: ReplicaId, id: RequestId, said: Said) -> Option<Outcome> {
        if !self.view.contains(from) || said.view != self.view.number() {
            return None;
        }
        let words = self.waiting.get_mut(&id)?;
        words.replies.retain(|(replica, _)| *replica != from);
        words.replies.push((from, said));
        let (_, newest) = words.replies.last()?;
        let alike = || words.replies.iter().filter(|(_, said)| said.reply == newest.reply);
        let decided = is_decided(&self.view, self.acceptance, alike);
        if !decided && !is_bound(&self.view, alike) {
            return None;
        }
        let (_, said) = self.waiting.remove(&id)?.replies.pop()?;
        Some(Outcome::Executed { reply: said.reply, ahead: !decided })
    }

    /// A replica refused a request.
    pub fn refused(&mut self, from: ReplicaId, id: RequestId, reason: Refused) -> Option<Outcome> {
        if !self.view.contains(from) {
            return None;
        }
        let words = self.waiting.get_mut(&id)?;
        words.refusals.retain(|(replica, _)| *replica != from);
        words.refusals.push((from, reason));
        let for_good = |why: &Refused| !matches!(why, Refused::Busy | Refused::NotJoined);
        let of = |wanted: &dyn Fn(&Refused) -> bool| -> Vec<ReplicaId> {
            let refusals = words.refusals.iter().filter(|(_, why)| wanted(why));
            refusals.map(|(replica, _)| *replica).collect()
        };
        if self.view.has_correct(of(&for_good)) {
            let mut reasons = self.waiting.remove(&id)?.refusals.into_iter();
            return reasons.find(|(_, why)| for_good(why)).map(|(_, why)| Outcome::Refused(why));
        }
        // A correct replica that is behind may not know yet that the client joined; of a quorum, one does.
        if self.view.is_quorum(of(&|why| *why == Refused::NotJoined)) {
            self.waiting.remove(&id);
            return Some(Outcome::Refused(Refused::NotJoined));
        }
        if self.view.has_correct(of(&|why| *why == Refused::Busy)) {
            words.refusals.retain(|(_, why)| *why != Refused::Busy);
            return Some(Outcome::Busy);
        }
        None
    }
}

/// Whether the final replies among those that are alike are enough.
fn is_decided<'a, I>(view: &View, acceptance: Acceptance, alike: impl Fn() -> I) -> bool
where
    I: Iterator<Item = &'a (ReplicaId, Said)>,
{
    let finals = alike().filter(|(_, said)| said.ahead.is_none()).map(|(replica, _)| *replica);
    match acceptance {
        Acceptance::Quorum => view.is_quorum(finals),
        Acceptance::Correct => view.exceeds_faulty_weight(finals),
    }
}

/// Whether the tentative replies of one claim among those that are alike are enough, with the final ones.
fn is_bound<'a, I>(view: &View, alike: impl Fn() -> I) -> bool
where
    I: Iterator<Item = &'a (ReplicaId, Said)>,
{
    let claims = alike().filter_map(|(_, said)| said.ahead);
    claims.into_iter().any(|claim| {
        let with = alike().filter(|(_, said)| said.ahead.is_none_or(|ahead| ahead == claim));
        view.is_quorum(with.map(|(replica, _)| *replica))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeldb_ordering::Regency;
    use steeldb_types::{ClientId, Digest, Position, SessionId, SessionKey, ViewNumber};

    const ID: RequestId =
        RequestId { session: SessionKey { client: ClientId(1), session: SessionId(1) }, sequence: 1 };

    fn collector(acceptance: Acceptance) -> Collector {
        let mut collector = Collector::new(View::of_size(4).unwrap(), acceptance);
        collector.begin(ID);
        collector
    }

    fn reply(position: u64, result: &str) -> Reply {
        Reply { position: Position(position), result: result.into() }
    }

    fn says(collector: &mut Collector, replica: u16, position: u64, result: &str) -> Option<Outcome> {
        let said = Said { ahead: None, reply: reply(position, result), view: ViewNumber(0) };
        collector.executed(ReplicaId(replica), ID, said)
    }

    fn claims(collector: &mut Collector, replica: u16, regency: (u64, u64), value: u8) -> Option<Outcome> {
        let regency = Regency { view: ViewNumber(regency.0), number: regency.1 };
        let claim = Claim { regency, value: Digest([value; 32]) };
        let view = claim.regency.view;
        let said = Said { ahead: Some((InstanceNumber(5), claim)), reply: reply(7, "yes"), view };
        collector.executed(ReplicaId(replica), ID, said)
    }

    fn yes(ahead: bool) -> Option<Outcome> {
        Some(Outcome::Executed { reply: reply(7, "yes"), ahead })
    }

    #[test]
    fn only_a_quorum_of_equal_replies_is_believed() {
        let mut collector = collector(Acceptance::Quorum);
        assert_eq!(says(&mut collector, 0, 7, "yes"), None);
        assert_eq!(says(&mut collector, 0, 7, "yes"), None, "the same replica again");
        assert_eq!(says(&mut collector, 9, 7, "yes"), None, "a stranger");
        assert_eq!(says(&mut collector, 1, 7, "no"), None, "another result");
        assert_eq!(says(&mut collector, 2, 8, "yes"), None, "another position");
        assert_eq!(says(&mut collector, 3, 7, "yes"), None);
        assert_eq!(says(&mut collector, 2, 7, "yes"), yes(false));
        assert_eq!(says(&mut collector, 1, 7, "yes"), None, "no longer waited for");
    }

    #[test]
    fn where_nobody_reads_unordered_final_replies_of_one_correct_replica_are_enough_and_tentative_ones_are_not()
     {
        let mut collector = collector(Acceptance::Correct);
        assert_eq!(claims(&mut collector, 0, (0, 0), 1), None);
        assert_eq!(claims(&mut collector, 1, (0, 0), 1), None);
        assert_eq!(says(&mut collector, 2, 7, "no"), None);
        assert_eq!(says(&mut collector, 1, 7, "yes"), None);
        assert_eq!(says(&mut collector, 3, 7, "yes"), yes(false));
    }

    #[test]
    fn tentative_replies_of_different_regencies_or_values_are_not_added_up() {
        let mut collector = collector(Acceptance::Quorum);
        assert_eq!(claims(&mut collector, 0, (0, 0), 1), None);
        assert_eq!(claims(&mut collector, 1, (0, 1), 1), None, "another regency");
        assert_eq!(claims(&mut collector, 2, (0, 1), 2), None, "another batch");
        assert_eq!(claims(&mut collector, 3, (0, 1), 1), None);
        // Whoever is in regency 0 comes to regency 1: its word before does not count any more.
        assert_eq!(claims(&mut collector, 0, (0, 1), 1), yes(true));
    }

    #[test]
    fn replies_of_another_view_are_not_believed_nor_those_given_before_the_view_changed() {
        let mut collector = collector(Acceptance::Quorum);
        let of_next = Said { ahead: None, reply: reply(7, "yes"), view: ViewNumber(1) };
        for replica in 0..4 {
            assert_eq!(claims(&mut collector, replica, (1, 0), 1), None);
            assert_eq!(collector.executed(ReplicaId(replica), ID, of_next.clone()), None);
        }
        assert_eq!(says(&mut collector, 0, 7, "yes"), None);
        assert_eq!(says(&mut collector, 1, 7, "yes"), None);
        let members = (0..5).map(ReplicaId).collect();
        let model = View::of_size(4).unwrap().model();
        let next = View::of_members(ViewNumber(1), model, members, 1, vec![], ReplicaId(0)).unwrap();
        collector.set_view(next);
        assert_eq!(says(&mut collector, 2, 7, "yes"), None, "of the view before");
        let outcomes: Vec<_> =
            (0..5).map(|replica| collector.executed(ReplicaId(replica), ID, of_next.clone())).collect();
        assert_eq!(outcomes.into_iter().flatten().next(), yes(false));
    }

    #[test]
    fn a_final_reply_counts_with_the_tentative_ones_of_one_claim() {
        let mut collector = collector(Acceptance::Quorum);
        assert_eq!(claims(&mut collector, 0, (0, 0), 1), None);
        assert_eq!(claims(&mut collector, 1, (0, 1), 1), None);
        assert_eq!(says(&mut collector, 2, 7, "yes"), None, "one and one and one");
        assert_eq!(claims(&mut collector, 3, (0, 1), 1), yes(true));
    }

    #[test]
    fn that_a_client_is_not_joined_is_believed_of_a_quorum() {
        let mut collector = collector(Acceptance::Quorum);
        assert_eq!(collector.refused(ReplicaId(3), ID, Refused::NotJoined), None);
        assert_eq!(collector.refused(ReplicaId(1), ID, Refused::NotJoined), None, "one lies, one is behind");
        let refused = Some(Outcome::Refused(Refused::NotJoined));
        assert_eq!(collector.refused(ReplicaId(2), ID, Refused::NotJoined), refused);
    }

    #[test]
    fn one_replica_alone_can_refuse_nothing() {
        let mut collector = collector(Acceptance::Quorum);
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
