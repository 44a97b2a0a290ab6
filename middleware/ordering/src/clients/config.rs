//! Bounds on clients that join.

use std::time::Duration;
use steeldb_types::limits;

/// How clients may join. The same on every replica, for ever: it is part of every checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegistryConfig {
    /// Clients that are joined at once. Past it: one that was idle for long enough goes, or the newcomer is refused.
    pub clients_max: usize,
    /// Joins that wait to be confirmed. Past it: refused.
    pub joins_max: usize,
    /// Those of one account. Past it: refused.
    pub joins_per_account_max: usize,
    /// Sessions remembered per joined client; the longest unused one is forgotten.
    pub sessions_per_client_max: usize,
    /// How long, in agreed time, a join waits to be confirmed.
    pub join_timeout: Duration,
    /// How far ahead of the agreed time a join may say that it counts.
    pub join_valid_max: Duration,
    /// For how long, in agreed time, a client must have had nothing executed to make room for another.
    pub idle_timeout: Duration,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        RegistryConfig {
            clients_max: limits::JOINED_CLIENTS_MAX,
            joins_max: limits::JOINS_MAX,
            joins_per_account_max: limits::JOINS_PER_ACCOUNT_MAX,
            sessions_per_client_max: limits::SESSIONS_PER_JOINED_CLIENT_MAX,
            join_timeout: limits::JOIN_TIMEOUT,
            join_valid_max: limits::JOIN_VALID_MAX,
            idle_timeout: limits::CLIENT_IDLE_TIMEOUT,
        }
    }
}

impl RegistryConfig {
    pub(crate) fn check(&self) -> Result<(), String> {
        let counts =
            [self.clients_max, self.joins_max, self.joins_per_account_max, self.sessions_per_client_max];
        match counts.contains(&0) || self.join_timeout.is_zero() {
            true => Err("clients that may join need room and time to".into()),
            false => Ok(()),
        }
    }
}
