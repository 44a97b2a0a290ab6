//! Transaction blocks as PostgreSQL knows them: none, implicit (up to the end of the Query, or to Sync), explicit. BEGIN
//! and its relatives are consumed here; the ordered BEGIN leaves with the first statement.

use crate::error::{Failure, PgError};
use crate::session::Session;
use crate::sql::{StatementKind, TransactionModes};
use std::collections::HashMap;
use steeldb_client_shim::{Completion, Decision, Event, Modes};
use tokio::time::Instant;

/// What kind of block is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Block {
    #[default]
    None,
    Implicit,
    Explicit,
}

/// The open block.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    pub block: Block,
    /// What BEGIN and SET TRANSACTION said.
    pub modes: TransactionModes,
    /// The shim's transaction is begun: a statement was sent.
    pub begun: bool,
    /// Something besides leading LOCK TABLE statements was sent (A10).
    pub snapshot: bool,
    /// A statement failed, here or at the replicas, and no ROLLBACK TO has succeeded since.
    pub failed: bool,
    /// A definition was sent that is to be shown to nobody before its outcome (`steeldb.verify = 'eager'`).
    pub unverified_definition: bool,
    /// Cursors, and whether their rows come in a sequence that counts.
    pub cursors: HashMap<String, bool>,
}

impl Transaction {
    /// ReadyForQuery's status.
    pub(crate) fn status(&self) -> u8 {
        match self.block {
            Block::Explicit if self.failed => b'E',
            Block::Explicit => b'T',
            Block::None | Block::Implicit => b'I',
        }
    }
}

impl Session {
    /// A statement is about to run: outside a block it opens an implicit one.
    pub(crate) fn enter_block(&mut self) {
        if self.transaction.block == Block::None {
            self.transaction = Transaction { block: Block::Implicit, ..Transaction::default() };
        }
    }

    /// The first operation is about to be sent.
    pub(crate) fn ensure_begun(&mut self) {
        if !self.transaction.begun {
            let modes = self.defaults.overridden_by(self.transaction.modes);
            self.shim.begin(Modes {
                read_only: modes.read_only.unwrap_or(false),
                deferrable: modes.deferrable.unwrap_or(false),
            });
            self.transaction.begun = true;
            self.monitor.metrics().begun.inc();
        }
    }

    /// Ends the block; what it was is over whatever comes of it.
    async fn end_block(&mut self, decision: Decision) -> Result<Completion, Failure> {
        let transaction = std::mem::take(&mut self.transaction);
        self.portals.clear();
        if !transaction.begun {
            self.verify.ended(Some(false));
            return Ok(match decision {
                Decision::Commit => Completion::Committed(None),
                Decision::Rollback => Completion::RolledBack,
            });
        }
        let since = Instant::now();
        self.shim.finish(decision);
        self.finishing = true;
        loop {
            match self.event().await? {
                Event::Finished(result) => {
                    let committed = match &result {
                        Ok(Completion::Committed(_)) => Some(true),
                        Err(error) if error.sqlstate.as_str().starts_with("08") => None,
                        Ok(Completion::RolledBack) | Err(_) => Some(false),
                    };
                    self.verify.ended(committed);
                    self.finishing = false;
                    let error = result.as_ref().err().map(|error| error.sqlstate.as_str());
                    let (commit, took) = (decision == Decision::Commit, since.elapsed());
                    self.monitor.metrics().ended(commit, committed == Some(true), error, took);
                    if let Err(error) = &result {
                        self.disagree(error);
                    }
                    return Ok(result?);
                }
                other => self.stray(other)?,
            }
        }
    }

    /// The end of a Query, or Sync: commits an implicit block and lets its last answer go.
    pub(crate) async fn finish_implicit(&mut self) -> Result<(), Failure> {
        if self.transaction.block != Block::Implicit {
            self.release();
            return Ok(());
        }
        match self.end_block(Decision::Commit).await {
            Ok(_) => {
                self.release();
                Ok(())
            }
            Err(failure) => {
                // What was held back did not come true.
                self.held = None;
                Err(failure)
            }
        }
    }

    /// A statement failed: its block with it. An implicit block is rolled back at once, and if what it showed was not
    /// true, that is the error to report.
    pub(crate) async fn fail(&mut self, failure: Failure) -> Failure {
        if !matches!(failure, Failure::Statement(_)) {
            return failure;
        }
        if self.transaction.unverified_definition {
            self.held = None;
        }
        // Only the last statement's answers wait for the outcome; what the failed one follows was answered before.
        self.release();
        match self.transaction.block {
            Block::None => failure,
            Block::Explicit => {
                self.transaction.failed = true;
                failure
            }
            Block::Implicit => match self.end_block(Decision::Rollback).await {
                Ok(_) => failure,
                Err(worse) => worse,
            },
        }
    }

    /// Runs a statement that controls transactions. False if it is not one, or one for the replicas.
    pub(crate) async fn control(&mut self, kind: &StatementKind) -> Result<bool, Failure> {
        match kind {
            StatementKind::Begin(modes) => self.begin(*modes)?,
            StatementKind::Commit { chain } => self.commit(*chain).await?,
            StatementKind::Rollback { chain } => self.rollback(*chain).await?,
            StatementKind::SetTransaction(modes) => self.set_transaction(*modes)?,
            StatementKind::SetSessionCharacteristics(modes) => {
                self.defaults = self.defaults.overridden_by(*modes);
                self.release();
                self.complete_tag("SET");
            }
            StatementKind::Savepoint(_) => return self.in_block("SAVEPOINT"),
            StatementKind::ReleaseSavepoint(_) => return self.in_block("RELEASE SAVEPOINT"),
            StatementKind::RollbackTo(_) => return self.in_block("ROLLBACK TO SAVEPOINT"),
            StatementKind::LockTable { .. } => return self.in_block("LOCK TABLE"),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// A statement that replicas run, but only within an explicit block.
    fn in_block(&self, what: &str) -> Result<bool, Failure> {
        match self.transaction.block {
            Block::Explicit => Ok(false),
            _ => Err(PgError::new("25P01", format!("{what} can only be used in transaction blocks")).into()),
        }
    }

    fn begin(&mut self, modes: TransactionModes) -> Result<(), Failure> {
        self.release();
        match self.transaction.block {
            Block::Explicit => {
                self.warn("25001", "there is already a transaction in progress");
                self.set_modes(modes)?;
            }
            Block::Implicit => {
                // PostgreSQL takes the statements before into the block.
                self.set_modes(modes)?;
                self.transaction.block = Block::Explicit;
            }
            Block::None => {
                self.transaction = Transaction { block: Block::Explicit, modes, ..Transaction::default() };
            }
        }
        self.complete_tag("BEGIN");
        Ok(())
    }

    fn set_transaction(&mut self, modes: TransactionModes) -> Result<(), Failure> {
        self.release();
        match self.transaction.block {
            Block::Explicit => self.set_modes(modes)?,
            _ => self.warn("25P01", "SET TRANSACTION can only be used in transaction blocks"),
        }
        self.complete_tag("SET");
        Ok(())
    }

    /// Modes can change until the transaction has begun at the replicas; after it, only to what they are.
    fn set_modes(&mut self, modes: TransactionModes) -> Result<(), Failure> {
        if !self.transaction.begun {
            self.transaction.modes = self.transaction.modes.overridden_by(modes);
            return Ok(());
        }
        let current = self.defaults.overridden_by(self.transaction.modes);
        if modes.isolation.is_some() && self.transaction.snapshot {
            return Err(PgError::new(
                "25001",
                "SET TRANSACTION ISOLATION LEVEL must be called before any query",
            )
            .into());
        }
        let differs =
            |new: Option<bool>, old: Option<bool>| new.is_some_and(|new| new != old.unwrap_or(false));
        if differs(modes.read_only, current.read_only) || differs(modes.deferrable, current.deferrable) {
            return Err(PgError::new("25001", "transaction modes must be set before any query")
                .hint("Give them with BEGIN.")
                .into());
        }
        Ok(())
    }

    async fn commit(&mut self, chain: bool) -> Result<(), Failure> {
        let modes = self.transaction.modes;
        match self.transaction.block {
            Block::Explicit if self.transaction.failed => {
                self.release();
                self.end_block(Decision::Rollback).await?;
                self.chained(chain, modes, "ROLLBACK");
            }
            Block::Explicit => {
                self.release();
                self.end_block(Decision::Commit).await?;
                self.chained(chain, modes, "COMMIT");
            }
            _ if chain => {
                return Err(
                    PgError::new("25P01", "COMMIT AND CHAIN can only be used in transaction blocks").into()
                );
            }
            _ => {
                self.finish_implicit().await?;
                self.warn("25P01", "there is no transaction in progress");
                self.complete_tag("COMMIT");
            }
        }
        Ok(())
    }

    async fn rollback(&mut self, chain: bool) -> Result<(), Failure> {
        let modes = self.transaction.modes;
        match self.transaction.block {
            Block::Explicit => {
                self.release();
                self.end_block(Decision::Rollback).await?;
                self.chained(chain, modes, "ROLLBACK");
            }
            _ if chain => {
                let message = "ROLLBACK AND CHAIN can only be used in transaction blocks";
                return Err(PgError::new("25P01", message).into());
            }
            _ => {
                self.release();
                self.end_block(Decision::Rollback).await?;
                self.warn("25P01", "there is no transaction in progress");
                self.complete_tag("ROLLBACK");
            }
        }
        Ok(())
    }

    fn chained(&mut self, chain: bool, modes: TransactionModes, tag: &str) {
        if chain {
            self.transaction = Transaction { block: Block::Explicit, modes, ..Transaction::default() };
        }
        self.complete_tag(tag);
    }
}
