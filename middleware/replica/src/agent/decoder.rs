//! The decoding stream of one database, feeding write-set digests to the scheduler.

use super::catchup::{keep, summary};
use crate::effects::Effects;
use crate::scheduler::Event;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use steeldb_postgres::decoding::{DecodingError, Lsn};
use steeldb_postgres::{Decoded, DecodingStream, PUBLICATION};
use tokio::sync::mpsc;

/// The slot of a database: names of slots are restricted, so it is derived.
pub(super) fn slot_name(database: &str) -> String {
    let digest = steeldb_types::Digest::of("steeldb/slot", &[database.as_bytes()]).to_string();
    format!("steeldb_{}", &digest[..16])
}

/// Decodes until the agent ends, or the stream fails for good.
pub(super) async fn run(
    socket_dir: PathBuf,
    database: String,
    effects: Effects,
    events: mpsc::UnboundedSender<Event>,
    failed: mpsc::UnboundedSender<String>,
) {
    // Transactions that are prepared and not resolved: the slot is confirmed up to the oldest of them, so that after a
    // restart those in doubt are decoded again.
    let mut open: BTreeMap<String, Lsn> = BTreeMap::new();
    loop {
        match stream(&socket_dir, &database, &effects, &events, &mut open).await {
            // The walsender of the lost stream may still hold the slot (55006).
            Err(DecodingError::Backend(error))
                if error.is_recoverable() && error.sqlstate() != Some("55006") =>
            {
                let _ = failed.send(format!("decoding of database \"{database}\" failed: {error}"));
                return;
            }
            Err(error) => {
                if events.is_closed() {
                    return;
                }
                tracing::warn!(database, %error, "the decoding stream ended; starting it again");
            }
            Ok(()) => return,
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

async fn stream(
    socket_dir: &Path,
    database: &str,
    effects: &Effects,
    events: &mpsc::UnboundedSender<Event>,
    open: &mut BTreeMap<String, Lsn>,
) -> Result<(), DecodingError> {
    let mut stream = DecodingStream::start(socket_dir, database, &slot_name(database), PUBLICATION).await?;
    let mut resolved_upto = Lsn(0);
    let mut unconfirmed = 0;
    // What is not on disk yet for peers is decoded again after a crash: that is what keeps it from being lost.
    let mut pending: VecDeque<(u64, Lsn)> = VecDeque::new();
    loop {
        match stream.next().await? {
            Decoded::Prepared { gid, write_set, lsn } => {
                open.insert(gid.clone(), lsn);
                let result = summary(&write_set);
                if events.send(Event::Decoded { gid: gid.clone(), write_set: result }).is_err() {
                    return Ok(());
                }
                pending.push_back((keep(effects, &gid, &write_set).await, lsn));
            }
            Decoded::Resolved { gid, lsn, .. } => {
                open.remove(&gid);
                resolved_upto = resolved_upto.max(lsn);
                unconfirmed += 1;
                // Now and then is enough: it only lets the server forget.
                if unconfirmed >= 256 || open.is_empty() {
                    unconfirmed = 0;
                    let durable = effects.durable();
                    while pending.front().is_some_and(|(ticket, _)| *ticket <= durable) {
                        pending.pop_front();
                    }
                    let needed = open.values().copied().chain(pending.front().map(|(_, lsn)| *lsn));
                    let before = needed.min().map(|lsn| Lsn(lsn.0.saturating_sub(1)));
                    stream.confirm(before.unwrap_or(resolved_upto).min(resolved_upto)).await?;
                }
            }
        }
    }
}
