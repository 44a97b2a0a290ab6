//! Terms: which replica is the master, and since when.

use crate::{ReplicaId, View};
use borsh::{BorshDeserialize, BorshSerialize};

/// The time between two changes of the master. Which term runs is a function of the order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Term {
    /// The master epoch: ascends by one with every change, from 0.
    pub epoch: u64,
    /// Who answers.
    pub master: ReplicaId,
}

impl Term {
    /// The term that a cluster begins with.
    pub fn first(master: ReplicaId) -> Term {
        Term { epoch: 0, master }
    }

    /// The term after this one when the master is deposed: the next member of the view takes over, in the circle of their
    /// numbers, so that any f + 1 changes reach a correct one.
    pub fn next(&self, view: &View) -> Term {
        let after = view.members().iter().find(|member| **member > self.master);
        let master = after.or(view.members().first()).copied().unwrap_or(self.master);
        Term { epoch: self.epoch + 1, master }
    }

    /// The term after this one under a named master.
    pub fn under(&self, master: ReplicaId) -> Term {
        Term { epoch: self.epoch + 1, master }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_has_its_turn_in_a_circle() {
        let view = View::of_size(4).unwrap();
        let mut term = Term::first(ReplicaId(2));
        let masters: Vec<u16> = (0..4)
            .map(|_| {
                term = term.next(&view);
                term.master.0
            })
            .collect();
        assert_eq!(masters, [3, 0, 1, 2]);
        assert_eq!(term.epoch, 4);
    }

    #[test]
    fn a_master_that_is_no_member_is_followed_by_one_that_is() {
        let view = View::of_size(4).unwrap();
        assert_eq!(Term::first(ReplicaId(9)).next(&view).master, ReplicaId(0));
    }
}
