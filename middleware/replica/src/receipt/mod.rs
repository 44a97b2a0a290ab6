//! The write set of a bulk transaction, as it comes from a peer: checked piece by piece against *w*, which the certificate
//! names, and kept on disk until it is applied.
//!
//! First come the sorted digests that *w* is the digest of; from then on a row that is none of them is told at once, and so is
//! one that comes too often. Once all rows have come they are read once more: the digests that are left are those of their
//! order.
//!
//! Invariants:
//! - nothing that a peer says is believed: neither how much there is, nor that it ends;
//! - memory is bounded: of each digest a bit, and each [`LEAP`]th of them;
//! - the file has no name: nothing of it is left, however the process ends.

mod list;
mod reader;

pub use reader::Reader;

use crate::effects::{COUNT_BYTES, DIGEST_BYTES, Touches};
use list::List;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use steeldb_postgres::Change;
use steeldb_postgres::write_set::{Order, SortedDigests};
use steeldb_types::{Digest, Hasher};

/// One digest in so many is in memory; those between are read from the disk.
const LEAP: u64 = 64;

/// Bytes of a row's length.
const LENGTH_BYTES: usize = 4;

/// Bytes of rows that are looked at at once for their order, and touches of keys that are sorted at once.
const LOOK_BYTES: usize = 1024 * 1024;
const TOUCHES: usize = 256 * 1024;

/// Why a piece was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The peer does not have what the certificate names, or lies.
    #[error("{0}")]
    Wrong(&'static str),
    /// This replica's own disk.
    #[error("the disk failed: {0}")]
    Disk(#[from] io::Error),
}

/// A file without a name, and how much is in it.
struct Spooled {
    file: Arc<File>,
    bytes: u64,
    /// Bytes of all such files.
    on_disk: Arc<AtomicU64>,
}

impl Spooled {
    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at)?;
        let end = at + bytes.len() as u64;
        let more = end.saturating_sub(self.bytes);
        self.bytes += more;
        self.on_disk.fetch_add(more, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        self.on_disk.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A write set that is coming.
pub struct Receipt {
    write_set: Digest,
    bytes_max: u64,
    directory: PathBuf,
    spooled: Spooled,
    /// How much has come.
    at: u64,
    /// How much there is, by the word of who sends it; none from a new one yet.
    total: Option<u64>,
    /// The digests, once they are those of *w*.
    list: Option<List>,
    coming: Coming,
}

/// What comes next.
enum Coming {
    /// How many digests there are: bytes of that number.
    Count(Vec<u8>),
    Digests(Digests),
    Rows(Rows),
    /// Nothing: there is all, in its order.
    Nothing {
        changes: u64,
        crc: u32,
    },
}

struct Digests {
    entries: u64,
    sorted: SortedDigests,
    /// How many have come.
    count: u64,
    leaps: Vec<Digest>,
    /// Bytes of the next one.
    partial: Vec<u8>,
}

struct Rows {
    /// Bytes of the next one's length.
    length: Vec<u8>,
    row: Option<Row>,
    /// A bit for each digest: whether its row has come.
    seen: Vec<u64>,
    /// How many bits are set.
    seen_len: u64,
    /// How many rows have come.
    count: u64,
    crc: crc32fast::Hasher,
}

/// A row of which a part has come.
struct Row {
    hasher: Hasher,
    left: u64,
}

/// A whole write set on disk, equal to what the certificate names.
pub struct Received {
    spooled: Spooled,
    rows_at: u64,
    end: u64,
    changes: u64,
    crc: u32,
}

impl Receipt {
    /// For the write set of digest `write_set`, in a file in `directory`; at most `bytes_max` bytes. `on_disk` counts what
    /// such files hold.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn new(
        directory: &Path,
        write_set: Digest,
        bytes_max: u64,
        on_disk: Arc<AtomicU64>,
    ) -> io::Result<Receipt> {
        let file = tempfile::tempfile_in(directory)?;
        Ok(Receipt {
            write_set,
            bytes_max,
            directory: directory.to_path_buf(),
            spooled: Spooled { file: Arc::new(file), bytes: 0, on_disk },
            at: 0,
            total: None,
            list: None,
            coming: Coming::Count(Vec::new()),
        })
    }

    /// From which byte on it goes on.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Somebody else sends from now on. The digests, once they are checked, are the same for all; rows may be in another order.
    pub fn begin_again(&mut self) {
        self.total = None;
        (self.at, self.coming) = match &self.list {
            Some(list) => (list.end(), Coming::Rows(Rows::new(list.entries))),
            None => (0, Coming::Count(Vec::new())),
        };
    }

    /// Takes the next piece, from where it goes on; `total` is how much there is by the word of who sends it. Whether the
    /// whole is there. Blocks on the disk. After an error: [`Receipt::begin_again`].
    ///
    /// # Errors
    /// [`Refused`].
    pub fn add(&mut self, total: u64, bytes: &[u8]) -> Result<bool, Refused> {
        if total > self.bytes_max {
            return Err(Refused::Wrong("it is larger than what is kept here"));
        }
        if *self.total.get_or_insert(total) != total || self.at + bytes.len() as u64 > total {
            return Err(Refused::Wrong("a piece that is none"));
        }
        self.spooled.write(self.at, bytes)?;
        self.at += bytes.len() as u64;
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = self.take(rest, total)?;
        }
        if self.at < total {
            return Ok(false);
        }
        self.end()?;
        Ok(true)
    }

    /// No more comes: whether the rows are all of them, in an order that *w* covers.
    fn end(&mut self) -> Result<(), Refused> {
        let (Coming::Rows(rows), Some(list)) = (&mut self.coming, &self.list) else { return Err(early()) };
        if !rows.is_between_rows() {
            return Err(early());
        }
        let (file, crc) = (&self.spooled.file, rows.crc.clone().finalize());
        let mut reader = Reader::new(Arc::clone(file), list.end()..self.at, crc);
        let (mut order, mut touches, mut gathered) =
            (Order::default(), Touches::new(&self.directory), Vec::new());
        let mut wrong = false;
        let mut see = |entry: Digest| -> io::Result<()> {
            match list.free(file, entry, &rows.seen)? {
                Some(place) => rows.see(place),
                None => wrong = true,
            }
            Ok(())
        };
        loop {
            let changes = reader.next(LOOK_BYTES)?;
            for change in &changes {
                order.follow(change, change.digest(), &mut gathered).map_or(Ok(()), &mut see)?;
            }
            if gathered.len() >= TOUCHES || changes.is_empty() {
                touches.add(&std::mem::take(&mut gathered));
            }
            if changes.is_empty() {
                break;
            }
        }
        touches.finish(&mut see)?;
        if wrong {
            return Err(Refused::Wrong("rows in another order than the certificate covers"));
        }
        if rows.seen_len != list.entries {
            return Err(early());
        }
        self.coming = Coming::Nothing { changes: rows.count, crc };
        Ok(())
    }

    fn take<'a>(&mut self, bytes: &'a [u8], total: u64) -> Result<&'a [u8], Refused> {
        match &mut self.coming {
            Coming::Count(partial) => {
                let rest = fill(partial, COUNT_BYTES as usize, bytes);
                if let Ok(count) = partial.as_slice().try_into() {
                    self.coming = Coming::Digests(Digests::new(u64::from_le_bytes(count), total)?);
                }
                Ok(rest)
            }
            Coming::Digests(digests) => {
                let rest = digests.take(bytes)?;
                if digests.count == digests.entries {
                    let entries = digests.entries;
                    let leaps = std::mem::take(&mut digests.leaps);
                    let sorted = std::mem::replace(&mut digests.sorted, SortedDigests::new(0));
                    if sorted.finish() != Ok(self.write_set) {
                        return Err(Refused::Wrong("other digests than those of the certificate"));
                    }
                    self.list = Some(List { entries, leaps });
                    self.coming = Coming::Rows(Rows::new(entries));
                }
                Ok(rest)
            }
            Coming::Rows(rows) => {
                let Some(list) = &self.list else { return Err(Refused::Wrong("rows before their digests")) };
                let (rest, digest) = rows.take(bytes)?;
                if let Some(digest) = digest {
                    let place = list.free(&self.spooled.file, digest, &rows.seen)?;
                    let place = place.ok_or(Refused::Wrong("a row that the certificate does not cover"))?;
                    rows.see(place);
                    rows.count += 1;
                }
                Ok(rest)
            }
            Coming::Nothing { .. } => Err(Refused::Wrong("more behind the end")),
        }
    }

    /// The whole; none before [`Receipt::add`] has said so.
    pub fn finish(self) -> Option<Received> {
        match (self.coming, self.list) {
            (Coming::Nothing { changes, crc }, Some(list)) => {
                Some(Received { spooled: self.spooled, rows_at: list.end(), end: self.at, changes, crc })
            }
            _ => None,
        }
    }
}

fn early() -> Refused {
    Refused::Wrong("it ends too early")
}

/// Fills `partial` up to `length`; what is left of `bytes`.
fn fill<'a>(partial: &mut Vec<u8>, length: usize, bytes: &'a [u8]) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(bytes.len().min(length - partial.len()));
    partial.extend_from_slice(taken);
    rest
}

impl Digests {
    fn new(entries: u64, total: u64) -> Result<Digests, Refused> {
        // A change has at most three entries, and at least one byte.
        let digests = entries.checked_mul(DIGEST_BYTES);
        let rows = entries.div_ceil(3).checked_mul(LENGTH_BYTES as u64 + 1);
        let least = digests.zip(rows).and_then(|(digests, rows)| digests.checked_add(rows));
        if entries == 0 || least.is_none_or(|least| COUNT_BYTES + least > total) {
            return Err(Refused::Wrong("a number of digests that cannot be"));
        }
        let (sorted, leaps) = (SortedDigests::new(entries), Vec::new());
        Ok(Digests { entries, sorted, count: 0, leaps, partial: Vec::new() })
    }

    fn take<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Refused> {
        let rest = fill(&mut self.partial, DIGEST_BYTES as usize, bytes);
        if let Ok(digest) = self.partial.as_slice().try_into() {
            let digest = Digest(digest);
            self.partial.clear();
            self.sorted.add(digest).map_err(|_| Refused::Wrong("digests out of order"))?;
            if self.count.is_multiple_of(LEAP) {
                self.leaps.push(digest);
            }
            self.count += 1;
        }
        Ok(rest)
    }
}

impl Rows {
    fn new(entries: u64) -> Rows {
        let seen = vec![0; entries.div_ceil(64) as usize];
        Rows { length: Vec::new(), row: None, seen, seen_len: 0, count: 0, crc: crc32fast::Hasher::new() }
    }

    fn is_between_rows(&self) -> bool {
        self.length.is_empty() && self.row.is_none()
    }

    /// Takes some bytes; gives the others, and the digest of the row that they end.
    fn take<'a>(&mut self, bytes: &'a [u8]) -> Result<(&'a [u8], Option<Digest>), Refused> {
        let (rest, digest) = match &mut self.row {
            None => {
                let rest = fill(&mut self.length, LENGTH_BYTES, bytes);
                if let Ok(length) = self.length.as_slice().try_into() {
                    let left = u64::from(u32::from_le_bytes(length));
                    if left == 0 {
                        return Err(Refused::Wrong("a row without bytes"));
                    }
                    self.length.clear();
                    self.row = Some(Row { hasher: Change::hasher(left), left });
                }
                (rest, None)
            }
            Some(row) => {
                let (taken, rest) = bytes.split_at(bytes.len().min(row.left as usize));
                row.hasher.stream(taken);
                row.left -= taken.len() as u64;
                let ended = row.left == 0;
                let digest = self.row.take_if(|_| ended).map(|row| row.hasher.finish());
                (rest, digest)
            }
        };
        self.crc.update(&bytes[..bytes.len() - rest.len()]);
        Ok((rest, digest))
    }

    fn see(&mut self, place: u64) {
        self.seen[(place / 64) as usize] |= 1 << (place % 64);
        self.seen_len += 1;
    }
}

impl Received {
    /// How many changes there are.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Bytes of their encodings.
    pub fn bytes(&self) -> u64 {
        self.end - self.rows_at
    }

    /// Reads them, in the order in which they came.
    pub fn reader(self: &Arc<Self>) -> Reader {
        let file = Arc::clone(&self.spooled.file);
        Reader::new(file, self.rows_at..self.end, self.crc).keeping(Arc::clone(self))
    }
}

#[cfg(test)]
mod tests;
