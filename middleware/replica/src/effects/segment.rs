//! One file of kept effects: records one behind the other, each with a checksum over its head and one over its body.
//!
//! A record: `SDFX`, kind, three zeros, the body's length, when it was kept (seconds since 1970), the GID's 32 bytes, the
//! body's CRC-32, the head's CRC-32 over all before; numbers little-endian; then the body.

use super::Kind;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use steeldb_types::Digest;

const MAGIC: [u8; 4] = *b"SDFX";

/// Bytes of a record before its body.
pub(super) const HEAD_BYTES: usize = 60;

/// The head of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub kind: Kind,
    pub gid: Digest,
    pub length: u32,
    pub kept_at: u64,
    body_crc: u32,
}

impl Head {
    pub(super) fn new(kind: Kind, gid: Digest, kept_at: u64, body: &[u8]) -> Head {
        Head { kind, gid, length: body.len() as u32, kept_at, body_crc: crc32fast::hash(body) }
    }

    pub(super) fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = self.kind.number();
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.kept_at.to_le_bytes());
        bytes[20..52].copy_from_slice(&self.gid.0);
        bytes[52..56].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..56]);
        bytes[56..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// None when it is no head, or a damaged one.
    fn decode(bytes: &[u8; HEAD_BYTES]) -> Option<Head> {
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if bytes[..4] != MAGIC || number(56) != crc32fast::hash(&bytes[..56]) {
            return None;
        }
        let mut gid = [0; 32];
        gid.copy_from_slice(&bytes[20..52]);
        Some(Head {
            kind: Kind::of_number(bytes[4])?,
            gid: Digest(gid),
            length: number(8),
            kept_at: u64::from(number(12)) | u64::from(number(16)) << 32,
            body_crc: number(52),
        })
    }
}

/// What a lookup goes by: enough of a GID to find nearly always one record, and that says the rest.
pub(super) fn prefix(gid: &Digest) -> u64 {
    gid.0.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// A file of records.
pub(super) struct Segment {
    path: PathBuf,
    file: File,
    pub number: u64,
    pub length: u64,
    /// When its last record was kept.
    pub newest: u64,
    /// Prefix and place of each record; sorted once the segment is finished.
    places: Vec<(u64, u32)>,
    sorted: bool,
}

fn name(number: u64) -> String {
    format!("{number:016x}.effects")
}

/// The number of a file of that name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".effects")?;
    u64::from_str_radix(digits, 16).ok().filter(|number| self::name(*number) == name)
}

impl Segment {
    pub(super) fn create(directory: &Path, number: u64) -> io::Result<Segment> {
        let path = directory.join(name(number));
        // One of that name can only be the rest of a start that failed.
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        File::open(directory)?.sync_all()?;
        Ok(Segment { path, file, number, length: 0, newest: 0, places: Vec::new(), sorted: true })
    }

    /// Opens a segment and finds its records. Reading ends at the first damaged head: where the rest begins is not known.
    /// With `bodies` the bodies are checked as well, and the file is cut off before the first bad one: that is what a
    /// crash leaves.
    pub(super) fn open(directory: &Path, number: u64, bodies: bool) -> io::Result<Segment> {
        let path = directory.join(name(number));
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let end = file.metadata()?.len();
        let mut segment =
            Segment { path, file, number, length: 0, newest: 0, places: Vec::new(), sorted: false };
        while segment.length < end {
            let at = segment.length;
            let head = segment.head(at as u32).ok().flatten();
            let head = head.filter(|head| at + HEAD_BYTES as u64 + u64::from(head.length) <= end);
            let sound = |head: &Head| !bodies || matches!(segment.body(at as u32, head), Ok(Some(_)));
            let Some(head) = head.filter(sound) else {
                tracing::warn!(file = %segment.path.display(), at, "kept effects end here: the rest is torn or damaged");
                break;
            };
            segment.add(at as u32, &head);
        }
        if bodies {
            segment.file.set_len(segment.length)?;
        }
        segment.finish();
        Ok(segment)
    }

    fn add(&mut self, at: u32, head: &Head) {
        self.places.push((prefix(&head.gid), at));
        self.sorted = false;
        self.newest = self.newest.max(head.kept_at);
        self.length = u64::from(at) + HEAD_BYTES as u64 + u64::from(head.length);
    }

    /// Appends a record to the file; it is found once [`Segment::written`] says so.
    pub(super) fn write(&self, at: u64, head: &Head, body: &[u8]) -> io::Result<u64> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
        bytes.extend_from_slice(&head.encode());
        bytes.extend_from_slice(body);
        self.file.write_all_at(&bytes, at)?;
        Ok(at + bytes.len() as u64)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Notes a record that is written at `at`.
    pub(super) fn written(&mut self, at: u64, head: &Head) {
        self.add(at as u32, head);
    }

    /// Nothing more is written to it.
    pub(super) fn finish(&mut self) {
        self.places.sort_unstable();
        self.places.shrink_to_fit();
        self.sorted = true;
    }

    /// Places of the records that may be of `gid`, the latest first.
    pub(super) fn places(&self, gid: &Digest) -> Vec<u32> {
        let wanted = prefix(gid);
        if self.sorted {
            let from = self.places.partition_point(|(prefix, _)| *prefix < wanted);
            let upto = self.places.partition_point(|(prefix, _)| *prefix <= wanted);
            return self.places[from..upto].iter().rev().map(|(_, at)| *at).collect();
        }
        self.places.iter().rev().filter(|(prefix, _)| *prefix == wanted).map(|(_, at)| *at).collect()
    }

    /// The head at a place; none if it is damaged.
    pub(super) fn head(&self, at: u32) -> io::Result<Option<Head>> {
        let mut bytes = [0; HEAD_BYTES];
        self.file.read_exact_at(&mut bytes, u64::from(at))?;
        Ok(Head::decode(&bytes))
    }

    /// The whole body of the record at `at`; none if it is damaged.
    pub(super) fn body(&self, at: u32, head: &Head) -> io::Result<Option<Vec<u8>>> {
        let body = self.part(at, 0, head.length as usize)?;
        Ok((crc32fast::hash(&body) == head.body_crc).then_some(body))
    }

    /// A part of a body, unchecked.
    pub(super) fn part(&self, at: u32, from: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, u64::from(at) + HEAD_BYTES as u64 + from)?;
        Ok(bytes)
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
