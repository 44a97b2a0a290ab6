//! The session's statements and the numbers replicas know them by.
//!
//! Invariant: at most [`limits::NAMED_STATEMENTS_MAX`] are remembered between transactions, and of those that are not
//! worth keeping (texts with values in them) at most [`PASSING_MAX`]. Numbers never repeat.

use std::collections::BTreeMap;
use std::sync::Arc;
use steeldb_types::{Digest, limits};
use steeldb_wire::transaction::{StatementId, StatementText};

/// Statements remembered that were not said to come again.
const PASSING_MAX: usize = 32;

pub(super) struct Statements {
    known: BTreeMap<Arc<StatementText>, Known>,
    /// By last use: kept ones and passing ones.
    kept: BTreeMap<u64, Arc<StatementText>>,
    passing: BTreeMap<u64, Arc<StatementText>>,
    next: u32,
    uses: u64,
}

struct Known {
    id: StatementId,
    digest: Digest,
    used: u64,
    keep: bool,
}

/// A statement's number and digest.
pub(super) struct Resolved {
    pub id: StatementId,
    pub digest: Digest,
    /// Replicas do not know it yet.
    pub new: bool,
}

impl Statements {
    pub(super) fn new() -> Statements {
        Statements {
            known: BTreeMap::new(),
            kept: BTreeMap::new(),
            passing: BTreeMap::new(),
            next: 1,
            uses: 0,
        }
    }

    /// The number of `text`. `keep`: it will come again.
    pub(super) fn resolve(&mut self, text: &Arc<StatementText>, keep: bool) -> Resolved {
        self.uses += 1;
        let used = self.uses;
        if let Some(known) = self.known.get_mut(text) {
            if known.keep {
                self.kept.remove(&known.used);
            } else {
                self.passing.remove(&known.used);
            }
            known.used = used;
            known.keep |= keep;
            let (id, digest, keep) = (known.id, known.digest, known.keep);
            self.by_use(keep).insert(used, text.clone());
            return Resolved { id, digest, new: false };
        }
        let id = StatementId(self.next);
        self.next += 1;
        let digest = text.digest();
        self.known.insert(text.clone(), Known { id, digest, used, keep });
        self.by_use(keep).insert(used, text.clone());
        Resolved { id, digest, new: true }
    }

    /// Forgets the longest unused ones past the bounds. Called between transactions alone, so that no operation still
    /// to be executed loses its statement.
    pub(super) fn trim(&mut self) -> Vec<StatementId> {
        let mut forgotten = Vec::new();
        while self.passing.len() > PASSING_MAX {
            let Some((_, text)) = self.passing.pop_first() else { break };
            forgotten.extend(self.known.remove(&text).map(|known| known.id));
        }
        while self.known.len() > limits::NAMED_STATEMENTS_MAX {
            let Some((_, text)) = self.kept.pop_first() else { break };
            forgotten.extend(self.known.remove(&text).map(|known| known.id));
        }
        forgotten
    }

    /// All of them, by number: what a replica is told whose session is opened anew.
    pub(super) fn all(&self) -> BTreeMap<StatementId, Arc<StatementText>> {
        self.known.iter().map(|(text, known)| (known.id, text.clone())).collect()
    }

    fn by_use(&mut self, keep: bool) -> &mut BTreeMap<u64, Arc<StatementText>> {
        if keep { &mut self.kept } else { &mut self.passing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(sql: String) -> Arc<StatementText> {
        Arc::new(StatementText { sql, parameter_types: vec![] })
    }

    #[test]
    fn a_text_keeps_its_number_until_it_is_forgotten() {
        let mut statements = Statements::new();
        let first = statements.resolve(&text("SELECT 1".into()), true);
        let again = statements.resolve(&text("SELECT 1".into()), true);
        assert!(first.new && !again.new);
        assert_eq!(first.id, again.id);
    }

    #[test]
    fn bounds_hold_at_their_edges_and_the_longest_unused_go_first() {
        let mut statements = Statements::new();
        for i in 0..limits::NAMED_STATEMENTS_MAX {
            statements.resolve(&text(format!("SELECT {i}")), true);
        }
        assert!(statements.trim().is_empty());
        statements.resolve(&text("SELECT 0".into()), true);
        statements.resolve(&text("one more".into()), true);
        assert_eq!(statements.trim(), vec![StatementId(2)]);

        let mut statements = Statements::new();
        for i in 0..=PASSING_MAX {
            statements.resolve(&text(format!("INSERT {i}")), false);
        }
        assert_eq!(statements.trim(), vec![StatementId(1)]);
        assert_eq!(statements.all().len(), PASSING_MAX);
    }
}
