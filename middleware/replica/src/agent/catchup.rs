//! Catching up by write sets (A11): what a quorum committed and this replica could not execute is taken from any peer,
//! since its digest is in the certificate, and applied as rows.

use super::peer::PeerMessage;
use crate::scheduler::{CatchUpError, DecodedSet, Event};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use steeldb_postgres::apply::{ApplyError, apply_write_set};
use steeldb_postgres::transaction::is_recorded;
use steeldb_postgres::{AGENT_ROLE, Backend, WriteSet, quote};
use steeldb_transport::ReplicaLinks;
use steeldb_types::{Digest, ReplicaId, TxId, limits};
use steeldb_wire::codec;
use tokio::sync::mpsc;

/// Encoded write sets kept for peers, bytes in all. The oldest go first.
const KEPT_BYTES_MAX: usize = 128 * 1024 * 1024;

/// A write set above this is not kept: it would not fit a frame.
const WRITE_SET_BYTES_MAX: usize = limits::FRAME_BYTES_MAX - 1024;

/// How long a catch-up waits for a lock before whoever holds one is made to let go.
const LOCK_TIMEOUT: &str = "200ms";

/// Recent write sets of this replica's own decoding, by GID. Shared between the decoders and the reactor.
#[derive(Clone, Default)]
pub(super) struct WriteSets(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    sets: BTreeMap<String, Arc<Vec<u8>>>,
    order: VecDeque<String>,
    bytes: usize,
}

impl WriteSets {
    pub(super) fn keep(&self, gid: &str, write_set: &WriteSet) {
        if write_set.bodies_dropped() || write_set.bytes() as usize > WRITE_SET_BYTES_MAX {
            return;
        }
        let bytes = codec::encode(write_set);
        if bytes.len() > WRITE_SET_BYTES_MAX {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        kept.bytes += bytes.len();
        if kept.sets.insert(gid.to_string(), Arc::new(bytes)).is_none() {
            kept.order.push_back(gid.to_string());
        }
        while kept.bytes > KEPT_BYTES_MAX
            && let Some(oldest) = kept.order.pop_front()
        {
            let freed = kept.sets.remove(&oldest).map_or(0, |bytes| bytes.len());
            kept.bytes = kept.bytes.saturating_sub(freed);
        }
    }

    fn get(&self, gid: &str) -> Option<Arc<Vec<u8>>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).sets.get(gid).cloned()
    }

    /// Answers a peer that asks for a write set; with nothing if it is not kept.
    pub(super) fn serve(&self, links: &ReplicaLinks, peer: ReplicaId, tx: TxId, gid: &str) {
        let bytes = self.get(gid).map(|bytes| bytes.as_ref().clone()).unwrap_or_default();
        links.send_peer(peer, PeerMessage::WriteSet { tx, bytes }.encode());
    }
}

/// What decoding says of a write set.
pub(super) fn summary(write_set: &WriteSet) -> Result<DecodedSet, String> {
    match write_set.digest() {
        Ok(digest) => Ok(DecodedSet {
            digest,
            wall: write_set.truncates() || !write_set.ddl().is_empty(),
            changes: write_set.changes_len() as usize,
        }),
        Err(incomplete) => Err(incomplete.to_string()),
    }
}

/// A write set that a peer sent, if it is the one that the certificate names.
pub(super) fn check(bytes: &[u8], expected: Digest) -> Result<WriteSet, String> {
    if bytes.is_empty() {
        return Err("the peer does not keep it".into());
    }
    let write_set: WriteSet =
        codec::decode(bytes, limits::FRAME_BYTES_MAX).map_err(|error| error.to_string())?;
    match write_set.digest() {
        Ok(digest) if digest == expected => Ok(write_set),
        Ok(_) => Err("the peer sent another write set than the certificate names".into()),
        Err(incomplete) => Err(incomplete.to_string()),
    }
}

/// Applies a write set and commits it. Its record row makes it count as applied, so it is done once.
pub(super) async fn apply(
    socket_dir: PathBuf,
    database: String,
    tx: TxId,
    write_set: WriteSet,
    events: mpsc::UnboundedSender<Event>,
) {
    let result = attempt(&socket_dir, &database, tx, &write_set).await.map_err(|error| match &error {
        ApplyError::Backend(inner) if inner.sqlstate() == Some("55P03") => CatchUpError::Blocked,
        other => CatchUpError::Failed(other.to_string()),
    });
    let _ = events.send(Event::CaughtUp { tx, result });
}

async fn attempt(
    socket_dir: &std::path::Path,
    database: &str,
    tx: TxId,
    write_set: &WriteSet,
) -> Result<(), ApplyError> {
    let parameters = [("application_name".to_string(), "steeldb catch-up".to_string())];
    let mut backend = Backend::connect(socket_dir, database, AGENT_ROLE, &parameters).await?;
    if is_recorded(&mut backend, tx).await? {
        return Ok(()); // by an attempt whose answer was lost
    }
    backend.simple(&format!("BEGIN; SET LOCAL lock_timeout = {}", quote::literal(LOCK_TIMEOUT))).await?;
    apply_write_set(&mut backend, write_set).await?;
    backend.simple("COMMIT").await?;
    Ok(())
}
