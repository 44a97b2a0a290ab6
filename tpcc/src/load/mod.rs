//! Creates the tables and fills them (clause 4.3.3.1).
//!
//! The rows are cut into units (see [`unit`]), each written with COPY in one REPEATABLE READ transaction by
//! whichever connection is free.

mod rows;
pub mod unit;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures::SinkExt;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_postgres::{Client, Config, IsolationLevel, Transaction};

use crate::backoff::Backoff;
use crate::connection::{Connection, Session};
use crate::error::{Error, describe, is_retryable, leaves_commit_in_doubt};
use crate::progress::Progress;
use crate::random::TpccRandom;
use crate::scale::Scale;
use crate::schema;
use unit::{TableRows, Unit};

/// Bytes of one CopyData message.
const COPY_MESSAGE_BYTES: usize = 64 << 10;

/// Streams for back-off lie far from those of the units, which count from zero.
const BACKOFF_STREAMS: u64 = 1 << 40;

/// What to load, and how.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Where.
    pub connection: Connection,
    /// How much.
    pub scale: Scale,
    /// Connections that load in parallel.
    pub connections: usize,
    /// Drop existing TPC-C tables first, instead of refusing.
    pub drop: bool,
    /// Add the foreign keys of clause 1.3.
    pub foreign_keys: bool,
    /// VACUUM ANALYZE the tables at the end.
    pub analyze: bool,
    /// Seed of the rows; `None` draws one.
    pub seed: Option<u64>,
    /// Tries of one transaction against serialization failures.
    pub max_tries: u32,
    /// Show progress on standard error.
    pub progress: bool,
}

impl LoadOptions {
    /// The specification's cardinalities over four connections, with foreign keys and statistics.
    pub fn new(connection: Connection, warehouses: i32) -> Self {
        Self {
            connection,
            scale: Scale::specification(warehouses),
            connections: 4,
            drop: false,
            foreign_keys: true,
            analyze: true,
            seed: None,
            max_tries: 10,
            progress: false,
        }
    }
}

/// What was loaded.
#[derive(Clone, Debug, Serialize)]
pub struct LoadReport {
    /// The cardinalities.
    pub scale: Scale,
    /// Whether they are the specification's.
    pub specification_scale: bool,
    /// Seed that gives the same rows again.
    pub seed: u64,
    /// Rows written, over all tables.
    pub rows: usize,
    /// Bytes of COPY text.
    pub bytes: usize,
    /// Transactions that carried them.
    pub transactions: usize,
    /// Transactions tried again after a serialization failure.
    pub retries: usize,
    /// Whole load, statistics included.
    pub seconds: f64,
    /// What went wrong without spoiling the data.
    pub warnings: Vec<String>,
}

impl std::fmt::Display for LoadReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "Loaded {}.", self.scale)?;
        write!(
            f,
            "{} rows, {:.1} MiB, {} transactions ({} retries) in {:.1} s; seed {}",
            self.rows,
            self.bytes as f64 / f64::from(1 << 20),
            self.transactions,
            self.retries,
            self.seconds,
            self.seed
        )?;
        self.warnings.iter().try_for_each(|warning| write!(f, "\nwarning: {warning}"))
    }
}

/// Creates and fills the nine tables.
///
/// # Errors
/// [`Error::TablesExist`] unless `drop` is set; [`Error::CommitInDoubt`] when the answer to a COMMIT was
/// lost; connection, option and statement errors.
pub async fn load(options: &LoadOptions) -> Result<LoadReport, Error> {
    options.scale.validate()?;
    if options.connections == 0 || options.max_tries == 0 {
        return Err(Error::Options("--connections and --max-tries must be at least 1".to_owned()));
    }
    let started = Instant::now();
    let seed = options.seed.unwrap_or_else(rand::random);
    let config = options.connection.resolve()?;
    let mut session = Session::open(&config).await?;
    let mut tries = Tries::new(options.max_tries, seed, 0);

    create_tables(&mut session.client, options, &mut tries).await?;
    let work = Arc::new(Work {
        scale: options.scale,
        seed,
        timestamp: timestamp(&session.client).await?,
        units: unit::units(&options.scale),
        next: AtomicUsize::new(0),
        done: Mutex::default(),
        progress: Progress::load(options.progress, unit::units(&options.scale).len()),
    });
    fill_tables(&config, options, &work).await?;
    work.progress.note("creating indexes and foreign keys");
    for sql in schema::CREATE_INDEXES {
        tries.execute(&mut session.client, &[sql.to_owned()]).await?;
    }
    if options.foreign_keys {
        for sql in schema::CREATE_FOREIGN_KEYS {
            tries.execute(&mut session.client, &[sql.to_owned()]).await?;
        }
    }
    let warnings = if options.analyze { analyze(&session.client, &work.progress).await } else { Vec::new() };
    work.progress.finish();

    let done = *work.done.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(LoadReport {
        scale: options.scale,
        specification_scale: options.scale.is_specification(),
        seed,
        rows: done.rows,
        bytes: done.bytes,
        transactions: work.units.len(),
        retries: done.retries + tries.retries,
        seconds: started.elapsed().as_secs_f64(),
        warnings,
    })
}

async fn create_tables(client: &mut Client, options: &LoadOptions, tries: &mut Tries) -> Result<(), Error> {
    let existing = schema::existing_tables(client).await?;
    if !existing.is_empty() {
        if !options.drop {
            return Err(Error::TablesExist(existing.join(", ")));
        }
        tries.execute(client, &[schema::drop_tables()]).await?;
    }
    tries.execute(client, &schema::CREATE_TABLES.map(str::to_owned)).await
}

/// The load's time in PostgreSQL's text format. It is this program's clock: a parameter, not the server's
/// now().
async fn timestamp(client: &Client) -> Result<String, Error> {
    let sql = "SELECT to_char($1::timestamptz AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'";
    let row = client
        .query_one(sql, &[&SystemTime::now()])
        .await
        .map_err(Error::statement("formatting the time of the load"))?;
    row.try_get(0).map_err(Error::statement("formatting the time of the load"))
}

/// Work shared by the loading connections.
struct Work {
    scale: Scale,
    seed: u64,
    timestamp: String,
    units: Vec<Unit>,
    next: AtomicUsize,
    done: Mutex<Done>,
    progress: Progress,
}

#[derive(Clone, Copy, Default)]
struct Done {
    rows: usize,
    bytes: usize,
    retries: usize,
}

async fn fill_tables(config: &Config, options: &LoadOptions, work: &Arc<Work>) -> Result<(), Error> {
    let mut workers = JoinSet::new();
    for worker in 0..options.connections.min(work.units.len()) {
        let session = Session::open(config).await?;
        let tries = Tries::new(options.max_tries, work.seed, 1 + worker as u64);
        workers.spawn(fill_units(session, tries, Arc::clone(work)));
    }
    // Dropping the set on the first error ends the other workers.
    while let Some(joined) = workers.join_next().await {
        joined.map_err(|error| Error::Internal(error.to_string()))??;
    }
    Ok(())
}

async fn fill_units(mut session: Session, mut tries: Tries, work: Arc<Work>) -> Result<(), Error> {
    loop {
        let index = work.next.fetch_add(1, Ordering::Relaxed);
        let Some(unit) = work.units.get(index) else {
            let mut done = work.done.lock().unwrap_or_else(PoisonError::into_inner);
            done.retries += tries.retries;
            return Ok(());
        };
        let tables = unit.rows(&work.scale, work.seed, index as u64, &work.timestamp);
        tries.copy(&mut session.client, &unit.to_string(), &tables).await?;
        let mut done = work.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.rows += tables.iter().map(|table| table.rows).sum::<usize>();
        done.bytes += tables.iter().map(|table| table.text.len()).sum::<usize>();
        work.progress.advance(&format!("{} rows", done.rows));
    }
}

/// VACUUM cannot run in a transaction and is one statement per table. The data are there without it, so that
/// its failures are warnings.
async fn analyze(client: &Client, progress: &Progress) -> Vec<String> {
    let mut warnings = Vec::new();
    for table in schema::TABLES {
        progress.note(&format!("VACUUM ANALYZE {table}"));
        if let Err(error) = client.batch_execute(&format!("VACUUM ANALYZE {table}")).await {
            warnings.push(format!("VACUUM ANALYZE {table}: {}", describe(&error)));
        }
    }
    warnings
}

/// Runs transactions of the load, again after serialization failures.
struct Tries {
    max: u32,
    retries: usize,
    random: TpccRandom,
}

/// What a transaction of the load writes.
#[derive(Clone, Copy)]
enum Writes<'a> {
    Statements(&'a [String]),
    Copy(&'a [TableRows]),
}

impl Tries {
    fn new(max: u32, seed: u64, stream: u64) -> Self {
        Self { max, retries: 0, random: TpccRandom::new(seed, BACKOFF_STREAMS + stream) }
    }

    async fn execute(&mut self, client: &mut Client, statements: &[String]) -> Result<(), Error> {
        let doing = statements.first().and_then(|sql| sql.lines().next()).unwrap_or_default().to_owned();
        self.transact(client, &doing, Writes::Statements(statements)).await
    }

    async fn copy(&mut self, client: &mut Client, doing: &str, tables: &[TableRows]) -> Result<(), Error> {
        self.transact(client, doing, Writes::Copy(tables)).await
    }

    async fn transact(&mut self, client: &mut Client, doing: &str, writes: Writes<'_>) -> Result<(), Error> {
        let mut backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(500));
        for attempt in 1..=self.max {
            match transact_once(client, doing, writes).await {
                Err(Error::Statement { state: Some(state), .. }) if is_retryable(&state) => {
                    if attempt == self.max {
                        let (doing, state) = (doing.to_owned(), state.code().to_owned());
                        return Err(Error::TriesExhausted { doing, tries: attempt, state });
                    }
                    self.retries += 1;
                    tokio::time::sleep(backoff.next(&mut self.random)).await;
                }
                settled => return settled,
            }
        }
        Ok(())
    }
}

async fn transact_once(client: &mut Client, doing: &str, writes: Writes<'_>) -> Result<(), Error> {
    let builder = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
    let transaction = builder.start().await.map_err(Error::statement(doing))?;
    let written = match writes {
        Writes::Statements(statements) => execute_all(&transaction, statements).await,
        Writes::Copy(tables) => copy_all(&transaction, tables).await,
    };
    if let Err(error) = written {
        // The first error is the one to tell; a rollback that fails means that the session is gone as well.
        let _ = transaction.rollback().await;
        return Err(Error::statement(doing)(error));
    }
    transaction.commit().await.map_err(|error| {
        if leaves_commit_in_doubt(error.code()) {
            Error::CommitInDoubt { doing: doing.to_owned(), reason: describe(&error) }
        } else {
            Error::statement(doing)(error)
        }
    })
}

async fn execute_all(
    transaction: &Transaction<'_>,
    statements: &[String],
) -> Result<(), tokio_postgres::Error> {
    for sql in statements {
        transaction.batch_execute(sql).await?;
    }
    Ok(())
}

async fn copy_all(transaction: &Transaction<'_>, tables: &[TableRows]) -> Result<(), tokio_postgres::Error> {
    for table in tables.iter().filter(|table| table.rows > 0) {
        let sink = transaction.copy_in::<_, Bytes>(&format!("COPY {} FROM STDIN", table.table)).await?;
        let mut sink = std::pin::pin!(sink);
        for chunk in table.text.as_bytes().chunks(COPY_MESSAGE_BYTES) {
            sink.send(Bytes::copy_from_slice(chunk)).await?;
        }
        sink.as_mut().finish().await?;
    }
    Ok(())
}
