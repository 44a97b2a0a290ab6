//! Which master's term runs, as replicas say it.

use std::collections::BTreeMap;
use steeldb_types::{ReplicaId, Term, View};

/// The newest term that one correct replica at least has spoken of.
pub(super) struct Terms {
    current: Term,
    /// The newest that each replica spoke of.
    said: BTreeMap<ReplicaId, Term>,
}

impl Terms {
    pub(super) fn new(first: Term) -> Terms {
        Terms { current: first, said: BTreeMap::new() }
    }

    pub(super) fn current(&self) -> Term {
        self.current
    }

    /// Takes a replica's word; gives the term if it is a newer one that f + 1 replicas of the view spoke of.
    pub(super) fn said(&mut self, view: &View, from: ReplicaId, term: Term) -> Option<Term> {
        if !view.contains(from) || self.said.get(&from).is_some_and(|said| said.epoch > term.epoch) {
            return None;
        }
        self.said.insert(from, term);
        let alike = self.said.iter().filter(|(_, said)| **said == term).map(|(replica, _)| *replica);
        let news = term.epoch > self.current.epoch && view.has_correct(alike);
        if news {
            self.current = term;
        }
        news.then_some(term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_replica_makes_no_master_and_f_plus_1_of_one_word_do() {
        let view = View::of_size(4).unwrap();
        let mut terms = Terms::new(Term::first(ReplicaId(0)));
        let one = Term { epoch: 1, master: ReplicaId(1) };
        let other = Term { epoch: 1, master: ReplicaId(2) };
        assert_eq!(terms.said(&view, ReplicaId(3), other), None);
        assert_eq!(terms.said(&view, ReplicaId(1), one), None);
        assert_eq!(terms.said(&view, ReplicaId(9), other), None, "no member");
        assert_eq!(terms.said(&view, ReplicaId(2), one), Some(one));
        assert_eq!(terms.said(&view, ReplicaId(0), one), None, "known already");
        assert_eq!(terms.said(&view, ReplicaId(1), Term::first(ReplicaId(0))), None, "an old word");
        assert_eq!(terms.current(), one);
    }
}
