//! The write set of one bulk transaction, in a file of its own: its rows as decoding shows them, written part by part, and
//! the sorted digests that *w* is made of.
//!
//! A file: for each change the length of its encoding (four bytes) and the encoding; the sorted digests; a foot: `SDFC`, four
//! zeros, the number of digests, the bytes of all rows, when it was kept (seconds since 1970), the GID's 32 bytes, the CRC-32 of
//! the foot before. Numbers are little-endian.
//!
//! What peers are given is one body: the number of digests (eight bytes), the sorted digests, the rows. So whoever asks can
//! check the digests against *w* first, then each row as it comes, and their order in the end; nothing of it need be believed.

use super::sorting::Entries;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use steeldb_postgres::write_set::Part;
use steeldb_types::Digest;
use tempfile::{NamedTempFile, TempPath};

const MAGIC: [u8; 4] = *b"SDFC";

/// Bytes of the foot.
const FOOT_BYTES: usize = 68;

/// Bytes of a digest.
pub(crate) const DIGEST_BYTES: u64 = 32;

/// Bytes of a body before the digests.
pub(crate) const COUNT_BYTES: u64 = 8;

/// How files are called that are not whole yet.
const UNFINISHED: &str = ".unfinished";

/// A bulk transaction's write set on disk.
pub(super) struct Bulk {
    pub gid: Digest,
    pub kept_at: u64,
    /// How many digests *w* is made of.
    entries: u64,
    rows_bytes: u64,
    file: File,
    path: PathBuf,
    /// Its name, as long as it is not the one that is found after a restart.
    unfinished: Mutex<Option<TempPath>>,
}

fn name(gid: &Digest) -> String {
    format!("{gid}.bulk")
}

/// Whether a file of that name was given up when the process ended.
pub(super) fn is_unfinished(name: &str) -> bool {
    name.ends_with(UNFINISHED)
}

/// Whether a file of that name is a bulk transaction's.
pub(super) fn is_bulk(name: &str) -> bool {
    name.strip_suffix(".bulk").is_some_and(|gid| gid.len() == 64 && super::digest_of(gid).is_some())
}

impl Bulk {
    /// Opens a file; none if it is damaged.
    pub(super) fn open(path: &Path) -> io::Result<Option<Bulk>> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let Some(at) = length.checked_sub(FOOT_BYTES as u64) else { return Ok(None) };
        let mut foot = [0; FOOT_BYTES];
        file.read_exact_at(&mut foot, at)?;
        let (body, crc) = foot.split_at(FOOT_BYTES - 4);
        if foot[..4] != MAGIC || crc32fast::hash(body).to_le_bytes() != crc {
            return Ok(None);
        }
        let number = |at: usize| u64::from_le_bytes(foot[at..at + 8].try_into().unwrap_or_default());
        let (entries, rows_bytes, kept_at) = (number(8), number(16), number(24));
        let gid = Digest(foot[32..64].try_into().unwrap_or_default());
        let digests = entries.checked_mul(DIGEST_BYTES);
        let whole = digests.and_then(|digests| digests.checked_add(rows_bytes)) == Some(at);
        let named = path.file_name().is_some_and(|file| file.to_str() == Some(&name(&gid)));
        let bulk = Bulk {
            gid,
            kept_at,
            entries,
            rows_bytes,
            file,
            path: path.to_path_buf(),
            unfinished: Mutex::new(None),
        };
        Ok((whole && named).then_some(bulk))
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.rows_bytes + self.entries * DIGEST_BYTES + FOOT_BYTES as u64
    }

    /// Bytes of the body that peers are given.
    pub(super) fn total(&self) -> u64 {
        COUNT_BYTES + self.entries * DIGEST_BYTES + self.rows_bytes
    }

    /// A part of that body, unchecked: whoever asked knows what it must be.
    pub(super) fn part(&self, from: u64, length: usize) -> io::Result<Vec<u8>> {
        let from = from.min(self.total());
        let mut bytes = vec![0; length.min((self.total() - from) as usize)];
        let (rows, digests) = (self.rows_bytes, self.entries * DIGEST_BYTES);
        // Where each piece of the body begins, how long it is, and where it is in the file.
        let mut at = from;
        let mut rest = bytes.as_mut_slice();
        while !rest.is_empty() {
            let (left, place) = if at < COUNT_BYTES {
                (COUNT_BYTES - at, None)
            } else if at < COUNT_BYTES + digests {
                (COUNT_BYTES + digests - at, Some(rows + at - COUNT_BYTES))
            } else {
                (self.total() - at, Some(at - COUNT_BYTES - digests))
            };
            let length = rest.len().min(left as usize);
            let (piece, others) = std::mem::take(&mut rest).split_at_mut(length);
            match place {
                Some(place) => self.file.read_exact_at(piece, place)?,
                None => {
                    let begin = at as usize;
                    piece.copy_from_slice(&self.entries.to_le_bytes()[begin..begin + length]);
                }
            }
            at += length as u64;
            rest = others;
        }
        Ok(bytes)
    }

    /// Makes it one that is found after a restart.
    pub(super) fn settle(&self, directory: &Path, sync: bool) -> io::Result<()> {
        if sync {
            self.file.sync_data()?;
        }
        let mut unfinished = super::lock(&self.unfinished);
        if let Some(temporary) = unfinished.take() {
            temporary.persist(&self.path).map_err(|error| error.error)?;
            if sync {
                File::open(directory)?.sync_all()?;
            }
        }
        Ok(())
    }

    /// Removes its file. Who reads it at the moment reads on.
    pub(super) fn remove(&self) -> io::Result<()> {
        match super::lock(&self.unfinished).take() {
            Some(temporary) => temporary.close(),
            // Another one, kept when this was given up, may not be there.
            None => std::fs::remove_file(&self.path),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Takes in a transaction that is too large for the memory, part by part, while it is decoded. What is dropped before its
/// end leaves nothing.
pub struct Spill {
    directory: PathBuf,
    bytes_max: u64,
    rows: Option<BufWriter<NamedTempFile>>,
    rows_bytes: u64,
    changes: u64,
    entries: Entries,
}

/// A transaction that was taken in.
pub struct Spilled {
    /// *w*.
    pub write_set: Digest,
    /// How many changes there are.
    pub changes: u64,
    /// Its rows, to be given to [`super::Effects::keep_bulk`]; none if they cannot be kept.
    pub rows: Option<Rows>,
}

/// Rows that are on disk and not kept yet.
pub struct Rows(pub(super) Bulk);

impl Spill {
    /// None yet. Rows are kept in `directory` up to `bytes_max` bytes with their digests. That the disk cannot keep them is
    /// logged, and no reason not to vote.
    pub(super) fn new(directory: &Path, bytes_max: u64) -> Spill {
        let rows = tempfile::Builder::new().suffix(UNFINISHED).tempfile_in(directory);
        let rows =
            rows.map_err(|error| tracing::error!(%error, "rows of a bulk transaction cannot be kept")).ok();
        Spill {
            directory: directory.to_path_buf(),
            bytes_max,
            rows: rows.map(|file| BufWriter::with_capacity(256 * 1024, file)),
            rows_bytes: 0,
            changes: 0,
            entries: Entries::new(directory),
        }
    }

    /// Takes in more changes. Blocks on the disk.
    pub fn add(&mut self, part: Part) {
        if let Err(reason) = self.write(&part) {
            tracing::error!(reason, "the rows of a bulk transaction are not kept for replicas that are away");
            self.rows = None;
        }
        self.changes += part.changes.len() as u64;
        self.entries.add(part);
    }

    fn write(&mut self, part: &Part) -> Result<(), String> {
        let Some(rows) = &mut self.rows else { return Ok(()) };
        let digests = self.entries.len() + part.entries.len() as u64;
        for change in &part.changes {
            let bytes = borsh::to_vec(change).map_err(|error| error.to_string())?;
            let length = u32::try_from(bytes.len()).map_err(|error| error.to_string())?;
            self.rows_bytes += 4 + u64::from(length);
            fits(self.rows_bytes, digests, self.bytes_max)?;
            rows.write_all(&length.to_le_bytes())
                .and_then(|()| rows.write_all(&bytes))
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Ends it. Blocks on the disk.
    ///
    /// # Errors
    /// The disk lost digests: what the transaction did cannot be told, so it must not be voted for.
    pub fn finish(self, gid: &str) -> io::Result<Spilled> {
        let Spill { directory, bytes_max, mut rows, rows_bytes, changes, entries } = self;
        let sorted = entries.finish()?;
        let entries = sorted.len();
        let mut lost = None;
        if rows.is_some()
            && let Err(reason) = fits(rows_bytes, entries, bytes_max)
        {
            lost = Some(io::Error::other(reason));
            rows = None;
        }
        let write_set = sorted.merge(|digest| {
            if let Some(file) = &mut rows
                && let Err(error) = file.write_all(&digest.0)
            {
                lost = Some(error);
                rows = None;
            }
        })?;
        let rows = match (rows, super::digest_of(gid)) {
            (Some(file), Some(gid)) => {
                finish(file, gid, entries, rows_bytes, &directory).map_err(|error| lost = Some(error)).ok()
            }
            _ => None,
        };
        if let Some(error) = lost {
            tracing::error!(%error, gid, "the rows of a bulk transaction are not kept for replicas that are away");
        }
        Ok(Spilled { write_set, changes, rows: rows.map(Rows) })
    }
}

/// Whether rows and so many digests may be kept.
fn fits(rows_bytes: u64, digests: u64, bytes_max: u64) -> Result<(), String> {
    if rows_bytes + digests * DIGEST_BYTES + FOOT_BYTES as u64 > bytes_max {
        return Err(format!("they are more than the {bytes_max} bytes that are kept in all"));
    }
    Ok(())
}

/// Writes the foot.
fn finish(
    mut file: BufWriter<NamedTempFile>,
    gid: Digest,
    entries: u64,
    rows_bytes: u64,
    directory: &Path,
) -> io::Result<Bulk> {
    let kept_at = super::now();
    let mut foot = Vec::with_capacity(FOOT_BYTES);
    foot.extend_from_slice(&MAGIC);
    foot.extend_from_slice(&[0; 4]);
    for number in [entries, rows_bytes, kept_at] {
        foot.extend_from_slice(&number.to_le_bytes());
    }
    foot.extend_from_slice(&gid.0);
    let crc = crc32fast::hash(&foot);
    foot.extend_from_slice(&crc.to_le_bytes());
    file.write_all(&foot)?;
    let (file, unfinished) = file.into_inner().map_err(io::IntoInnerError::into_error)?.into_parts();
    let path = directory.join(name(&gid));
    let unfinished = Mutex::new(Some(unfinished));
    Ok(Bulk { gid, kept_at, entries, rows_bytes, file, path, unfinished })
}
