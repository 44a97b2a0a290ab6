//! Enumerates scenarios. Three symmetries are used: the names of groups do not matter; swapping the twins in every
//! regency changes nothing but which client each hears; and numbering the replicas from the first leader on does not,
//! so that only the twinned replica's place in the leaders' order is chosen.

use super::{N, NODES, Script};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::BTreeSet;
use steeldb_types::ReplicaId;

/// How large the scope is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scope {
    /// Scripted regencies.
    pub regencies: u32,
    /// Groups that the nodes may fall into.
    pub groups_max: u8,
}

impl Scope {
    /// Four regencies, two groups.
    pub const USUAL: Scope = Scope { regencies: 4, groups_max: 2 };
}

/// All scenarios of a scope, by number.
pub struct Generator {
    scope: Scope,
    /// The ways to fall into groups.
    partitions: Vec<[u8; NODES]>,
    /// By partition, the one with the twins swapped.
    swapped: Vec<usize>,
}

impl Generator {
    /// Enumerates the partitions of a scope.
    pub fn new(scope: Scope) -> Generator {
        let mut partitions = Vec::new();
        grow(&mut [0; NODES], 0, 0, scope.groups_max, &mut partitions);
        let place = |of: [u8; NODES]| partitions.iter().position(|other| *other == of).unwrap_or(0);
        let swapped = partitions.iter().map(|partition| {
            let mut swapped = *partition;
            swapped.swap(0, NODES - 1);
            place(renamed(swapped))
        });
        let swapped = swapped.collect();
        Generator { scope, partitions, swapped }
    }

    /// How many scenarios there are before symmetry makes some equal: every number below is one.
    pub fn len(&self) -> u64 {
        (self.partitions.len() as u64).pow(self.scope.regencies) * u64::from(N)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The scenario of a number; nothing for one that is equal to another, or for none.
    pub fn script(&self, number: u64) -> Option<Script> {
        if number >= self.len() {
            return None;
        }
        let first_leader = ReplicaId((number % u64::from(N)) as u16);
        let (choices, mut rest) = (self.partitions.len() as u64, number / u64::from(N));
        let mut chosen = Vec::new();
        for _ in 0..self.scope.regencies {
            chosen.push((rest % choices) as usize);
            rest /= choices;
        }
        let mirrored: Vec<usize> = chosen.iter().map(|partition| self.swapped[*partition]).collect();
        let groups = chosen.iter().map(|partition| self.partitions[*partition]).collect();
        (chosen <= mirrored).then_some(Script { number, first_leader, groups })
    }

    /// The numbers of all scenarios that differ.
    pub fn all(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.len()).filter(|number| self.script(*number).is_some())
    }

    /// A sample of so many different ones, ascending; the same for the same seed.
    pub fn sample(&self, seed: u64, count: usize) -> Vec<u64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut sample = BTreeSet::new();
        while sample.len() < count.min(self.len() as usize / 2) {
            let number = rng.random_range(0..self.len());
            if self.script(number).is_some() {
                sample.insert(number);
            }
        }
        sample.into_iter().collect()
    }
}

/// Restricted growth: each node joins a group there is, or the next new one.
fn grow(
    partition: &mut [u8; NODES],
    node: usize,
    groups: u8,
    groups_max: u8,
    partitions: &mut Vec<[u8; NODES]>,
) {
    if node == NODES {
        partitions.push(*partition);
        return;
    }
    for group in 0..=groups.min(groups_max - 1) {
        partition[node] = group;
        grow(partition, node + 1, groups.max(group + 1), groups_max, partitions);
    }
}

/// Groups numbered in the order in which they first appear.
fn renamed(partition: [u8; NODES]) -> [u8; NODES] {
    let mut names = Vec::new();
    partition.map(|group| {
        let known = names.iter().position(|name| *name == group);
        known.unwrap_or_else(|| {
            names.push(group);
            names.len() - 1
        }) as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_nodes_fall_into_one_or_two_groups_in_sixteen_ways_and_into_three_in_twenty_five_more() {
        assert_eq!(Generator::new(Scope { regencies: 1, groups_max: 2 }).partitions.len(), 16);
        assert_eq!(Generator::new(Scope { regencies: 1, groups_max: 3 }).partitions.len(), 41);
    }

    #[test]
    fn swapping_the_twins_makes_no_other_scenario() {
        let generator = Generator::new(Scope::USUAL);
        // Burnside: eight of the sixteen partitions are their own mirror images.
        let different = (16u64.pow(4) + 8u64.pow(4)) / 2 * 4;
        assert_eq!(generator.all().count() as u64, different);
    }
}
