//! Looks up whether statements are certified deterministic, for the scheduler that holds the master's answer to them
//! against its own.

use crate::certified::is_certified;
use crate::scheduler::Event;
use std::path::PathBuf;
use steeldb_wire::transaction::StatementText;
use tokio::sync::mpsc;

pub(super) async fn certify(
    socket_dir: PathBuf,
    epoch: u64,
    database: String,
    statements: Vec<(StatementText, bool)>,
    events: mpsc::UnboundedSender<Event>,
) {
    let mut certified = true;
    for (text, row_order) in &statements {
        if !is_certified(&socket_dir, &database, text, *row_order).await {
            tracing::debug!(sql = text.sql, "not certified deterministic: the master is not blamed for it");
            certified = false;
            break;
        }
    }
    let _ = events.send(Event::Certified { epoch, certified });
}
