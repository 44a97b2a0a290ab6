//! The decisions of a log that is somebody else's: read without changing anything, whether a replica writes it or not.

use crate::batch::{Entry, FRAME_BYTES, HEADER_BYTES, Header, frame_entry, frame_head};
use crate::index::{Index, Location};
use crate::manifest::{Manifest, file_of};
use crate::{Disk, LogError, Reader};
use std::sync::Arc;
use steeldb_ordering::{Decision, InstanceNumber, Record};

/// Reads decisions, as far as they are there. Nothing is repaired: what is damaged is not there.
pub struct History {
    reader: Reader,
    /// The segment that is being read, and where the next batch begins in it.
    segment: u64,
    end: u64,
}

impl History {
    /// Reads where everything is in the log on `disk`.
    ///
    /// # Errors
    /// [`LogError`]: there is no log, or its manifest cannot be read.
    pub fn open(disk: Arc<dyn Disk>) -> Result<History, LogError> {
        let reader = Reader { disk, index: Index::default() };
        let mut history = History { reader, segment: 0, end: 0 };
        history.look_again()?;
        Ok(history)
    }

    /// Takes note of what was added since.
    ///
    /// # Errors
    /// As [`History::open`].
    pub fn look_again(&mut self) -> Result<(), LogError> {
        let disk = Arc::clone(&self.reader.disk);
        let files = disk.list().map_err(|error| LogError::io(disk.name(), error))?;
        let Some((manifest, _)) = Manifest::read(&*disk, &files)? else {
            let reason = "there is no log".into();
            return Err(LogError::Lost { place: disk.name(), reason });
        };
        for segment in &manifest.segments {
            if segment.number < self.segment {
                continue;
            }
            if segment.number > self.segment {
                (self.segment, self.end) = (segment.number, 0);
            }
            while self.read_batch() {}
        }
        Ok(())
    }

    /// The first decision that is kept; nothing when there is none.
    pub fn first(&self) -> Option<InstanceNumber> {
        self.reader.index.first()
    }

    /// The decision of an instance; nothing when it is not there.
    ///
    /// # Errors
    /// [`LogError`]: it was there and cannot be read.
    pub fn decision(&self, instance: InstanceNumber) -> Result<Option<Arc<Decision>>, LogError> {
        self.reader.decision(instance)
    }

    /// Takes in the next batch; false when it is not whole, or not yet.
    fn read_batch(&mut self) -> bool {
        let file = file_of(self.segment);
        let read = |offset, length| self.reader.disk.read_at(&file, offset, length).ok();
        let Some(header) = read(self.end, HEADER_BYTES).and_then(|bytes| Header::from_bytes(&bytes)) else {
            return false;
        };
        if header.segment != self.segment || header.offset != self.end {
            return false;
        }
        let Some(bytes) = read(self.end + HEADER_BYTES as u64, header.bytes as usize) else { return false };
        let (mut at, mut decided) = (0, Vec::new());
        for _ in 0..header.records {
            let frame = bytes.get(at..).and_then(frame_head);
            let Some((length, crc)) = frame else { return false };
            let contents = bytes.get(at + FRAME_BYTES..at + FRAME_BYTES + length);
            let Some(entry) = contents.and_then(|contents| frame_entry(contents, crc)) else { return false };
            let instance = match &entry {
                Entry::Record(Record::Decision(decision)) => Some(decision.instance()),
                Entry::Decided { proof, .. } => Some(proof.instance),
                Entry::Record(_) => None,
            };
            let offset = (self.end + (HEADER_BYTES + at) as u64) as u32;
            decided.extend(instance.map(|instance| (instance, Location { segment: self.segment, offset })));
            at += FRAME_BYTES + length;
        }
        self.reader.index.extend(decided);
        self.end = header.end();
        true
    }
}
