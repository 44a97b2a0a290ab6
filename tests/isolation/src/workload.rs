//! The clients: what they do, and how they tell committed, aborted and unknown apart.

mod client;
mod plan;

use crate::history::{History, Transaction};
use anyhow::Context as _;
use client::Client;
use plan::Plan;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_postgres::NoTls;

/// How long the tables' creation is tried.
const CREATE_PATIENCE: Duration = Duration::from_secs(60);

/// How often a client that is held looks whether it may go on.
const HELD_PAUSE: Duration = Duration::from_millis(50);

/// What is run, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connection strings, one for each proxy.
    pub urls: Vec<String>,
    /// Clients.
    pub clients: u32,
    /// What their choices are drawn from.
    pub seed: u64,
    /// Lists and registers in use at a time. Few make many conflicts.
    pub keys: u32,
    /// Values after which a list is left for a new one: its reads get long.
    pub list_values_max: u64,
    /// The isolation level that transactions ask for.
    pub level: String,
    /// How long a client waits between two transactions.
    pub pause: Duration,
    /// How long a client waits for an answer before it takes its connection for lost.
    pub patience: Duration,
}

impl Options {
    /// What makes many dependencies in a short time.
    pub fn new(urls: Vec<String>, seed: u64) -> Options {
        Options {
            urls,
            clients: 8,
            seed,
            keys: 4,
            list_values_max: 64,
            level: "REPEATABLE READ".into(),
            pause: Duration::ZERO,
            patience: Duration::from_secs(60),
        }
    }
}

/// Clients at work.
pub struct Workload {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

/// What clients share.
struct Shared {
    options: Options,
    started: Instant,
    stop: AtomicBool,
    held: AtomicBool,
    next_id: AtomicU64,
    next_value: AtomicU64,
    committed: AtomicU64,
    history: Mutex<Vec<Transaction>>,
}

impl Shared {
    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn record(&self, transaction: Transaction) {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).push(transaction);
    }
}

impl Workload {
    /// Creates the tables and starts the clients.
    ///
    /// # Errors
    /// When there is no proxy, or the tables cannot be created.
    pub async fn start(options: Options) -> anyhow::Result<Workload> {
        let url = options.urls.first().context("no connection string")?;
        create(url).await?;
        let shared = Arc::new(Shared {
            started: Instant::now(),
            stop: AtomicBool::new(false),
            held: AtomicBool::new(false),
            next_id: AtomicU64::new(1),
            next_value: AtomicU64::new(1),
            committed: AtomicU64::new(0),
            history: Mutex::default(),
            options,
        });
        let mut tasks = JoinSet::new();
        for number in 0..shared.options.clients {
            let shared = shared.clone();
            tasks.spawn(async move {
                let mut plan = Plan::new(&shared.options, number);
                let mut client = Client::new(shared.clone(), number);
                while !shared.stop.load(Ordering::Relaxed) {
                    if shared.held.load(Ordering::Relaxed) {
                        tokio::time::sleep(HELD_PAUSE).await;
                        continue;
                    }
                    let steps = plan.next(&shared);
                    client.run(&steps).await;
                    tokio::time::sleep(shared.options.pause).await;
                }
            });
        }
        Ok(Workload { shared, tasks })
    }

    /// Transactions that were acknowledged until now.
    pub fn committed(&self) -> u64 {
        self.shared.committed.load(Ordering::Relaxed)
    }

    /// Has the clients begin no more transactions for a while, or go on.
    pub fn hold(&self, held: bool) {
        self.shared.held.store(held, Ordering::Relaxed);
    }

    /// Stops the clients, then reads everything once through every proxy, and gives the history.
    ///
    /// # Errors
    /// When the last reads do not succeed: then nobody knows what was lost.
    pub async fn finish(mut self) -> anyhow::Result<History> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        for proxy in 0..u32::try_from(self.shared.options.urls.len())? {
            let mut reader = Client::new(self.shared.clone(), self.shared.options.clients + proxy);
            reader.read_everything().await?;
        }
        let transactions =
            std::mem::take(&mut *self.shared.history.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(History::new(transactions)?)
    }
}

/// Creates the tables; again if the database is not ready for it.
async fn create(url: &str) -> anyhow::Result<()> {
    const TABLES: &str = "DROP TABLE IF EXISTS isolation_list; DROP TABLE IF EXISTS isolation_register;
        CREATE TABLE isolation_list (key text PRIMARY KEY, list bigint[] NOT NULL);
        CREATE TABLE isolation_register (id int PRIMARY KEY, value bigint NOT NULL)";
    let deadline = Instant::now() + CREATE_PATIENCE;
    loop {
        let created = async {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
            let connection = tokio::spawn(connection);
            let result = client.batch_execute(TABLES).await;
            connection.abort();
            result
        };
        match created.await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error).context("cannot create the tables"),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
