//! Every choice of leader, master and weights, by what it is worth.

use crate::{Distances, Prediction, Transaction, predict};
use steeldb_types::{FaultModel, ReplicaId, View, ViewError, ViewNumber};

/// Choices that are looked at; a cluster that has more is refused.
const CHOICES_MAX: u64 = 20_000;

/// Who there is to choose from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Members {
    /// The replicas.
    pub replicas: Vec<ReplicaId>,
    /// f.
    pub faults: u16,
    /// What faulty ones may do.
    pub model: FaultModel,
}

/// Who leads, who answers, and who has the greater weight.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Choice {
    /// The ordering leader.
    pub leader: ReplicaId,
    /// The master.
    pub master: ReplicaId,
    /// Those with V_max, ascending; none without spare replicas.
    pub heavy: Vec<ReplicaId>,
}

impl Choice {
    /// How much differs: what has to be changed.
    fn differences(&self, other: &Choice) -> usize {
        [self.leader != other.leader, self.master != other.master, self.heavy != other.heavy]
            .into_iter()
            .filter(|differs| *differs)
            .count()
    }
}

/// Why there is nothing to choose from.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChoicesError {
    /// These replicas make no view.
    #[error(transparent)]
    View(#[from] ViewError),
    /// Too many.
    #[error("{replicas} replicas with f = {faults} can be arranged in more than {CHOICES_MAX} ways")]
    TooMany {
        /// n.
        replicas: usize,
        /// f.
        faults: u16,
    },
}

impl Members {
    /// A view of these replicas.
    ///
    /// # Errors
    /// When there can be none.
    pub fn view(&self, leader: ReplicaId, heavy: Vec<ReplicaId>) -> Result<View, ViewError> {
        View::of_members(ViewNumber(0), self.model, self.replicas.clone(), self.faults, heavy, leader)
    }

    /// All choices.
    ///
    /// # Errors
    /// When there can be no view, or too many.
    pub fn choices(&self) -> Result<Vec<Choice>, ChoicesError> {
        let some = self.replicas.first().copied().unwrap_or_default();
        let view = self.view(some, Vec::new())?;
        let members = view.members();
        let too_many = || ChoicesError::TooMany { replicas: members.len(), faults: self.faults };
        let ways = (members.len() as u64).pow(2);
        let sets_max = CHOICES_MAX / ways;
        let sets = subsets(members, view.heavy().len(), sets_max as usize).ok_or_else(too_many)?;
        let mut choices = Vec::new();
        for heavy in &sets {
            for leader in members {
                for master in members {
                    choices.push(Choice { leader: *leader, master: *master, heavy: heavy.clone() });
                }
            }
        }
        Ok(choices)
    }
}

/// The subsets of a size, each ascending; nothing when there are more than `max`.
fn subsets(of: &[ReplicaId], size: usize, max: usize) -> Option<Vec<Vec<ReplicaId>>> {
    let mut sets: Vec<Vec<ReplicaId>> = vec![Vec::new()];
    for left in (0..size).rev() {
        let mut longer = Vec::new();
        for set in &sets {
            // Enough must stay for the places that are left.
            let from = set.last().and_then(|last| of.iter().position(|id| id == last)).map_or(0, |at| at + 1);
            for next in &of[from..of.len() - left] {
                longer.push(set.iter().copied().chain([*next]).collect());
            }
        }
        sets = longer;
        if sets.len() > max {
            return None;
        }
    }
    (sets.len() <= max).then_some(sets)
}

/// A choice and what it is worth.
#[derive(Clone, PartialEq, Debug)]
pub struct Ranked {
    /// Which.
    pub choice: Choice,
    /// With all replicas answering.
    pub prediction: Prediction,
    /// The whole transaction, milliseconds, with one replica silent: the mean over those other than leader and master, which
    /// the others replace.
    pub one_silent_ms: f64,
}

/// Every choice, the fastest first. Of equals the one comes first that is the fastest with one replica silent, then the one
/// that changes least. Those in which no transaction would ever end are left out.
///
/// # Errors
/// When there is nothing to choose from, or too much.
pub fn rank(
    members: &Members,
    distances: &Distances,
    transaction: Transaction,
    current: Option<&Choice>,
) -> Result<Vec<Ranked>, ChoicesError> {
    let without: Vec<(ReplicaId, Distances)> =
        members.replicas.iter().map(|replica| (*replica, distances.without(*replica))).collect();
    let mut ranked = Vec::new();
    for choice in members.choices()? {
        let view = members.view(choice.leader, choice.heavy.clone())?;
        let prediction = predict(&view, choice.master, distances, transaction);
        if prediction.total_ms().is_infinite() {
            continue;
        }
        let others = without.iter().filter(|(id, _)| ![choice.leader, choice.master].contains(id));
        let degraded: Vec<f64> =
            others.map(|(_, left)| predict(&view, choice.master, left, transaction).total_ms()).collect();
        let one_silent_ms = degraded.iter().sum::<f64>() / degraded.len() as f64;
        ranked.push(Ranked { choice, prediction, one_silent_ms });
    }
    // Sums of the same latencies differ in their last bits. What is infinite comes last.
    let rounded_us = |ms: f64| (ms * 1000.0).round() as u64;
    ranked.sort_by_cached_key(|Ranked { choice, prediction, one_silent_ms }| {
        let changes = current.map_or(0, |current| choice.differences(current));
        (rounded_us(prediction.total_ms()), rounded_us(*one_silent_ms), changes, choice.clone())
    });
    Ok(ranked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EC2, Matrix, Replies};

    /// Numbers as in the shipped matrix's list of sites.
    const SITES: [&str; 5] = ["oregon", "ireland", "sydney", "sao-paulo", "virginia"];

    fn ids(list: &[u16]) -> Vec<ReplicaId> {
        list.iter().map(|id| ReplicaId(*id)).collect()
    }

    fn members(n: u16, faults: u16) -> Members {
        Members { replicas: (0..n).map(ReplicaId).collect(), faults, model: FaultModel::Byzantine }
    }

    fn from(client: &str, replicas: usize) -> Distances {
        let sites = (0u16..).map(ReplicaId).zip(SITES).take(replicas);
        Matrix::parse(EC2).unwrap().distances(sites, client).unwrap()
    }

    #[test]
    fn all_choices_are_looked_at_once() {
        assert_eq!(members(4, 1).choices().unwrap().len(), 16);
        let choices = members(5, 1).choices().unwrap();
        let mut distinct = choices.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!((choices.len(), distinct.len()), (250, 250));
        assert!(choices.iter().all(|choice| choice.heavy.len() == 2 && choice.heavy.is_sorted()));
        assert!(matches!(members(20, 6).choices(), Err(ChoicesError::TooMany { .. })));
        assert!(matches!(members(3, 1).choices(), Err(ChoicesError::View(_))));
    }

    /// The figure: a client in Oregon does best with leader and master beside it and Virginia heavy.
    #[test]
    fn oregon_does_best_with_itself_and_virginia() {
        let transaction = Transaction { replies: Replies::Tentative, ..Transaction::default() };
        let distances = from("oregon", 5);
        let ranked = rank(&members(5, 1), &distances, transaction, None).unwrap();
        let best = &ranked[0];
        assert_eq!(best.choice, Choice { leader: ReplicaId(0), master: ReplicaId(0), heavy: ids(&[0, 4]) });
        // Three times 171, and what it is to the client beside the leader.
        assert_eq!(format!("{:.1}", best.prediction.total_ms()), "513.3", "{best:?}");
        // With Ireland heavy it is as fast, but Ireland is farther from the others: it shows once one of them is silent.
        let ireland = ranked.iter().find(|other| other.choice.heavy == ids(&[0, 1])).unwrap();
        assert_eq!(format!("{:.1}", ireland.prediction.total_ms()), "513.3");
        assert!(ireland.one_silent_ms > best.one_silent_ms, "{ireland:?}");
    }

    /// What the database does today takes ACCEPT quorums at the replicas whose replies count: then the best leader is
    /// Virginia, in the middle, and the master stays beside the client.
    #[test]
    fn replies_after_the_decision_want_another_leader() {
        let transaction = Transaction { statements: 30, replies: Replies::Decided };
        let best = &rank(&members(5, 1), &from("oregon", 5), transaction, None).unwrap()[0];
        assert_eq!(best.choice, Choice { leader: ReplicaId(4), master: ReplicaId(0), heavy: ids(&[0, 4]) });
        assert_eq!(format!("{:.1}", best.prediction.total_ms()), "676.9");
    }

    #[test]
    fn of_equals_the_one_that_changes_least_comes_first() {
        let mut distances = Distances::default();
        for a in 0..5 {
            distances.set_client(ReplicaId(a), 1.0, 1.0);
            (0..5).for_each(|b| distances.set(ReplicaId(a), ReplicaId(b), 1.0));
        }
        let current = Choice { leader: ReplicaId(3), master: ReplicaId(2), heavy: ids(&[1, 4]) };
        let ranked = rank(&members(5, 1), &distances, Transaction::default(), Some(&current)).unwrap();
        assert_eq!((ranked.len(), &ranked[0].choice), (250, &current));
    }

    #[test]
    fn a_replica_that_cannot_be_reached_leads_nothing() {
        let silent = ReplicaId(4);
        let distances = from("virginia", 5).without(silent);
        let ranked = rank(&members(5, 1), &distances, Transaction::default(), None).unwrap();
        assert!(!ranked.is_empty());
        assert!(ranked.iter().all(|one| one.choice.leader != silent && one.choice.master != silent));
        // Where it is heavy, all four that are left are needed, and none of them may be silent as well.
        let heavy = ranked.iter().find(|one| one.choice.heavy.contains(&silent)).unwrap();
        assert_eq!((heavy.prediction.votes.counted.len(), heavy.one_silent_ms), (4, f64::INFINITY));
    }
}
