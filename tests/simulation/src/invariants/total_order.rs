//! Total order: each replica's deliveries have no gap and no repetition, in instances and in positions, and their
//! timestamps ascend strictly.

use crate::history::History;

/// Walks what each replica's application holds.
///
/// # Errors
/// The first step that is wrong.
pub fn check(history: &History) -> Result<(), String> {
    for (replica, applied) in &history.applied {
        let mut position = 0;
        let mut last_timestamp = None;
        for (index, delivery) in applied.iter().enumerate() {
            if delivery.instance.0 != index as u64 + 1 {
                return Err(format!("{replica} delivered {} as number {}", delivery.instance, index + 1));
            }
            if last_timestamp.is_some_and(|last| last >= delivery.timestamp) {
                return Err(format!("{replica}: the time of {} is not after the last", delivery.instance));
            }
            last_timestamp = Some(delivery.timestamp);
            for (place, request) in &delivery.requests {
                position += 1;
                if place.0 != position {
                    return Err(format!("{replica}: {:?} at {place}, not #{position}", request.key()));
                }
            }
        }
    }
    Ok(())
}
