//! The log on disk: one file of frames, each a length, a CRC-32 and a record; the replica agent's format. Records go to a
//! thread of their own, which syncs whatever has gathered at once. A torn tail, as a crash leaves it, is cut off; damage
//! before it is an error that names the place, for what is lost there was promised to others.

use crate::storage::{Answer, Storage, within};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use steeldb_ordering::{InstanceNumber, Record};
use steeldb_types::limits;

const MAGIC: &[u8; 8] = b"steeldb1";
const HEADER_BYTES: usize = 8;

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk or the file system failed.
    #[error("log {path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What failed.
        error: io::Error,
    },
    /// The file is not a log.
    #[error("{path} is not a log of this version of SteelDB")]
    NotAJournal {
        /// The file.
        path: PathBuf,
    },
    /// A record before the end is damaged.
    #[error("log {path} is damaged at byte {offset} ({reason}) with {after} bytes after it")]
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

/// Reads a log's records in order, without changing it.
pub struct JournalReader {
    path: PathBuf,
    file: BufReader<File>,
    length: u64,
    offset: u64,
}

impl JournalReader {
    /// Opens the log at `path` for reading.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(path: &Path) -> Result<JournalReader, JournalError> {
        let io = |error| JournalError::Io { path: path.to_path_buf(), error };
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut file = BufReader::with_capacity(1 << 20, file);
        let mut magic = [0u8; MAGIC.len()];
        match file.read_exact(&mut magic) {
            Ok(()) if &magic == MAGIC => {}
            _ => return Err(JournalError::NotAJournal { path: path.to_path_buf() }),
        }
        Ok(JournalReader { path: path.to_path_buf(), file, length, offset: MAGIC.len() as u64 })
    }

    /// Behind the last whole record read.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record; nothing at the end, or at a torn record there.
    ///
    /// # Errors
    /// [`JournalError`]: damage, or what the disk says.
    pub fn next_record(&mut self) -> Result<Option<Record>, JournalError> {
        let rest = self.length - self.offset;
        if rest < HEADER_BYTES as u64 {
            return Ok(None);
        }
        let mut header = [0u8; HEADER_BYTES];
        self.read_exact(&mut header)?;
        let size = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let crc = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        let whole = (HEADER_BYTES + size) as u64;
        if size > limits::FRAME_BYTES_MAX {
            // No record that big was ever written, so it is the length that is damaged.
            return Err(self.damaged("impossible length", rest));
        }
        if whole > rest {
            return Ok(None);
        }
        let mut bytes = vec![0u8; size];
        self.read_exact(&mut bytes)?;
        if crc32fast::hash(&bytes) != crc {
            return if whole == rest { Ok(None) } else { Err(self.damaged("wrong checksum", rest - whole)) };
        }
        match Record::decode(&bytes) {
            Ok(record) => {
                self.offset += whole;
                Ok(Some(record))
            }
            Err(error) => Err(self.damaged(&error.to_string(), rest - whole)),
        }
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), JournalError> {
        self.file.read_exact(bytes).map_err(|error| JournalError::Io { path: self.path.clone(), error })
    }

    fn damaged(&self, reason: &str, after: u64) -> JournalError {
        let (path, reason) = (self.path.clone(), reason.to_string());
        JournalError::Damaged { path, offset: self.offset, reason, after }
    }
}

/// The log on disk, open for appending.
pub struct FileLog {
    path: PathBuf,
    sender: Option<mpsc::Sender<(u64, Record)>>,
    thread: Option<JoinHandle<()>>,
    index: Arc<Mutex<Index>>,
}

/// Where decisions are: the first one's instance, and each one's offset.
#[derive(Default)]
struct Index {
    first: Option<InstanceNumber>,
    offsets: Vec<u64>,
}

impl Index {
    fn note(&mut self, record: &Record, offset: u64) {
        if let Record::Decision(decision) = record {
            self.first.get_or_insert(decision.instance());
            self.offsets.push(offset);
        }
    }

    fn offset(&self, instance: InstanceNumber) -> Option<u64> {
        let index = instance.0.checked_sub(self.first?.0)?;
        self.offsets.get(usize::try_from(index).ok()?).copied()
    }
}

impl FileLog {
    /// Opens or creates the log at `path` and reads its records. `persisted` is called, on the log's thread, with the
    /// highest sequence number that is durable, or with the error that ends the log.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(
        path: &Path,
        persisted: impl Fn(Result<u64, String>) + Send + 'static,
    ) -> Result<(FileLog, Vec<Record>), JournalError> {
        let io = |error| JournalError::Io { path: path.to_path_buf(), error };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        if length < MAGIC.len() as u64 {
            file.set_len(0).map_err(io)?;
            file.write_all(MAGIC).map_err(io)?;
            file.sync_all().map_err(io)?;
            if let Some(folder) = path.parent() {
                File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
            }
        }
        let (mut records, mut index) = (Vec::new(), Index::default());
        let mut reader = JournalReader::open(path)?;
        loop {
            let offset = reader.offset();
            let Some(record) = reader.next_record()? else { break };
            index.note(&record, offset);
            records.push(record);
        }
        let end = reader.offset();
        if end < length {
            tracing::warn!(path = %path.display(), bytes = length - end, "a torn record at the log's end is cut off");
            file.set_len(end).map_err(io)?;
            file.sync_all().map_err(io)?;
        }
        file.seek(SeekFrom::Start(end)).map_err(io)?;
        let index = Arc::new(Mutex::new(index));
        let (sender, receiver) = mpsc::channel();
        let writer = Writer { file, path: path.to_path_buf(), end, index: Arc::clone(&index) };
        let thread = std::thread::Builder::new()
            .name("log".into())
            .spawn(move || writer.run(&receiver, &persisted))
            .map_err(io)?;
        let path = path.to_path_buf();
        Ok((FileLog { path, sender: Some(sender), thread: Some(thread), index }, records))
    }
}

impl Storage for FileLog {
    fn append(&mut self, sequence: u64, record: Record) -> Option<u64> {
        if let Some(sender) = &self.sender {
            // The thread ends only after it has reported why.
            let _ = sender.send((sequence, record));
        }
        None
    }

    fn read_decisions(&mut self, from: InstanceNumber, bytes_max: usize, answer: Answer) {
        let Some(offset) = locked(&self.index).offset(from) else { return answer(Vec::new()) };
        let path = self.path.clone();
        // Few at a time: a peer and a follower each have one under way.
        std::thread::spawn(move || {
            let decisions = JournalReader::open(&path).and_then(|mut reader| {
                let seek = reader.file.seek(SeekFrom::Start(offset));
                seek.map_err(|error| JournalError::Io { path: path.clone(), error })?;
                reader.offset = offset;
                let records = std::iter::from_fn(|| reader.next_record().ok().flatten());
                let decisions = records.filter_map(|record| match record {
                    Record::Decision(decision) => Some(decision),
                    _ => None,
                });
                Ok(within(decisions, bytes_max))
            });
            answer(decisions.unwrap_or_else(|error| {
                tracing::error!(%error, "decisions cannot be read back");
                Vec::new()
            }));
        });
    }
}

impl Drop for FileLog {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The log's thread.
struct Writer {
    file: File,
    path: PathBuf,
    end: u64,
    index: Arc<Mutex<Index>>,
}

impl Writer {
    fn run(mut self, receiver: &mpsc::Receiver<(u64, Record)>, persisted: &dyn Fn(Result<u64, String>)) {
        let mut buffer = Vec::new();
        while let Ok(first) = receiver.recv() {
            buffer.clear();
            let mut decisions = Vec::new();
            let mut upto = 0;
            let mut next = Some(first);
            while let Some((sequence, record)) = next {
                let offset = self.end + buffer.len() as u64;
                let bytes = record.encode();
                buffer.extend((bytes.len() as u32).to_le_bytes());
                buffer.extend(crc32fast::hash(&bytes).to_le_bytes());
                buffer.extend(&bytes);
                if matches!(record, Record::Decision(_)) {
                    decisions.push((record, offset));
                }
                upto = sequence;
                next = if buffer.len() < limits::FRAME_BYTES_MAX { receiver.try_recv().ok() } else { None };
            }
            if let Err(error) = self.file.write_all(&buffer).and_then(|()| self.file.sync_data()) {
                return persisted(Err(format!("{}: {error}", self.path.display())));
            }
            self.end += buffer.len() as u64;
            let mut index = locked(&self.index);
            for (record, offset) in &decisions {
                index.note(record, *offset);
            }
            drop(index);
            persisted(Ok(upto));
        }
    }
}

/// Whatever a thread that panicked left behind is whole: each change is one statement.
fn locked(index: &Mutex<Index>) -> MutexGuard<'_, Index> {
    index.lock().unwrap_or_else(PoisonError::into_inner)
}
