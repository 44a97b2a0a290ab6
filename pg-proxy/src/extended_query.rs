//! The extended query protocol: Parse, Bind, Describe, Execute, Close. Everything up to Sync shares one implicit
//! transaction, unless a statement opens a block.
//!
//! An unnamed Parse costs nothing by itself: its errors show when it is described or executed. A named one is parsed by
//! the replicas at once, so that its errors show where a driver expects them. Describe of a portal is answered by the
//! execution that follows it, if one does.

use crate::backend;
use crate::error::{Failure, PgError};
use crate::frontend::{Message, Target, result_formats};
use crate::portal::{Portal, Progress};
use crate::relay::{Describe, Relay};
use crate::session::Session;
use crate::sql::StatementKind;
use crate::statement::{Prepared, Run, is_consumed};
use crate::transaction::Block;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use steeldb_types::limits;

impl Session {
    /// Handles one message of the extended protocol.
    pub(crate) async fn extended(&mut self, message: Message) -> Result<(), Failure> {
        if !matches!(message, Message::Close { .. }) {
            // The statement before is not alone.
            self.attempt = None;
        }
        let executes = |name: &str| matches!(&message, Message::Execute { portal, .. } if portal == name);
        if let Some(portal) = self.undescribed.take()
            && !executes(&portal)
        {
            self.describe_portal(&portal).await?;
        }
        match message {
            Message::Parse { name, sql, types } => self.parse(name, &sql, types).await,
            Message::Bind { portal, statement, rest } => self.bind(portal, &statement, rest),
            Message::Describe { target: Target::Statement, name } => self.describe_statement(&name).await,
            Message::Describe { target: Target::Portal, name } => {
                let portal = self.portals.get_mut(&name).ok_or_else(|| no_portal(&name))?;
                portal.describe = true;
                self.undescribed = Some(name);
                Ok(())
            }
            Message::Execute { portal, max_rows } => self.execute(portal, max_rows).await,
            Message::Close { target, name } => {
                match target {
                    Target::Statement => drop(self.statements.remove(&name)),
                    Target::Portal => drop(self.portals.remove(&name)),
                }
                self.attempt_closes();
                backend::bare(self.out(), b'3');
                Ok(())
            }
            Message::TooLong { bytes, .. } => Err(PgError::message_too_long(bytes).into()),
            _ => Err(PgError::new("0A000", "function calls through the protocol are not supported")
                .hint("Use SELECT.")
                .into()),
        }
    }

    /// A portal was to be described and no execution followed.
    pub(crate) async fn describe_pending(&mut self) -> Result<(), Failure> {
        match self.undescribed.take() {
            Some(portal) => self.describe_portal(&portal).await,
            None => Ok(()),
        }
    }

    async fn parse(&mut self, name: String, sql: &str, types: Vec<u32>) -> Result<(), Failure> {
        let named = !name.is_empty();
        if named && self.statements.contains_key(&name) {
            return Err(PgError::new("42P05", format!("prepared statement \"{name}\" already exists")).into());
        }
        if self.statements.len() > limits::NAMED_STATEMENTS_MAX && !self.statements.contains_key(&name) {
            return Err(PgError::new("54000", "too many prepared statements in one session").into());
        }
        let analysis = self.analyzer.analyze(sql).map_err(PgError::from)?;
        let prepared = Arc::new(Prepared::new(analysis, types, named, &self.temporary_schema)?);
        if let Some(statement) = prepared.statement() {
            self.check(statement)?;
        }
        if named && !self.transaction.failed {
            let description = self.describe(&prepared).await?;
            self.described = Some((name.clone(), description));
        }
        self.statements.insert(name, prepared);
        backend::bare(self.out(), b'1');
        Ok(())
    }

    fn bind(&mut self, name: String, statement: &str, rest: Bytes) -> Result<(), Failure> {
        let prepared = self.statements.get(statement).cloned().ok_or_else(|| no_statement(statement))?;
        if let Some(statement) = prepared.statement() {
            self.check(statement)?;
        }
        if !name.is_empty() && self.portals.contains(&name) {
            return Err(PgError::new("42P03", format!("cursor \"{name}\" already exists")).into());
        }
        if self.portals.len() >= limits::NAMED_STATEMENTS_MAX && !self.portals.contains(&name) {
            return Err(PgError::new("54000", "too many portals in one transaction").into());
        }
        self.portals
            .insert(name, Portal { prepared, bind: rest, describe: false, progress: Progress::default() });
        backend::bare(self.out(), b'2');
        Ok(())
    }

    async fn describe_statement(&mut self, name: &str) -> Result<(), Failure> {
        let prepared = self.statements.get(name).cloned().ok_or_else(|| no_statement(name))?;
        if let Some(statement) = prepared.statement() {
            self.check(statement)?;
        }
        // What Parse learned a moment ago still holds: nothing else ran.
        let (parameters, columns) = match self.described.take() {
            Some((described, description)) if described == name => description,
            _ => self.describe(&prepared).await?,
        };
        self.out().extend_from_slice(&parameters);
        self.out().extend_from_slice(&columns);
        Ok(())
    }

    async fn describe_portal(&mut self, name: &str) -> Result<(), Failure> {
        let portal = self.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
        portal.describe = false;
        let (prepared, bind) = (portal.prepared.clone(), portal.bind.clone());
        let (_, columns) = self.describe(&prepared).await?;
        let formats = result_formats(&bind)?;
        match backend::with_formats(&columns, &formats).filter(|_| columns.first() == Some(&b'T')) {
            Some(columns) => self.out().extend_from_slice(&columns),
            None => self.out().extend_from_slice(&columns),
        }
        Ok(())
    }

    pub(crate) async fn execute(&mut self, name: String, max_rows: u32) -> Result<(), Failure> {
        self.described = None;
        let portal = self.portals.get_mut(&name).ok_or_else(|| no_portal(&name))?;
        let describe = std::mem::take(&mut portal.describe);
        let prepared = portal.prepared.clone();
        let whole = Portal {
            prepared: prepared.clone(),
            bind: portal.bind.clone(),
            describe,
            progress: Progress::default(),
        };
        match std::mem::take(&mut portal.progress) {
            Progress::Bound => {}
            Progress::Suspended { rows, completion } => {
                return self.execute_on(&name, rows, completion, max_rows);
            }
            Progress::Done { rows: true } => {
                portal.progress = Progress::Done { rows: true };
                self.complete_tag("SELECT 0");
                return Ok(());
            }
            Progress::Done { rows: false } => {
                portal.progress = Progress::Done { rows: false };
                return Err(PgError::new("55000", format!("portal \"{name}\" cannot be run")).into());
            }
        }
        let bind = portal.bind.to_vec();
        let Some(statement) = prepared.statement() else {
            if describe {
                backend::bare(self.out(), b'n');
            }
            backend::bare(self.out(), b'I');
            return Ok(());
        };
        self.attempt_portal(&name, statement, whole, max_rows);
        if describe && is_consumed(&statement.kind) {
            backend::bare(self.out(), b'n');
        }
        let describe = if describe { Describe::Both } else { Describe::Hidden };
        let mut relay = Relay::new(describe, max_rows);
        let run = Run {
            statement,
            text: prepared.text.clone(),
            keep: prepared.named,
            bind,
            shared: self.transaction.block == Block::Implicit && self.transaction.begun,
        };
        self.run_statement(run, &mut relay).await?;
        let rows = matches!(statement.kind, StatementKind::Query { .. } | StatementKind::Outcome { .. });
        let suspended = relay.is_suspended();
        let completion = relay.completion.clone();
        if let Some(portal) = self.portals.get_mut(&name) {
            portal.progress = match suspended {
                true => Progress::Suspended { rows: relay.kept, completion: relay.completion },
                false => Progress::Done { rows },
            };
        }
        if suspended {
            let mut answer = BytesMut::new();
            backend::bare(&mut answer, b's');
            self.complete(&answer);
        } else {
            self.complete(&completion);
        }
        Ok(())
    }

    /// The next portion of a suspended portal.
    fn execute_on(
        &mut self,
        name: &str,
        mut rows: std::collections::VecDeque<Bytes>,
        completion: Bytes,
        max_rows: u32,
    ) -> Result<(), Failure> {
        self.release();
        let count = if max_rows == 0 { rows.len() } else { rows.len().min(max_rows as usize) };
        for row in rows.drain(..count) {
            self.client.out.extend_from_slice(&row);
        }
        let suspended = max_rows > 0 && count == max_rows as usize;
        if suspended {
            let mut answer = BytesMut::new();
            backend::bare(&mut answer, b's');
            self.complete(&answer);
        } else {
            self.complete(&portion_tag(&completion, count));
        }
        if let Some(portal) = self.portals.get_mut(name) {
            portal.progress = match suspended {
                true => Progress::Suspended { rows, completion },
                false => Progress::Done { rows: true },
            };
        }
        Ok(())
    }
}

/// CommandComplete for the last portion of a portal: PostgreSQL counts the portion's rows alone. Only SELECT counts so.
fn portion_tag(completion: &Bytes, rows: usize) -> Bytes {
    if completion.get(5..12) != Some(b"SELECT ") {
        return completion.clone();
    }
    let mut out = BytesMut::new();
    backend::command_complete(&mut out, &format!("SELECT {rows}"));
    out.freeze()
}

fn no_statement(name: &str) -> PgError {
    match name {
        "" => PgError::new("26000", "unnamed prepared statement does not exist"),
        name => PgError::new("26000", format!("prepared statement \"{name}\" does not exist")),
    }
}

fn no_portal(name: &str) -> PgError {
    PgError::new("34000", format!("portal \"{name}\" does not exist"))
}
