//! What a correct replica keeps is bounded by what its clients do, whatever liars send; and no more is prepared at once than
//! there are permits (B6).

use crate::history::{Held, History};
use steeldb_types::limits;

/// Sessions of one client that may be open at once: one may not have noticed its end yet.
const SESSIONS: usize = 3;
/// Transactions of one client under way at once: a replica may be some behind.
const TRANSACTIONS: usize = 8;
/// Operations of a transaction, at most.
const OPERATIONS: usize = 16;
/// Bytes of an operation or a statement.
const BYTES: usize = 512;
/// Votes and stream entries ahead of their transactions, for each transaction that a client may run in all.
const EARLY: usize = 64;

/// Looks at the most that was held.
///
/// # Errors
/// Which bound was passed, and where.
pub fn check(history: &History) -> Result<(), String> {
    for (replica, Held { sizes, prepared }) in &history.held {
        let transactions = history.clients * TRANSACTIONS;
        let bounds = [
            ("sessions", sizes.sessions, history.clients * SESSIONS),
            ("transactions", sizes.unsettled, transactions),
            ("anchors", sizes.anchors, limits::ANCHORS_MAX),
            ("bytes", sizes.bytes, transactions * OPERATIONS * BYTES),
            ("stream entries", sizes.entries, transactions * OPERATIONS),
            ("places", sizes.places, transactions * OPERATIONS),
            ("early votes", sizes.early_votes, history.clients * EARLY * history.replicas),
            ("early entries", sizes.early_entries, history.clients * EARLY * OPERATIONS),
            ("prepared transactions", *prepared, history.permits),
        ];
        if let Some((what, held, bound)) = bounds.into_iter().find(|(_, held, bound)| held > bound) {
            return Err(format!("{replica} held {held} {what}, and {bound} are enough"));
        }
    }
    Ok(())
}
