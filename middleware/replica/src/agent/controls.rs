//! What can be changed while an agent runs.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use steeldb_types::limits;

/// Settings that take effect at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AgentSettings {
    /// How long it goes on, when it is to stop, for what its clients have finished.
    pub stop_timeout: Duration,
    /// What is kept on disk for replicas that were away: bytes, and for how long.
    pub kept_bytes: u64,
    /// See there.
    pub kept_age: Duration,
}

impl Default for AgentSettings {
    fn default() -> Self {
        AgentSettings {
            stop_timeout: limits::STOP_TIMEOUT,
            kept_bytes: limits::KEPT_BYTES,
            kept_age: limits::KEPT_AGE,
        }
    }
}

/// An agent's settings as they are now. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Controls(Arc<RwLock<AgentSettings>>);

impl Controls {
    /// Controls that begin with these.
    pub fn new(settings: AgentSettings) -> Controls {
        Controls(Arc::new(RwLock::new(settings)))
    }

    /// As they are now.
    pub fn settings(&self) -> AgentSettings {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on.
    pub fn set(&self, settings: AgentSettings) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }
}
