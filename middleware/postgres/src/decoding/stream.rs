//! The replication connection that decodes one database.

use super::protocol::{Frame, PgOutput, status_update};
use super::{Assembler, Decoded, DecodingError, Lsn};
use crate::connection::{Backend, BackendError, BackendReader, BackendWriter, server_error};
use crate::message::{self, tag};
use crate::quote;
use bytes::BytesMut;
use std::path::Path;
use steeldb_types::limits;

/// The decoding stream of one database: yields every prepared transaction's write set, in parts where it is large.
pub struct DecodingStream {
    reader: BackendReader,
    writer: BackendWriter,
    assembler: Assembler,
    confirmed: Lsn,
    /// What is still to be sent. Kept here so that a cancelled call loses nothing.
    out: BytesMut,
}

/// Startup parameters that pin the text form of values: a write set must not depend on what an administrator set for
/// the database or the role.
fn startup_parameters(replication: bool) -> Vec<(String, String)> {
    let mut parameters = vec![
        ("application_name", "steeldb decoding"),
        ("datestyle", "ISO, MDY"),
        ("intervalstyle", "postgres"),
        ("timezone", "UTC"),
        ("extra_float_digits", "1"),
        ("bytea_output", "hex"),
        ("lc_monetary", "C"),
        // Names of types, relations and functions in reg* values are then qualified.
        ("search_path", "pg_catalog"),
    ];
    if replication {
        parameters.push(("replication", "database"));
    }
    parameters.into_iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// Creates the slot `slot` of `database` for two-phase decoding. Waits for every transaction that is open or prepared on
/// the server, so it is done once, when the database is made, and never while a prepared transaction is in doubt (B13).
///
/// # Errors
/// [`DecodingError::Backend`].
pub async fn create_slot(socket_dir: &Path, database: &str, slot: &str) -> Result<(), DecodingError> {
    let parameters = startup_parameters(true);
    let mut backend = Backend::connect(socket_dir, database, crate::AGENT_ROLE, &parameters).await?;
    let sql = format!(
        "CREATE_REPLICATION_SLOT {} LOGICAL pgoutput (TWO_PHASE, SNAPSHOT 'nothing')",
        quote::identifier(slot)
    );
    backend.simple(&sql).await?;
    Ok(())
}

/// Whether the server has a slot `slot`.
///
/// # Errors
/// [`BackendError`].
pub async fn slot_exists(backend: &mut Backend, slot: &str) -> Result<bool, BackendError> {
    let sql = "SELECT count(*) FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";
    Ok(backend.extended(sql, &[Some(slot)]).await?.value() == Some("1"))
}

/// Drops the slot `slot`; it must not be in use.
///
/// # Errors
/// [`BackendError`].
pub async fn drop_slot(backend: &mut Backend, slot: &str) -> Result<(), BackendError> {
    backend.extended("SELECT pg_catalog.pg_drop_replication_slot($1)", &[Some(slot)]).await?;
    Ok(())
}

impl DecodingStream {
    /// Starts decoding where the slot was last confirmed. Transactions prepared since then come again.
    ///
    /// # Errors
    /// [`DecodingError::Backend`] when the slot does not exist or is in use.
    pub async fn start(
        socket_dir: &Path,
        database: &str,
        slot: &str,
        publication: &str,
    ) -> Result<DecodingStream, DecodingError> {
        let parameters = startup_parameters(true);
        let mut backend = Backend::connect(socket_dir, database, crate::AGENT_ROLE, &parameters).await?;
        // Protocol version 3 is the first with two-phase messages. Streaming is off: transactions come one at a time.
        let sql = format!(
            "START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '3', publication_names {}, two_phase 'true')",
            quote::identifier(slot),
            quote::literal(&quote::identifier(publication)),
        );
        let mut out = BytesMut::new();
        message::query(&sql, &mut out).map_err(BackendError::from)?;
        backend.send(&out).await?;
        loop {
            let message = backend.next_message().await?;
            match message.tag {
                tag::COPY_BOTH_RESPONSE => break,
                tag::ERROR_RESPONSE => return Err(server_error(&message)?.into()),
                tag::NOTICE_RESPONSE | tag::PARAMETER_STATUS => {}
                other => {
                    let what = format!("{:?} message where a stream should start", char::from(other));
                    return Err(BackendError::Protocol(what).into());
                }
            }
        }
        let (mut reader, writer) = backend.into_split();
        // A stream that cannot take in a row would stop this database for ever.
        reader.set_message_bytes_max(limits::DECODED_MESSAGE_BYTES_MAX);
        let assembler = Assembler::new(limits::TRANSACTION_BYTES_MAX as u64, limits::DECODED_ROWS_MAX);
        Ok(DecodingStream { reader, writer, assembler, confirmed: Lsn(0), out: BytesMut::new() })
    }

    /// The next prepared or resolved transaction, or part of one. Cancel safe.
    ///
    /// # Errors
    /// [`DecodingError`]; the stream must then be started again.
    pub async fn next(&mut self) -> Result<Decoded, DecodingError> {
        loop {
            self.writer.send_all(&mut self.out).await?;
            let message = self.reader.next_message().await?;
            match message.tag {
                tag::COPY_DATA => match Frame::parse(&message.body)? {
                    Frame::Data(bytes) => {
                        if let Some(decoded) = self.assembler.handle(PgOutput::parse(bytes)?)? {
                            return Ok(decoded);
                        }
                    }
                    Frame::Keepalive { reply: false, .. } => {}
                    Frame::Keepalive { reply: true, .. } => self.push_status(),
                },
                tag::NOTICE_RESPONSE | tag::PARAMETER_STATUS => {}
                tag::COPY_DONE | tag::COMMAND_COMPLETE | tag::READY_FOR_QUERY => {
                    return Err(DecodingError::Ended);
                }
                tag::ERROR_RESPONSE => return Err(server_error(&message)?.into()),
                other => {
                    let what = format!("{:?} message in a decoding stream", char::from(other));
                    return Err(BackendError::Protocol(what).into());
                }
            }
        }
    }

    /// Tells the server that nothing up to `lsn` is needed any more: after a restart the stream goes on behind it, and
    /// the log up to it can be removed. Never goes back.
    ///
    /// # Errors
    /// [`DecodingError::Backend`].
    pub async fn confirm(&mut self, lsn: Lsn) -> Result<(), DecodingError> {
        if lsn > self.confirmed {
            self.confirmed = lsn;
            self.push_status();
        }
        Ok(self.writer.send_all(&mut self.out).await?)
    }

    /// The last LSN confirmed on this connection.
    pub fn confirmed(&self) -> Lsn {
        self.confirmed
    }

    /// Answers with the confirmed LSN only, whatever was received: the slot keeps what was not confirmed. LSN 0 confirms
    /// nothing.
    fn push_status(&mut self) {
        let mut update = BytesMut::with_capacity(34);
        status_update(self.confirmed, &mut update);
        // 34 bytes always fit a message.
        let _ = message::copy_data(&update, &mut self.out);
    }
}
