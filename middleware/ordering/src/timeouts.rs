//! How long a request may wait: adapted to what decisions take here, within bounds that nobody can move.
//!
//! - From the configured time-out it only falls, to several times the waiting observed, and never under its lower bound.
//!   So a leader that delays everything to just under the time-out gains nothing: it can at most keep it where it was
//!   configured.
//! - Every regency entered doubles it, up to the upper bound, since the network may be slower than anybody thought; a row
//!   of decisions takes one doubling back. One decision alone does not, or a network that is slower than the configured
//!   time-out would change its regency for ever.

use std::time::Duration;

/// Decisions that take one doubling back.
const DECISIONS_PER_HALVING: u32 = 16;
/// Decisions before what was observed counts.
const SAMPLES_MIN: u32 = 16;
/// The time-out is so many times what is observed: a mean and four deviations (Jacobson's estimate, RFC 6298).
const FACTOR: u64 = 4;
/// 32 times the configured time-out, unless another bound is configured.
pub(crate) const DOUBLINGS_MAX: u32 = 5;

pub(crate) struct Timeouts {
    configured_us: u64,
    min_us: u64,
    max_us: u64,
    doublings: u32,
    /// Decisions since the last change of `doublings`.
    calm: u32,
    samples: u32,
    mean_us: u64,
    deviation_us: u64,
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Timeouts {
    pub(crate) fn new(configured: Duration, min: Duration, max: Duration) -> Timeouts {
        let configured_us = microseconds(configured).max(1);
        Timeouts {
            configured_us,
            min_us: microseconds(min).clamp(1, configured_us),
            max_us: microseconds(max).max(configured_us),
            doublings: 0,
            calm: 0,
            samples: 0,
            mean_us: 0,
            deviation_us: 0,
        }
    }

    pub(crate) fn current_us(&self) -> u64 {
        let observed = self.mean_us.saturating_add(self.deviation_us.saturating_mul(4));
        let adapted = match self.samples < SAMPLES_MIN {
            true => self.configured_us,
            false => observed.saturating_mul(FACTOR).clamp(self.min_us, self.configured_us),
        };
        adapted.saturating_mul(1u64.checked_shl(self.doublings).unwrap_or(u64::MAX)).min(self.max_us)
    }

    /// A regency was entered: perhaps the time-out was too short.
    pub(crate) fn regency_entered(&mut self) {
        self.calm = 0;
        if self.current_us() < self.max_us {
            self.doublings += 1;
        }
    }

    /// An instance was delivered; one of its requests had waited here for so long.
    pub(crate) fn decided(&mut self, waited_us: Option<u64>) {
        self.calm += 1;
        if self.calm >= DECISIONS_PER_HALVING {
            self.calm = 0;
            self.doublings = self.doublings.saturating_sub(1);
        }
        let Some(waited_us) = waited_us else { return };
        if self.samples == 0 {
            (self.mean_us, self.deviation_us) = (waited_us, waited_us / 2);
        } else {
            let error = waited_us.abs_diff(self.mean_us);
            self.deviation_us = self.deviation_us - self.deviation_us / 4 + error / 4;
            self.mean_us = self.mean_us - self.mean_us / 8 + waited_us / 8;
        }
        self.samples = self.samples.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeouts() -> Timeouts {
        Timeouts::new(Duration::from_secs(2), Duration::from_secs(1), Duration::from_secs(16))
    }

    fn decide(timeouts: &mut Timeouts, times: u32, waited: Duration) {
        (0..times).for_each(|_| timeouts.decided(Some(microseconds(waited))));
    }

    #[test]
    fn regencies_double_it_up_to_its_bound_and_a_row_of_decisions_takes_one_doubling_back() {
        let mut timeouts = timeouts();
        let mut seen = Vec::new();
        for _ in 0..4 {
            timeouts.regency_entered();
            seen.push(timeouts.current_us() / 1_000_000);
        }
        assert_eq!(seen, [4, 8, 16, 16]);
        (1..DECISIONS_PER_HALVING).for_each(|_| timeouts.decided(None));
        assert_eq!(timeouts.current_us(), 16_000_000);
        timeouts.decided(None);
        assert_eq!(timeouts.current_us(), 8_000_000);
    }

    #[test]
    fn it_falls_with_what_decisions_take_and_not_below_its_bound() {
        let mut timeouts = timeouts();
        decide(&mut timeouts, SAMPLES_MIN - 1, Duration::from_millis(1));
        assert_eq!(timeouts.current_us(), 2_000_000, "too few to tell");
        decide(&mut timeouts, 100, Duration::from_millis(300));
        let adapted = timeouts.current_us();
        assert!((1_100_000..1_300_000).contains(&adapted), "{adapted}");
        decide(&mut timeouts, 100, Duration::from_millis(1));
        assert_eq!(timeouts.current_us(), 1_000_000);
    }

    #[test]
    fn a_slow_leader_does_not_raise_it_above_what_is_configured() {
        let mut timeouts = timeouts();
        decide(&mut timeouts, 100, Duration::from_millis(1));
        decide(&mut timeouts, 1000, Duration::from_secs(100));
        assert_eq!(timeouts.current_us(), 2_000_000);
    }
}
