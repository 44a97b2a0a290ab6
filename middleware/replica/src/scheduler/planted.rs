//! Planted bugs: real mistakes, put into a scheduler by a switch that nothing shipped has, for the simulation of transactions
//! to catch.

use super::Config;

/// A bug to plant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlantedBug {
    /// f + 1 equal votes commit.
    CommitOnOneCorrect,
    /// One vote against aborts.
    AbortOnOneVote,
    /// Votes do not say what was changed.
    EffectsLeftOut,
    /// What is prepared here is committed whatever effects the certificate names.
    EffectsNotMatched,
    /// After a restart, what is in doubt is committed by its name.
    InDoubtNotMatched,
    /// A replica vouches for its own transcript, whatever the client was shown.
    FinishNotCompared,
    /// A Finish that comes with votes need not be its client's.
    FinishNotVerified,
    /// A snapshot does not wait for the commits before it.
    SnapshotInsideWave,
    /// A snapshot is used on for two commits more, alike on every replica, so that all votes are equal.
    SnapshotUsedOn,
    /// Commits pass the BEGINs before them.
    CommitPassesBegin,
    /// What is prepared is rolled back when T_vote has passed.
    RollsBackOnItsOwn,
    /// A later outcome replaces the first.
    SecondOutcomeHonoured,
    /// A Prepared vote is cast after a vote against.
    PreparedAfterAgainst,
    /// What is prepared stays so while a peer's write set takes its place.
    CatchUpBesidePrepared,
    /// After a restart, what is prepared is not known.
    PreparedForgotten,
    /// A transaction that wrote is ended like one that did not.
    WritesOverlooked,
    /// Undoing a speculation does not roll it back.
    UndoneByWordAlone,
    /// Operations do not wait for their barriers.
    BarrierIgnored,
    /// Any number of transactions is prepared at once.
    PermitsIgnored,
    /// A Finish that says Rollback is voted for.
    RollbackPrepared,
    /// One accusation deposes the master.
    DeposeOnOneWord,
    /// A bound Commit is told whatever is in front of it.
    TentativeOutOfTurn,
    /// A new master waits for its clients' word on what they were shown though they have finished.
    FinishIsNoWord,
    /// Outcomes are applied before the decisions that hold them are durable.
    AppliedBeforeItsRecord,
    /// A permit is free before ROLLBACK PREPARED has run.
    PermitReturnedEarly,
}

#[cfg(feature = "planted-bugs")]
impl PlantedBug {
    /// What the environment asks of a whole agent: `STEELDB_PLANTED_BUG`, for chaos and for tests on real servers that are to
    /// be seen failing.
    pub(crate) fn of_environment() -> Option<PlantedBug> {
        match std::env::var("STEELDB_PLANTED_BUG").as_deref() {
            Ok("snapshot-used-on") => Some(PlantedBug::SnapshotUsedOn),
            Ok("effects-left-out") => Some(PlantedBug::EffectsLeftOut),
            Ok("permits-ignored") => Some(PlantedBug::PermitsIgnored),
            _ => None,
        }
    }
}

impl Config {
    #[cfg(feature = "planted-bugs")]
    pub(crate) fn has(&self, bug: PlantedBug) -> bool {
        self.planted_bug == Some(bug)
    }

    #[cfg(not(feature = "planted-bugs"))]
    pub(crate) fn has(&self, _bug: PlantedBug) -> bool {
        false
    }
}
