//! The time, read by shells and by nothing below them.

use std::time::{Instant, SystemTime};
use steeldb_ordering::Now;
use steeldb_types::Timestamp;

/// A monotonic clock from its creation on, and the wall clock.
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Microseconds since the start.
    pub(crate) fn monotonic_us(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub(crate) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let wall = i64::try_from(wall.as_micros()).unwrap_or(i64::MAX);
        Now { monotonic_us: self.monotonic_us(), wall: Timestamp(wall) }
    }
}
