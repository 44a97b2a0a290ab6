//! A replica's clocks: a monotonic one that runs a little too fast or too slow, and a wall clock that is off.

use steeldb_ordering::Now;
use steeldb_types::Timestamp;

/// The wall clock's reading at virtual time 0, microseconds since 1970.
pub(crate) const EPOCH_US: i64 = 1_700_000_000_000_000;

const MILLION: i128 = 1_000_000;

#[derive(Clone, Copy)]
pub(crate) struct Clock {
    /// The wall clock's error, microseconds.
    pub(crate) skew_us: i64,
    /// How much too fast the monotonic clock runs, millionths.
    pub(crate) drift_ppm: i64,
}

impl Clock {
    /// What the clocks show at a virtual time.
    pub(crate) fn read(&self, now_us: u64) -> Now {
        let local = i128::from(now_us) * (MILLION + i128::from(self.drift_ppm)) / MILLION;
        Now {
            monotonic_us: u64::try_from(local).unwrap_or(0),
            wall: Timestamp(EPOCH_US + now_us as i64 + self.skew_us),
        }
    }

    /// The first virtual time at which the monotonic clock shows `local_us`.
    pub(crate) fn virtual_us(&self, local_us: u64) -> u64 {
        let rate = MILLION + i128::from(self.drift_ppm);
        let virtual_us = (i128::from(local_us) * MILLION + rate - 1).div_euclid(rate);
        u64::try_from(virtual_us).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_due_at_the_first_moment_its_clock_says_so() {
        for drift_ppm in [-50_000, -7, 0, 333, 50_000] {
            let clock = Clock { skew_us: 0, drift_ppm };
            for local_us in [0, 1, 999, 1_000_003, 87_654_321] {
                let at = clock.virtual_us(local_us);
                assert!(clock.read(at).monotonic_us >= local_us);
                assert!(at == 0 || clock.read(at - 1).monotonic_us < local_us);
            }
        }
    }
}
