//! Reading decisions back, beside the log's own work: for replicas that are behind, and for a restart.

use crate::batch::{Entry, FRAME_BYTES, frame_entry, frame_head};
use crate::index::{Index, Location};
use crate::manifest::file_of;
use crate::{Disk, LogError};
use std::sync::Arc;
use steeldb_ordering::{Decision, InstanceNumber, Record};

/// Reads decisions of a log. Clones share the index; reading does not hold the log up.
#[derive(Clone)]
pub struct Reader {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) index: Index,
}

impl Reader {
    /// Consecutive decisions from `from` on, until their proposals have `bytes_max` bytes or there are `count_max`; at
    /// least one, unless the first is not there.
    ///
    /// # Errors
    /// [`LogError`]: the first one is there and cannot be read, or has been damaged since the start.
    pub fn decisions(
        &self,
        from: InstanceNumber,
        bytes_max: usize,
        count_max: usize,
    ) -> Result<Vec<Arc<Decision>>, LogError> {
        let mut decisions: Vec<Arc<Decision>> = Vec::new();
        let (mut next, mut bytes) = (from, 0);
        while decisions.len() < count_max && (decisions.is_empty() || bytes < bytes_max) {
            match self.decision(next) {
                Ok(Some(decision)) => {
                    bytes += decision.proposal.size_bytes();
                    decisions.push(decision);
                    next = next.next();
                }
                Ok(None) => break,
                Err(error) if decisions.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(decisions)
    }

    /// The decision of an instance; nothing when it is not kept.
    ///
    /// # Errors
    /// [`LogError`]: it is there and cannot be read, or has been damaged since the start.
    pub fn decision(&self, instance: InstanceNumber) -> Result<Option<Arc<Decision>>, LogError> {
        let Some(location) = self.index.get(instance) else { return Ok(None) };
        let decision = match self.entry(location)? {
            Entry::Record(Record::Decision(decision)) => Some(decision),
            Entry::Decided { proof, value_at } => {
                let value = self.entry(Location { offset: value_at, ..location })?;
                value.proposal().map(|proposal| Arc::new(Decision { proposal, proof }))
            }
            Entry::Record(_) => None,
        };
        match decision {
            Some(decision) if decision.instance() == instance => Ok(Some(decision)),
            _ => Err(self.damaged(location)),
        }
    }

    fn entry(&self, location: Location) -> Result<Entry, LogError> {
        let file = file_of(location.segment);
        let at = u64::from(location.offset);
        let read = |offset, length| {
            let place = format!("{}/{file}", self.disk.name());
            self.disk.read_at(&file, offset, length).map_err(|error| LogError::io(place, error))
        };
        let (length, crc) = frame_head(&read(at, FRAME_BYTES)?).ok_or_else(|| self.damaged(location))?;
        let contents = read(at + FRAME_BYTES as u64, length)?;
        frame_entry(&contents, crc).ok_or_else(|| self.damaged(location))
    }

    fn damaged(&self, location: Location) -> LogError {
        let place = format!("{}/{}, byte {}", self.disk.name(), file_of(location.segment), location.offset);
        let error = std::io::Error::new(std::io::ErrorKind::InvalidData, "a record is damaged");
        LogError::Io { place, error }
    }
}
