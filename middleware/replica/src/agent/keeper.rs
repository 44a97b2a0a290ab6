//! Keeps the replica's PostgreSQL running: one that ends by itself is started again, with pauses, so many times in a row.
//!
//! Nothing else has to be done for it here: what is prepared waits on disk for its outcome, sessions report that their
//! backends are lost, the decoding stream and the connections that commit are made again when the server is there.

use super::hook::{Hook, Point};
use super::monitor::Monitor;
use crate::scheduler::Event;
use std::path::Path;
use std::time::{Duration, Instant};
use steeldb_postgres::{AGENT_ROLE, Backend, BackendError, Server, ServerConfig, ServerError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How often the server is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// The pause before each start in a row. After the last one the replica ends.
const PAUSES: [Duration; 9] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// A server that ran for so long is no longer one that only just came up.
const HEALTHY: Duration = Duration::from_secs(60);

/// The pause between two tries to connect to a server that is not there.
const CONNECT_PAUSE: Duration = Duration::from_millis(100);

/// The server and what it is started with.
pub(super) struct Keeper {
    config: ServerConfig,
    server: Option<Server>,
    started: Instant,
    /// Under way: it cannot be broken off.
    starting: Option<JoinHandle<Result<Server, ServerError>>>,
    events: mpsc::UnboundedSender<Event>,
    hook: Hook,
    monitor: Monitor,
}

impl Keeper {
    pub(super) fn new(
        config: ServerConfig,
        server: Server,
        events: mpsc::UnboundedSender<Event>,
        hook: Hook,
        monitor: Monitor,
    ) -> Keeper {
        monitor.server_runs(true);
        let started = Instant::now();
        Keeper { config, server: Some(server), started, starting: None, events, hook, monitor }
    }

    /// Runs until the server cannot be kept running; says why. Cancel safe.
    pub(super) async fn run(&mut self) -> anyhow::Error {
        let mut restarts = 0;
        loop {
            let reason = self.ended().await;
            self.monitor.server_runs(false);
            if self.started.elapsed() > HEALTHY {
                restarts = 0;
            }
            let Some(pause) = PAUSES.get(restarts) else {
                return anyhow::anyhow!(
                    "the replica's PostgreSQL ended: {reason}, {restarts} times in a row"
                );
            };
            restarts += 1;
            tracing::error!(reason, restarts, ?pause, "PostgreSQL ended by itself; it is started again");
            tokio::time::sleep(*pause).await;
            self.hook.pass(Point::BeforeRestart).await;
            self.start();
        }
    }

    /// Waits until the server has ended, or could not be started.
    async fn ended(&mut self) -> String {
        if let Some(starting) = &mut self.starting {
            let started = starting.await;
            self.starting = None;
            match started {
                Ok(Ok(server)) => {
                    self.server = Some(server);
                    self.started = Instant::now();
                    self.monitor.server_runs(true);
                    // Nobody to tell: the agent ends.
                    let _ = self.events.send(Event::ServerRestarted);
                }
                Ok(Err(error)) => return error.to_string(),
                Err(error) => return error.to_string(),
            }
        }
        loop {
            match self.server.as_ref().map(Server::has_ended) {
                None => return "it does not run".to_string(),
                Some(Some(reason)) => return reason,
                Some(None) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    fn start(&mut self) {
        let (config, old) = (self.config.clone(), self.server.take());
        self.starting = Some(tokio::task::spawn_blocking(move || {
            drop(old);
            Server::start(config)
        }));
    }

    /// Stops the server.
    ///
    /// # Errors
    /// It does not end.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(starting) = self.starting.take() {
            self.server = starting.await?.ok();
        }
        if let Some(server) = self.server.take() {
            tokio::task::spawn_blocking(move || server.stop()).await??;
        }
        Ok(())
    }
}

/// Whether an error says that the server is not there now, rather than that it refused something.
fn is_absent(error: &BackendError) -> bool {
    match error {
        BackendError::Io(_) | BackendError::Closed => true,
        BackendError::Server(fields) => ["57P01", "57P02", "57P03"].contains(&fields.sqlstate.as_str()),
        BackendError::Protocol(_) | BackendError::TooLarge { .. } => false,
    }
}

/// Connects; while the server is not there, tries again for at most `patience`.
///
/// # Errors
/// [`BackendError`]: the last one.
pub(super) async fn connect(
    socket_dir: &Path,
    database: &str,
    role: &str,
    parameters: &[(String, String)],
    patience: Duration,
) -> Result<Backend, BackendError> {
    let since = Instant::now();
    loop {
        match Backend::connect(socket_dir, database, role, parameters).await {
            Err(error) if is_absent(&error) && since.elapsed() < patience => {
                tokio::time::sleep(CONNECT_PAUSE).await;
            }
            result => return result,
        }
    }
}

/// Those of `gids` that are not prepared; an empty list if that cannot be found out.
pub(super) async fn not_prepared(socket_dir: &Path, gids: Vec<String>) -> Vec<String> {
    let look = async {
        let mut backend = connect(socket_dir, "postgres", AGENT_ROLE, &[], HEALTHY).await?;
        let answer = backend.simple("SELECT gid FROM pg_catalog.pg_prepared_xacts").await?;
        Ok::<_, BackendError>(answer.rows.into_iter().filter_map(|row| row.into_iter().next().flatten()))
    };
    match look.await {
        Ok(prepared) => {
            let prepared: std::collections::BTreeSet<String> = prepared.collect();
            gids.into_iter().filter(|gid| !prepared.contains(gid)).collect()
        }
        Err(error) => {
            tracing::error!(%error, "what is prepared cannot be found out");
            Vec::new()
        }
    }
}
