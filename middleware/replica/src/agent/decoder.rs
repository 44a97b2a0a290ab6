//! The decoding stream of one database, feeding write-set digests to the scheduler.

use super::catchup::{keep, summary, summary_of_spilled};
use crate::effects::{Effects, Spill};
use crate::scheduler::Event;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Instant;
use steeldb_postgres::decoding::{DecodingError, Lsn};
use steeldb_postgres::write_set::{DdlCommand, Part};
use steeldb_postgres::{Decoded, DecodingStream, PUBLICATION};
use tokio::sync::mpsc;

/// The slot of a database: names of slots are restricted, so it is derived.
pub(super) fn slot_name(database: &str) -> String {
    let digest = steeldb_types::Digest::of("steeldb/slot", &[database.as_bytes()]).to_string();
    format!("steeldb_{}", &digest[..16])
}

/// Transactions that change names of schemas.
///
/// A stream remembers what a table is called from when it first sent a change of it, and PostgreSQL does not have it look again
/// when the table's schema gets another name. Rows named so would be looked for in vain by who takes them from a peer, and a
/// replica whose stream began later would name them otherwise. So the stream is started again behind each of these.
#[derive(Default)]
struct Renames {
    /// Decoded, and not resolved.
    open: BTreeSet<String>,
    /// One is resolved, and the stream is still the one from before.
    stale: bool,
}

impl Renames {
    fn decoded(&mut self, gid: &str, ddl: &[DdlCommand]) {
        if ddl.iter().any(|command| command.command_tag == "ALTER SCHEMA") {
            self.open.insert(gid.to_string());
        }
    }

    fn resolved(&mut self, gid: &str) {
        self.stale |= self.open.remove(gid);
    }
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
            Ok(()) if events.is_closed() => return,
            Ok(()) => {
                tracing::debug!(database, "a schema has another name: the decoding stream is started again")
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

/// Ends without an error when nobody listens any more, and when the stream is to be started again.
async fn stream(
    socket_dir: &Path,
    database: &str,
    effects: &Effects,
    events: &mpsc::UnboundedSender<Event>,
    open: &mut BTreeMap<String, Lsn>,
) -> Result<(), DecodingError> {
    let mut stream = DecodingStream::start(socket_dir, database, &slot_name(database), PUBLICATION).await?;
    let mut renames = Renames::default();
    let mut resolved_upto = Lsn(0);
    let mut unconfirmed = 0;
    // What is not on disk yet for peers is decoded again after a crash: that is what keeps it from being lost.
    let mut pending: VecDeque<(u64, Lsn)> = VecDeque::new();
    // The transaction that is being decoded, if it is too large for the memory; and those that were, until they are resolved.
    let (mut spill, mut spilled_bytes): (Option<Spill>, u64) = (None, 0);
    let mut spilled: BTreeSet<String> = BTreeSet::new();
    loop {
        match stream.next().await? {
            Decoded::Part { gid, part, bytes } => {
                spilled_bytes += bytes;
                if events.send(Event::DecodesLong { gid, bytes: spilled_bytes }).is_err() {
                    return Ok(());
                }
                spill = Some(spilling(effects, spill.take(), part).await?);
            }
            Decoded::PreparedInParts { gid, last, definitions, lsn } => {
                open.insert(gid.clone(), lsn);
                spilled.insert(gid.clone());
                renames.decoded(&gid, definitions.ddl());
                spilled_bytes = 0;
                let spill = spilling(effects, spill.take(), last).await?;
                let (of, started) = (gid.clone(), Instant::now());
                let ended = blocking(move || spill.finish(&of)).await?;
                let (ended, rows) = match ended {
                    Ok(ended) => {
                        let (changes, took) = (ended.changes, started.elapsed());
                        tracing::info!(gid, changes, ?took, "a bulk transaction's digests are sorted");
                        (Ok((ended.write_set, ended.changes)), ended.rows)
                    }
                    Err(error) => (Err(format!("the digests of its changes are lost: {error}")), None),
                };
                // Before anybody can hear of it.
                let rows = rows.filter(|_| definitions.incomplete().is_none());
                let ticket = rows.map_or(0, |rows| effects.keep_bulk(rows));
                let write_set = summary_of_spilled(ended, &definitions);
                if events.send(Event::Decoded { gid, write_set }).is_err() {
                    return Ok(());
                }
                pending.push_back((ticket, lsn));
            }
            Decoded::Prepared { gid, write_set, lsn } => {
                open.insert(gid.clone(), lsn);
                renames.decoded(&gid, write_set.ddl());
                let result = summary(&write_set);
                if events.send(Event::Decoded { gid: gid.clone(), write_set: result }).is_err() {
                    return Ok(());
                }
                pending.push_back((keep(effects, &gid, &write_set).await, lsn));
            }
            Decoded::Resolved { gid, committed, lsn } => {
                if spilled.remove(&gid) && !committed {
                    let (effects, gid) = (effects.clone(), gid.clone());
                    blocking(move || effects.drop_bulk(&gid)).await?;
                }
                open.remove(&gid);
                renames.resolved(&gid);
                resolved_upto = resolved_upto.max(lsn);
                // Begun farther back it would meet the old names again.
                let begins_anew = renames.stale && open.is_empty();
                if begins_anew && let Some((ticket, _)) = pending.back() {
                    effects.until_durable(*ticket).await;
                }
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
                if begins_anew {
                    return Ok(());
                }
            }
        }
    }
}

/// Takes in a part of a transaction that is too large for the memory.
async fn spilling(effects: &Effects, spill: Option<Spill>, part: Part) -> Result<Spill, DecodingError> {
    let effects = effects.clone();
    blocking(move || {
        let mut spill = spill.unwrap_or_else(|| effects.spill());
        spill.add(part);
        spill
    })
    .await
}

/// Joining fails only if what blocks panics, which it does not, or the process ends.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, DecodingError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| DecodingError::Ended)
}
