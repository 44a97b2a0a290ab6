//! Dropping the temporary relations of sessions that are over, where the order says so.

use crate::scheduler::Event;
use std::path::{Path, PathBuf};
use std::time::Duration;
use steeldb_postgres::{AGENT_ROLE, Backend, BackendError, quote};
use tokio::sync::mpsc;

/// How long to wait before a failure is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// Drops a schema of temporary relations and says when it is done. Who holds their locks is about to end: transactions of
/// the session, which the order has closed, and digests of tables.
pub(super) async fn clear(
    socket_dir: PathBuf,
    database: String,
    schema: String,
    events: mpsc::UnboundedSender<Event>,
) {
    while let Err(error) = try_clear(&socket_dir, &database, &schema).await {
        if events.is_closed() {
            return;
        }
        tracing::warn!(database, schema, %error, "temporary relations cannot be dropped; tried again");
        tokio::time::sleep(PAUSE).await;
    }
    let _ = events.send(Event::TemporaryCleared);
}

async fn try_clear(socket_dir: &Path, database: &str, schema: &str) -> Result<(), BackendError> {
    let mut backend = Backend::connect(socket_dir, database, AGENT_ROLE, &[]).await?;
    backend.simple(&format!("SELECT steeldb.clear_temporary({})", quote::literal(schema))).await.map(|_| ())
}

/// The schemas of temporary relations that are there.
pub(super) async fn schemas(backend: &mut Backend) -> Result<Vec<String>, BackendError> {
    let sql = "SELECT nspname FROM pg_catalog.pg_namespace WHERE steeldb.is_temporary(nspname)";
    let answer = backend.simple(sql).await?;
    Ok(answer.rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}
