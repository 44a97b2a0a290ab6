//! Rows of committed transactions that peers keep, made here in the order of the commits (A11).
//!
//! One task and one connection per database. What has come is made in one go: many commits in one transaction of
//! PostgreSQL's, since round trips and flushes are what catching up costs. Each still has its own record, so a restart
//! finds which are there. A bulk transaction's rows come from the disk, and are made alone. Between two of them nobody takes a snapshot: the scheduler asks for those of one wave only.

use super::catchup::Wanted;
use super::keeper;
use crate::receipt::Received;
use crate::scheduler::{CatchUpError, Event};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use steeldb_postgres::apply::{ApplyError, Applying, apply_write_sets};
use steeldb_postgres::transaction::is_recorded;
use steeldb_postgres::{AGENT_ROLE, Backend, BackendError, WriteSet};
use steeldb_types::{Position, TxId, limits};
use tokio::sync::mpsc;

/// How long rows wait for a lock before whoever holds one is made to let go.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '200ms'";

/// How long a server that is not there is waited for: it may be starting again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Commits, and bytes of them, that are made in one transaction.
const COMMITS_AT_ONCE: usize = 64;
const BYTES_AT_ONCE: usize = 1024 * 1024;

/// Bytes of a bulk transaction's rows that are in memory at once.
const PIECE_BYTES: usize = 1024 * 1024;

/// What is to be made of a commit.
#[derive(Clone)]
pub(super) enum Here {
    /// In memory.
    Set(Arc<WriteSet>),
    /// On disk.
    Bulk(Arc<Received>),
}

impl Here {
    fn set(&self) -> Option<&WriteSet> {
        match self {
            Here::Set(write_set) => Some(write_set),
            Here::Bulk(_) => None,
        }
    }
}

/// Bulk transactions' rows that are here and not made. Those that wait for a lock are
/// not fetched again.
type Bulks = Arc<Mutex<BTreeMap<Position, Arc<Received>>>>;

fn lock(bulks: &Bulks) -> MutexGuard<'_, BTreeMap<Position, Arc<Received>>> {
    bulks.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Work {
    /// Rows of this commit will come: those behind it wait.
    Expected {
        position: Position,
        tx: TxId,
    },
    Found {
        position: Position,
        tx: TxId,
        here: Here,
        bytes: usize,
    },
}

/// Hands rows to the task of their database.
pub(super) struct Rows {
    socket_dir: PathBuf,
    events: mpsc::UnboundedSender<Event>,
    databases: BTreeMap<String, mpsc::UnboundedSender<Work>>,
    waiting_bytes: Arc<AtomicUsize>,
    bulks: Bulks,
}

/// Where the rows of one bulk transaction go.
pub(super) struct Destination {
    position: Position,
    tx: TxId,
    sender: mpsc::UnboundedSender<Work>,
    waiting_bytes: Arc<AtomicUsize>,
    bulks: Bulks,
}

impl Destination {
    /// They are here.
    pub(super) fn found(&self, received: Received) {
        let received = Arc::new(received);
        lock(&self.bulks).insert(self.position, Arc::clone(&received));
        self.hand(received);
    }

    fn hand(&self, received: Arc<Received>) {
        // While they wait, only what is needed before them is fetched.
        let bytes =
            usize::try_from(received.bytes()).unwrap_or(usize::MAX).max(limits::ROWS_WAITING_BYTES_MAX);
        self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let (position, tx) = (self.position, self.tx);
        let _ = self.sender.send(Work::Found { position, tx, here: Here::Bulk(received), bytes });
    }
}

impl Rows {
    pub(super) fn new(socket_dir: PathBuf, events: mpsc::UnboundedSender<Event>) -> Rows {
        Rows {
            socket_dir,
            events,
            databases: BTreeMap::new(),
            waiting_bytes: Arc::default(),
            bulks: Bulks::default(),
        }
    }

    /// The rows of a commit are being fetched.
    pub(super) fn expect(&mut self, wanted: &Wanted) {
        let (position, tx) = (wanted.position, wanted.tx);
        self.hand(&wanted.database, Work::Expected { position, tx });
    }

    /// They are here, `bytes` of them.
    pub(super) fn found(&mut self, wanted: &Wanted, write_set: WriteSet, bytes: usize) {
        self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let (position, tx) = (wanted.position, wanted.tx);
        let here = Here::Set(Arc::new(write_set));
        self.hand(&wanted.database, Work::Found { position, tx, here, bytes });
    }

    /// Where a bulk transaction's rows go once they are here.
    pub(super) fn destination(&mut self, wanted: &Wanted) -> Destination {
        Destination {
            position: wanted.position,
            tx: wanted.tx,
            sender: self.sender(&wanted.database).clone(),
            waiting_bytes: Arc::clone(&self.waiting_bytes),
            bulks: Arc::clone(&self.bulks),
        }
    }

    /// Makes a bulk transaction's rows once more, if they are still here.
    pub(super) fn again(&mut self, wanted: &Wanted) -> bool {
        let Some(received) = lock(&self.bulks).get(&wanted.position).cloned() else { return false };
        self.destination(wanted).hand(received);
        true
    }

    /// Whether more may be fetched than what is made next.
    pub(super) fn have_room(&self) -> bool {
        self.waiting_bytes.load(Ordering::Relaxed) < limits::ROWS_WAITING_BYTES_MAX
    }

    fn hand(&mut self, database: &str, work: Work) {
        // The task lives as long as the sender.
        let _ = self.sender(database).send(work);
    }

    fn sender(&mut self, database: &str) -> &mpsc::UnboundedSender<Work> {
        self.databases.entry(database.to_string()).or_insert_with(|| {
            let (sender, receiver) = mpsc::unbounded_channel();
            let maker = Maker {
                socket_dir: self.socket_dir.clone(),
                database: database.to_string(),
                events: self.events.clone(),
                waiting_bytes: Arc::clone(&self.waiting_bytes),
                bulks: Arc::clone(&self.bulks),
                commits: BTreeMap::new(),
                backend: None,
            };
            tokio::spawn(maker.run(receiver));
            sender
        })
    }
}

/// A commit whose rows are to be made.
struct Commit {
    tx: TxId,
    rows: Option<(Here, usize)>,
}

struct Maker {
    socket_dir: PathBuf,
    database: String,
    events: mpsc::UnboundedSender<Event>,
    waiting_bytes: Arc<AtomicUsize>,
    bulks: Bulks,
    /// Not made yet, in their order.
    commits: BTreeMap<Position, Commit>,
    backend: Option<Backend>,
}

impl Maker {
    async fn run(mut self, mut work: mpsc::UnboundedReceiver<Work>) {
        while let Some(first) = work.recv().await {
            self.take(first);
            loop {
                while let Ok(more) = work.try_recv() {
                    self.take(more);
                }
                if !self.make_some().await {
                    break;
                }
            }
        }
    }

    fn take(&mut self, work: Work) {
        let (position, commit) = match work {
            Work::Expected { position, tx } => (position, Commit { tx, rows: None }),
            Work::Found { position, tx, here, bytes } => (position, Commit { tx, rows: Some((here, bytes)) }),
        };
        if let Some(before) = self.commits.insert(position, commit) {
            self.drop_rows(before);
        }
    }

    fn drop_rows(&self, commit: Commit) {
        if let Some((_, bytes)) = commit.rows {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Makes the first commits whose rows are here. Whether there were any.
    async fn make_some(&mut self) -> bool {
        let mut some: Vec<Position> = Vec::new();
        let mut total = 0;
        for (position, commit) in &self.commits {
            let Some((_, bytes)) = &commit.rows else { break };
            // One on disk counts for more than go together.
            total += bytes;
            if some.len() == COMMITS_AT_ONCE || total > BYTES_AT_ONCE && !some.is_empty() {
                break;
            }
            some.push(*position);
        }
        let any = !some.is_empty();
        // Together; where that fails, one by one, so that it is known which one it was.
        if some.len() < 2 || !self.make_together(&some).await {
            for position in some {
                if !self.make(position).await {
                    break;
                }
            }
        }
        any
    }

    async fn make_together(&mut self, some: &[Position]) -> bool {
        let Ok(mut backend) = self.connected().await else { return false };
        let here: Vec<Here> = some.iter().filter_map(|position| self.rows_of(*position)).collect();
        let sets: Option<Vec<&WriteSet>> = here.iter().map(Here::set).collect();
        let Some(sets) = sets else { return false };
        match attempt(&mut backend, &sets).await {
            Ok(()) => {
                self.backend = Some(backend);
                for position in some {
                    self.report(*position, Ok(()));
                }
                true
            }
            Err(error) => {
                tracing::debug!(%error, commits = some.len(), "rows could not be made together");
                self.give_back(backend, &error).await;
                false
            }
        }
    }

    /// Makes one commit's rows. Its record makes it count as applied, so that is done once. Whether it went well.
    async fn make(&mut self, position: Position) -> bool {
        let result = loop {
            let mut backend = match self.connected().await {
                Ok(backend) => backend,
                Err(error) => break Err(ApplyError::from(error)),
            };
            let (Some(commit), Some(here)) = (self.commits.get(&position), self.rows_of(position)) else {
                break Ok(());
            };
            let tx = commit.tx;
            match attempt_one(&mut backend, tx, here).await {
                Ok(()) => {
                    self.backend = Some(backend);
                    break Ok(());
                }
                // Its server went away meanwhile; it comes back, or the replica ends.
                Err(ApplyError::Backend(error)) if !error.is_recoverable() && !self.events.is_closed() => {
                    tracing::warn!(%tx, %error, "catching up lost its connection; it is tried again");
                }
                Err(error) => {
                    self.give_back(backend, &error).await;
                    break Err(error);
                }
            }
        };
        let made = result.is_ok();
        let result = result.map_err(|error| match &error {
            ApplyError::Backend(inner) if inner.sqlstate() == Some("55P03") => CatchUpError::Blocked,
            other => CatchUpError::Failed(other.to_string()),
        });
        self.report(position, result);
        made
    }

    /// Tells the scheduler. What failed is asked for again, and what is behind it waits for that.
    fn report(&mut self, position: Position, result: Result<(), CatchUpError>) {
        let Some(commit) = self.commits.remove(&position) else { return };
        let tx = commit.tx;
        self.drop_rows(commit);
        if !matches!(result, Err(CatchUpError::Blocked)) {
            lock(&self.bulks).remove(&position);
        }
        if result.is_err() {
            self.commits.insert(position, Commit { tx, rows: None });
        }
        let _ = self.events.send(Event::CaughtUp { tx, result });
    }

    fn rows_of(&self, position: Position) -> Option<Here> {
        self.commits.get(&position)?.rows.as_ref().map(|(here, _)| here.clone())
    }

    async fn connected(&mut self) -> Result<Backend, BackendError> {
        if let Some(backend) = self.backend.take() {
            return Ok(backend);
        }
        let parameters = [("application_name".to_string(), "steeldb catch-up".to_string())];
        let mut backend =
            keeper::connect(&self.socket_dir, &self.database, AGENT_ROLE, &parameters, PATIENCE).await?;
        backend.simple(LOCK_TIMEOUT).await?;
        Ok(backend)
    }

    /// Keeps a backend whose transaction failed, if it can be used again.
    async fn give_back(&mut self, mut backend: Backend, error: &ApplyError) {
        let lost = matches!(error, ApplyError::Backend(error) if !error.is_recoverable());
        if !lost && backend.simple("ROLLBACK").await.is_ok() {
            self.backend = Some(backend);
        }
    }
}

async fn attempt(backend: &mut Backend, write_sets: &[&WriteSet]) -> Result<(), ApplyError> {
    apply_write_sets(backend, write_sets).await?;
    backend.simple("COMMIT").await?;
    Ok(())
}

async fn attempt_one(backend: &mut Backend, tx: TxId, here: Here) -> Result<(), ApplyError> {
    if is_recorded(backend, tx).await? {
        return Ok(()); // by an attempt whose answer was lost
    }
    match here {
        Here::Set(write_set) => attempt(backend, &[&write_set]).await,
        Here::Bulk(received) => attempt_bulk(backend, tx, &received).await,
    }
}

/// Makes a bulk transaction's rows piece by piece, in one transaction.
async fn attempt_bulk(backend: &mut Backend, tx: TxId, received: &Arc<Received>) -> Result<(), ApplyError> {
    tracing::info!(%tx, changes = received.changes(), bytes = received.bytes(), "making a bulk transaction's rows");
    let mut applying = Applying::default();
    let mut reader = received.reader();
    loop {
        let (of_disk, changes) = tokio::task::spawn_blocking(move || {
            let changes = reader.next(PIECE_BYTES);
            (reader, changes)
        })
        .await
        .map_err(std::io::Error::other)?;
        reader = of_disk;
        let changes = changes?;
        if changes.is_empty() {
            break;
        }
        applying.apply(backend, &changes).await?;
    }
    backend.simple("COMMIT").await?;
    Ok(())
}
