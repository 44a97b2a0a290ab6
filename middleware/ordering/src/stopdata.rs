//! STOPDATA: where a replica stands when it leaves a regency, and what a collection of them allows a new leader.
//!
//! The predicates are VP-Consensus' (Cachin, Yet Another Visit to Paxos, section 4: `sound`, `binds`, `unbound`),
//! with weights for numbers: "more than (n+f)/2" is Q_v, "more than f" is more than F_v. They make signed WRITEs
//! unnecessary. Safety: when a value was decided in regency r, every collection of weight Q_v shares a correct replica
//! with the ACCEPT quorum, so it is not unbound, and no other value can be bound in it.

use crate::membership::Membership;
use crate::proof::Claim;
use crate::{InstanceNumber, Proof, Regency};
use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::{BTreeMap, BTreeSet};
use steeldb_types::{Digest, FaultModel, ReplicaId, View, limits};
use steeldb_wire::auth::{Namespace, SecretKey, Signature};
use steeldb_wire::codec;

/// Values a STOPDATA may list as written; one regency adds at most one.
pub(crate) const WRITTEN_MAX: usize = 1024;

/// Where a replica stands.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct StopData {
    /// Who says so.
    pub replica: ReplicaId,
    /// The regency it has entered: it votes in no lower one any more.
    pub regency: Regency,
    /// Proofs of its last delivered instances, ascending without gaps, as many as may be in flight; nothing before the
    /// first.
    pub last: Vec<Proof>,
    /// Its votes in the instances after that, ascending; one that is missing has none.
    pub votes: Vec<Votes>,
}

/// What a replica has voted for in one instance.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Votes {
    /// Which instance.
    pub instance: InstanceNumber,
    /// The value of the latest regency it saw a WRITE quorum in.
    pub bound: Option<Claim>,
    /// The values it wrote, each with the latest regency it did so in, ascending by value.
    pub written: Vec<Claim>,
}

/// A [`StopData`] with its replica's signature.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct SignedStopData {
    /// What is said.
    pub data: StopData,
    /// Over the data; the regency names the view.
    pub signature: Signature,
}

/// What STOPDATAs of weight Q_v allow the leader to propose.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Selection {
    /// The first instance that may be undecided.
    pub(crate) first: InstanceNumber,
    /// The only value allowed in an instance, from the first on.
    pub(crate) bound: BTreeMap<InstanceNumber, Digest>,
}

/// What a selection allows in one instance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Allowed {
    /// Nothing: it is decided.
    Nothing,
    /// What may have been decided.
    Only(Digest),
    /// An empty batch: an instance after it is bound, and its leader could not know that anything would come before.
    Empty,
    /// Anything valid.
    Any,
}

impl Selection {
    pub(crate) fn allowed(&self, instance: InstanceNumber) -> Allowed {
        match self.bound.get(&instance) {
            _ if instance < self.first => Allowed::Nothing,
            Some(value) => Allowed::Only(*value),
            None if self.bound.last_key_value().is_some_and(|(last, _)| instance < *last) => Allowed::Empty,
            None => Allowed::Any,
        }
    }
}

impl StopData {
    /// The first instance that is not decided where the replica stands.
    pub fn next(&self) -> InstanceNumber {
        self.last.last().map_or(InstanceNumber(0), |proof| proof.instance).next()
    }

    /// The claims of its votes.
    pub fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.votes.iter().flat_map(|votes| votes.written.iter().chain(&votes.bound))
    }

    fn proof_of(&self, instance: InstanceNumber) -> Option<&Proof> {
        self.last.iter().find(|proof| proof.instance == instance)
    }

    fn votes_in(&self, instance: InstanceNumber) -> Option<&Votes> {
        self.votes.iter().find(|votes| votes.instance == instance)
    }

    fn bound_in(&self, instance: InstanceNumber) -> Option<Claim> {
        self.votes_in(instance).and_then(|votes| votes.bound)
    }

    fn is_well_formed(&self) -> bool {
        let (first, last) = (self.next(), self.next().0.saturating_add(limits::WINDOW_MAX as u64));
        self.last.len() <= limits::WINDOW_MAX
            && self.last.is_sorted_by(|a, b| a.instance.next() == b.instance)
            && self.votes.is_sorted_by(|a, b| a.instance < b.instance)
            && self.votes.iter().all(|votes| {
                first <= votes.instance
                    && votes.instance.0 < last
                    && votes.written.len() <= WRITTEN_MAX
                    && votes.written.is_sorted_by(|a, b| a.value < b.value)
            })
    }

    pub(crate) fn sign(self, key: &SecretKey) -> SignedStopData {
        let signature = key.sign(Namespace::StopData, &codec::encode(&self));
        SignedStopData { data: self, signature }
    }
}

impl SignedStopData {
    /// Checks form, signature and proof. `proofs_known` remembers proofs found good, since many will be the same.
    pub(crate) fn verify(
        &self,
        membership: &Membership,
        proofs_known: &mut BTreeSet<Vec<u8>>,
    ) -> Result<(), String> {
        let data = &self.data;
        let replica = data.replica;
        let view = data.regency.view;
        let key = membership
            .roster_of(view)
            .and_then(|roster| roster.key(replica))
            .ok_or_else(|| format!("STOPDATA of unknown replica {replica}"))?;
        if !data.is_well_formed() {
            return Err(format!("STOPDATA of {replica}: its votes or proofs are too many or not ascending"));
        }
        if data.claims().any(|claim| claim.regency.view != view || claim.regency >= data.regency) {
            return Err(format!("STOPDATA of {replica} for {} has votes of others", data.regency));
        }
        if membership.first_of(view).is_none_or(|first| data.next() < first) {
            return Err(format!("STOPDATA of {replica} from before its view"));
        }
        key.verify(Namespace::StopData, &codec::encode(data), &self.signature)
            .map_err(|error| format!("STOPDATA of {replica}: {error}"))?;
        for proof in &data.last {
            let encoded = codec::encode(proof);
            if !proofs_known.contains(&encoded) {
                membership.verify(proof).map_err(|error| format!("STOPDATA of {replica}: {error}"))?;
                proofs_known.insert(encoded);
            }
        }
        Ok(())
    }
}

/// What a collection allows, or nothing while it is too small or not `sound` in some instance: then the leader waits for
/// more. The predicates are evaluated in each instance by itself.
///
/// Instances may be decided in any order, so a proof of one says nothing of those before it in its window. It says that
/// correct replicas accepted in it, so that they had delivered what is `window` instances before. Of what lies between,
/// each instance has a proof of its own in the collection, or counts as undecided; replicas that have delivered it and
/// show no proof are then not counted in it, for they say nothing of their votes there.
///
/// `begun` is the view's first instance: whoever is in the view has delivered all before it. `believed` is a planted
/// bug: one replica's word binds.
pub(crate) fn select(
    view: &View,
    begun: InstanceNumber,
    window: usize,
    collected: &[&StopData],
    believed: bool,
) -> Option<Selection> {
    if !view.is_quorum(collected.iter().map(|data| data.replica)) {
        return None;
    }
    let next = collected.iter().map(|data| data.next()).max()?;
    let reach = InstanceNumber(next.0.saturating_sub(window as u64).max(begun.0));
    let voted = collected.iter().flat_map(|data| data.votes.iter().map(|votes| votes.instance));
    let unsure: BTreeSet<InstanceNumber> =
        (reach.0..next.0).map(InstanceNumber).chain(voted.filter(|instance| *instance >= next)).collect();
    let (mut first, mut bound) = (next, BTreeMap::new());
    for instance in unsure {
        if let Some(proof) = collected.iter().find_map(|data| data.proof_of(instance)) {
            bound.insert(instance, proof.claim.value);
            continue;
        }
        first = first.min(instance);
        let undecided: Vec<&StopData> =
            collected.iter().filter(|data| data.next() <= instance).copied().collect();
        if let Some(value) = select_in(view, &undecided, instance, believed)? {
            bound.insert(instance, value);
        }
    }
    let bound = bound.split_off(&first);
    Some(Selection { first, bound })
}

/// The value that an instance is bound to, or that it is not; nothing while neither can be told.
fn select_in(
    view: &View,
    collected: &[&StopData],
    instance: InstanceNumber,
    believed: bool,
) -> Option<Option<Digest>> {
    let mut candidates: Vec<Claim> = collected.iter().filter_map(|data| data.bound_in(instance)).collect();
    candidates.sort();
    candidates.dedup();
    for claim in candidates.into_iter().rev() {
        let not_against = collected.iter().filter(|data| {
            data.bound_in(instance).is_none_or(|bound| bound.regency < claim.regency || bound == claim)
        });
        let quorum_highest = view.is_quorum(not_against.map(|data| data.replica));
        let writers = collected.iter().filter(|data| {
            data.votes_in(instance).is_some_and(|votes| {
                votes.written.iter().any(|w| w.value == claim.value && w.regency >= claim.regency)
            })
        });
        // Replicas that only crash are believed.
        let certified = believed
            || view.model() == FaultModel::Crash
            || view.exceeds_faulty_weight(writers.map(|data| data.replica));
        if quorum_highest && certified {
            return Some(Some(claim.value));
        }
    }
    let free = collected.iter().filter(|data| data.bound_in(instance).is_none());
    let unbound = view.is_quorum(free.map(|data| data.replica));
    unbound.then_some(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Digest = Digest([1; 32]);
    const B: Digest = Digest([2; 32]);

    fn data(replica: u16, bound: Option<(u64, Digest)>, written: &[(u64, Digest)]) -> StopData {
        let claim = |(regency, value): (u64, Digest)| Claim { regency: Regency::new(0, regency), value };
        StopData {
            replica: ReplicaId(replica),
            regency: Regency::new(0, 9),
            last: Vec::new(),
            votes: vec![Votes {
                instance: InstanceNumber(1),
                bound: bound.map(claim),
                written: written.iter().copied().map(claim).collect(),
            }],
        }
    }

    /// The same votes, in another instance.
    fn in_instance(instance: u64, mut data: StopData) -> StopData {
        data.votes[0].instance = InstanceNumber(instance);
        data
    }

    fn bound(collected: &[StopData]) -> Option<Option<Digest>> {
        let view = View::of_size(4).unwrap();
        let selection = select(&view, InstanceNumber(1), 1, &collected.iter().collect::<Vec<_>>(), false)?;
        Some(selection.bound.get(&InstanceNumber(1)).copied())
    }

    #[test]
    fn without_votes_the_leader_is_free() {
        assert_eq!(
            bound(&[data(0, None, &[]), data(1, None, &[(1, A)]), data(2, None, &[(1, B)])]),
            Some(None)
        );
    }

    #[test]
    fn too_few_allow_nothing() {
        assert_eq!(bound(&[data(0, None, &[]), data(1, None, &[])]), None);
        assert_eq!(bound(&[data(0, None, &[]), data(1, None, &[]), data(1, None, &[])]), None);
    }

    #[test]
    fn a_write_quorum_seen_by_one_binds_when_a_correct_one_wrote_it() {
        let collected = [data(0, Some((1, A)), &[(1, A)]), data(1, None, &[(1, A)]), data(2, None, &[])];
        assert_eq!(bound(&collected), Some(Some(A)));
    }

    #[test]
    fn a_lie_binds_nothing_and_the_leader_waits_for_the_fourth() {
        let lie = data(0, Some((5, B)), &[(5, B)]);
        let mut collected = vec![lie, data(1, None, &[(1, A)]), data(2, None, &[])];
        assert_eq!(bound(&collected), None);
        collected.push(data(3, None, &[]));
        assert_eq!(bound(&collected), Some(None));
    }

    #[test]
    fn the_latest_regency_wins() {
        let collected = [
            data(0, Some((1, A)), &[(1, A)]),
            data(1, Some((2, B)), &[(1, A), (2, B)]),
            data(2, None, &[(2, B)]),
        ];
        assert_eq!(bound(&collected), Some(Some(B)));
    }

    #[test]
    fn a_decided_value_survives_a_lie_about_the_same_regency() {
        // A was decided in regency 1 by 0, 1 and 2; 3 lies.
        let collected = [
            data(0, Some((1, A)), &[(1, A)]),
            data(1, Some((1, A)), &[(1, A)]),
            data(3, Some((1, B)), &[(1, B)]),
        ];
        // Two claims of A and one of B: not sound yet, and never B.
        assert_eq!(bound(&collected), None);
    }

    fn selection(window: usize, collected: &[StopData]) -> Option<Selection> {
        select(
            &View::of_size(4).unwrap(),
            InstanceNumber(1),
            window,
            &collected.iter().collect::<Vec<_>>(),
            false,
        )
    }

    #[test]
    fn each_instance_is_selected_by_itself_and_a_gap_before_a_bound_one_stays_empty() {
        let collected = [
            in_instance(2, data(0, Some((1, A)), &[(1, A)])),
            in_instance(2, data(1, None, &[(1, A)])),
            data(2, None, &[(1, B)]),
        ];
        let selection = selection(4, &collected).unwrap();
        let allowed = [1, 2, 3].map(|instance| selection.allowed(InstanceNumber(instance)));
        assert_eq!(allowed, [Allowed::Empty, Allowed::Only(A), Allowed::Any]);
    }

    fn proof(instance: u64, value: Digest) -> Proof {
        let claim = Claim { regency: Regency::new(0, 1), value };
        Proof { instance: InstanceNumber(instance), claim, accepts: vec![] }
    }

    fn decided(replica: u16, last: Vec<Proof>) -> StopData {
        StopData { last, votes: vec![], ..data(replica, None, &[]) }
    }

    #[test]
    fn a_proof_says_nothing_of_the_instances_before_it_in_its_window() {
        let mut collected = vec![
            decided(0, vec![proof(3, B)]),
            in_instance(2, data(1, Some((1, A)), &[(1, A)])),
            in_instance(2, data(2, None, &[(1, A)])),
        ];
        // Who has delivered instance 2 and does not prove it is not counted there: two are too few.
        assert_eq!(selection(3, &collected), None);
        collected.push(in_instance(2, data(3, None, &[])));
        let expected = BTreeMap::from([(InstanceNumber(2), A), (InstanceNumber(3), B)]);
        assert_eq!(selection(3, &collected), Some(Selection { first: InstanceNumber(1), bound: expected }));
        // One after the other, the proof says it all.
        let next = Selection { first: InstanceNumber(4), bound: BTreeMap::new() };
        assert_eq!(selection(1, &collected), Some(next.clone()));
        // So it does with those before it.
        collected[0] = decided(0, vec![proof(1, A), proof(2, A), proof(3, B)]);
        assert_eq!(selection(3, &collected), Some(next));
    }

    #[test]
    fn write_quorums_of_different_regencies_bind_nothing_together() {
        // Replica 0 saw A's quorum in regency 1, another saw A's in regency 2 and is not heard: replica 3 lies with
        // replica 2, which was told B in regency 2. Why tentative replies count within one regency only.
        let collected =
            [data(0, Some((1, A)), &[(2, A)]), data(2, None, &[(2, B)]), data(3, Some((2, B)), &[(2, B)])];
        assert_eq!(bound(&collected), Some(Some(B)));
    }
}
