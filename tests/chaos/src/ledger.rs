//! The ledger: clients that each insert numbers, one after the other, and remember which were acknowledged. At the end
//! the acknowledged ones are there, and those that certainly failed are not. Between two acknowledgements, whoever's,
//! lies a stall. One client per proxy waits until something is done to the cluster, and then sends at once: how long
//! the first of these takes is the time to the next commit.

use crate::proxies;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_postgres::Client;

/// Between two numbers of a client, so that the ledger leaves room for others.
const PAUSE: Duration = Duration::from_millis(50);

/// Until a statement counts as one that is never answered: far above what a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(300);

/// Clients at work on the ledger.
pub struct Ledger {
    shared: Arc<Shared>,
    /// Counts what was done to the cluster.
    strikes: watch::Sender<u64>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    held: AtomicBool,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    acknowledged: BTreeSet<u64>,
    refused: BTreeSet<u64>,
    /// Neither: the answer did not come, or says that nobody knows.
    in_doubt: u64,
    /// Of these: no answer in all that time.
    unanswered: u64,
    last: Option<Instant>,
    longest: Duration,
    /// When something was done, and after how long what was sent later was acknowledged.
    struck: Option<(Instant, Option<Duration>)>,
}

/// What became of the ledger.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Balance {
    /// Numbers that were acknowledged.
    pub acknowledged: u64,
    /// Numbers that nobody knows about.
    pub in_doubt: u64,
    /// Of these: without an answer for minutes, over a connection that was there.
    pub unanswered: u64,
    /// Acknowledged, and not there.
    pub lost: Vec<u64>,
    /// Refused, and there.
    pub risen: Vec<u64>,
}

impl Book {
    fn acknowledge(&mut self, id: u64, sent: Instant, now: Instant) {
        if let Some(last) = self.last.replace(now) {
            self.longest = self.longest.max(now - last);
        }
        if let Some((struck, after @ None)) = &mut self.struck
            && sent >= *struck
        {
            *after = Some(now - *struck);
        }
        self.acknowledged.insert(id);
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        // Whole between statements.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Ledger {
    /// Creates the table and starts `clients` clients, which take turns with the proxies, and one more per proxy that
    /// waits.
    ///
    /// # Errors
    /// When the table cannot be created.
    pub async fn start(urls: &[String], clients: u64) -> anyhow::Result<Ledger> {
        let create = "DROP TABLE IF EXISTS chaos_ledger; CREATE TABLE chaos_ledger (id bigint PRIMARY KEY)";
        proxies::query(urls, create).await?;
        let shared = Arc::new(Shared::default());
        let (strikes, struck) = watch::channel(0);
        let mut tasks = JoinSet::new();
        let all = clients + urls.len() as u64;
        for number in 0..all {
            let mut urls = urls.to_vec();
            let first = number as usize % urls.len();
            urls.rotate_left(first);
            let waits = (number >= clients).then(|| struck.clone());
            let inserter =
                Inserter { shared: shared.clone(), urls, next: number, step: all, connection: None };
            tasks.spawn(inserter.work(waits));
        }
        Ok(Ledger { shared, strikes, tasks })
    }

    /// How many numbers were acknowledged until now.
    pub fn acknowledged(&self) -> u64 {
        self.shared.book().acknowledged.len() as u64
    }

    /// The longest time without an acknowledgement, up to now.
    pub fn longest_stall(&self) -> Duration {
        let book = self.shared.book();
        book.longest.max(book.last.map_or(Duration::ZERO, |last| last.elapsed()))
    }

    /// How long ago the last acknowledgement was.
    pub fn silence(&self) -> Duration {
        self.shared.book().last.map_or(Duration::ZERO, |last| last.elapsed())
    }

    /// Something was done to the cluster at this moment.
    pub fn strike(&self) {
        self.shared.book().struck = Some((Instant::now(), None));
        self.strikes.send_modify(|count| *count += 1);
    }

    /// How long it took after the last strike until something was acknowledged that was sent after it.
    pub fn next_commit(&self) -> Option<Duration> {
        self.shared.book().struck?.1
    }

    /// Has the clients wait, or go on. What they do not do meanwhile is no stall.
    pub fn hold(&self, held: bool) {
        self.shared.held.store(held, Ordering::Relaxed);
        self.shared.book().last = None;
    }

    /// Stops the clients and compares the table with what they were told.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn balance(mut self, urls: &[String]) -> anyhow::Result<Balance> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.strikes.send_modify(|count| *count += 1);
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        let read = "SELECT id FROM chaos_ledger ORDER BY id";
        let there: BTreeSet<u64> = proxies::query(urls, read).await?.into_iter().collect();
        let book = self.shared.book();
        Ok(Balance {
            acknowledged: book.acknowledged.len() as u64,
            in_doubt: book.in_doubt,
            unanswered: book.unanswered,
            lost: book.acknowledged.difference(&there).copied().collect(),
            risen: book.refused.intersection(&there).copied().collect(),
        })
    }
}

/// One client. Its numbers: `next`, `next + step`, ...
struct Inserter {
    shared: Arc<Shared>,
    /// It begins with the first, and takes the next one when that fails.
    urls: Vec<String>,
    next: u64,
    step: u64,
    connection: Option<Client>,
}

impl Inserter {
    /// Inserts until it is told to stop; with `waits` one number after each strike.
    async fn work(mut self, mut waits: Option<watch::Receiver<u64>>) {
        while !self.shared.stopped() {
            if !self.connected().await {
                continue;
            }
            if let Some(struck) = &mut waits {
                if struck.changed().await.is_err() || self.shared.stopped() {
                    return;
                }
                // One that has failed is not the next commit: another try.
                while !(self.shared.stopped() || self.connected().await && self.insert().await) {}
                continue;
            }
            if !self.shared.held.load(Ordering::Relaxed) {
                self.insert().await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether there is a connection. If not, another proxy's turn comes.
    async fn connected(&mut self) -> bool {
        if self.connection.as_ref().is_some_and(|open| !open.is_closed()) {
            return true;
        }
        self.connection = match self.urls.first() {
            Some(url) => proxies::connect(url).await,
            None => None,
        };
        if self.connection.is_none() {
            self.urls.rotate_left(1);
            tokio::time::sleep(PAUSE).await;
        }
        self.connection.is_some()
    }

    /// Inserts the next number; whether it was acknowledged.
    async fn insert(&mut self) -> bool {
        let Some(open) = self.connection.take() else { return false };
        let id = self.next;
        self.next += self.step;
        // One statement alone: its answer is the answer to its COMMIT, too.
        let (insert, sent) = (format!("INSERT INTO chaos_ledger VALUES ({id})"), Instant::now());
        match tokio::time::timeout(PATIENCE, open.simple_query(&insert)).await {
            Ok(Ok(_)) => {
                self.shared.book().acknowledge(id, sent, Instant::now());
                self.connection = Some(open);
                true
            }
            Ok(Err(error)) if is_definite(&error) => {
                self.shared.book().refused.insert(id);
                self.connection = Some(open);
                false
            }
            silent_or_lost => {
                let mut book = self.shared.book();
                book.in_doubt += 1;
                book.unanswered += u64::from(silent_or_lost.is_err());
                false
            }
        }
    }
}

/// Whether an error says that nothing happened.
fn is_definite(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        let code = code.code();
        !code.starts_with("08") && !code.starts_with("57P") && code != "40003"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_before_a_strike_is_not_the_next_commit() {
        let (mut book, before) = (Book::default(), Instant::now());
        let at = |ms| before + Duration::from_millis(ms);
        book.struck = Some((at(5), None));
        book.acknowledge(1, before, at(15));
        assert_eq!(book.struck, Some((at(5), None)));
        book.acknowledge(2, at(5), at(16));
        book.acknowledge(3, at(5), at(26));
        assert_eq!(book.struck, Some((at(5), Some(Duration::from_millis(11)))));
        assert_eq!(book.longest, Duration::from_millis(10));
    }
}
