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
use std::collections::BTreeSet;
use steeldb_types::{Digest, FaultModel, ReplicaId, View};
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
    /// Its last decided instance, proven; nothing before the first decision.
    pub last: Option<Proof>,
    /// In the instance after that: the value of the latest regency it saw a WRITE quorum in.
    pub bound: Option<Claim>,
    /// In that instance: the values it wrote, each with the latest regency it did so in, ascending by value.
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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Selection {
    /// The first instance that may be undecided.
    pub(crate) instance: InstanceNumber,
    /// The only value allowed in it; nothing: the leader is free.
    pub(crate) bound: Option<Digest>,
}

impl StopData {
    /// The instance that `bound` and `written` are about.
    pub fn instance(&self) -> InstanceNumber {
        self.last.as_ref().map_or(InstanceNumber(0), |proof| proof.instance).next()
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
        if data.written.len() > WRITTEN_MAX || !data.written.is_sorted_by(|a, b| a.value < b.value) {
            return Err(format!("STOPDATA of {replica}: the written values are not ascending"));
        }
        if data
            .written
            .iter()
            .chain(&data.bound)
            .any(|claim| claim.regency.view != view || claim.regency >= data.regency)
        {
            return Err(format!("STOPDATA of {replica} for {} has votes of others", data.regency));
        }
        if membership.first_of(view).is_none_or(|first| data.instance() < first) {
            return Err(format!("STOPDATA of {replica} from before its view"));
        }
        key.verify(Namespace::StopData, &codec::encode(data), &self.signature)
            .map_err(|error| format!("STOPDATA of {replica}: {error}"))?;
        if let Some(proof) = &data.last {
            let encoded = codec::encode(proof);
            if !proofs_known.contains(&encoded) {
                membership.verify(proof).map_err(|error| format!("STOPDATA of {replica}: {error}"))?;
                proofs_known.insert(encoded);
            }
        }
        Ok(())
    }
}

/// What a collection allows, or nothing while it is too small or not `sound`: then the leader waits for more.
pub(crate) fn select(view: &View, collected: &[&StopData]) -> Option<Selection> {
    if !view.is_quorum(collected.iter().map(|data| data.replica)) {
        return None;
    }
    let instance = collected.iter().map(|data| data.instance()).max()?;
    // Who has not decided the instance before has not voted in this one.
    let bound_of = |data: &StopData| if data.instance() == instance { data.bound } else { None };
    let mut candidates: Vec<Claim> = collected.iter().filter_map(|data| bound_of(data)).collect();
    candidates.sort();
    candidates.dedup();
    for claim in candidates.into_iter().rev() {
        let not_against = collected.iter().filter(|data| {
            bound_of(data).is_none_or(|bound| bound.regency < claim.regency || bound == claim)
        });
        let quorum_highest = view.is_quorum(not_against.map(|data| data.replica));
        let writers = collected.iter().filter(|data| {
            data.instance() == instance
                && data.written.iter().any(|w| w.value == claim.value && w.regency >= claim.regency)
        });
        // Replicas that only crash are believed.
        let certified =
            view.model() == FaultModel::Crash || view.exceeds_faulty_weight(writers.map(|data| data.replica));
        if quorum_highest && certified {
            return Some(Selection { instance, bound: Some(claim.value) });
        }
    }
    let free = collected.iter().filter(|data| bound_of(data).is_none());
    let unbound = view.is_quorum(free.map(|data| data.replica));
    unbound.then_some(Selection { instance, bound: None })
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
            last: None,
            bound: bound.map(claim),
            written: written.iter().copied().map(claim).collect(),
        }
    }

    fn bound(collected: &[StopData]) -> Option<Option<Digest>> {
        let view = View::of_size(4).unwrap();
        select(&view, &collected.iter().collect::<Vec<_>>()).map(|selection| selection.bound)
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
}
