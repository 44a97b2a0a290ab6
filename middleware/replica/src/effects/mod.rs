//! What transactions did, kept on disk for replicas that were away (A11): write sets as decoding shows them, those of bulk
//! transactions in files of their own, and scripts of those that ran DDL. Bounded by bytes and age; the oldest go first.
//!
//! Invariants:
//! - what [`Effects::durable`] has reached is on disk, and is found after a restart until it is too old;
//! - what is read is what was written, or nothing: heads and bodies have checksums, but for the bodies of bulk transactions.
//!   Whoever asked checks by the certificate besides, and asks another replica;
//! - memory is bounded: what is not on disk yet ([`PENDING_BYTES_MAX`] and one more), and 16 bytes for each record.
//!
//! Everything but [`Effects::keep`] and [`Effects::until_durable`] may block on the disk.

mod bulk;
mod segment;
mod sorting;

pub(crate) use bulk::{COUNT_BYTES, DIGEST_BYTES};
pub use bulk::{Rows, Spill, Spilled};
pub(crate) use sorting::Touches;

use borsh::{BorshDeserialize, BorshSerialize};
use bulk::Bulk;
use segment::{Head, Segment};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use steeldb_types::{Digest, limits};
use tokio::sync::Notify;

/// Bytes that wait to be written. Past it whoever keeps more waits.
const PENDING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long records gather before they are written and synced, unless somebody waits.
const GATHER: Duration = Duration::from_millis(200);

/// The largest file, but for one record that is larger.
const SEGMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What a record is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, BorshSerialize, BorshDeserialize)]
pub enum Kind {
    /// An encoded write set.
    WriteSet,
    /// An encoded [`crate::script::Script`].
    Script,
    /// The write set of a bulk transaction: how many digests *w* is made of, these, the changes' encodings. See [`bulk`].
    Bulk,
}

impl Kind {
    /// Its number in files.
    pub fn number(self) -> u8 {
        match self {
            Kind::WriteSet => 1,
            Kind::Script => 2,
            Kind::Bulk => 3,
        }
    }

    /// The kind of a number in a file of records; those of bulk transactions are none.
    pub fn of_number(number: u8) -> Option<Kind> {
        match number {
            1 => Some(Kind::WriteSet),
            2 => Some(Kind::Script),
            _ => None,
        }
    }
}

/// How much is kept, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Bytes on disk.
    pub bytes_max: u64,
    /// Age.
    pub age_max: Duration,
    /// Whether it survives a power failure.
    pub sync: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { bytes_max: limits::KEPT_BYTES, age_max: limits::KEPT_AGE, sync: true }
    }
}

/// A part of what is kept of a transaction.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Part {
    /// What it is.
    pub kind: Kind,
    /// Bytes in all.
    pub total: u64,
    /// Those asked for.
    pub bytes: Vec<u8>,
}

/// Effects kept on disk. Clones share them; the thread that writes ends with [`Writing`].
#[derive(Clone)]
pub struct Effects(Arc<Shared>);

/// The thread that writes. What is pending is written when it is dropped.
pub struct Writing {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    directory: PathBuf,
    sync: bool,
    state: Mutex<State>,
    /// Something for the thread to do.
    work: Condvar,
    /// What waited was written.
    written: Notify,
}

#[derive(Default)]
struct State {
    segments: Vec<Arc<Mutex<Segment>>>,
    /// Those of bulk transactions, the oldest first; also what is not found after a restart yet.
    bulks: Vec<Arc<Bulk>>,
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    tickets: u64,
    durable: u64,
    /// Somebody waits for the disk.
    urgent: bool,
    closed: bool,
    /// Bytes on disk, and age.
    bounds: (u64, Duration),
}

#[derive(Clone)]
struct Pending {
    ticket: u64,
    gid: Digest,
    what: What,
}

#[derive(Clone)]
enum What {
    /// It is to be written.
    Record(Kind, Arc<Vec<u8>>),
    /// It is written, and to be made one that is found after a restart.
    Bulk(Arc<Bulk>),
}

impl What {
    fn len(&self) -> usize {
        match self {
            What::Record(_, body) => body.len(),
            What::Bulk(_) => 0,
        }
    }
}

/// The digest that a GID of SteelDB's is the hexadecimal form of.
fn digest_of(gid: &str) -> Option<Digest> {
    let mut digest = [0; 32];
    hex::decode_to_slice(gid, &mut digest).ok().map(|()| Digest(digest))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Effects {
    /// Opens or creates the directory, finds what is in it, and starts the thread that writes.
    ///
    /// # Errors
    /// The directory or a file cannot be read. Damage is no error: what is damaged is not kept.
    pub fn open(directory: &Path, options: Options) -> io::Result<(Effects, Writing)> {
        std::fs::create_dir_all(directory)?;
        let mut numbers: Vec<u64> = Vec::new();
        let mut bulks: Vec<Arc<Bulk>> = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            numbers.extend(segment::number_of(name));
            if bulk::is_unfinished(name) {
                std::fs::remove_file(entry.path())?;
            } else if bulk::is_bulk(name) {
                match Bulk::open(&entry.path())? {
                    Some(bulk) => bulks.push(Arc::new(bulk)),
                    None => {
                        tracing::warn!(file = %entry.path().display(), "a bulk transaction's rows are damaged, and not kept");
                        std::fs::remove_file(entry.path())?;
                    }
                }
            }
        }
        bulks.sort_by_key(|bulk| bulk.kept_at);
        numbers.sort_unstable();
        let last = numbers.last().copied();
        let mut segments = Vec::new();
        for number in numbers {
            let segment = Segment::open(directory, number, Some(number) == last)?;
            segments.push(Arc::new(Mutex::new(segment)));
        }
        let shared = Arc::new(Shared {
            directory: directory.to_path_buf(),
            sync: options.sync,
            state: Mutex::new(State {
                segments,
                bulks,
                bounds: (options.bytes_max, options.age_max),
                ..State::default()
            }),
            work: Condvar::new(),
            written: Notify::new(),
        });
        let of_thread = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("effects".to_string()).spawn(move || of_thread.write_all())?;
        Ok((Effects(Arc::clone(&shared)), Writing { shared, thread: Some(thread) }))
    }

    /// Keeps a transaction's effects, once. The ticket says when they are on disk. Waits while much is to be written. A
    /// GID that is not SteelDB's is not kept.
    pub async fn keep(&self, kind: Kind, gid: &str, body: Vec<u8>) -> u64 {
        let Some(gid) = digest_of(gid).filter(|_| body.len() <= limits::KEPT_RECORD_BYTES_MAX) else {
            return 0;
        };
        let body = Arc::new(body);
        loop {
            let room = self.0.written.notified();
            {
                let mut state = lock(&self.0.state);
                if state.pending_bytes < PENDING_BYTES_MAX || state.closed {
                    state.tickets += 1;
                    let ticket = state.tickets;
                    state.pending_bytes += body.len();
                    state.pending.push_back(Pending { ticket, gid, what: What::Record(kind, body) });
                    self.0.work.notify_one();
                    return ticket;
                }
                state.urgent = true;
                self.0.work.notify_one();
            }
            room.await;
        }
    }

    /// Takes in a transaction that is too large for the memory; its rows are kept if they take no more than
    /// [`Effects::bulk_bytes_max`].
    pub fn spill(&self) -> Spill {
        Spill::new(&self.0.directory, self.bulk_bytes_max())
    }

    /// Bytes that one bulk transaction may take of what is kept in all: three quarters.
    pub fn bulk_bytes_max(&self) -> u64 {
        lock(&self.0.state).bounds.0 / 4 * 3
    }

    /// Keeps the rows of a bulk transaction, once. Peers are given them from now on; the ticket says when they are found
    /// after a restart.
    pub fn keep_bulk(&self, rows: Rows) -> u64 {
        let bulk = Arc::new(rows.0);
        let mut state = lock(&self.0.state);
        if state.bulks.iter().any(|kept| kept.gid == bulk.gid) {
            // After a restart decoding shows again what it showed before. Its file goes with it.
            return 0;
        }
        state.bulks.push(Arc::clone(&bulk));
        state.tickets += 1;
        let ticket = state.tickets;
        state.pending.push_back(Pending { ticket, gid: bulk.gid, what: What::Bulk(bulk) });
        self.0.work.notify_one();
        ticket
    }

    /// A bulk transaction was rolled back: nobody will want its rows.
    pub fn drop_bulk(&self, gid: &str) {
        let Some(gid) = digest_of(gid) else { return };
        let mut state = lock(&self.0.state);
        let Some(at) = state.bulks.iter().position(|bulk| bulk.gid == gid) else { return };
        let bulk = state.bulks.remove(at);
        drop(state);
        remove(&bulk);
    }

    /// The last ticket up to which all is on disk (or was given up, if the disk failed; that is logged).
    pub fn durable(&self) -> u64 {
        lock(&self.0.state).durable
    }

    /// Returns once a ticket is reached.
    pub async fn until_durable(&self, ticket: u64) {
        loop {
            let written = self.0.written.notified();
            {
                let mut state = lock(&self.0.state);
                if state.durable >= ticket || state.closed {
                    return;
                }
                state.urgent = true;
                self.0.work.notify_one();
            }
            written.await;
        }
    }

    /// Up to `length` bytes from `from` on of what is kept of a transaction: its script if there is one, else its write
    /// set. The first part is given only if the whole is sound, but of a bulk transaction. None when nothing is kept, or it
    /// is damaged.
    pub fn part(&self, gid: &str, from: u64, length: usize) -> Option<Part> {
        let records = [Kind::Script, Kind::WriteSet];
        let record = records.into_iter().find_map(|kind| self.part_of(kind, gid, from, length));
        record.or_else(|| self.part_of_bulk(&digest_of(gid)?, from, length))
    }

    fn part_of_bulk(&self, gid: &Digest, from: u64, length: usize) -> Option<Part> {
        let bulk = lock(&self.0.state).bulks.iter().find(|bulk| bulk.gid == *gid).cloned()?;
        match bulk.part(from, length) {
            Ok(bytes) => Some(Part { kind: Kind::Bulk, total: bulk.total(), bytes }),
            Err(error) => {
                tracing::error!(%error, file = %bulk.path().display(), "kept rows cannot be read");
                None
            }
        }
    }

    /// All of a transaction's record of one kind.
    pub fn whole(&self, kind: Kind, gid: &str) -> Option<Vec<u8>> {
        self.part_of(kind, gid, 0, limits::KEPT_RECORD_BYTES_MAX).map(|part| part.bytes)
    }

    fn part_of(&self, kind: Kind, gid: &str, from: u64, length: usize) -> Option<Part> {
        let gid = digest_of(gid)?;
        let (pending, segments) = {
            let state = lock(&self.0.state);
            let pending = state.pending.iter().rev().find_map(|one| match &one.what {
                What::Record(of, body) if *of == kind && one.gid == gid => Some(Arc::clone(body)),
                _ => None,
            });
            (pending, state.segments.clone())
        };
        let range = |total: u64| {
            let from = from.min(total);
            (from, length.min((total - from) as usize))
        };
        if let Some(body) = pending {
            let (from, length) = range(body.len() as u64);
            let bytes = body[from as usize..from as usize + length].to_vec();
            return Some(Part { kind, total: body.len() as u64, bytes });
        }
        for segment in segments.iter().rev() {
            let segment = lock(segment);
            for at in segment.places(&gid) {
                let Ok(Some(head)) = segment.head(at) else { continue };
                if head.kind != kind || head.gid != gid {
                    continue;
                }
                let total = u64::from(head.length);
                let (from, length) = range(total);
                let bytes = match from {
                    0 => segment.body(at, &head).map(|body| {
                        body.map(|mut body| {
                            body.truncate(length);
                            body
                        })
                    }),
                    _ => segment.part(at, from, length).map(Some),
                };
                match bytes {
                    Ok(Some(bytes)) => return Some(Part { kind, total, bytes }),
                    damaged => {
                        let error = damaged.err().map(|error| error.to_string());
                        tracing::error!(file = %segment.path().display(), at, error, "kept effects are damaged");
                    }
                }
            }
        }
        None
    }

    /// Whether what decoding showed of a transaction is kept: it was prepared here.
    pub fn keeps_rows(&self, gid: &str) -> bool {
        digest_of(gid).is_some_and(|gid| {
            let bulk = lock(&self.0.state).bulks.iter().any(|bulk| bulk.gid == gid);
            bulk || self.holds(Kind::WriteSet, &gid)
        })
    }

    fn holds(&self, kind: Kind, gid: &Digest) -> bool {
        let segments = lock(&self.0.state).segments.clone();
        segments.iter().rev().any(|segment| {
            let segment = lock(segment);
            segment
                .places(gid)
                .into_iter()
                .any(|at| matches!(segment.head(at), Ok(Some(head)) if head.kind == kind && head.gid == *gid))
        })
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        let segments = lock(&self.0.state).segments.clone();
        segments.iter().map(|segment| lock(segment).length).sum::<u64>() + self.bulk_bytes()
    }

    /// Those of them that are bulk transactions'.
    pub fn bulk_bytes(&self) -> u64 {
        lock(&self.0.state).bulks.iter().map(|bulk| bulk.bytes()).sum()
    }

    /// Other bounds, from the next record on.
    pub fn set_bounds(&self, bytes_max: u64, age_max: Duration) {
        lock(&self.0.state).bounds = (bytes_max, age_max);
    }

    /// How many files there are.
    #[cfg(test)]
    fn files(&self) -> usize {
        lock(&self.0.state).segments.len()
    }
}

impl Shared {
    /// The thread: writes what gathers, syncs it, lets go of what is too old or too much.
    fn write_all(self: Arc<Shared>) {
        let effects = Effects(Arc::clone(&self));
        // A segment that was there before may have a tail that a crash left: a new one is begun.
        let mut open = false;
        loop {
            let batch = match self.next_batch() {
                Some(batch) => batch,
                None => return,
            };
            let last = batch.last().map_or(0, |pending| pending.ticket);
            if let Err(error) = effects.write_batch(&batch, &mut open) {
                // Replicas that were away must find these elsewhere.
                tracing::error!(%error, directory = %self.directory.display(), lost = batch.len(), "effects cannot be kept");
                open = false;
            }
            let mut state = lock(&self.state);
            state.durable = last;
            state.urgent = false;
            while state.pending.front().is_some_and(|pending| pending.ticket <= last) {
                let done = state.pending.pop_front();
                state.pending_bytes -= done.map_or(0, |done| done.what.len());
            }
            drop(state);
            self.written.notify_waiters();
        }
    }

    /// What is to be written next; none when all is written and the thread is to end.
    fn next_batch(&self) -> Option<Vec<Pending>> {
        let mut state = lock(&self.state);
        while state.pending.is_empty() {
            if state.closed {
                return None;
            }
            state.urgent = false;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let gathering =
            |state: &mut State| !state.urgent && !state.closed && state.pending_bytes < PENDING_BYTES_MAX / 4;
        let waited = self.work.wait_timeout_while(state, GATHER, gathering);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        Some(state.pending.iter().cloned().collect())
    }
}

impl Effects {
    fn write_batch(&self, batch: &[Pending], open: &mut bool) -> io::Result<()> {
        let mut written: Vec<(Arc<Mutex<Segment>>, u64, Head)> = Vec::new();
        let mut at = None;
        for pending in batch {
            let (kind, body) = match &pending.what {
                What::Record(kind, body) => (*kind, body),
                What::Bulk(bulk) => {
                    if let Err(error) = bulk.settle(&self.0.directory, self.0.sync) {
                        tracing::error!(%error, "the rows of a bulk transaction will be gone after a restart");
                    }
                    continue;
                }
            };
            // After a restart decoding shows again what it showed before.
            if self.holds(kind, &pending.gid) {
                continue;
            }
            let head = Head::new(kind, pending.gid, now(), body);
            let segment = self.segment(open, &mut at)?;
            let place = at.unwrap_or_default();
            at = Some(lock(&segment).write(place, &head, body)?);
            written.push((segment, place, head));
        }
        if self.0.sync {
            let mut synced = None;
            for (segment, ..) in &written {
                let segment = lock(segment);
                if synced.replace(segment.number) != Some(segment.number) {
                    segment.sync()?;
                }
            }
        }
        for (segment, at, head) in written {
            lock(&segment).written(at, &head);
        }
        self.let_go();
        Ok(())
    }

    /// The segment that is written to, and in `at` the place where its next record goes.
    fn segment(&self, open: &mut bool, at: &mut Option<u64>) -> io::Result<Arc<Mutex<Segment>>> {
        let (segment_max, last) = {
            let state = lock(&self.0.state);
            ((state.bounds.0 / 16).min(SEGMENT_BYTES_MAX), state.segments.last().cloned())
        };
        if *open && let Some(last) = &last {
            let place = at.unwrap_or_else(|| lock(last).length);
            if place < segment_max {
                *at = Some(place);
                return Ok(Arc::clone(last));
            }
        }
        let number = last.map_or(1, |last| {
            let mut last = lock(&last);
            last.finish();
            last.number + 1
        });
        let segment = Arc::new(Mutex::new(Segment::create(&self.0.directory, number)?));
        lock(&self.0.state).segments.push(Arc::clone(&segment));
        *open = true;
        *at = Some(0);
        Ok(segment)
    }

    /// Removes the oldest files while there is too much, and those that are too old.
    fn let_go(&self) {
        let mut state = lock(&self.0.state);
        let (bytes_max, age_max) = state.bounds;
        let oldest_kept = now().saturating_sub(age_max.as_secs());
        let mut bytes: u64 = state.segments.iter().map(|segment| lock(segment).length).sum();
        bytes += state.bulks.iter().map(|bulk| bulk.bytes()).sum::<u64>();
        loop {
            let segment = state.segments.first().filter(|_| state.segments.len() > 1);
            let segment = segment.map(|segment| lock(segment).newest);
            let bulk = state.bulks.first().map(|bulk| bulk.kept_at);
            let Some(oldest) = segment.into_iter().chain(bulk).min() else { return };
            if bytes <= bytes_max && oldest >= oldest_kept {
                return;
            }
            if bulk == Some(oldest) && segment != Some(oldest) {
                let bulk = state.bulks.remove(0);
                bytes -= bulk.bytes();
                remove(&bulk);
            } else {
                let segment = state.segments.remove(0);
                let segment = lock(&segment);
                bytes -= segment.length;
                if let Err(error) = segment.remove() {
                    tracing::warn!(%error, "a file of kept effects cannot be removed");
                }
            }
        }
    }
}

fn remove(bulk: &Bulk) {
    if let Err(error) = bulk.remove() {
        tracing::warn!(%error, "the file of a bulk transaction's rows cannot be removed");
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        {
            let mut state = lock(&self.shared.state);
            state.closed = true;
            self.shared.work.notify_one();
        }
        self.shared.written.notify_waiters();
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
