//! Time: no agreed timestamp lies further in the future than clocks may differ (A14).

use crate::history::History;

/// The cores' tolerance (1 s) and twice the largest error of a clock here (50 ms).
const AHEAD_US_MAX: i64 = 1_100_000;

/// Compares each delivery's timestamp with the clock.
///
/// # Errors
/// A timestamp out of the future.
pub fn check(history: &History) -> Result<(), String> {
    for observed in &history.observed {
        let ahead_us = observed.delivery.timestamp.0 - observed.wall_us;
        if ahead_us > AHEAD_US_MAX {
            let instance = observed.delivery.instance;
            return Err(format!("{}: {instance} happened {ahead_us} us from now", observed.replica));
        }
    }
    Ok(())
}
