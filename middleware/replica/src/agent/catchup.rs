//! Catching up (A11): what a quorum committed and this replica could not execute is made here from what any peer keeps,
//! since its digest is in the certificate: rows from a write set (`rows.rs`); a transaction that ran DDL from its script.

use super::reexecution;
use super::worker::Reexecuting;
use crate::effects::{Effects, Kind};
use crate::scheduler::{CatchUpError, ClientRights, DecodedSet, Event, Reexecution};
use crate::script::Script;
use std::collections::BTreeMap;
use std::path::PathBuf;
use steeldb_postgres::WriteSet;
use steeldb_postgres::transaction::RecordSecret;
use steeldb_postgres::write_set::Definitions;
use steeldb_transport::ReplicaLinks;
use steeldb_types::{ClientId, Digest, Position, Slot, TxId, is_temporary_schema, limits};
use steeldb_wire::codec;
use steeldb_wire::transaction::Wall;
use tokio::sync::mpsc;

/// Keeps what decoding shows, for peers; gives the ticket that says when it is on disk.
pub(super) async fn keep(effects: &Effects, gid: &str, write_set: &WriteSet) -> u64 {
    if write_set.digest().is_err() {
        return 0;
    }
    effects.keep(Kind::WriteSet, gid, codec::encode(write_set)).await
}

/// What decoding says of a write set.
pub(super) fn summary(write_set: &WriteSet) -> Result<DecodedSet, String> {
    match write_set.digest() {
        Ok(digest) => {
            let definitions = write_set.definitions();
            let (wall, truncates) = (wall(definitions), definitions.truncates());
            Ok(DecodedSet { digest, wall, truncates, changes: write_set.changes_len() as usize })
        }
        Err(incomplete) => Err(incomplete.to_string()),
    }
}

/// The same of one that was too large for the memory: w and how many changes there are, or why that is not known.
pub(super) fn summary_of_spilled(
    ended: Result<(Digest, u64), String>,
    definitions: &Definitions,
) -> Result<DecodedSet, String> {
    if let Some(incomplete) = definitions.incomplete() {
        return Err(incomplete.to_string());
    }
    ended.map(|(digest, changes)| DecodedSet {
        digest,
        wall: wall(definitions),
        truncates: definitions.truncates(),
        changes: changes as usize,
    })
}

/// What its definitions are to others: those of temporary relations are its session's alone.
fn wall(definitions: &Definitions) -> Wall {
    let mut ddl = definitions.ddl().iter();
    let database = definitions.truncates() || ddl.any(|command| !is_temporary_schema(&command.schema));
    match (database, definitions.ddl()) {
        (true, _) => Wall::Database,
        (false, []) => Wall::None,
        (false, _) => Wall::Session,
    }
}

/// What is wanted of a transaction.
#[derive(Clone)]
pub(super) struct Wanted {
    pub position: Position,
    pub tx: TxId,
    pub slot: Slot,
    pub database: String,
    pub write_set: Digest,
    pub reexecution: Option<Reexecution>,
}

/// What a peer sent, checked.
pub(super) enum Found {
    /// Rows, and how many bytes they took.
    WriteSet(WriteSet, usize),
    Script(Box<Script>),
}

impl Wanted {
    /// Whether rows will do.
    pub(super) fn takes_rows(&self) -> bool {
        self.reexecution.as_ref().is_none_or(|wanted| !wanted.by_script)
    }

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
            // They are checked as they come.
            (Kind::Bulk, _) => Err("the rows of a bulk transaction in one piece".to_string()),
            (Kind::WriteSet, _) => {
                let write_set: WriteSet =
                    codec::decode(bytes, limits::KEPT_RECORD_BYTES_MAX).map_err(|error| error.to_string())?;
                match write_set.digest() {
                    Ok(digest) if digest == self.write_set => Ok(Found::WriteSet(write_set, bytes.len())),
                    Ok(_) => Err("another write set than the certificate names".to_string()),
                    Err(incomplete) => Err(incomplete.to_string()),
                }
            }
        }
    }
}

/// Executes again here what peers keep the scripts of.
#[derive(Clone)]
pub(super) struct CatchUp {
    pub socket_dir: PathBuf,
    pub events: mpsc::UnboundedSender<Event>,
    pub secrets: BTreeMap<String, RecordSecret>,
    pub clients: BTreeMap<ClientId, ClientRights>,
    pub effects: Effects,
    pub links: ReplicaLinks,
}

impl CatchUp {
    /// Executes a script up to PREPARE TRANSACTION, and reports.
    pub(super) async fn make(self, wanted: Wanted, script: Script) {
        let tx = wanted.tx;
        let result = self.execute(&wanted, script).await.map_err(CatchUpError::Failed);
        let _ = self.events.send(Event::Reexecuted { tx, result });
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
