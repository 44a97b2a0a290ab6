//! The log: records in, batches out.

use crate::batch::{Entry, HEADER_BYTES, Header, push_frame};
use crate::index::{Index, Location};
use crate::live::Live;
use crate::manifest::{Manifest, Segment, file_of};
use crate::{Disk, LogError, Reader};
use std::sync::Arc;
use steeldb_ordering::{InstanceNumber, Proposal, Record};

/// Bytes of records in a batch: past it the batch is full.
const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Places in a segment are 32 bits wide.
const SEGMENT_BYTES_MAX: u64 = 1 << 31;

/// How a log is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Past so many bytes a segment is finished and the next one begun; at most 2 GiB.
    pub segment_bytes: u64,
    /// Whether to wait for the disk. Off only for throw-away demonstrations.
    pub sync: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { segment_bytes: 64 * 1024 * 1024, sync: true }
    }
}

/// An open log. Not used any more once a call has failed.
pub struct Log {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: Options,
    pub(crate) manifest: Manifest,
    pub(crate) live: Live,
    pub(crate) index: Index,
    /// The segment that is written, and where the next batch begins.
    pub(crate) segment: u64,
    pub(crate) end: u64,
    /// How far that segment is durable.
    pub(crate) durable: u64,
    /// The records of the next batch.
    batch: Vec<u8>,
    records: u32,
    decided: Vec<(InstanceNumber, Location)>,
    /// Values in this segment that are not decided, and where.
    values: Vec<(Arc<Proposal>, u32)>,
    /// Whether the end of the last batch is confirmed on disk.
    confirmed: bool,
    failed: bool,
}

impl Log {
    pub(crate) fn new(disk: Arc<dyn Disk>, options: Options, manifest: Manifest) -> Log {
        let segment_bytes = options.segment_bytes.clamp(1, SEGMENT_BYTES_MAX);
        Log {
            disk,
            options: Options { segment_bytes, ..options },
            manifest,
            live: Live::default(),
            index: Index::default(),
            segment: 0,
            end: 0,
            durable: 0,
            batch: Vec::new(),
            records: 0,
            decided: Vec::new(),
            values: Vec::new(),
            confirmed: true,
            failed: false,
        }
    }

    /// Adds a record to the next batch; commits a batch that is full. Durable once [`Log::commit`] has returned.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn append(&mut self, record: &Record) -> Result<(), LogError> {
        if self.batch.is_empty() && self.end >= self.options.segment_bytes {
            // Before the record counts: what a decision makes superfluous is needed until the decision is durable.
            self.begin_segment()?;
        }
        self.live.note(record);
        self.push(record);
        if self.batch.len() >= BATCH_BYTES_MAX { self.commit() } else { Ok(()) }
    }

    fn push(&mut self, record: &Record) {
        let offset = (self.end + (HEADER_BYTES + self.batch.len()) as u64) as u32;
        let contents = match record {
            Record::Decision(decision) => {
                self.decided.push((decision.instance(), Location { segment: self.segment, offset }));
                let proposal = &decision.proposal;
                let same = |value: &Arc<Proposal>| Arc::ptr_eq(value, proposal) || value == proposal;
                let known = self.values.iter().find(|(value, _)| same(value)).map(|(_, at)| *at);
                self.values.retain(|(value, _)| value.instance > decision.instance());
                known.map_or_else(|| Entry::record(record), |at| Entry::decided(&decision.proof, at))
            }
            Record::Write { proposal, .. } | Record::Accept { proposal: Some(proposal), .. } => {
                self.values.push((Arc::clone(proposal), offset));
                Entry::record(record)
            }
            _ => Entry::record(record),
        };
        push_frame(&mut self.batch, &contents);
        self.records += 1;
    }

    /// Writes the batch and waits for the disk.
    ///
    /// # Errors
    /// [`LogError`]; then nothing may be done that depends on the batch, nor with this log.
    pub fn commit(&mut self) -> Result<(), LogError> {
        if self.records == 0 {
            return self.check();
        }
        self.write_batch(self.options.sync)?;
        self.index.extend(self.decided.drain(..));
        self.confirmed = false;
        Ok(())
    }

    /// When nothing more is to be written for now: lets the disk know, in its own time, that the last batch was durable.
    /// Damage to it is then told from a torn tail.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn confirm(&mut self) -> Result<(), LogError> {
        if self.confirmed || self.records > 0 {
            return self.check();
        }
        self.confirmed = true;
        self.write_batch(false)
    }

    fn check(&self) -> Result<(), LogError> {
        if self.failed { Err(LogError::Failed) } else { Ok(()) }
    }

    fn write_batch(&mut self, sync: bool) -> Result<(), LogError> {
        self.check()?;
        let mut header = Header::new(self.segment, self.end, self.durable);
        (header.voted, header.decided) = (self.live.voted, self.live.decided);
        header.regency = self.live.regency;
        (header.records, header.bytes) = (self.records, self.batch.len() as u32);
        let mut bytes = header.to_bytes();
        bytes.append(&mut self.batch);
        self.records = 0;
        let file = file_of(self.segment);
        let written = self.disk.write_at(&file, self.end, &bytes);
        let done = written.and_then(|()| if sync { self.disk.sync(&file) } else { Ok(()) });
        done.map_err(|error| self.fail(&file, error))?;
        self.end += bytes.len() as u64;
        if sync {
            self.durable = self.end;
        }
        Ok(())
    }

    pub(crate) fn fail(&mut self, file: &str, error: std::io::Error) -> LogError {
        self.failed = true;
        LogError::io(format!("{}/{file}", self.disk.name()), error)
    }

    /// Finishes the segment and begins the next one, with all that is needed of those before.
    pub(crate) fn begin_segment(&mut self) -> Result<(), LogError> {
        self.check()?;
        if self.segment > 0 {
            let file = file_of(self.segment);
            self.disk.sync(&file).map_err(|error| self.fail(&file, error))?;
        }
        if let Some(last) = self.manifest.segments.iter_mut().find(|segment| segment.number == self.segment) {
            last.length = Some(self.end);
        }
        self.segment = self.manifest.segments.last().map_or(1, |last| last.number + 1);
        (self.end, self.durable) = (0, 0);
        self.values.clear();
        for record in self.live.records() {
            self.push(&record);
        }
        self.write_batch(true)?;
        self.disk.sync_names().map_err(|error| self.fail("", error))?;
        self.manifest.segments.push(Segment { number: self.segment, length: None });
        self.write_manifest()
    }

    pub(crate) fn write_manifest(&mut self) -> Result<(), LogError> {
        self.manifest.write(&*self.disk).inspect_err(|_| self.failed = true)
    }

    /// Drops whole segments from the front that have no decision from `before` on.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn truncate(&mut self, before: InstanceNumber) -> Result<(), LogError> {
        self.check()?;
        let old = self.manifest.segments.iter().map(|segment| segment.number);
        let dropped: Vec<u64> = old
            .take_while(|number| *number != self.segment && self.index.last_in(*number) < before)
            .collect();
        if dropped.is_empty() {
            return Ok(());
        }
        self.manifest.segments.drain(..dropped.len());
        self.write_manifest()?;
        for segment in dropped {
            self.index.drop_segment(segment);
            let file = file_of(segment);
            match self.disk.remove(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(self.fail(&file, error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A reader of this log's decisions.
    pub fn reader(&self) -> Reader {
        Reader { disk: Arc::clone(&self.disk), index: self.index.clone() }
    }
}
