//! What replicas disagreed on goes into `steeldb.mismatch`, through the order like any other write, between the client's
//! transactions: `migrations/0010_mismatch.sql` says why.

use crate::error::Failure;
use crate::session::Session;
use crate::transaction::Block;
use std::sync::Arc;
use steeldb_client_shim::{
    Decision, Disagreement, Event, Modes, NewOperation, OperationFlags, OperationKind, ShimError,
    StatementText,
};

const NOTE: &str = "SELECT steeldb.note_mismatch($1, $2)";

/// `text`, twice.
const PARAMETER_TYPES: [u32; 2] = [25, 25];

/// Characters of a statement's text that are kept.
const TEXT_CHARS: usize = 2000;

/// Disagreements kept of one transaction; each of its statements may be told of once.
const KEPT_MAX: usize = 8;

/// How often one is tried to be written: others may write the same row.
const TRIES: usize = 3;

impl Session {
    /// Keeps what an error says of a disagreement.
    pub(crate) fn disagree(&mut self, error: &ShimError) {
        if let Some(disagreement) = &error.disagreement
            && self.disagreements.len() < KEPT_MAX
        {
            self.disagreements.push(disagreement.as_ref().clone());
        }
    }

    /// Writes down what was kept, once no transaction is open. That fails only with the session; a disagreement that
    /// cannot be written is in the log alone.
    pub(crate) async fn note_disagreements(&mut self) -> Result<(), Failure> {
        if self.transaction.block != Block::None {
            return Ok(());
        }
        for disagreement in std::mem::take(&mut self.disagreements) {
            let mut result = Ok(());
            for _ in 0..TRIES {
                result = self.note(&disagreement).await?;
                match &result {
                    Err(error)
                        if error.sqlstate.as_str().starts_with("40")
                            || error.sqlstate.as_str() == "23505" => {}
                    _ => break,
                }
            }
            if let Err(error) = result {
                tracing::warn!(%error, "a disagreement of replicas was not written to steeldb.mismatch");
            }
        }
        Ok(())
    }

    async fn note(&mut self, disagreement: &Disagreement) -> Result<Result<(), ShimError>, Failure> {
        let kind = if disagreement.effects { "effects" } else { "result" };
        let statement: String = disagreement.statement.chars().take(TEXT_CHARS).collect();
        let text = StatementText { sql: NOTE.to_string(), parameter_types: PARAMETER_TYPES.to_vec() };
        self.shim.begin(Modes::default());
        self.shim.operation(NewOperation {
            text: Arc::new(text),
            keep: false,
            kind: OperationKind::Execute { bind: bind(&[kind, &statement]) },
            flags: OperationFlags { writes: true, ..OperationFlags::default() },
        });
        let mut failed = None;
        self.shim.finish(Decision::Commit);
        loop {
            match self.event().await? {
                Event::Finished(result) => return Ok(failed.map_or(result.map(drop), Err)),
                Event::OperationFailed { error, .. } => failed = Some(error),
                Event::Executed { failed: true, .. } => {
                    failed = Some(ShimError::new("XX000", "steeldb.note_mismatch failed"));
                }
                other => self.stray(other)?,
            }
        }
    }
}

/// The rest of a Bind message: parameters and results as text.
fn bind(values: &[&str]) -> Vec<u8> {
    let mut bind = vec![0, 0, 0, values.len() as u8];
    for value in values {
        bind.extend((value.len() as u32).to_be_bytes());
        bind.extend(value.bytes());
    }
    bind.extend([0, 0]);
    bind
}
