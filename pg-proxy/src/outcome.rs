//! `SELECT steeldb.outcome(...)`: what became of a transaction, as the order says. No replica's database is asked.

use crate::backend;
use crate::error::{Failure, PgError};
use crate::frontend::{first_parameter, result_formats};
use crate::relay::{Describe, Relay};
use crate::session::Session;
use crate::sql::{Argument, StatementKind};
use crate::statement::Run;
use crate::transaction::Block;
use bytes::{Bytes, BytesMut};
use steeldb_client_shim::Event;
use steeldb_types::TxId;

/// PostgreSQL's text.
const TEXT_OID: u32 = 25;

/// ParameterDescription and RowDescription of the question.
pub(crate) fn description(argument: &Argument, column: &str) -> (Bytes, Bytes) {
    let types: &[u32] = if *argument == Argument::Parameter { &[TEXT_OID] } else { &[] };
    let (mut parameters, mut columns) = (BytesMut::new(), BytesMut::new());
    backend::parameter_description(&mut parameters, types);
    backend::text_column(&mut columns, column, TEXT_OID);
    (parameters.freeze(), columns.freeze())
}

impl Session {
    /// Asks the order. Outside a transaction block alone: inside, the answer would not be part of what is verified, and the
    /// transaction that runs would be asked about itself.
    pub(crate) async fn outcome(&mut self, run: &Run<'_>, relay: &mut Relay) -> Result<(), Failure> {
        let StatementKind::Outcome { argument, column } = &run.statement.kind else { return Ok(()) };
        if self.transaction.block != Block::None || self.transaction.begun || run.shared {
            let message =
                "steeldb.outcome() cannot run inside a transaction block, nor with other statements";
            return Err(PgError::new("25001", message).into());
        }
        self.release();
        let bind = Bytes::copy_from_slice(&run.bind);
        let text = match argument {
            Argument::Text(text) => text.clone(),
            Argument::Parameter => match first_parameter(&bind)? {
                None => return Err(PgError::new("42P02", "there is no parameter $1").into()),
                Some(None) => None,
                Some(Some(bytes)) => Some(
                    String::from_utf8(bytes.to_vec())
                        .map_err(|_| PgError::new("22021", "invalid byte sequence for encoding \"UTF8\""))?,
                ),
            },
        };
        let state = match text {
            None => None,
            Some(text) => {
                let tx = text
                    .parse::<TxId>()
                    .map_err(|error| PgError::new("22P02", format!("\"{text}\" is {error}")))?;
                Some(self.ask(tx).await?)
            }
        };
        if matches!(relay.describe, Describe::Rows | Describe::Both) {
            let (_, columns) = description(argument, column);
            let formats = result_formats(&bind)?;
            let columns =
                backend::with_formats(&columns, &formats).unwrap_or_else(|| columns.as_ref().into());
            self.out().extend_from_slice(&columns);
        }
        // Text is the same in both formats.
        backend::data_row(self.out(), state.as_deref());
        let mut completion = BytesMut::new();
        backend::command_complete(&mut completion, "SELECT 1");
        relay.completion = completion.freeze();
        Ok(())
    }

    async fn ask(&mut self, tx: TxId) -> Result<String, Failure> {
        self.shim.ask(tx);
        loop {
            match self.event().await? {
                Event::Told(state) => return Ok(state?.to_string()),
                other => self.stray(other)?,
            }
        }
    }
}
