//! How often a role may do something in a database that others have to wait for: a first burst is free, from then on one at
//! a time.

use std::collections::BTreeMap;

/// By database and role: when those that it has had are paid off, one after the other, microseconds.
pub(super) struct Rates {
    interval_us: u64,
    burst_us: u64,
    paid_at_us: BTreeMap<(String, String), u64>,
}

impl Rates {
    /// `burst` at once, then one per `interval_us`.
    pub(super) fn new(burst: u64, interval_us: u64) -> Rates {
        Rates { interval_us, burst_us: burst * interval_us, paid_at_us: BTreeMap::new() }
    }

    /// When the role may have the next one.
    pub(super) fn free_at(&self, database: &str, role: &str) -> u64 {
        let of = (database.to_string(), role.to_string());
        self.paid_at_us.get(&of).map_or(0, |paid_at| paid_at.saturating_sub(self.burst_us))
    }

    /// It has one.
    pub(super) fn spend(&mut self, database: &str, role: &str, now_us: u64) {
        self.paid_at_us.retain(|_, paid_at| *paid_at > now_us);
        let of = (database.to_string(), role.to_string());
        *self.paid_at_us.entry(of).or_insert(now_us) += self.interval_us;
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.paid_at_us.len()
    }
}
