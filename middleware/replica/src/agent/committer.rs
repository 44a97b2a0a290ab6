//! Applying outcomes: COMMIT PREPARED and ROLLBACK PREPARED on the agent's superuser connections (rule 8, G12). Several
//! connections per database, so that a wave is applied in parallel; PostgreSQL then shares one flush between them. They
//! also tell who waits for whom.

use super::hook::{Hook, Point};
use crate::scheduler::Event;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use steeldb_postgres::{AGENT_ROLE, Backend, BackendError, quote};
use steeldb_types::TxId;
use tokio::sync::{Mutex, mpsc};

/// Connections per database.
const CONNECTIONS: usize = 4;

/// How many tries over new connections there are between two lines in the log.
const TRIES_LOGGED: u32 = 50;

/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// What is to be done.
pub(super) enum Job {
    Commit { tx: TxId, gid: String },
    Rollback { gid: String },
    Blockers { tx: TxId, process: u32 },
}

/// Hands jobs to the connections of their database.
pub(super) struct Committer {
    socket_dir: PathBuf,
    events: mpsc::UnboundedSender<Event>,
    hook: Hook,
    databases: BTreeMap<String, mpsc::UnboundedSender<Job>>,
}

impl Committer {
    pub(super) fn new(socket_dir: PathBuf, events: mpsc::UnboundedSender<Event>, hook: Hook) -> Committer {
        Committer { socket_dir, events, hook, databases: BTreeMap::new() }
    }

    pub(super) fn submit(&mut self, database: &str, job: Job) {
        let sender = self.databases.entry(database.to_string()).or_insert_with(|| {
            let (sender, receiver) = mpsc::unbounded_channel();
            let receiver = Arc::new(Mutex::new(receiver));
            for _ in 0..CONNECTIONS {
                let worker = Worker {
                    socket_dir: self.socket_dir.clone(),
                    database: database.to_string(),
                    events: self.events.clone(),
                    hook: self.hook.clone(),
                    backend: None,
                };
                tokio::spawn(worker.run(Arc::clone(&receiver)));
            }
            sender
        });
        // The workers live as long as the sender.
        let _ = sender.send(job);
    }
}

struct Worker {
    socket_dir: PathBuf,
    database: String,
    events: mpsc::UnboundedSender<Event>,
    hook: Hook,
    backend: Option<Backend>,
}

impl Worker {
    async fn run(mut self, jobs: Arc<Mutex<mpsc::UnboundedReceiver<Job>>>) {
        loop {
            let job = jobs.lock().await.recv().await;
            match job {
                None => return,
                Some(Job::Commit { tx, gid }) => {
                    let sql = format!("COMMIT PREPARED {}", quote::literal(&gid));
                    self.hook.pass(Point::BeforeCommit).await;
                    let result = self.execute(&sql).await.map(|_| ()).map_err(|error| error.to_string());
                    self.hook.pass(Point::Committed).await;
                    let _ = self.events.send(Event::Applied { tx, result });
                }
                Some(Job::Rollback { gid }) => {
                    let sql = format!("ROLLBACK PREPARED {}", quote::literal(&gid));
                    match self.execute(&sql).await {
                        Err(error) if error.sqlstate() != Some("42704") => {
                            tracing::error!(gid, %error, "a prepared transaction could not be rolled back; it keeps its locks");
                        }
                        // Done, or not prepared any more.
                        _ => drop(self.events.send(Event::RolledBack { gid })),
                    }
                }
                Some(Job::Blockers { tx, process }) => {
                    let sql = format!(
                        "SELECT pg_catalog.array_to_string(pg_catalog.pg_blocking_pids({process}), ',')"
                    );
                    match self.execute(&sql).await {
                        Ok(list) => {
                            let list = list.unwrap_or_default();
                            let blockers =
                                list.split(',').filter_map(|process| process.parse().ok()).collect();
                            let _ = self.events.send(Event::Blockers { tx, blockers });
                        }
                        Err(error) => tracing::warn!(%tx, %error, "what it waits for cannot be found out"),
                    }
                }
            }
        }
    }

    /// Runs a statement; its first value.
    async fn execute(&mut self, sql: &str) -> Result<Option<String>, BackendError> {
        let mut tries: u32 = 0;
        loop {
            tries += 1;
            match self.attempt(sql).await {
                Ok(value) => return Ok(value),
                // 42704: no such prepared transaction. After a lost connection that means that it was done.
                Err(error) if error.sqlstate() == Some("42704") && tries > 1 => return Ok(None),
                Err(error) if error.is_recoverable() || self.events.is_closed() => return Err(error),
                Err(error) => {
                    // The server is started again, or the replica ends; nothing can be said until then.
                    if tries.is_multiple_of(TRIES_LOGGED) {
                        tracing::warn!(sql, %error, tries, "an outcome cannot be applied; it is tried again");
                    }
                    self.backend = None;
                    if tries > 1 {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
    }

    async fn attempt(&mut self, sql: &str) -> Result<Option<String>, BackendError> {
        if self.backend.is_none() {
            let parameters = [("application_name".to_string(), "steeldb apply".to_string())];
            self.backend =
                Some(Backend::connect(&self.socket_dir, &self.database, AGENT_ROLE, &parameters).await?);
        }
        match &mut self.backend {
            Some(backend) => backend.simple(sql).await.map(|answer| answer.value().map(str::to_string)),
            None => Err(BackendError::Closed),
        }
    }
}
