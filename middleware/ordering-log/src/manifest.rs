//! The manifest: which segments there are, in two copies written one after the other, so that one damaged or torn copy
//! costs nothing and a missing segment is noticed.

use crate::{Disk, LogError};
use borsh::{BorshDeserialize, BorshSerialize};
use steeldb_wire::codec;

const COPIES: [&str; 2] = ["manifest-a", "manifest-b"];
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// A segment of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    /// Its length, once it is finished; the last one grows.
    pub(crate) length: Option<u64>,
}

/// The segments, ascending.
#[derive(Clone, PartialEq, Eq, Default, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct Manifest {
    generation: u64,
    pub(crate) segments: Vec<Segment>,
}

/// A segment's file.
pub(crate) fn file_of(segment: u64) -> String {
    format!("segment-{segment:012}")
}

/// The segment of a file.
pub(crate) fn segment_of(file: &str) -> Option<u64> {
    file.strip_prefix("segment-")?.parse().ok()
}

impl Manifest {
    /// Reads the newest good copy; nothing when there is none, and whether the other one is as new.
    pub(crate) fn read(disk: &dyn Disk, files: &[String]) -> Result<Option<(Manifest, bool)>, LogError> {
        let mut copies = Vec::new();
        for name in COPIES.iter().filter(|name| files.iter().any(|file| file == *name)) {
            let bytes =
                disk.read(name).map_err(|error| LogError::io(format!("{}/{name}", disk.name()), error))?;
            copies.extend(decode(&bytes));
        }
        copies.sort_by_key(|copy| copy.generation);
        let both = copies.len() == 2 && copies[0] == copies[1];
        Ok(copies.pop().map(|newest| (newest, both)))
    }

    /// Writes both copies, one after the other.
    pub(crate) fn write(&mut self, disk: &dyn Disk) -> Result<(), LogError> {
        self.generation += 1;
        let contents = codec::encode(self);
        let mut bytes = (contents.len() as u32).to_le_bytes().to_vec();
        bytes.extend(crc32fast::hash(&contents).to_le_bytes());
        bytes.extend(&contents);
        for name in COPIES {
            disk.write_at(name, 0, &bytes)
                .and_then(|()| disk.sync(name))
                .and_then(|()| disk.sync_names())
                .map_err(|error| LogError::io(format!("{}/{name}", disk.name()), error))?;
        }
        Ok(())
    }
}

fn decode(bytes: &[u8]) -> Option<Manifest> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?);
    let contents = bytes.get(8..8usize.checked_add(length)?)?;
    if crc32fast::hash(contents) != crc {
        return None;
    }
    codec::decode(contents, BYTES_MAX).ok()
}
