//! Views: who the replicas are and what makes a quorum. WHEAT's weighted quorums (SRDS 2015, section 4); equal
//! weights are the case Δ = 0.
//!
//! Invariants, for every view that [`View::new`] accepts:
//! - two quorums share weight F_v + 1, more than any f replicas have, so they share a correct replica (Byzantine);
//! - all replicas but any f of them together have a quorum, so f silent replicas never stop progress.

use crate::ReplicaId;
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

/// What faulty replicas may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultModel {
    /// Anything: n = 3f + 1 + Δ.
    Byzantine,
    /// Only stop: n = 2f + 1 + Δ.
    Crash,
}

/// A voting weight in units of 1/f, so that WHEAT's V_max = 1 + Δ/f stays a whole number: f + Δ against f.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Weight(u64);

/// Counts views from 0; each membership change makes the next one.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, BorshSerialize, BorshDeserialize,
)]
pub struct ViewNumber(pub u64);

/// The replicas of a configuration and their weights.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize)]
pub struct View {
    number: ViewNumber,
    model: FaultModel,
    f: u16,
    /// Ascending. Numbers are never used again, so that there may be gaps.
    members: Vec<ReplicaId>,
    /// The replicas with weight V_max, ascending; empty when all weigh the same (Δ = 0).
    heavy: Vec<ReplicaId>,
    /// The leader of the view's regency 0.
    first_leader: ReplicaId,
}

/// Why a view cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ViewError {
    /// f must be at least 1.
    #[error("f must be at least 1: a cluster that tolerates no fault needs no replication")]
    NoFault,
    /// Fewer replicas than the fault model needs.
    #[error("{n} replicas cannot tolerate f = {f} faults: at least {needed} are needed")]
    TooFewReplicas {
        /// Replicas given.
        n: u16,
        /// Faults to tolerate.
        f: u16,
        /// Replicas needed.
        needed: u32,
    },
    /// The list of replicas with V_max is not what WHEAT asks for.
    #[error(
        "with {spare} spare replicas exactly {needed} distinct ones of the {n} carry the weight V_max; got {got:?}"
    )]
    HeavyReplicas {
        /// Δ.
        spare: u16,
        /// 2f (Byzantine) or f (crash).
        needed: u16,
        /// n.
        n: u16,
        /// The list given.
        got: Vec<ReplicaId>,
    },
    /// A replica is listed twice.
    #[error("replica {0} is listed twice")]
    RepeatedReplica(ReplicaId),
    /// More replicas than [`limits::REPLICAS_MAX`](crate::limits::REPLICAS_MAX).
    #[error("{n} replicas are more than a view may have")]
    TooManyReplicas {
        /// Replicas given.
        n: usize,
    },
    /// The first leader is no member.
    #[error("replica {0} cannot lead a view that it is not in")]
    StrangeLeader(ReplicaId),
}

impl View {
    /// A view of replicas 0 to n-1, led first by replica 0. `heavy` as in [`View::of_members`].
    ///
    /// # Errors
    /// [`ViewError`] says what is wrong with n, f or `heavy`.
    pub fn new(
        number: ViewNumber,
        model: FaultModel,
        n: u16,
        f: u16,
        heavy: Vec<ReplicaId>,
    ) -> Result<View, ViewError> {
        View::of_members(number, model, (0..n).map(ReplicaId).collect(), f, heavy, ReplicaId(0))
    }

    /// A view of any members. `heavy` lists the replicas with V_max when n is above the minimum (Δ > 0): 2f of them in
    /// the Byzantine model, f in the crash model; give an empty list to take the first ones.
    ///
    /// # Errors
    /// [`ViewError`] says what is wrong.
    pub fn of_members(
        number: ViewNumber,
        model: FaultModel,
        mut members: Vec<ReplicaId>,
        f: u16,
        mut heavy: Vec<ReplicaId>,
        first_leader: ReplicaId,
    ) -> Result<View, ViewError> {
        if f == 0 {
            return Err(ViewError::NoFault);
        }
        if members.len() > crate::limits::REPLICAS_MAX {
            return Err(ViewError::TooManyReplicas { n: members.len() });
        }
        let n = members.len() as u16;
        members.sort();
        if let Some(twice) = members.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ViewError::RepeatedReplica(twice[0]));
        }
        let needed = match model {
            FaultModel::Byzantine => 3 * u32::from(f) + 1,
            FaultModel::Crash => 2 * u32::from(f) + 1,
        };
        if u32::from(n) < needed {
            return Err(ViewError::TooFewReplicas { n, f, needed });
        }
        let spare = n - needed as u16;
        let heavy_needed = match (spare, model) {
            (0, _) => 0,
            (_, FaultModel::Byzantine) => 2 * f,
            (_, FaultModel::Crash) => f,
        };
        if heavy.is_empty() {
            heavy = members[..usize::from(heavy_needed)].to_vec();
        }
        let got = heavy.clone();
        heavy.sort();
        heavy.dedup();
        if heavy.len() != got.len()
            || heavy.len() != usize::from(heavy_needed)
            || heavy.iter().any(|replica| members.binary_search(replica).is_err())
        {
            return Err(ViewError::HeavyReplicas { spare, needed: heavy_needed, n, got });
        }
        if members.binary_search(&first_leader).is_err() {
            return Err(ViewError::StrangeLeader(first_leader));
        }
        Ok(View { number, model, f, members, heavy, first_leader })
    }

    /// The Byzantine view 0 of n replicas that tolerates the most faults: f = (n - 1) / 3.
    ///
    /// # Errors
    /// [`ViewError::NoFault`] below four replicas.
    pub fn of_size(n: u16) -> Result<View, ViewError> {
        View::new(ViewNumber(0), FaultModel::Byzantine, n, n.saturating_sub(1) / 3, Vec::new())
    }

    /// Which view.
    pub fn number(&self) -> ViewNumber {
        self.number
    }

    /// The fault model.
    pub fn model(&self) -> FaultModel {
        self.model
    }

    /// How many replicas.
    pub fn n(&self) -> u16 {
        // At most REPLICAS_MAX.
        self.members.len() as u16
    }

    /// How many of them may be faulty.
    pub fn f(&self) -> u16 {
        self.f
    }

    /// Δ: replicas above the fault model's minimum.
    pub fn spare(&self) -> u16 {
        match self.model {
            FaultModel::Byzantine => self.n() - 3 * self.f - 1,
            FaultModel::Crash => self.n() - 2 * self.f - 1,
        }
    }

    /// The replicas, ascending.
    pub fn replicas(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        self.members.clone().into_iter()
    }

    /// The replicas, ascending.
    pub fn members(&self) -> &[ReplicaId] {
        &self.members
    }

    /// One above the highest number: how long a table indexed by replica has to be.
    pub fn table_len(&self) -> usize {
        self.members.last().map_or(0, |highest| usize::from(highest.0) + 1)
    }

    /// Whether `replica` is of this view.
    pub fn contains(&self, replica: ReplicaId) -> bool {
        self.members.binary_search(&replica).is_ok()
    }

    /// The replicas with weight V_max; empty when all weigh the same.
    pub fn heavy(&self) -> &[ReplicaId] {
        &self.heavy
    }

    /// A replica's weight; nothing for a stranger.
    pub fn weight(&self, replica: ReplicaId) -> Weight {
        if !self.contains(replica) {
            return Weight(0);
        }
        let light = u64::from(self.f);
        match self.heavy.binary_search(&replica) {
            Ok(_) => Weight(light + u64::from(self.spare())),
            Err(_) => Weight(light),
        }
    }

    /// F_v = f · V_max: the most weight that f replicas can have.
    pub fn fault_weight(&self) -> Weight {
        let light = u64::from(self.f);
        Weight(
            u64::from(self.f) * if self.heavy.is_empty() { light } else { light + u64::from(self.spare()) },
        )
    }

    /// Q_v: the weight of a quorum, 2 F_v + 1 (Byzantine) or F_v + 1 (crash).
    pub fn quorum_weight(&self) -> Weight {
        // "+1" is one V_min, which is f of our units.
        let unit = u64::from(self.f);
        match self.model {
            FaultModel::Byzantine => Weight(2 * self.fault_weight().0 + unit),
            FaultModel::Crash => Weight(self.fault_weight().0 + unit),
        }
    }

    /// Whether distinct `replicas` have the weight Q_v. Repeated and unknown ones count once and not at all.
    pub fn is_quorum(&self, replicas: impl IntoIterator<Item = ReplicaId>) -> bool {
        self.sum(replicas) >= self.quorum_weight()
    }

    /// How many of `replicas`, from the first on, it takes until they are a quorum; nothing: all are none.
    pub fn quorum_within(&self, replicas: &[ReplicaId]) -> Option<usize> {
        let mut weight = 0;
        for (index, replica) in replicas.iter().enumerate() {
            if !replicas[..index].contains(replica) {
                weight += self.weight(*replica).0;
            }
            if Weight(weight) >= self.quorum_weight() {
                return Some(index + 1);
            }
        }
        None
    }

    /// Whether distinct `replicas` have more weight than any f can have (> F_v): one of them is correct.
    pub fn exceeds_faulty_weight(&self, replicas: impl IntoIterator<Item = ReplicaId>) -> bool {
        self.sum(replicas) > self.fault_weight()
    }

    /// Whether `replicas` holds f + 1 distinct members: one of them is correct, whatever the weights.
    pub fn has_correct(&self, replicas: impl IntoIterator<Item = ReplicaId>) -> bool {
        self.distinct(replicas).len() > usize::from(self.f)
    }

    /// The leader of regency 0.
    pub fn first_leader(&self) -> ReplicaId {
        self.first_leader
    }

    /// The leader of a regency of this view: round robin from the first leader on.
    pub fn leader(&self, regency: u64) -> ReplicaId {
        let n = self.members.len();
        let first = self.members.iter().position(|member| *member == self.first_leader).unwrap_or(0);
        // Below n, which is at most REPLICAS_MAX.
        let steps = (regency % n as u64) as usize;
        self.members[(first + steps) % n]
    }

    fn distinct(&self, replicas: impl IntoIterator<Item = ReplicaId>) -> Vec<ReplicaId> {
        let mut members: Vec<ReplicaId> =
            replicas.into_iter().filter(|replica| self.contains(*replica)).collect();
        members.sort();
        members.dedup();
        members
    }

    fn sum(&self, replicas: impl IntoIterator<Item = ReplicaId>) -> Weight {
        Weight(self.distinct(replicas).into_iter().map(|replica| self.weight(replica).0).sum())
    }
}

/// Only what [`View::of_members`] makes can be decoded.
impl BorshDeserialize for View {
    fn deserialize_reader<R: std::io::Read>(reader: &mut R) -> std::io::Result<View> {
        let invalid = |reason: String| std::io::Error::new(std::io::ErrorKind::InvalidData, reason);
        let number = ViewNumber::deserialize_reader(reader)?;
        let model = FaultModel::deserialize_reader(reader)?;
        let f = u16::deserialize_reader(reader)?;
        let members = Vec::<ReplicaId>::deserialize_reader(reader)?;
        let heavy = Vec::<ReplicaId>::deserialize_reader(reader)?;
        let first_leader = ReplicaId::deserialize_reader(reader)?;
        let view = View::of_members(number, model, members.clone(), f, heavy.clone(), first_leader)
            .map_err(|error| invalid(error.to_string()))?;
        // One encoding per view.
        if view.members != members || view.heavy != heavy {
            return Err(invalid("a view whose lists are not ascending".into()));
        }
        Ok(view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subsets(n: u16) -> impl Iterator<Item = Vec<ReplicaId>> {
        (0u32..1 << n).map(move |mask| (0..n).filter(|i| mask >> i & 1 == 1).map(ReplicaId).collect())
    }

    /// Every view up to ten replicas, by exhaustion: quorums intersect in a correct replica, and f silent replicas
    /// leave a quorum.
    #[test]
    fn quorums_intersect_in_a_correct_replica_and_survive_f_silent_ones() {
        for model in [FaultModel::Byzantine, FaultModel::Crash] {
            for n in 3..=8u16 {
                for f in 1..=2u16 {
                    let Ok(view) = View::new(ViewNumber(0), model, n, f, vec![]) else { continue };
                    let quorums: Vec<Vec<ReplicaId>> =
                        subsets(n).filter(|set| view.is_quorum(set.iter().copied())).collect();
                    for a in &quorums {
                        for b in &quorums {
                            let both: Vec<_> = a.iter().filter(|r| b.contains(r)).copied().collect();
                            let enough = match model {
                                FaultModel::Byzantine => view.has_correct(both.iter().copied()),
                                FaultModel::Crash => !both.is_empty(),
                            };
                            assert!(enough, "{view:?}: {a:?} and {b:?}");
                        }
                    }
                    for silent in subsets(n).filter(|set| set.len() == usize::from(f)) {
                        assert!(view.is_quorum(view.replicas().filter(|r| !silent.contains(r))), "{view:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn wheat_with_five_replicas_has_quorums_of_the_two_heavy_ones_and_one_more() {
        let view = View::of_size(5).unwrap();
        let ids = |list: &[u16]| list.iter().map(|i| ReplicaId(*i)).collect::<Vec<_>>();
        assert_eq!(view.heavy(), ids(&[0, 1]));
        assert!(view.is_quorum(ids(&[0, 1, 4])));
        assert!(!view.is_quorum(ids(&[0, 1])));
        assert!(!view.is_quorum(ids(&[0, 2, 3])));
        assert!(view.is_quorum(ids(&[0, 2, 3, 4])));
    }

    #[test]
    fn a_sequence_is_a_quorum_from_some_replica_on() {
        for n in 4..=8u16 {
            let view = View::of_size(n).unwrap();
            for set in subsets(n) {
                let all: Vec<ReplicaId> = set.iter().rev().copied().chain([ReplicaId(n)]).collect();
                let within = view.quorum_within(&all);
                let first = (0..=all.len()).find(|count| view.is_quorum(all[..*count].iter().copied()));
                assert_eq!(within, first, "{view:?}: {all:?}");
            }
        }
    }

    #[test]
    fn repeated_and_unknown_replicas_do_not_count() {
        let view = View::of_size(4).unwrap();
        assert_eq!(view.quorum_within(&[ReplicaId(1), ReplicaId(1), ReplicaId(1), ReplicaId(2)]), None);
        assert!(!view.is_quorum([ReplicaId(0), ReplicaId(0), ReplicaId(1)]));
        assert!(!view.is_quorum([ReplicaId(0), ReplicaId(7), ReplicaId(1)]));
        assert!(!view.has_correct([ReplicaId(2), ReplicaId(2)]));
    }

    #[test]
    fn views_with_gaps_count_their_members_alone() {
        let ids = |list: &[u16]| list.iter().map(|i| ReplicaId(*i)).collect::<Vec<_>>();
        let members = ids(&[5, 0, 3, 2, 9]);
        let (number, model) = (ViewNumber(3), FaultModel::Byzantine);
        let view = View::of_members(number, model, members.clone(), 1, ids(&[9, 3]), ReplicaId(5)).unwrap();
        assert_eq!(view.members(), ids(&[0, 2, 3, 5, 9]));
        assert!(
            view.is_quorum(ids(&[3, 9, 0]))
                && !view.is_quorum(ids(&[0, 2, 5]))
                && !view.contains(ReplicaId(1))
        );
        let leaders: Vec<u16> = (0..6).map(|regency| view.leader(regency).0).collect();
        assert_eq!(leaders, [5, 9, 0, 2, 3, 5]);
        assert_eq!(view.table_len(), 10);
        assert_eq!(borsh::from_slice::<View>(&borsh::to_vec(&view).unwrap()).unwrap(), view);
        assert!(View::of_members(number, model, ids(&[0, 1, 1, 2]), 1, vec![], ReplicaId(0)).is_err());
        assert!(View::of_members(number, model, members.clone(), 1, ids(&[1, 3]), ReplicaId(0)).is_err());
        assert!(View::of_members(number, model, members, 1, vec![], ReplicaId(1)).is_err());
    }

    #[test]
    fn impossible_views_are_refused() {
        assert_eq!(View::of_size(3), Err(ViewError::NoFault));
        assert!(View::new(ViewNumber(0), FaultModel::Byzantine, 6, 2, vec![]).is_err());
        assert!(View::new(ViewNumber(0), FaultModel::Byzantine, 4, 1, vec![ReplicaId(0)]).is_err());
        assert!(
            View::new(ViewNumber(0), FaultModel::Byzantine, 5, 1, vec![ReplicaId(0), ReplicaId(0)]).is_err()
        );
        let empty = (0u64, FaultModel::Byzantine, 1u16, Vec::<u16>::new(), Vec::<u16>::new(), 0u16);
        assert!(borsh::from_slice::<View>(&borsh::to_vec(&empty).unwrap()).is_err());
    }
}
