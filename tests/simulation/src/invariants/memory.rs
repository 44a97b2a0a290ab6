//! Bounded memory: no queue of a correct core grows past what is written down here, whoever fills it.

use crate::history::History;
use crate::world::{DECISIONS_KEPT_BYTES, PENDING_MAX};

/// Instances behind those in flight for which messages are kept.
const INSTANCES_EARLY: usize = 2;
/// Values a replica remembers having written in an instance.
const WRITTEN_MAX: usize = 1024;
/// Effects that wait for a slow disk. Nobody fills this queue but the core itself; the bound is one of common sense.
const EFFECTS_MAX: usize = 4096;
/// The largest batch here, bytes.
const BATCH_BYTES: usize = 4096;

/// Compares the largest sizes seen with their bounds.
///
/// # Errors
/// The queue that grew too long.
pub fn check(history: &History) -> Result<(), String> {
    let (n, seen) = (usize::from(history.nodes), &history.queues);
    let bounds = [
        ("pending requests", seen.pending_requests, PENDING_MAX),
        ("early messages", seen.early_senders, (history.window + INSTANCES_EARLY) * n),
        ("votes", seen.votes, 2 * n * history.window),
        ("written values", seen.written_values, WRITTEN_MAX * history.window),
        ("STOPs", seen.stops, n),
        ("STOPDATAs", seen.stop_data, n),
        ("replicas ahead", seen.ahead, n),
        ("effects", seen.effects, EFFECTS_MAX),
        // The last decision always stays.
        ("decisions kept, bytes", seen.decisions_kept_bytes, DECISIONS_KEPT_BYTES + BATCH_BYTES),
    ];
    for (name, size, bound) in bounds {
        if size > bound {
            return Err(format!("{name}: {size}, where {bound} may be"));
        }
    }
    Ok(())
}
