//! Randomised waits between tries of a transaction that met a conflict.

use std::time::Duration;

use crate::random::TpccRandom;

/// Doubling upper bounds with the wait drawn uniformly below: terminals that collided once should not collide
/// again in step.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    bound: Duration,
    max: Duration,
}

impl Backoff {
    /// First wait below `first`, none above `max`.
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { bound: first, max }
    }

    /// The next wait.
    pub fn next(&mut self, random: &mut TpccRandom) -> Duration {
        let wait = self.bound.mul_f64(random.unit());
        self.bound = (self.bound * 2).min(self.max);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_below_doubling_bounds() {
        let mut random = TpccRandom::new(1, 0);
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(8));
        for bound in [1, 2, 4, 8, 8, 8] {
            assert!(backoff.next(&mut random) <= Duration::from_millis(bound));
        }
    }
}
