//! When the replicas that are not the master execute.

use crate::limits;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// When replicas other than the master execute a transaction's operations (rule 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Execution {
    /// As the master reports them, ahead of COMMIT, behind commit barriers (HRDB's commit barrier scheduling).
    #[default]
    Speculative,
    /// Once COMMIT arrives (SteelDB's plain variant): a shorter way for what is rolled back, a longer one to every commit.
    Deferred,
}

impl Execution {
    /// How long operations, and the master's word on them, may wait for company on their way to replicas that do nothing
    /// with them at once.
    pub fn gather(self) -> Duration {
        match self {
            Execution::Speculative => limits::GATHER,
            Execution::Deferred => limits::GATHER_DEFERRED,
        }
    }
}
