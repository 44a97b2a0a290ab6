//! The journal: the ordering core's records, appended and synced in groups (A7). One file of frames, each a length, a
//! CRC-32 and the record. A torn tail, as a crash leaves it, is cut off; damage before it is an error that names the place,
//! for what is lost there was promised to others.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use steeldb_ordering::Record;
use steeldb_types::limits;

const MAGIC: &[u8; 8] = b"steeldb1";
const HEADER_BYTES: usize = 8;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk or the file system failed.
    #[error("journal {path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What failed.
        error: io::Error,
    },
    /// The file is not a journal.
    #[error("{path} is not a journal of this version of SteelDB")]
    NotAJournal {
        /// The file.
        path: PathBuf,
    },
    /// A record before the end is damaged.
    #[error(
        "journal {path} is damaged at byte {offset} ({reason}) with {after} bytes after it; restore it from a backup of this host, or rebuild this replica from the others"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What was found.
        reason: String,
        /// How much follows.
        after: u64,
    },
}

/// An open journal: records go to a thread of its own, which syncs whatever has gathered at once.
pub struct Journal {
    sender: Option<mpsc::Sender<(u64, Vec<u8>)>>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    /// Opens or creates the journal at `path` and reads its records. `persisted` is called, on the journal's thread,
    /// with the highest sequence number that is durable, or with the error that ends the journal. `sync` off is for
    /// throw-away demonstrations.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(
        path: &Path,
        sync: bool,
        persisted: impl Fn(Result<u64, JournalError>) + Send + 'static,
    ) -> Result<(Journal, Vec<Record>), JournalError> {
        let fail = |error| JournalError::Io { path: path.to_path_buf(), error };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(fail)?;
        let length = file.metadata().map_err(fail)?.len();
        let (records, end) = if length < MAGIC.len() as u64 {
            file.set_len(0).map_err(fail)?;
            file.rewind().map_err(fail)?;
            file.write_all(MAGIC).map_err(fail)?;
            file.sync_all().map_err(fail)?;
            sync_directory(path).map_err(fail)?;
            (Vec::new(), MAGIC.len() as u64)
        } else {
            read(&mut file, path, length)?
        };
        if end < length {
            tracing::warn!(path = %path.display(), bytes = length - end, "a torn record at the journal's end is cut off");
            file.set_len(end).map_err(fail)?;
            file.sync_all().map_err(fail)?;
        }
        file.seek(SeekFrom::Start(end)).map_err(fail)?;
        let (sender, receiver) = mpsc::channel();
        let path = path.to_path_buf();
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || write(file, &path, sync, &receiver, &persisted))
            .map_err(|error| JournalError::Io { path: PathBuf::from("journal thread"), error })?;
        Ok((Journal { sender: Some(sender), thread: Some(thread) }, records))
    }

    /// Appends a record; `persisted` will say when it is durable.
    pub fn append(&self, sequence: u64, record: &Record) {
        if let Some(sender) = &self.sender {
            // The thread ends only after it has reported why.
            let _ = sender.send((sequence, record.encode()));
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn write(
    mut file: File,
    path: &Path,
    sync: bool,
    receiver: &mpsc::Receiver<(u64, Vec<u8>)>,
    persisted: &dyn Fn(Result<u64, JournalError>),
) {
    let mut buffer = Vec::new();
    while let Ok(first) = receiver.recv() {
        buffer.clear();
        let mut upto = 0;
        let mut next = Some(first);
        while let Some((sequence, bytes)) = next {
            buffer.extend((bytes.len() as u32).to_le_bytes());
            buffer.extend(crc32fast::hash(&bytes).to_le_bytes());
            buffer.extend(&bytes);
            upto = sequence;
            next = if buffer.len() < limits::FRAME_BYTES_MAX { receiver.try_recv().ok() } else { None };
        }
        let done = file.write_all(&buffer).and_then(|()| if sync { file.sync_data() } else { Ok(()) });
        match done {
            Ok(()) => persisted(Ok(upto)),
            Err(error) => {
                return persisted(Err(JournalError::Io { path: path.to_path_buf(), error }));
            }
        }
    }
}

/// Reads the records and the offset behind the last whole one.
fn read(file: &mut File, path: &Path, length: u64) -> Result<(Vec<Record>, u64), JournalError> {
    let fail = |error| JournalError::Io { path: path.to_path_buf(), error };
    file.rewind().map_err(fail)?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut magic = [0u8; MAGIC.len()];
    reader.read_exact(&mut magic).map_err(fail)?;
    if &magic != MAGIC {
        return Err(JournalError::NotAJournal { path: path.to_path_buf() });
    }
    let mut records = Vec::new();
    let mut offset = MAGIC.len() as u64;
    loop {
        let rest = length - offset;
        if rest < HEADER_BYTES as u64 {
            return Ok((records, offset));
        }
        let mut header = [0u8; HEADER_BYTES];
        reader.read_exact(&mut header).map_err(fail)?;
        let size = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let crc = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        let whole = (HEADER_BYTES + size) as u64;
        if size > limits::FRAME_BYTES_MAX || whole > rest {
            // A record that ends behind the file's end is a torn one, unless its length is what is damaged: no
            // record that big was ever written whole.
            if size > limits::FRAME_BYTES_MAX {
                return Err(damaged(path, offset, "impossible length", rest));
            }
            return Ok((records, offset));
        }
        let mut bytes = vec![0u8; size];
        reader.read_exact(&mut bytes).map_err(fail)?;
        let last = whole == rest;
        if crc32fast::hash(&bytes) != crc {
            if last {
                return Ok((records, offset));
            }
            return Err(damaged(path, offset, "wrong checksum", rest - whole));
        }
        match Record::decode(&bytes) {
            Ok(record) => records.push(record),
            Err(error) => return Err(damaged(path, offset, &error.to_string(), rest - whole)),
        }
        offset += whole;
    }
}

fn damaged(path: &Path, offset: u64, reason: &str, after: u64) -> JournalError {
    JournalError::Damaged { path: path.to_path_buf(), offset, reason: reason.to_string(), after }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeldb_ordering::Regency;

    fn written(records: &[Record]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (sender, receiver) = mpsc::channel();
        let (journal, before) =
            Journal::open(&path, true, move |upto| sender.send(upto.unwrap()).unwrap()).unwrap();
        assert!(before.is_empty());
        for (record, sequence) in records.iter().zip(1..) {
            journal.append(sequence, record);
        }
        while receiver.recv().unwrap() < records.len() as u64 {}
        drop(journal);
        (dir, path)
    }

    fn reopen(path: &Path) -> Result<Vec<Record>, JournalError> {
        Journal::open(path, true, |_| {}).map(|(_, records)| records)
    }

    fn regencies(n: u64) -> Vec<Record> {
        (0..n).map(|i| Record::Regency(Regency::new(0, i))).collect()
    }

    #[test]
    fn what_was_persisted_is_read_back() {
        let (_dir, path) = written(&regencies(5));
        assert_eq!(reopen(&path).unwrap(), regencies(5));
    }

    #[test]
    fn a_torn_tail_is_cut_off_at_every_length() {
        let (_dir, path) = written(&regencies(3));
        let whole = std::fs::read(&path).unwrap();
        let frame = (whole.len() - MAGIC.len()) / 3;
        for cut in 1..frame {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            assert_eq!(reopen(&path).unwrap(), regencies(2), "cut by {cut}");
        }
    }

    #[test]
    fn damage_before_the_end_is_never_silent() {
        let (_dir, path) = written(&regencies(3));
        let whole = std::fs::read(&path).unwrap();
        let frame = (whole.len() - MAGIC.len()) / 3;
        for at in MAGIC.len()..MAGIC.len() + frame {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            std::fs::write(&path, &bytes).unwrap();
            match reopen(&path) {
                Err(JournalError::Damaged { offset: 8, .. }) => {}
                // A changed length may reach past the end, which looks like a torn tail; the length field's low bytes.
                Ok(records) if at < MAGIC.len() + 4 => assert!(records.is_empty(), "byte {at}"),
                other => panic!("byte {at}: {other:?}"),
            }
        }
        std::fs::write(&path, b"something else entirely").unwrap();
        assert!(matches!(reopen(&path), Err(JournalError::NotAJournal { .. })));
    }
}
