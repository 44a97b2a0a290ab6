//! Catching up (A11): what a quorum committed and this replica could not execute is made here from what any peer keeps,
//! since its digest is in the certificate: rows from a write set; a transaction that ran DDL from its script.

use super::keeper;
use super::reexecution;
use super::worker::Reexecuting;
use crate::effects::{Effects, Kind};
use crate::scheduler::{CatchUpError, ClientRights, DecodedSet, Event, Reexecution};
use crate::script::Script;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use steeldb_postgres::apply::{ApplyError, apply_write_set};
use steeldb_postgres::transaction::{RecordSecret, is_recorded};
use steeldb_postgres::{AGENT_ROLE, Backend, WriteSet, quote};
use steeldb_transport::ReplicaLinks;
use steeldb_types::{ClientId, Digest, Slot, TxId, is_temporary_schema, limits};
use steeldb_wire::codec;
use steeldb_wire::transaction::Wall;
use tokio::sync::mpsc;

/// How long a catch-up waits for a lock before whoever holds one is made to let go.
const LOCK_TIMEOUT: &str = "200ms";

/// How long a server that is not there is waited for: it may be starting again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Idle backends kept for write sets, per database.
const IDLE_BACKENDS: usize = 4;

/// Keeps what decoding shows, for peers; gives the ticket that says when it is on disk.
pub(super) async fn keep(effects: &Effects, gid: &str, write_set: &WriteSet) -> u64 {
    if write_set.bodies_dropped() || write_set.digest().is_err() {
        return 0;
    }
    effects.keep(Kind::WriteSet, gid, codec::encode(write_set)).await
}

/// What decoding says of a write set.
pub(super) fn summary(write_set: &WriteSet) -> Result<DecodedSet, String> {
    match write_set.digest() {
        Ok(digest) => {
            Ok(DecodedSet { digest, wall: wall(write_set), changes: write_set.changes_len() as usize })
        }
        Err(incomplete) => Err(incomplete.to_string()),
    }
}

/// What its definitions are to others: those of temporary relations are its session's alone.
fn wall(write_set: &WriteSet) -> Wall {
    let mut ddl = write_set.ddl().iter();
    match (write_set.truncates() || ddl.any(|command| !is_temporary_schema(&command.schema)), write_set.ddl())
    {
        (true, _) => Wall::Database,
        (false, []) => Wall::None,
        (false, _) => Wall::Session,
    }
}

/// What is wanted of a transaction.
#[derive(Clone)]
pub(super) struct Wanted {
    pub tx: TxId,
    pub slot: Slot,
    pub database: String,
    pub write_set: Digest,
    pub reexecution: Option<Reexecution>,
}

/// What a peer sent, checked.
pub(super) enum Found {
    WriteSet(WriteSet),
    Script(Box<Script>),
}

impl Wanted {
    /// Checks what a peer sent against what the certificate names.
    pub(super) fn check(&self, kind: Kind, bytes: &[u8]) -> Result<Found, String> {
        match (kind, &self.reexecution) {
            (Kind::Script, Some(wanted)) => {
                let opened = Script::open(bytes, self.tx, self.slot, wanted.operations, wanted.transcript);
                opened.map(|script| Found::Script(Box::new(script))).map_err(|error| error.to_string())
            }
            (Kind::Script, None) => Err("a script of a transaction that ran no DDL".to_string()),
            (Kind::WriteSet, Some(wanted)) if wanted.by_script => {
                Err("the rows of a transaction that defined temporary relations".to_string())
            }
            (Kind::WriteSet, _) => {
                let write_set: WriteSet =
                    codec::decode(bytes, limits::KEPT_RECORD_BYTES_MAX).map_err(|error| error.to_string())?;
                match write_set.digest() {
                    Ok(digest) if digest == self.write_set => Ok(Found::WriteSet(write_set)),
                    Ok(_) => Err("another write set than the certificate names".to_string()),
                    Err(incomplete) => Err(incomplete.to_string()),
                }
            }
        }
    }
}

/// Makes here what peers keep.
#[derive(Clone)]
pub(super) struct CatchUp {
    pub socket_dir: PathBuf,
    pub events: mpsc::UnboundedSender<Event>,
    pub secrets: BTreeMap<String, RecordSecret>,
    pub clients: BTreeMap<ClientId, ClientRights>,
    pub effects: Effects,
    pub links: ReplicaLinks,
    pub backends: Backends,
}

/// Idle backends of the agent's, by database.
#[derive(Clone, Default)]
pub(super) struct Backends(Arc<Mutex<BTreeMap<String, Vec<Backend>>>>);

impl Backends {
    fn take(&self, database: &str) -> Option<Backend> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.get_mut(database).and_then(Vec::pop)
    }

    fn give_back(&self, database: &str, backend: Backend) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = idle.entry(database.to_string()).or_default();
        if idle.len() < IDLE_BACKENDS {
            idle.push(backend);
        }
    }
}

impl CatchUp {
    /// Applies a write set and commits it, or executes a script up to PREPARE TRANSACTION; and reports.
    pub(super) async fn make(self, wanted: Wanted, found: Found) {
        let tx = wanted.tx;
        let event = match found {
            Found::WriteSet(write_set) => {
                let applied = self.apply(&wanted.database, tx, &write_set).await;
                let result = applied.map_err(|error| match &error {
                    ApplyError::Backend(inner) if inner.sqlstate() == Some("55P03") => CatchUpError::Blocked,
                    other => CatchUpError::Failed(other.to_string()),
                });
                Event::CaughtUp { tx, result }
            }
            Found::Script(script) => {
                let result = self.execute(&wanted, *script).await.map_err(CatchUpError::Failed);
                Event::Reexecuted { tx, result }
            }
        };
        let _ = self.events.send(event);
    }

    /// Its record row makes it count as applied, so it is done once.
    async fn apply(&self, database: &str, tx: TxId, write_set: &WriteSet) -> Result<(), ApplyError> {
        // One that was kept may have been lost since with its server.
        if let Some(mut backend) = self.backends.take(database) {
            match attempt(&mut backend, tx, write_set).await {
                Ok(()) => {
                    self.backends.give_back(database, backend);
                    return Ok(());
                }
                Err(ApplyError::Backend(error)) if !error.is_recoverable() => {}
                Err(error) => return Err(error),
            }
        }
        let parameters = [("application_name".to_string(), "steeldb catch-up".to_string())];
        loop {
            let backend =
                keeper::connect(&self.socket_dir, database, AGENT_ROLE, &parameters, PATIENCE).await;
            let mut backend = backend?;
            match attempt(&mut backend, tx, write_set).await {
                Ok(()) => {
                    self.backends.give_back(database, backend);
                    return Ok(());
                }
                // Its server went away meanwhile; it comes back, or the replica ends.
                Err(ApplyError::Backend(error)) if !error.is_recoverable() && !self.events.is_closed() => {
                    tracing::warn!(%tx, %error, "catching up lost its connection; it is tried again");
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn execute(&self, wanted: &Wanted, script: Script) -> Result<Option<Digest>, String> {
        let Some(reexecution) = &wanted.reexecution else { return Err("no script is wanted".to_string()) };
        let session = &script.session;
        let rights = self.clients.get(&wanted.tx.session.client);
        let may = rights.is_some_and(|rights| {
            rights.databases.contains(&session.database) && rights.roles.contains(&session.role)
        });
        if !may || session.database != wanted.database {
            return Err(format!(
                "its client may not use database \"{}\" as role \"{}\"",
                session.database, session.role
            ));
        }
        let Some(secret) = self.secrets.get(&session.database) else {
            return Err(format!("there is no database \"{}\" here", session.database));
        };
        let session = Reexecuting {
            socket_dir: self.socket_dir.clone(),
            secret: secret.clone(),
            links: self.links.clone(),
            effects: self.effects.clone(),
            hook: Default::default(),
        };
        let (events, tx) = (self.events.clone(), wanted.tx);
        let waits = move || drop(events.send(Event::ReexecutionWaits { tx }));
        reexecution::run(session, script, reexecution, waits).await
    }
}

async fn attempt(backend: &mut Backend, tx: TxId, write_set: &WriteSet) -> Result<(), ApplyError> {
    if is_recorded(backend, tx).await? {
        return Ok(()); // by an attempt whose answer was lost
    }
    backend.simple(&format!("BEGIN; SET LOCAL lock_timeout = {}", quote::literal(LOCK_TIMEOUT))).await?;
    apply_write_set(backend, write_set).await?;
    backend.simple("COMMIT").await?;
    Ok(())
}
