//! The agent's journal: the ordering core's log on disk, beside PostgreSQL's data, which it belongs to.

use super::config::AgentConfig;
use super::reactor::Reactor;
use anyhow::Context as _;
use std::sync::Arc;
use std::time::Duration;
use steeldb_ordering::{self as ordering, InstanceNumber, Record};
use steeldb_ordering_log::{Directory, Journal, LogError, Options};
use steeldb_types::ReplicaId;

/// Decisions read from the journal for one answer.
const DECISIONS_READ_MAX: usize = 256;

/// Opens the journal, and creates it for a replica that starts for the first time: before PostgreSQL's data directory,
/// so that data without a journal have lost it. `persisted` and `committed` as in [`Journal::open_watched`].
pub(super) fn open(
    config: &AgentConfig,
    persisted: impl Fn(Result<u64, LogError>) + Send + 'static,
    committed: impl Fn(usize, Duration) + Send + 'static,
) -> anyhow::Result<(Journal, Vec<Record>)> {
    let path = config.data_dir.join("journal");
    if path.is_file() {
        anyhow::bail!("{} is a journal of an older version, which this one cannot read", path.display());
    }
    if !path.exists() && config.server.data_dir.join("PG_VERSION").exists() {
        anyhow::bail!(
            "there are data in {} and no journal in {}: what this replica promised to others is lost, so it must not go on; \
             restore the journal, or rebuild this replica",
            config.server.data_dir.display(),
            path.display()
        );
    }
    let disk =
        Directory::open(&path).with_context(|| format!("cannot open the journal {}", path.display()))?;
    let options = Options { sync: config.server.settings.fsync, ..Options::default() };
    // The database takes no checkpoints: everything is delivered again, and compared with what PostgreSQL holds.
    let (journal, recovered) = Journal::open_watched(Arc::new(disk), options, persisted, committed)?;
    if recovered.torn_bytes > 0 {
        tracing::warn!(bytes = recovered.torn_bytes, "a torn batch at the journal's end is cut off");
    }
    for damage in &recovered.damage {
        tracing::error!(%damage, "the journal is damaged");
    }
    let records: Vec<Record> = recovered.records(InstanceNumber(0)).collect();
    // What is prepared in PostgreSQL is judged by the whole order. The ordering core could fetch the rest from others;
    // until PostgreSQL's side can wait for that, a gap ends it here.
    if let Some(damage) = recovered.damage.first() {
        anyhow::bail!(
            "the journal {} is damaged: {damage}{}; restore it from a backup of this host, or rebuild this replica from the others",
            path.display(),
            match recovered.damage.len() {
                1 => String::new(),
                more => format!(" (and {} more places)", more - 1),
            }
        );
    }
    if let Some(Record::Passive { upto }) =
        records.iter().find(|record| matches!(record, Record::Passive { .. }))
    {
        anyhow::bail!(
            "the journal {} was damaged and lacks decisions or votes up to {upto}; restore it from a backup of this host, or rebuild \
             this replica from the others",
            path.display()
        );
    }
    Ok((journal, records))
}

impl Reactor {
    /// Reads beside the reactor: the core limits how often a peer may ask.
    pub(super) fn read_decisions(&self, peer: ReplicaId, from: ordering::InstanceNumber, bytes_max: usize) {
        let (reader, answers) = (self.journal.reader(), self.decisions_read.clone());
        tokio::task::spawn_blocking(move || {
            let decisions = reader.decisions(from, bytes_max, DECISIONS_READ_MAX).unwrap_or_else(|error| {
                tracing::error!(%error, %peer, "decisions cannot be read from the journal");
                Vec::new()
            });
            let _ = answers.send(ordering::Event::DecisionsRead { peer, decisions });
        });
    }
}
