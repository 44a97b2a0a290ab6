//! Statements that are run again by the proxy. A transaction of one statement that nobody began explicitly, and of which
//! the application has seen nothing, ended in 40001 or 40P01: it has no effect and will have none, so that another run of
//! it is all that the application can tell (E2).
//!
//! Never run again: what had its COMMIT sent without a known outcome (that is 08007); what has shown a row, a notice or a
//! tag; what drew from sequences, which outlives the transaction; what reads COPY data; and what stands beside other
//! statements.

use crate::backend::{self, error_field};
use crate::error::{ErrorMessage, Failure};
use crate::portal::{Portal, Progress};
use crate::session::Session;
use crate::sql::{Statement, StatementKind};
use crate::transaction::Block;
use steeldb_types::limits;
use tokio::time::Instant;

/// A statement that may be run again.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// Where its answers begin in what is to be sent, and how often was sent something before.
    at: usize,
    flushes: u64,
    since: Instant,
    /// Runs so far.
    runs: u32,
    /// Operations of this run.
    operations: u32,
    /// What it did outlives its transaction, or may.
    lasting: bool,
    /// In the extended protocol: what to execute again.
    again: Option<Again>,
}

/// An execution of the extended protocol.
#[derive(Debug)]
struct Again {
    name: String,
    portal: Portal,
    max_rows: u32,
    /// CloseComplete messages that follow it.
    closed: usize,
}

impl Session {
    /// The statement that is about to run may be run again, if it is of that kind and stands alone.
    pub(crate) fn attempt(&mut self, statement: &Statement) {
        let repeatable = matches!(
            statement.kind,
            StatementKind::Query { .. }
                | StatementKind::Modify
                | StatementKind::Ddl { .. }
                | StatementKind::CopyOut { .. }
                | StatementKind::Explain { .. }
                | StatementKind::Do
                | StatementKind::Call
        );
        if self.attempt.is_none() && repeatable && self.tries > 1 && self.transaction.block == Block::None {
            self.attempt = Some(Attempt {
                at: self.client.out.len(),
                flushes: self.client.flushes(),
                since: Instant::now(),
                runs: 1,
                operations: 0,
                lasting: false,
                again: None,
            });
        }
    }

    /// As [`Session::attempt`], for the execution of a portal.
    pub(crate) fn attempt_portal(
        &mut self,
        name: &str,
        statement: &Statement,
        portal: Portal,
        max_rows: u32,
    ) {
        if self.attempt.is_some() {
            return;
        }
        self.attempt(statement);
        if let Some(attempt) = &mut self.attempt {
            attempt.again = Some(Again { name: name.to_string(), portal, max_rows, closed: 0 });
        }
    }

    /// An operation is about to be sent: it must be the only one.
    pub(crate) fn attempt_operates(&mut self) {
        match &mut self.attempt {
            Some(attempt) if attempt.operations == 0 => attempt.operations = 1,
            _ => self.attempt = None,
        }
    }

    /// What the operation did outlives its transaction, or may.
    pub(crate) fn attempt_lasts(&mut self) {
        if let Some(attempt) = &mut self.attempt {
            attempt.lasting = true;
        }
    }

    /// A portal or statement is closed behind the execution.
    pub(crate) fn attempt_closes(&mut self) {
        if let Some(again) = self.attempt.as_mut().and_then(|attempt| attempt.again.as_mut()) {
            again.closed += 1;
        }
    }

    /// Whether nothing of the statement was sent, so that it may be run again.
    pub(crate) fn is_unseen(&self) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.flushes == self.client.flushes())
    }

    /// Whether the statement that failed is to be run again; if so its answers are taken back.
    pub(crate) fn tries_again(&mut self, failure: &Failure) -> bool {
        let again = self.is_unseen() && self.transaction.block == Block::None && is_conflict(failure);
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| {
            again
                && !attempt.lasting
                && attempt.runs < self.tries
                && attempt.since.elapsed() < limits::STATEMENT_RETRY_PATIENCE
        }) else {
            self.attempt = None;
            return false;
        };
        attempt.runs += 1;
        attempt.operations = 0;
        self.monitor.metrics().retries.inc();
        tracing::debug!(run = attempt.runs, "a statement conflicts with others and is run again");
        let at = attempt.at;
        self.client.out.truncate(at);
        self.held = None;
        true
    }

    /// Executes the portal of the attempt again, until it succeeds or is not to be tried again.
    pub(crate) async fn execute_again(&mut self, at_sync: bool) -> Result<(), Failure> {
        loop {
            let Some(again) = self.attempt.as_ref().and_then(|attempt| attempt.again.as_ref()) else {
                return Ok(());
            };
            let (name, max_rows, closed) = (again.name.clone(), again.max_rows, again.closed);
            let Portal { prepared, bind, describe, .. } = &again.portal;
            let portal = Portal {
                prepared: prepared.clone(),
                bind: bind.clone(),
                describe: *describe,
                progress: Progress::default(),
            };
            self.portals.insert(name.clone(), portal);
            let result = match self.execute(name, max_rows).await {
                Ok(()) => {
                    for _ in 0..closed {
                        backend::bare(self.out(), b'3');
                    }
                    if at_sync { self.finish_implicit().await } else { Ok(()) }
                }
                Err(failure) => Err(self.fail(failure).await),
            };
            match result {
                Err(failure) if self.tries_again(&failure) => {}
                result => return result,
            }
        }
    }
}

/// Whether a transaction ended so because of others, and certainly ended.
fn is_conflict(failure: &Failure) -> bool {
    let Failure::Statement(error) = failure else { return false };
    let sqlstate = match error {
        ErrorMessage::Own(error) => error.sqlstate.as_str(),
        ErrorMessage::Backend(message) => error_field(message, b'C').unwrap_or_default(),
    };
    matches!(sqlstate, "40001" | "40P01")
}
