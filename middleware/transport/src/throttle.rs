//! Log lines that strangers can cause are counted, and few of them written.

use std::sync::Mutex;
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(10);

/// Lets a few events per ten seconds through and counts the others.
pub(crate) struct Throttle {
    state: Mutex<State>,
    per_window: u32,
}

struct State {
    window_start: Option<Instant>,
    admitted: u32,
    suppressed: u64,
    total: u64,
}

impl Throttle {
    /// Lets `per_window` events per ten seconds through.
    pub(crate) fn new(per_window: u32) -> Throttle {
        let state = State { window_start: None, admitted: 0, suppressed: 0, total: 0 };
        Throttle { state: Mutex::new(state), per_window }
    }

    /// Counts an event. If it may be logged: how many were held back since the last one that was.
    pub(crate) fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut state = crate::queue::locked(&self.state);
        state.total += 1;
        if state.window_start.is_none_or(|start| now - start >= WINDOW) {
            state.window_start = Some(now);
            state.admitted = 0;
        }
        if state.admitted >= self.per_window {
            state.suppressed += 1;
            return None;
        }
        state.admitted += 1;
        Some(std::mem::take(&mut state.suppressed))
    }

    /// How many events there were.
    pub(crate) fn total(&self) -> u64 {
        crate::queue::locked(&self.state).total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_gives_few_lines_and_a_count() {
        let throttle = Throttle::new(2);
        let now = Instant::now();
        let lines = (0..1000).filter(|_| throttle.admit_at(now).is_some()).count();
        assert_eq!(lines, 2);
        assert_eq!(throttle.admit_at(now + WINDOW), Some(998));
        assert_eq!(throttle.total(), 1001);
    }
}
