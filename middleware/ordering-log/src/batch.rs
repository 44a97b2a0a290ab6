//! Batches and records as bytes.
//!
//! A batch is a header of [`HEADER_BYTES`], then records, each a length, a checksum of length and contents, and the
//! contents. Headers name their own place, so that they can be found again behind damage and none is taken for another.

use borsh::{BorshDeserialize, BorshSerialize};
use std::sync::Arc;
use steeldb_ordering::{InstanceNumber, Proof, Proposal, Record, Regency};
use steeldb_types::limits;
use steeldb_wire::codec;

/// "SDL" and the version of the format.
const MAGIC: [u8; 4] = *b"SDL1";
pub(crate) const HEADER_BYTES: usize = 72;
pub(crate) const FRAME_BYTES: usize = 8;

/// What a batch says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct Header {
    magic: [u8; 4],
    pub(crate) segment: u64,
    /// Where it begins in its segment.
    pub(crate) offset: u64,
    /// Everything before this byte of the segment was durable when the batch was written.
    pub(crate) durable: u64,
    /// The highest instance that this replica has voted in, this batch included, or may not vote in.
    pub(crate) voted: InstanceNumber,
    /// The highest instance whose decision it has known, this batch included: votes in it are kept no longer.
    pub(crate) decided: InstanceNumber,
    /// The regency it has entered, this batch included.
    pub(crate) regency: Regency,
    pub(crate) records: u32,
    /// The bytes of the records.
    pub(crate) bytes: u32,
}

impl Header {
    pub(crate) fn new(segment: u64, offset: u64, durable: u64) -> Header {
        let (voted, decided) = (InstanceNumber(0), InstanceNumber(0));
        let regency = Regency::default();
        Header { magic: MAGIC, segment, offset, durable, voted, decided, regency, records: 0, bytes: 0 }
    }

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = codec::encode(&self);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// The header at the front of `bytes`, if one is there.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Header> {
        let (header, crc) = bytes.get(..HEADER_BYTES)?.split_at(HEADER_BYTES - 4);
        if header.get(..4)? != MAGIC || crc32fast::hash(header).to_le_bytes() != crc {
            return None;
        }
        codec::decode(header, HEADER_BYTES).ok()
    }

    pub(crate) fn end(&self) -> u64 {
        self.offset + HEADER_BYTES as u64 + u64::from(self.bytes)
    }
}

/// A record as it is stored.
pub(crate) enum Entry {
    Record(Record),
    /// A decision whose value is in the WRITE or ACCEPT record at a place of the same segment.
    Decided {
        proof: Proof,
        value_at: u32,
    },
}

const RECORD: u8 = 0;
const DECIDED: u8 = 1;

impl Entry {
    pub(crate) fn record(record: &Record) -> Vec<u8> {
        let mut bytes = vec![RECORD];
        bytes.extend(record.encode());
        bytes
    }

    pub(crate) fn decided(proof: &Proof, value_at: u32) -> Vec<u8> {
        let mut bytes = vec![DECIDED];
        bytes.extend(codec::encode(&(value_at, proof)));
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Entry> {
        match bytes.split_first()? {
            (&RECORD, body) => Record::decode(body).ok().map(Entry::Record),
            (&DECIDED, body) => {
                let (value_at, proof) = codec::decode(body, limits::FRAME_BYTES_MAX).ok()?;
                Some(Entry::Decided { proof, value_at })
            }
            _ => None,
        }
    }

    /// The proposal in it.
    pub(crate) fn proposal(self) -> Option<Arc<Proposal>> {
        match self {
            Entry::Record(Record::Write { proposal, .. }) => Some(proposal),
            Entry::Record(Record::Accept { proposal, .. }) => proposal,
            _ => None,
        }
    }
}

/// Adds a record's frame to a batch.
pub(crate) fn push_frame(batch: &mut Vec<u8>, contents: &[u8]) {
    let length = (contents.len() as u32).to_le_bytes();
    batch.extend(length);
    batch.extend(checksum(length, contents).to_le_bytes());
    batch.extend(contents);
}

fn checksum(length: [u8; 4], contents: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(contents);
    hasher.finalize()
}

/// The length of a frame's contents, and their checksum.
pub(crate) fn frame_head(head: &[u8]) -> Option<(usize, u32)> {
    let length = u32::from_le_bytes(head.get(..4)?.try_into().ok()?);
    let crc = u32::from_le_bytes(head.get(4..8)?.try_into().ok()?);
    Some((length as usize, crc)).filter(|(length, _)| *length <= limits::FRAME_BYTES_MAX + 1)
}

/// The entry in a frame's contents, if they are what was written.
pub(crate) fn frame_entry(contents: &[u8], crc: u32) -> Option<Entry> {
    let length = (contents.len() as u32).to_le_bytes();
    if checksum(length, contents) != crc {
        return None;
    }
    Entry::decode(contents)
}

/// What a scan comes across.
pub(crate) enum Item {
    Batch(Header),
    Record {
        offset: u64,
        entry: Entry,
    },
    /// Bytes that are nothing that was written; in the batch that begins at `batch`, or instead of one.
    Bad {
        batch: u64,
        offset: u64,
        end: u64,
    },
}

/// Goes through a segment's bytes.
pub(crate) fn scan(segment: u64, bytes: &[u8], mut each: impl FnMut(Item)) {
    let header_at = |at: usize| {
        let header = Header::from_bytes(bytes.get(at..)?)?;
        (header.segment == segment && header.offset == at as u64).then_some(header)
    };
    let mut at = 0;
    while at < bytes.len() {
        let Some(header) = header_at(at) else {
            let next = (at + 1..bytes.len().saturating_sub(HEADER_BYTES - 1))
                .find(|next| bytes[*next..].starts_with(&MAGIC) && header_at(*next).is_some());
            let end = next.unwrap_or(bytes.len());
            each(Item::Bad { batch: at as u64, offset: at as u64, end: end as u64 });
            at = end;
            continue;
        };
        each(Item::Batch(header));
        let mut offset = at + HEADER_BYTES;
        let end = (header.end() as usize).min(bytes.len());
        let mut records = 0;
        while let Some((entry, length)) = bytes.get(offset..end).and_then(frame) {
            each(Item::Record { offset: offset as u64, entry });
            offset += length;
            records += 1;
        }
        if records != header.records || header.end() > bytes.len() as u64 {
            each(Item::Bad { batch: at as u64, offset: offset as u64, end: end as u64 });
        }
        at = end;
    }
}

/// The record at the front of `bytes`, and the length of its frame.
fn frame(bytes: &[u8]) -> Option<(Entry, usize)> {
    let (length, crc) = frame_head(bytes)?;
    let entry = frame_entry(bytes.get(FRAME_BYTES..FRAME_BYTES + length)?, crc)?;
    Some((entry, FRAME_BYTES + length))
}
