//! The ledger: clients that each insert numbers, one after the other, and remember which were acknowledged. At the end
//! the acknowledged ones are there, and those that certainly failed are not. Between two acknowledgements, whoever's,
//! lies a stall.

use anyhow::Context as _;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// Between two numbers of a client, so that the ledger leaves room for others.
const PAUSE: Duration = Duration::from_millis(50);

/// Until a connection without an answer counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long reading or creating the table is tried.
const SETTLED_PATIENCE: Duration = Duration::from_secs(120);

/// Clients at work on the ledger.
pub struct Ledger {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    acknowledged: BTreeSet<u64>,
    refused: BTreeSet<u64>,
    /// Neither: the answer did not come, or says that nobody knows.
    in_doubt: u64,
    last: Option<Instant>,
    longest: Duration,
}

/// What became of the ledger.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Balance {
    /// Numbers that were acknowledged.
    pub acknowledged: u64,
    /// Numbers that nobody knows about.
    pub in_doubt: u64,
    /// Acknowledged, and not there.
    pub lost: Vec<u64>,
    /// Refused, and there.
    pub risen: Vec<u64>,
}

impl Book {
    fn acknowledge(&mut self, id: u64) {
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            self.longest = self.longest.max(now - last);
        }
        self.acknowledged.insert(id);
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        // Whole between statements.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    /// Creates the table and starts `clients` clients, which take turns with the proxies.
    ///
    /// # Errors
    /// When the table cannot be created.
    pub async fn start(urls: &[String], clients: u64) -> anyhow::Result<Ledger> {
        let url = urls.first().context("no proxy")?;
        let create = "DROP TABLE IF EXISTS chaos_ledger; CREATE TABLE chaos_ledger (id bigint PRIMARY KEY)";
        query(url, create).await?;
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        for client in 0..clients {
            tasks.spawn(work(shared.clone(), urls.to_vec(), client, clients));
        }
        Ok(Ledger { shared, tasks })
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

    /// Stops the clients and compares the table with what they were told.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn balance(mut self, urls: &[String]) -> anyhow::Result<Balance> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        let url = urls.last().context("no proxy")?;
        let there: BTreeSet<u64> =
            query(url, "SELECT id FROM chaos_ledger ORDER BY id").await?.into_iter().collect();
        let book = self.shared.book();
        Ok(Balance {
            acknowledged: book.acknowledged.len() as u64,
            in_doubt: book.in_doubt,
            lost: book.acknowledged.difference(&there).copied().collect(),
            risen: book.refused.intersection(&there).copied().collect(),
        })
    }
}

/// One client: `client`, `client + clients`, ...
async fn work(shared: Arc<Shared>, urls: Vec<String>, client: u64, clients: u64) {
    let mut next = client;
    let mut url = urls.iter().cycle().skip(client as usize % urls.len());
    let mut connection: Option<Client> = None;
    while !shared.stop.load(Ordering::Relaxed) {
        let Some(open) = connection.take().filter(|open| !open.is_closed()) else {
            connection = match url.next() {
                Some(url) => connect(url).await,
                None => return,
            };
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let id = next;
        next += clients;
        let insert = format!("INSERT INTO chaos_ledger VALUES ({id})");
        // One statement alone: its answer is the answer to its COMMIT, too.
        let answer = tokio::time::timeout(PATIENCE, open.simple_query(&insert)).await;
        match answer {
            Ok(Ok(_)) => {
                shared.book().acknowledge(id);
                connection = Some(open);
            }
            Ok(Err(error)) if is_definite(&error) => {
                shared.book().refused.insert(id);
                connection = Some(open);
            }
            _ => shared.book().in_doubt += 1,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether an error says that nothing happened.
fn is_definite(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        let code = code.code();
        !code.starts_with("08") && !code.starts_with("57P") && code != "40003"
    })
}

async fn connect(url: &str) -> Option<Client> {
    let connecting = tokio::time::timeout(PATIENCE, tokio_postgres::connect(url, NoTls)).await;
    let (client, connection) = connecting.ok()?.ok()?;
    tokio::spawn(async move {
        // Its error is the statement's, too.
        let _ = connection.await;
    });
    Some(client)
}

/// Runs a query until it succeeds; the numbers in its first column.
///
/// # Errors
/// What it failed with at last.
pub async fn query(url: &str, sql: &str) -> anyhow::Result<Vec<u64>> {
    let deadline = Instant::now() + SETTLED_PATIENCE;
    loop {
        let error = match connect(url).await {
            Some(client) => match tokio::time::timeout(PATIENCE, client.simple_query(sql)).await {
                Ok(Ok(messages)) => {
                    let numbers = messages.iter().filter_map(|message| match message {
                        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
                        _ => None,
                    });
                    return Ok(numbers.collect());
                }
                Ok(Err(error)) => anyhow::anyhow!(error),
                Err(_) => anyhow::anyhow!("no answer"),
            },
            None => anyhow::anyhow!("no connection to {url}"),
        };
        if Instant::now() > deadline {
            return Err(error.context(format!("{sql:?} does not succeed")));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
