//! Reading a write set back from the disk, some changes at a time.

use super::{LENGTH_BYTES, Received};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use steeldb_postgres::{Change, Operation};

/// Reads the changes of a write set.
pub struct Reader {
    rows: BufReader<At>,
    /// What the checksum is to be, and what it is so far.
    expected: u32,
    crc: crc32fast::Hasher,
    ended: bool,
    /// Counted as on the disk until it is read.
    kept: Option<Arc<Received>>,
}

struct At {
    file: Arc<File>,
    place: Range<u64>,
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min((self.place.end - self.place.start) as usize);
        let read = self.file.read_at(&mut buffer[..length], self.place.start)?;
        self.place.start += read as u64;
        Ok(read)
    }
}

impl Reader {
    /// Those at `place` in `file`, of checksum `expected`.
    pub(super) fn new(file: Arc<File>, place: Range<u64>, expected: u32) -> Reader {
        let rows = BufReader::with_capacity(256 * 1024, At { file, place });
        Reader { rows, expected, crc: crc32fast::Hasher::new(), ended: false, kept: None }
    }

    /// The same, of what is counted until it is read.
    pub(super) fn keeping(mut self, received: Arc<Received>) -> Reader {
        self.kept = Some(received);
        self
    }

    /// The next changes, about `bytes_max` bytes of their encodings; none at the end. A TRUNCATE of several tables is not cut
    /// in two. Blocks on the disk.
    ///
    /// # Errors
    /// The disk failed, or what is read is not what was written: all that was read before counts for nothing.
    pub fn next(&mut self, bytes_max: usize) -> io::Result<Vec<Change>> {
        let mut changes: Vec<Change> = Vec::new();
        let mut taken = 0;
        loop {
            let together =
                matches!(changes.last(), Some(last) if matches!(last.operation, Operation::Truncate { .. }));
            if taken >= bytes_max && !together {
                return Ok(changes);
            }
            if self.rows.fill_buf()?.is_empty() {
                return self.end().map(|()| changes);
            }
            let mut length = [0; LENGTH_BYTES];
            self.rows.read_exact(&mut length)?;
            let length_bytes = u64::from(u32::from_le_bytes(length));
            let at = self.rows.get_ref();
            if length_bytes > at.place.end - at.place.start + self.rows.buffer().len() as u64 {
                return Err(damaged());
            }
            let mut bytes = vec![0; length_bytes as usize];
            self.rows.read_exact(&mut bytes)?;
            self.crc.update(&length);
            self.crc.update(&bytes);
            taken += bytes.len();
            changes.push(borsh::from_slice(&bytes)?);
        }
    }

    fn end(&mut self) -> io::Result<()> {
        let crc = std::mem::take(&mut self.crc).finalize();
        if !std::mem::replace(&mut self.ended, true) && crc != self.expected {
            return Err(damaged());
        }
        Ok(())
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "they are not what was written")
}
