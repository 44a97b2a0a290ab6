//! Where a core's records go.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use steeldb_ordering::{Decision, InstanceNumber, Record};
use steeldb_ordering_log::{Directory, Journal, LogError, Options};

/// A log of records. What is appended becomes durable in order; how that is reported is the log's own affair (a callback
/// given when it was opened), except when it is durable at once.
pub trait Storage: Send {
    /// Appends a record. The number of the highest durable record when that is known at once; else it is reported
    /// later.
    fn append(&mut self, sequence: u64, record: Record) -> Option<u64>;

    /// Calls `answer` with consecutive decisions from `from` on, of about so many bytes and at least one; with none when
    /// they are not there. May call it later, on a thread of its own.
    fn read_decisions(&mut self, from: InstanceNumber, bytes_max: usize, answer: TakeDecisions);
}

/// What takes decisions that were read.
pub type TakeDecisions = Box<dyn FnOnce(Vec<Arc<Decision>>) + Send>;

/// The log on disk.
pub struct DurableLog(Journal);

/// Decisions read at once at most.
const DECISIONS_MAX: usize = 256;

impl DurableLog {
    /// Opens or creates the log in the directory `path` and gives the records that a core continues from. `persisted` is
    /// called, on the log's thread, with the highest sequence that is durable, or with the error that ends the log.
    ///
    /// # Errors
    /// [`LogError`]. Damage that the core can make good is only logged.
    pub fn open(
        path: &Path,
        persisted: impl Fn(Result<u64, String>) + Send + 'static,
    ) -> Result<(DurableLog, Vec<Record>), LogError> {
        let place = || path.display().to_string();
        let disk = Directory::open(path).map_err(|error| LogError::Io { place: place(), error })?;
        let told = move |upto: Result<u64, LogError>| persisted(upto.map_err(|error| error.to_string()));
        let (journal, recovered) =
            Journal::open(Arc::new(disk), Options::default(), InstanceNumber(0), told)?;
        for damage in &recovered.damage {
            tracing::error!(path = %path.display(), %damage, "the log is damaged");
        }
        Ok((DurableLog(journal), recovered.records.collect()))
    }
}

impl Storage for DurableLog {
    fn append(&mut self, sequence: u64, record: Record) -> Option<u64> {
        self.0.append(sequence, record);
        None
    }

    fn read_decisions(&mut self, from: InstanceNumber, bytes_max: usize, answer: TakeDecisions) {
        let reader = self.0.reader();
        // Few at a time: a peer and a follower each have one under way.
        std::thread::spawn(move || {
            answer(reader.decisions(from, bytes_max, DECISIONS_MAX).unwrap_or_else(|error| {
                tracing::error!(%error, "decisions cannot be read back");
                Vec::new()
            }));
        });
    }
}

/// No log: everything is "durable" at once and gone with the process. A cluster whose replicas run on this survives f
/// of them stopping once, no restart. For measurements.
pub struct MemoryLog {
    decisions: VecDeque<Arc<Decision>>,
    bytes: usize,
    bytes_max: usize,
}

impl MemoryLog {
    /// Keeps decisions of at most so many bytes for those that are behind.
    pub fn new(bytes_max: usize) -> MemoryLog {
        MemoryLog { decisions: VecDeque::new(), bytes: 0, bytes_max }
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
