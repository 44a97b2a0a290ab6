//! COPY data that wait for a backend to take them, or may have to be fed to it once more: in memory up to
//! [`limits::COPY_MEMORY_BYTES`] of a transaction, on disk past it.
//!
//! Invariants:
//! - whoever hands data over never waits for the disk: a thread writes. Data that wait for it keep the frame that they came
//!   in, so that a disk that is slower than the network slows the sockets, and memory stays bounded;
//! - the thread waits for nobody but the disk: no lock of PostgreSQL's and no message can hold it up;
//! - what is read is what was written, or nothing: each block has a checksum;
//! - files have no name: nobody else can open them, and nothing of them is left, however the process ends.

mod reader;

pub use reader::{Next, Reader};

use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use steeldb_types::{TxId, limits};
use tokio::sync::Notify;

/// Smaller chunks are put together to blocks of this size: what is noted of a block is small beside it, however a client
/// cuts its data.
const BLOCK_BYTES: usize = 64 * 1024;

/// Why data are lost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lost {
    /// `53100` when the disk is full, else `58030`.
    pub sqlstate: &'static str,
    /// What happened.
    pub reason: String,
}

impl Lost {
    fn of(what: &str, error: &io::Error) -> Lost {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        Lost {
            sqlstate: if full { "53100" } else { "58030" },
            reason: format!("COPY data cannot be {what} a replica's disk: {error}"),
        }
    }
}

type Report = Box<dyn Fn(TxId) + Send + Sync>;

/// Where COPY data go that are too many for the memory. Clones share it; the thread that writes ends with [`Writing`].
#[derive(Clone)]
pub struct Spool(Arc<Shared>);

/// The thread that writes.
pub struct Writing {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    directory: PathBuf,
    create: fn(&Path) -> io::Result<File>,
    queue: Mutex<Queue>,
    work: Condvar,
    /// Told of a transaction whose data are lost.
    report: Report,
    on_disk: AtomicU64,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

enum Job {
    /// A block is to be written.
    Write(Arc<Copied>, u64),
    /// A file is done with: what the disk frees may take a while.
    Close(Arc<File>),
}

/// The data of one COPY. Clones share them.
#[derive(Clone)]
pub struct Data(Arc<Copied>);

struct Copied {
    tx: TxId,
    /// None: all stays in memory.
    spool: Option<Spool>,
    /// Bytes in memory, over all of the transaction's.
    memory: Arc<AtomicUsize>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    blocks: VecDeque<Block>,
    /// The number of the first of them: those before are done with.
    first: u64,
    /// Chunks that are no block yet.
    tail: Vec<u8>,
    file: Option<Arc<File>>,
    /// How the data end, once they do: CopyFail's message.
    end: Option<Option<String>>,
    lost: Option<Lost>,
}

enum Block {
    Memory(Bytes),
    /// To be written.
    Waiting(Bytes),
    Disk {
        at: u64,
        length: usize,
        checksum: u32,
    },
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Spool {
    /// Opens or creates the directory, removes what is in it, and starts the thread that writes. `report` is called with
    /// each transaction of which data are lost.
    ///
    /// # Errors
    /// The directory cannot be made or cleared.
    pub fn open(
        directory: &Path,
        report: impl Fn(TxId) + Send + Sync + 'static,
    ) -> io::Result<(Spool, Writing)> {
        std::fs::create_dir_all(directory)?;
        // Where the file system knows no files without a name, a crash may leave one that had it for a moment.
        for entry in std::fs::read_dir(directory)? {
            std::fs::remove_file(entry?.path())?;
        }
        Spool::with(directory, |directory| tempfile::tempfile_in(directory), Box::new(report))
    }

    fn with(
        directory: &Path,
        create: fn(&Path) -> io::Result<File>,
        report: Report,
    ) -> io::Result<(Spool, Writing)> {
        let shared = Arc::new(Shared {
            directory: directory.to_path_buf(),
            create,
            queue: Mutex::default(),
            work: Condvar::new(),
            report,
            on_disk: AtomicU64::new(0),
        });
        let of_thread = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("spool".to_string()).spawn(move || of_thread.write_all())?;
        Ok((Spool(Arc::clone(&shared)), Writing { shared, thread: Some(thread) }))
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.0.on_disk.load(Ordering::Relaxed)
    }

    fn hand(&self, job: Job) {
        let mut queue = lock(&self.0.queue);
        if !queue.closed {
            queue.jobs.push_back(job);
            self.0.work.notify_one();
        }
    }
}

impl Shared {
    fn write_all(&self) {
        loop {
            let job = {
                let mut queue = lock(&self.queue);
                loop {
                    if queue.closed {
                        // Not under the lock: what is dropped wants to have its file closed.
                        let jobs = std::mem::take(&mut queue.jobs);
                        drop(queue);
                        drop(jobs);
                        return;
                    }
                    match queue.jobs.pop_front() {
                        Some(job) => break job,
                        None => queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner),
                    }
                }
            };
            match job {
                Job::Close(file) => {
                    let length = file.metadata().map_or(0, |metadata| metadata.len());
                    drop(file);
                    self.on_disk
                        .fetch_sub(length.min(self.on_disk.load(Ordering::Relaxed)), Ordering::Relaxed);
                }
                Job::Write(copied, number) => {
                    if let Err(error) = self.write(&copied, number) {
                        copied.lose(Lost::of("written to", &error));
                    }
                }
            }
        }
    }

    fn write(&self, copied: &Copied, number: u64) -> io::Result<()> {
        let (bytes, file) = {
            let mut state = lock(&copied.state);
            let file = state.file.clone();
            match state.block(number) {
                Some(Block::Waiting(bytes)) => (bytes.clone(), file),
                _ => return Ok(()), // taken meanwhile
            }
        };
        let file = match file {
            Some(file) => file,
            None => Arc::new((self.create)(&self.directory)?),
        };
        // Only this thread makes it longer.
        let at = file.metadata()?.len();
        lock(&copied.state).file = Some(Arc::clone(&file));
        file.write_all_at(&bytes, at)?;
        self.on_disk.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let mut state = lock(&copied.state);
        if let Some(block) = state.block(number) {
            *block = Block::Disk { at, length: bytes.len(), checksum: crc32fast::hash(&bytes) };
        }
        Ok(())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        lock(&self.shared.queue).closed = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

impl State {
    fn block(&mut self, number: u64) -> Option<&mut Block> {
        self.blocks.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }
}

impl Data {
    /// Data that are all here, in memory.
    pub fn whole(chunks: &[Vec<u8>], failure: Option<String>) -> Data {
        let blocks = chunks.iter().map(|chunk| Block::Memory(Bytes::copy_from_slice(chunk))).collect();
        let state = State { blocks, end: Some(failure), ..State::default() };
        Data(Arc::new(Copied {
            tx: TxId::default(),
            spool: None,
            memory: Arc::default(),
            state: Mutex::new(state),
            changed: Notify::new(),
        }))
    }

    /// Adds a chunk. What comes behind the end, or behind a loss, is dropped.
    pub fn push(&self, chunk: Bytes) {
        let mut state = lock(&self.0.state);
        if state.end.is_some() || state.lost.is_some() {
            return;
        }
        if chunk.len() < BLOCK_BYTES || !state.tail.is_empty() {
            state.tail.extend_from_slice(&chunk);
            if state.tail.len() >= BLOCK_BYTES {
                let block = std::mem::take(&mut state.tail);
                self.add(&mut state, block.into());
            }
        } else {
            self.add(&mut state, chunk);
        }
        drop(state);
        self.0.changed.notify_one();
    }

    /// Ends the data; the first end counts.
    pub fn end(&self, failure: Option<String>) {
        lock(&self.0.state).end.get_or_insert(failure);
        self.0.changed.notify_one();
    }

    /// Reads them from their start. `consume`: nobody else will, so what is read is let go of.
    pub fn reader(&self, consume: bool) -> Reader {
        Reader::new(Arc::clone(&self.0), consume)
    }

    fn add(&self, state: &mut State, bytes: Bytes) {
        let copied = &self.0;
        let length = bytes.len();
        let fits = |before: usize| (before + length <= limits::COPY_MEMORY_BYTES).then_some(before + length);
        let in_memory = copied.memory.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        match &copied.spool {
            Some(spool) if !in_memory => {
                state.blocks.push_back(Block::Waiting(bytes));
                let number = state.first + state.blocks.len() as u64 - 1;
                spool.hand(Job::Write(Arc::clone(copied), number));
            }
            // Not the frame that they came in: it would take its room for as long.
            _ => state.blocks.push_back(Block::Memory(Bytes::copy_from_slice(&bytes))),
        }
    }
}

impl Copied {
    /// Drops the blocks before a number.
    fn let_go(&self, state: &mut State, upto: u64) {
        while state.first < upto
            && let Some(block) = state.blocks.pop_front()
        {
            state.first += 1;
            if let Block::Memory(bytes) = block {
                self.memory.fetch_sub(bytes.len(), Ordering::Relaxed);
            }
        }
    }

    fn lose(&self, lost: Lost) {
        tracing::error!(tx = %self.tx, reason = lost.reason, "COPY data are lost");
        let mut state = lock(&self.state);
        let end = state.first + state.blocks.len() as u64;
        self.let_go(&mut state, end);
        state.lost.get_or_insert(lost);
        drop(state);
        self.changed.notify_one();
        if let Some(spool) = &self.spool {
            (spool.0.report)(self.tx);
        }
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let state = std::mem::take(self.state.get_mut().unwrap_or_else(PoisonError::into_inner));
        let in_memory = |block: &Block| match block {
            Block::Memory(bytes) => bytes.len(),
            Block::Waiting(_) | Block::Disk { .. } => 0,
        };
        self.memory.fetch_sub(state.blocks.iter().map(in_memory).sum(), Ordering::Relaxed);
        if let (Some(spool), Some(file)) = (&self.spool, state.file) {
            spool.hand(Job::Close(file));
        }
    }
}

/// The COPY data of all transactions.
pub struct Copies {
    spool: Spool,
    transactions: BTreeMap<TxId, OfTransaction>,
}

#[derive(Default)]
struct OfTransaction {
    memory: Arc<AtomicUsize>,
    data: BTreeMap<u32, Data>,
}

impl Copies {
    /// None yet.
    pub fn new(spool: Spool) -> Copies {
        Copies { spool, transactions: BTreeMap::new() }
    }

    /// The data of an operation.
    pub fn of(&mut self, tx: TxId, number: u32) -> Data {
        let transaction = self.transactions.entry(tx).or_default();
        let new = || {
            Data(Arc::new(Copied {
                tx,
                spool: Some(self.spool.clone()),
                memory: Arc::clone(&transaction.memory),
                state: Mutex::default(),
                changed: Notify::new(),
            }))
        };
        transaction.data.entry(number).or_insert_with(new).clone()
    }

    /// The data of all of a transaction's operations.
    pub fn all(&self, tx: TxId) -> BTreeMap<u32, Data> {
        self.transactions.get(&tx).map(|transaction| transaction.data.clone()).unwrap_or_default()
    }

    /// The data of an operation, or of all of a transaction's, are needed no more.
    pub fn drop(&mut self, tx: TxId, number: Option<u32>) {
        match (number, self.transactions.get_mut(&tx)) {
            (Some(number), Some(transaction)) => drop(transaction.data.remove(&number)),
            (None, Some(_)) => drop(self.transactions.remove(&tx)),
            (_, None) => {}
        }
    }

    /// Bytes on disk.
    pub fn bytes_on_disk(&self) -> u64 {
        self.spool.bytes()
    }
}

#[cfg(test)]
mod tests;
