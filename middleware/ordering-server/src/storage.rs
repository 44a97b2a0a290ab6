//! Where a core's records go.

use crate::checkpoints::{self, CheckpointStore};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use steeldb_ordering::{Decision, InstanceNumber, Record};
use steeldb_ordering_log::{Directory, Disk, Journal, LogError, Options, SimulatedDisk};

/// A log of records. What is appended becomes durable in order; how that is reported is the log's own affair (a callback
/// given when it was opened), except when it is durable at once.
pub trait Storage: Send {
    /// Appends a record. The number of the highest durable record when that is known at once; else it is reported
    /// later.
    fn append(&mut self, sequence: u64, record: Record) -> Option<u64>;

    /// Calls `answer` with consecutive decisions from `from` on, of about so many bytes and at least one; with none when
    /// they are not there. May call it later, on a thread of its own.
    fn read_decisions(&mut self, from: InstanceNumber, bytes_max: usize, answer: TakeDecisions);

    /// Decisions before an instance may be let go of.
    fn truncate(&mut self, before: InstanceNumber);

    /// The application's checkpoints.
    fn checkpoints(&self) -> &CheckpointStore;
}

/// What a replica begins with.
#[derive(Default)]
pub struct Held {
    /// The application's state after an instance, as of the last stable checkpoint; nothing: its initial one.
    pub state: Option<(InstanceNumber, Vec<u8>)>,
    /// What the core continues from.
    pub records: Vec<Record>,
}

/// What takes decisions that were read.
pub type TakeDecisions = Box<dyn FnOnce(Vec<Arc<Decision>>) + Send>;

/// The log on disk, and checkpoints beside it.
pub struct DurableLog {
    journal: Journal,
    checkpoints: CheckpointStore,
}

/// Decisions read at once at most.
const DECISIONS_MAX: usize = 256;

/// Where checkpoints are, in the log's directory.
const CHECKPOINTS: &str = "checkpoints";

impl DurableLog {
    /// Opens or creates the log in the directory `path` and gives what a replica continues from. `persisted` is called,
    /// on the log's thread, with the highest sequence that is durable, or with the error that ends the log.
    ///
    /// # Errors
    /// [`LogError`]. Damage that the core can make good is only logged.
    pub fn open(
        path: &Path,
        options: Options,
        persisted: impl Fn(Result<u64, String>) + Send + 'static,
    ) -> Result<(DurableLog, Held), LogError> {
        let open = |path: PathBuf| {
            Directory::open(&path).map_err(|error| LogError::Io { place: path.display().to_string(), error })
        };
        let (log, checkpoints) = (open(path.to_path_buf())?, open(path.join(CHECKPOINTS))?);
        DurableLog::on(Arc::new(log), Arc::new(checkpoints), options, persisted)
    }

    /// As [`open`](DurableLog::open), on any disks.
    ///
    /// # Errors
    /// As [`open`](DurableLog::open).
    pub fn on(
        log: Arc<dyn Disk>,
        checkpoints: Arc<dyn Disk>,
        options: Options,
        persisted: impl Fn(Result<u64, String>) + Send + 'static,
    ) -> Result<(DurableLog, Held), LogError> {
        let place = log.name();
        let told = move |upto: Result<u64, LogError>| persisted(upto.map_err(|error| error.to_string()));
        let (journal, recovered) = Journal::open(log, options, told)?;
        for damage in &recovered.damage {
            tracing::error!(path = place, %damage, "the log is damaged");
        }
        let state = recovered.checkpoint.as_ref().and_then(|stable| {
            let instance = stable.certificate.instance;
            let state = checkpoints::load(&*checkpoints, stable);
            if state.is_none() {
                tracing::error!(
                    path = place,
                    "the checkpoint after {instance} is lost; the state is fetched"
                );
            }
            Some((instance, state?))
        });
        let delivered = state.as_ref().map_or(InstanceNumber(0), |(instance, _)| *instance);
        let records = recovered.records(delivered).collect();
        let checkpoints =
            CheckpointStore::open(checkpoints).map_err(|error| LogError::Io { place, error })?;
        Ok((DurableLog { journal, checkpoints }, Held { state, records }))
    }
}

impl Storage for DurableLog {
    fn append(&mut self, sequence: u64, record: Record) -> Option<u64> {
        self.journal.append(sequence, record);
        None
    }

    fn read_decisions(&mut self, from: InstanceNumber, bytes_max: usize, answer: TakeDecisions) {
        let reader = self.journal.reader();
        // Few at a time: a peer and a follower each have one under way.
        std::thread::spawn(move || {
            answer(reader.decisions(from, bytes_max, DECISIONS_MAX).unwrap_or_else(|error| {
                tracing::error!(%error, "decisions cannot be read back");
                Vec::new()
            }));
        });
    }

    fn truncate(&mut self, before: InstanceNumber) {
        self.journal.truncate(before);
    }

    fn checkpoints(&self) -> &CheckpointStore {
        &self.checkpoints
    }
}

/// No log: everything is "durable" at once and gone with the process. A cluster whose replicas run on this survives f
/// of them stopping once, no restart. For measurements.
pub struct MemoryLog {
    decisions: VecDeque<Arc<Decision>>,
    bytes: usize,
    bytes_max: usize,
    checkpoints: CheckpointStore,
}

impl MemoryLog {
    /// Keeps decisions of at most so many bytes for those that are behind.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn new(bytes_max: usize) -> std::io::Result<MemoryLog> {
        let checkpoints = CheckpointStore::open(Arc::new(SimulatedDisk::new()))?;
        Ok(MemoryLog { decisions: VecDeque::new(), bytes: 0, bytes_max, checkpoints })
    }
}

impl Storage for MemoryLog {
    fn append(&mut self, sequence: u64, record: Record) -> Option<u64> {
        if let Record::Decision(decision) = record {
            self.bytes += decision.proposal.size_bytes();
            self.decisions.push_back(decision);
            while self.bytes > self.bytes_max {
                let Some(oldest) = self.decisions.pop_front() else { break };
                self.bytes -= oldest.proposal.size_bytes();
            }
        }
        Some(sequence)
    }

    fn read_decisions(&mut self, from: InstanceNumber, bytes_max: usize, answer: TakeDecisions) {
        let first = self.decisions.front().map(|decision| decision.instance());
        let skip = first.and_then(|first| usize::try_from(from.0.checked_sub(first.0)?).ok());
        let Some(skip) = skip else { return answer(Vec::new()) };
        answer(within(self.decisions.iter().skip(skip).cloned(), bytes_max));
    }

    fn truncate(&mut self, before: InstanceNumber) {
        while self.decisions.front().is_some_and(|oldest| oldest.instance() < before) {
            let Some(oldest) = self.decisions.pop_front() else { return };
            self.bytes -= oldest.proposal.size_bytes();
        }
    }

    fn checkpoints(&self) -> &CheckpointStore {
        &self.checkpoints
    }
}

/// The first decisions, of so many bytes and at least one.
fn within(decisions: impl Iterator<Item = Arc<Decision>>, bytes_max: usize) -> Vec<Arc<Decision>> {
    let mut bytes = 0;
    decisions
        .take_while(|decision| {
            let first = bytes == 0;
            bytes += decision.proposal.size_bytes().max(1);
            first || bytes <= bytes_max
        })
        .collect()
}
