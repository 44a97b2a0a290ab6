//! Planted bugs: real mistakes, put into a session's core by a switch that nothing shipped has, for the simulation of
//! transactions to catch.

use super::CoreConfig;
use super::verdict::{Shown, Verdict, Word};
use steeldb_types::ReplicaId;
use steeldb_wire::transaction::Outcome;

/// A bug to plant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlantedBug {
    /// One replica's word is enough for a commit.
    CommitOnOneWord,
    /// One replica's word is enough for an abort.
    AbortOnOneWord,
    /// One transcript is enough for a transaction that wrote nothing.
    ReadOnlyOnOneWord,
    /// A ROLLBACK is confirmed before anybody vouches for what was shown.
    RollbackUnverified,
    /// A commit is believed whatever position each replica names.
    PositionsNotCompared,
    /// One replica's answer to a question is enough.
    ToldOnOneWord,
    /// Tentative words of f + 1 replicas, of whatever claims, are enough for a commit.
    TentativeOnOneCorrect,
    /// A COMMIT that is sent is called aborted when the master says that it cannot go on.
    SentCommitGivenUp,
}

impl CoreConfig {
    #[cfg(feature = "planted-bugs")]
    pub(super) fn has(&self, bug: PlantedBug) -> bool {
        self.planted_bug == Some(bug)
    }

    #[cfg(not(feature = "planted-bugs"))]
    pub(super) fn has(&self, _bug: PlantedBug) -> bool {
        false
    }

    /// What a planted bug makes of the words on a commit; nothing without one.
    pub(super) fn planted_verdict_of_commit(&self, words: &[Word], shown: Shown) -> Option<Verdict> {
        let committed: Vec<_> = words
            .iter()
            .filter_map(|word| match word.outcome {
                Some(Outcome::Committed { position }) => Some(position),
                _ => None,
            })
            .collect();
        let enough = (self.has(PlantedBug::CommitOnOneWord) && !committed.is_empty())
            || (self.has(PlantedBug::PositionsNotCompared)
                && self.view.n() - self.view.f() <= committed.len() as u16);
        if enough {
            return committed.first().map(|position| Verdict::Committed(Some(*position)));
        }
        let tentative = words.iter().zip(0u16..).filter(|(word, _)| word.tentative.is_some());
        if self.has(PlantedBug::TentativeOnOneCorrect)
            && self.view.has_correct(tentative.clone().map(|(_, index)| ReplicaId(index)))
        {
            let said = tentative.clone().find_map(|(word, _)| word.tentative);
            return said.map(|said| Verdict::Committed(Some(said.position)));
        }
        let aborted = words.iter().find_map(|word| match word.outcome {
            Some(Outcome::Aborted { reason }) => Some(reason),
            _ => None,
        });
        if let Some(reason) = aborted.filter(|_| self.has(PlantedBug::AbortOnOneWord)) {
            return Some(Verdict::Aborted(reason));
        }
        let said = words.iter().filter_map(|word| word.transcript).filter(|said| said.read_only);
        let equal = said.filter(|said| said.transcript == shown.transcript).count();
        (self.has(PlantedBug::ReadOnlyOnOneWord) && equal > 0).then_some(Verdict::Committed(None))
    }

    /// The same of a ROLLBACK.
    pub(super) fn planted_verdict_of_rollback(&self) -> Option<Verdict> {
        self.has(PlantedBug::RollbackUnverified).then_some(Verdict::RolledBack { tell_order: true })
    }
}
