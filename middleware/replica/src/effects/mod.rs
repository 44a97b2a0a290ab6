//! What transactions did, kept on disk for replicas that were away (A11): write sets as decoding shows them, and scripts
//! of those that ran DDL. Bounded by bytes and age; the oldest go first.
//!
//! Invariants:
//! - what [`Effects::durable`] has reached is on disk, and is found after a restart until it is too old;
//! - what is read is what was written, or nothing: heads and bodies have checksums. Whoever asked checks by the
//!   certificate besides, and asks another replica;
//! - memory is bounded: what is not on disk yet ([`PENDING_BYTES_MAX`] and one more), and 16 bytes for each record.
//!
//! Everything but [`Effects::keep`] and [`Effects::until_durable`] may block on the disk.

mod segment;

use borsh::{BorshDeserialize, BorshSerialize};
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
}

impl Kind {
    /// Its number in files.
    pub fn number(self) -> u8 {
        match self {
            Kind::WriteSet => 1,
            Kind::Script => 2,
        }
    }

    /// The kind of a number.
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
    kind: Kind,
    gid: Digest,
    body: Arc<Vec<u8>>,
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
        let mut numbers: Vec<u64> = std::fs::read_dir(directory)?
            .filter_map(|entry| segment::number_of(entry.ok()?.file_name().to_str()?))
            .collect();
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
                    state.pending.push_back(Pending { ticket, kind, gid, body });
                    self.0.work.notify_one();
                    return ticket;
                }
                state.urgent = true;
                self.0.work.notify_one();
            }
            room.await;
        }
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
    /// set. The first part is given only if the whole is sound. None when nothing is kept, or it is damaged.
    pub fn part(&self, gid: &str, from: u64, length: usize) -> Option<Part> {
        [Kind::Script, Kind::WriteSet].into_iter().find_map(|kind| self.part_of(kind, gid, from, length))
    }

    /// All of a transaction's record of one kind.
    pub fn whole(&self, kind: Kind, gid: &str) -> Option<Vec<u8>> {
        self.part_of(kind, gid, 0, limits::KEPT_RECORD_BYTES_MAX).map(|part| part.bytes)
    }

    fn part_of(&self, kind: Kind, gid: &str, from: u64, length: usize) -> Option<Part> {
        let gid = digest_of(gid)?;
        let (pending, segments) = {
            let state = lock(&self.0.state);
            let pending = state.pending.iter().rev().find(|one| one.kind == kind && one.gid == gid);
            (pending.map(|one| Arc::clone(&one.body)), state.segments.clone())
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

    /// Whether a record of one kind is kept of a transaction.
    pub fn keeps(&self, kind: Kind, gid: &str) -> bool {
        digest_of(gid).is_some_and(|gid| self.holds(kind, &gid))
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
        segments.iter().map(|segment| lock(segment).length).sum()
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
                state.pending_bytes -= done.map_or(0, |done| done.body.len());
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
            // After a restart decoding shows again what it showed before.
            if self.holds(pending.kind, &pending.gid) {
                continue;
            }
            let head = Head::new(pending.kind, pending.gid, now(), &pending.body);
            let segment = self.segment(open, &mut at)?;
            let place = at.unwrap_or_default();
            at = Some(lock(&segment).write(place, &head, &pending.body)?);
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
        while state.segments.len() > 1 {
            let (length, newest) = {
                let segment = lock(&state.segments[0]);
                (segment.length, segment.newest)
            };
            if bytes <= bytes_max && newest >= oldest_kept {
                return;
            }
            let segment = state.segments.remove(0);
            bytes -= length;
            if let Err(error) = lock(&segment).remove() {
                tracing::warn!(%error, "a file of kept effects cannot be removed");
            }
        }
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
