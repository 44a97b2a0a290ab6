//! Time: no agreed timestamp lies further in the future than clocks may differ (A14).

use crate::history::History;

/// The cores' tolerance, 1 s.
const TOLERANCE_US: i64 = 1_000_000;

/// Compares each delivery's timestamp with the clock.
///
/// # Errors
/// A timestamp out of the future.
pub fn check(history: &History) -> Result<(), String> {
    // Some correct replica found it in time, by a clock that is off.
    let ahead_us_max = TOLERANCE_US + history.skew_max_us;
    for observed in &history.observed {
        let ahead_us = observed.delivery.timestamp.0 - observed.wall_us;
        if ahead_us > ahead_us_max {
            let instance = observed.delivery.instance;
            return Err(format!("{}: {instance} happened {ahead_us} us from now", observed.replica));
        }
    }
    Ok(())
}
