//! What runs beside transactions: ordered maintenance (VACUUM, ANALYZE) and table digests for `steeldb verify`.

use super::{keeper, worker};
use crate::scheduler::Event;
use bytes::BufMut as _;
use std::path::PathBuf;
use std::time::Duration;
use steeldb_postgres::message::{bind, execute, parse, sync, tag};
use steeldb_postgres::{AGENT_ROLE, Backend, BackendError, digest, quote};
use steeldb_types::{Position, SessionKey};
use steeldb_wire::transaction::TableDigest;
use tokio::sync::mpsc;

/// How long a server that is not there is waited for: it may be starting again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Messages of one maintenance statement kept, bytes; VACUUM VERBOSE of many tables is cut there.
const MESSAGES_BYTES_MAX: usize = 1024 * 1024;

/// Runs one maintenance statement as the client's role and reports the backend's messages.
pub(super) async fn maintain(
    socket_dir: PathBuf,
    database: String,
    role: String,
    sql: String,
    session: SessionKey,
    sequence: u64,
    events: mpsc::UnboundedSender<Event>,
) {
    let messages = match run(socket_dir, &database, &role, &sql, &worker::parameters(session, &[])).await {
        Ok(messages) => messages,
        Err(error) => error_response("58000", &error.to_string()),
    };
    let _ = events.send(Event::Maintained { session, sequence, messages });
}

async fn run(
    socket_dir: PathBuf,
    database: &str,
    role: &str,
    sql: &str,
    parameters: &[(String, String)],
) -> Result<Vec<u8>, BackendError> {
    let mut backend = keeper::connect(&socket_dir, database, role, parameters, PATIENCE).await?;
    let mut out = bytes::BytesMut::new();
    // The extended protocol takes one statement alone, whatever the check before let through (A4).
    parse("", sql, &[], &mut out)?;
    bind("", "", &[], &mut out)?;
    execute("", 0, &mut out)?;
    sync(&mut out);
    backend.send(&out).await?;
    let mut messages = Vec::new();
    loop {
        let message = backend.next_message().await?;
        match message.tag {
            tag::READY_FOR_QUERY => return Ok(messages),
            tag::PARSE_COMPLETE | tag::BIND_COMPLETE => {}
            _ if messages.len() > MESSAGES_BYTES_MAX && message.tag == tag::NOTICE_RESPONSE => {}
            _ => {
                messages.put_u8(message.tag);
                messages.put_u32(message.body.len() as u32 + 4);
                messages.put_slice(&message.body);
            }
        }
    }
}

/// An ErrorResponse of the agent's own.
pub(super) fn error_response(sqlstate: &str, text: &str) -> Vec<u8> {
    error_with_hint(sqlstate, text, "")
}

/// As [`error_response`], with what to do about it.
pub(super) fn error_with_hint(sqlstate: &str, text: &str, hint: &str) -> Vec<u8> {
    let mut body = Vec::new();
    let fields = [(b'S', "ERROR"), (b'V', "ERROR"), (b'C', sqlstate), (b'M', text), (b'H', hint)];
    for (field, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        body.push(field);
        body.extend(value.bytes().filter(|byte| *byte != 0));
        body.push(0);
    }
    body.push(0);
    let mut message = vec![b'E'];
    message.extend((body.len() as u32 + 4).to_be_bytes());
    message.extend(body);
    message
}

/// Takes digests of all tables on an exported snapshot.
pub(super) async fn verify(
    socket_dir: PathBuf,
    database: String,
    snapshot: String,
    session: SessionKey,
    sequence: u64,
    position: Position,
    events: mpsc::UnboundedSender<Event>,
) {
    let tables = tables(socket_dir, &database, &snapshot, position).await.map_err(|error| error.to_string());
    let _ = events.send(Event::Verified { session, sequence, position, tables });
}

async fn tables(
    socket_dir: PathBuf,
    database: &str,
    snapshot: &str,
    position: Position,
) -> Result<Vec<TableDigest>, BackendError> {
    let mut backend = Backend::connect(&socket_dir, database, AGENT_ROLE, &[]).await?;
    backend
        .simple(&format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
            quote::literal(snapshot)
        ))
        .await?;
    // The position was not known when the rows were written, and is the same on every replica.
    let digests = digest::table_digests(&mut backend, &position.0.to_be_bytes()).await?;
    let catalog = digest::catalog_digest(&mut backend).await?;
    let mut tables: Vec<TableDigest> = digests
        .into_iter()
        .map(|table| TableDigest {
            table: format!("{}.{}", table.schema, table.table),
            rows: table.rows,
            digest: table.digest.to_string(),
        })
        .collect();
    tables.push(TableDigest { table: "(catalogs)".into(), rows: 0, digest: catalog.to_string() });
    tables.sort();
    Ok(tables)
}
