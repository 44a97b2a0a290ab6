//! Opening a log: what is there, what is torn, what is damaged, and what may still be promised.
//!
//! - Behind the last byte that a batch header says was durable, the first bad byte ends the log: a torn tail.
//! - Before it, a bad byte is damage. In a finished segment it costs decisions, which are fetched from others again: the
//!   next segment repeats everything else. In the last segment it may also have cost votes. The highest instance voted in
//!   and the regency are in every batch header, so the next good one bounds what was lost: up to that instance the
//!   replica must not vote any more.
//!   The same goes for instances whose decision was known and is lost: their votes were kept no longer. The highest is in
//!   every batch header, too.
//! - A missing segment is damage to all of it. If it is the last one, or nothing of the last one can be read, the regency
//!   is lost too, and with it what a STOPDATA has promised: the log does not open.

use crate::batch::{Entry, HEADER_BYTES, Header, Item, scan};
use crate::index::Location;
use crate::live::Live;
use crate::log::{Log, Options};
use crate::manifest::{Manifest, Segment, file_of, segment_of};
use crate::{Damage, Disk, LogError, Reader};
use std::collections::BTreeMap;
use std::sync::Arc;
use steeldb_ordering::{InstanceNumber, Record, StableCheckpoint};

/// What a log held when it was opened.
pub struct Recovered {
    /// The last stable checkpoint: an application that has its state can begin there.
    pub checkpoint: Option<Arc<StableCheckpoint>>,
    /// What was damaged. It has been made good as far as this replica can; for the log.
    pub damage: Vec<Damage>,
    /// Bytes of a torn tail that were cut off.
    pub torn_bytes: u64,
    live: Live,
    reader: Reader,
}

/// What one segment holds.
#[derive(Default)]
struct Found {
    live: Live,
    decided: Vec<(InstanceNumber, Location)>,
    damage: Vec<Damage>,
    /// Where it ends: at a torn tail, or at its length.
    end: u64,
    /// Whether any header was good.
    readable: bool,
}

impl Log {
    /// Opens or creates the log.
    ///
    /// # Errors
    /// [`LogError`]: the disk failed, or what this replica has promised cannot be told any more.
    pub fn open(disk: Arc<dyn Disk>, options: Options) -> Result<(Log, Recovered), LogError> {
        let name = disk.name();
        let files = disk.list().map_err(|error| LogError::io(&name, error))?;
        let (manifest, both_copies) = match Manifest::read(&*disk, &files)? {
            Some(read) => read,
            None if files.iter().any(|file| segment_of(file).is_some()) => {
                let reason = "both copies of the manifest are damaged or missing".into();
                return Err(LogError::Lost { place: name, reason });
            }
            None => (Manifest::default(), false),
        };
        let mut log = Log::new(disk, options, manifest);
        if !both_copies {
            log.write_manifest()?;
        }
        log.remove_unknown(&files)?;
        let (damage, torn_bytes) = log.read_segments(&files)?;
        if log.segment == 0 {
            log.begin_segment()?;
        }
        let (live, reader) = (log.live.clone(), log.reader());
        let checkpoint = live.checkpoint.clone();
        Ok((log, Recovered { checkpoint, damage, torn_bytes, live, reader }))
    }

    /// Removes segments whose creation was not finished, or whose removal was not.
    fn remove_unknown(&mut self, files: &[String]) -> Result<(), LogError> {
        for file in files {
            let unknown = |number| self.manifest.segments.iter().all(|segment| segment.number != number);
            if segment_of(file).is_some_and(unknown) {
                self.disk.remove(file).map_err(|error| self.fail(file, error))?;
            }
        }
        Ok(())
    }

    fn read_segments(&mut self, files: &[String]) -> Result<(Vec<Damage>, u64), LogError> {
        let (mut damage, mut torn_bytes) = (Vec::new(), 0);
        let segments = self.manifest.segments.clone();
        let last_number = segments.last().map(|segment| segment.number);
        for segment in &segments {
            let file = file_of(segment.number);
            let is_last = Some(segment.number) == last_number;
            let place = format!("{}/{file}, byte 0", self.disk.name());
            let lost = |reason: &str| LogError::Lost { place: place.clone(), reason: reason.into() };
            if !files.contains(&file) {
                if is_last {
                    return Err(lost("the last segment of the log is missing"));
                }
                damage.push(Damage { file, offset: 0, bytes: 0, reason: "the segment is missing" });
                self.manifest.segments.retain(|known| known.number != segment.number);
                continue;
            }
            let bytes = self.disk.read(&file).map_err(|error| self.fail(&file, error))?;
            let found = read_segment(segment, &bytes);
            if is_last && !found.readable {
                return Err(lost("nothing of the last segment of the log can be read"));
            }
            self.index.extend(found.decided);
            if is_last {
                self.live = found.live;
                (self.segment, self.end) = (segment.number, found.end);
                self.durable = found.end;
                torn_bytes = (bytes.len() as u64).saturating_sub(found.end);
                if torn_bytes > 0 {
                    self.disk.set_len(&file, found.end).map_err(|error| self.fail(&file, error))?;
                }
                // A process that was killed has written what no disk holds yet. Whoever reads it here counts on it.
                if torn_bytes > 0 || self.options.sync {
                    self.disk.sync(&file).map_err(|error| self.fail(&file, error))?;
                }
                if !found.damage.is_empty() {
                    // What was lost is made good by a segment that does not need what is here.
                    self.begin_segment()?;
                }
            }
            damage.extend(found.damage);
        }
        Ok((damage, torn_bytes))
    }
}

impl Recovered {
    /// What the core is restored from ([`Restored`](steeldb_ordering::Restored)): the checkpoint, what bounds its votes,
    /// decisions as far as there is no hole, votes. `delivered` is the last instance whose delivery the application has
    /// completely taken. Decisions are read while it is consumed; ask before anything is appended.
    pub fn records(&self, delivered: InstanceNumber) -> impl Iterator<Item = Record> + use<> {
        let (live, index) = (&self.live, &self.reader.index);
        let begins = self.checkpoint.as_ref().map_or(InstanceNumber(0), |stable| stable.certificate.instance);
        // An application that is behind the checkpoint is brought up to it by decisions, if they are all there.
        let whole = index.last_consecutive(InstanceNumber(0));
        let (before, after) = match self.checkpoint.clone() {
            Some(stable) if delivered < begins && whole >= begins => (None, Some(stable)),
            stable => (stable, None),
        };
        let first = if after.is_some() { InstanceNumber(1) } else { begins.next() };
        let last = index.last_consecutive(InstanceNumber(first.0 - 1));
        // Votes in what was decided are not kept, so where the decision is lost none may be cast again.
        let known = index.last().max(live.decided);
        let upto = known.max(live.passive);
        let passive = (upto > last).then_some(Record::Passive { upto });
        let votes: Vec<Record> =
            live.votes.range(known.next()..).flat_map(|(_, votes)| votes.clone()).collect();
        let reader = self.reader.clone();
        before
            .map(Record::Checkpoint)
            .into_iter()
            .chain(passive)
            .chain([Record::Regency(live.regency)])
            .chain(Decisions { reader, next: first, last })
            .chain(after.map(Record::Checkpoint))
            .chain(votes)
    }
}

/// Reads decisions one after the other.
struct Decisions {
    reader: Reader,
    next: InstanceNumber,
    last: InstanceNumber,
}

impl Iterator for Decisions {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        if self.next > self.last {
            return None;
        }
        let instance = self.next;
        self.next = instance.next();
        match self.reader.decision(instance) {
            Ok(decision) => decision.map(Record::Decision),
            Err(error) => {
                // It was good a moment ago. From here on decisions are fetched; no vote is cast where some were.
                tracing::error!(%error, "a decision cannot be read any more");
                let upto = self.last;
                self.next = upto.next();
                Some(Record::Passive { upto })
            }
        }
    }
}

fn read_segment(segment: &Segment, bytes: &[u8]) -> Found {
    let (mut durable, mut readable, mut bad) = (0, false, Vec::new());
    scan(segment.number, bytes, |item| match item {
        Item::Batch(header) => {
            durable = durable.max(header.durable);
            if header.offset == 0 {
                // The manifest named the segment only when its first batch was durable.
                durable = durable.max(batch_end(&header));
            }
            readable = true;
        }
        Item::Bad { batch, offset, .. } => bad.push((batch, offset)),
        Item::Record { .. } => {}
    });
    // A finished segment is durable as a whole.
    durable = segment.length.unwrap_or(durable);
    // A batch that is torn counts for nothing, nor does any after it.
    let torn = bad.into_iter().find(|(_, offset)| *offset >= durable);
    let end = torn.map_or(bytes.len() as u64, |(batch, _)| batch);
    let mut found = Found { readable, end, ..Found::default() };
    let file = file_of(segment.number);
    if (bytes.len() as u64) < durable {
        let offset = bytes.len() as u64;
        let missing =
            Damage { file: file.clone(), offset, bytes: durable - offset, reason: "the end is missing" };
        found.damage.push(missing);
    }
    let mut reading = Reading { end, lost_votes: false, batch: None, values: BTreeMap::new() };
    scan(segment.number, bytes, |item| reading.take(segment.number, &file, item, &mut found));
    if reading.lost_votes {
        // Only where a finished segment's end is damaged, whose votes the next one repeats.
        found.live.must_not_vote(found.live.voted);
    }
    found
}

struct Reading {
    /// Where the torn tail begins.
    end: u64,
    /// Whether something was lost that no good header has bounded yet.
    lost_votes: bool,
    batch: Option<Header>,
    /// Where values are in this segment.
    values: BTreeMap<u32, InstanceNumber>,
}

impl Reading {
    fn take(&mut self, segment: u64, file: &str, item: Item, found: &mut Found) {
        match item {
            Item::Bad { batch: offset, .. }
            | Item::Batch(Header { offset, .. })
            | Item::Record { offset, .. }
                if offset >= self.end => {}
            Item::Bad { offset, end, .. } => {
                let bytes = end - offset;
                found.damage.push(Damage {
                    file: file.into(),
                    offset,
                    bytes,
                    reason: "the bytes are not what was written",
                });
                // The header of this very batch bounds what it voted, if the header is good.
                match self.batch.filter(|header| header.offset <= offset && offset < batch_end(header)) {
                    Some(header) => bound(&header, found),
                    None => self.lost_votes = true,
                }
            }
            Item::Batch(header) => {
                self.batch = Some(header);
                found.live.regency = found.live.regency.max(header.regency);
                if std::mem::take(&mut self.lost_votes) {
                    bound(&header, found);
                }
                found.live.voted = found.live.voted.max(header.voted);
                found.live.decided = found.live.decided.max(header.decided);
            }
            Item::Record { offset, entry } => self.record(segment, offset, entry, found),
        }
    }

    fn record(&mut self, segment: u64, offset: u64, entry: Entry, found: &mut Found) {
        let Ok(offset) = u32::try_from(offset) else { return };
        let location = Location { segment, offset };
        match entry {
            Entry::Record(record) => {
                found.live.note(&record);
                match record {
                    Record::Decision(decision) => found.decided.push((decision.instance(), location)),
                    Record::Write { proposal, .. } | Record::Accept { proposal: Some(proposal), .. } => {
                        self.values.insert(offset, proposal.instance);
                    }
                    _ => {}
                }
            }
            Entry::Decided { proof, value_at } => {
                // Without its value it is as lost as the value; then its votes are not needed, and not known.
                if self.values.get(&value_at) == Some(&proof.instance) {
                    found.decided.push((proof.instance, location));
                    found.live.decide(proof.instance);
                }
            }
        }
    }
}

fn batch_end(header: &Header) -> u64 {
    header.offset + HEADER_BYTES as u64 + u64::from(header.bytes)
}

/// Votes were lost, none of them in an instance after those that the header names.
fn bound(header: &Header, found: &mut Found) {
    found.live.must_not_vote(header.voted);
}
