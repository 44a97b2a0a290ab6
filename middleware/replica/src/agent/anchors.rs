//! Anchors: backends whose transactions hold the snapshots that BEGINs import (rule 3). An exporting transaction cannot be
//! prepared, so they are backends of their own; idle ones are kept for the next wave.

use super::keeper;
use crate::scheduler::{AnchorId, Event};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use steeldb_postgres::{AGENT_ROLE, Backend, BackendError};
use steeldb_types::limits;
use tokio::sync::mpsc;

/// How long a server that is not there is waited for: it may be starting again.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the pool is asked.
pub(super) enum Request {
    Take(AnchorId, String),
    Release(AnchorId),
}

/// Runs the pool until its requests end.
pub(super) async fn run(
    socket_dir: PathBuf,
    mut requests: mpsc::UnboundedReceiver<Request>,
    events: mpsc::UnboundedSender<Event>,
) {
    let mut held: BTreeMap<AnchorId, (String, Backend)> = BTreeMap::new();
    let mut idle: BTreeMap<String, Vec<Backend>> = BTreeMap::new();
    while let Some(request) = requests.recv().await {
        match request {
            Request::Take(anchor, database) => {
                let backend = idle.get_mut(&database).and_then(Vec::pop);
                let snapshot = match take(&socket_dir, &database, backend).await {
                    Ok((backend, name)) => {
                        held.insert(anchor, (database, backend));
                        Ok(name)
                    }
                    Err(error) => Err(error.to_string()),
                };
                let _ = events.send(Event::Anchored { anchor, snapshot });
            }
            Request::Release(anchor) => {
                if let Some((database, mut backend)) = held.remove(&anchor)
                    && backend.simple("COMMIT").await.is_ok()
                {
                    let idle = idle.entry(database).or_default();
                    if idle.len() < limits::ANCHORS_MAX {
                        idle.push(backend);
                    }
                }
            }
        }
    }
}

async fn take(
    socket_dir: &std::path::Path,
    database: &str,
    backend: Option<Backend>,
) -> Result<(Backend, String), BackendError> {
    if let Some(mut backend) = backend
        && let Ok(name) = export(&mut backend).await
    {
        return Ok((backend, name));
    }
    let parameters = [("application_name".to_string(), "steeldb anchor".to_string())];
    let mut backend = keeper::connect(socket_dir, database, AGENT_ROLE, &parameters, PATIENCE).await?;
    let name = export(&mut backend).await?;
    Ok((backend, name))
}

pub(super) async fn export(backend: &mut Backend) -> Result<String, BackendError> {
    let answer = backend
        .simple("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_catalog.pg_export_snapshot()")
        .await?;
    answer
        .value()
        .map(str::to_string)
        .ok_or_else(|| BackendError::Protocol("pg_export_snapshot() gave no name".into()))
}
