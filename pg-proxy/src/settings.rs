//! What can be changed while a proxy runs.

use crate::authentication::Authentication;
use crate::server::STATEMENT_TRIES;
use crate::verify::Verify;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use steeldb_types::limits;

/// Settings that take effect at once: for sessions that begin, or, of those that are there, where it says so.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// Who may log in.
    pub authentication: Authentication,
    /// Sessions at once; at most [`limits::SESSIONS_PER_CLIENT_MAX`], since each is a backend on every replica. Sessions
    /// that are there stay.
    pub sessions_max: usize,
    /// How often a statement is run at most that conflicts with others (40001, 40P01) in a transaction of its own and has
    /// shown nothing; 1: never again.
    pub statement_tries: u32,
    /// When sessions verify results, unless they say otherwise.
    pub verify: Verify,
    /// How long transactions may take to end when the proxy stops: of all sessions.
    pub stop_timeout: Duration,
}

impl Default for ProxySettings {
    /// No authentication, 200 sessions.
    fn default() -> Self {
        ProxySettings {
            authentication: Authentication::Trust,
            sessions_max: limits::SESSIONS_PER_CLIENT_MAX,
            statement_tries: STATEMENT_TRIES,
            verify: Verify::default(),
            stop_timeout: limits::STOP_TIMEOUT,
        }
    }
}

/// A proxy's settings as they are now. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Controls(Arc<RwLock<ProxySettings>>);

impl Controls {
    /// Controls that begin with these.
    pub fn new(settings: ProxySettings) -> Controls {
        Controls(Arc::new(RwLock::new(settings)))
    }

    /// As they are now.
    pub fn settings(&self) -> ProxySettings {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on.
    pub fn set(&self, settings: ProxySettings) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }
}
