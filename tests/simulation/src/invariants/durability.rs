//! Durability: what enough replicas told a client is executed stays executed, at that place, whatever crashes.

use crate::history::History;

/// Compares every acknowledgement with what each correct replica holds at that position now.
///
/// # Errors
/// A replica that executed something else there.
pub fn check(history: &History) -> Result<(), String> {
    for (replica, applied) in &history.applied {
        let all = || applied.iter().flat_map(|delivery| &delivery.requests);
        let last = all().next_back().map_or(0, |(position, _)| position.0);
        for (key, reply) in &history.acknowledged {
            let found = all().find(|(position, _)| *position == reply.position);
            match found {
                Some((_, request)) if request.key() == *key => {}
                // Not there yet, or not there again.
                None if last < reply.position.0 => {}
                _ => {
                    return Err(format!(
                        "{key:?} was acknowledged at {}; {replica} executed {:?} there",
                        reply.position,
                        found.map(|(_, request)| request.key())
                    ));
                }
            }
        }
    }
    Ok(())
}
