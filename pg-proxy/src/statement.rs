//! Running one statement, whichever protocol it came by; and prepared statements.

use crate::backend;
use crate::error::{Failure, PgError};
use crate::relay::{Describe, Relay};
use crate::session::Session;
use crate::sql::{Analysis, Statement, StatementKind};
use crate::startup::is_utf8;
use crate::transaction::Block;
use crate::verify::not_alone;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use steeldb_client_shim::message::messages;
use steeldb_client_shim::{Event, NewOperation, OperationFlags, OperationKind, StatementText};

/// The rest of a Bind message without parameters, results as text.
pub(crate) const NO_PARAMETERS: &[u8] = &[0, 0, 0, 0, 0, 0];

/// A prepared statement of the extended protocol.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// At most one statement.
    analysis: Analysis,
    /// What replicas are sent.
    pub text: Arc<StatementText>,
    /// The client gave it a name: it will come again.
    pub named: bool,
}

impl Prepared {
    /// A statement to prepare.
    ///
    /// # Errors
    /// 42601 when there are several.
    pub(crate) fn new(
        analysis: Analysis,
        types: Vec<u32>,
        named: bool,
        temporary_schema: &str,
    ) -> Result<Prepared, PgError> {
        if analysis.len() > 1 {
            return Err(PgError::new("42601", "cannot insert multiple commands into a prepared statement"));
        }
        let sql = analysis.first().map(|statement| statement.text_for(temporary_schema)).unwrap_or_default();
        // OIDs of user-defined types differ between replicas: they infer the types themselves.
        let known = |oid: u32| if oid < steeldb_wire::transaction::FIRST_USER_OID { oid } else { 0 };
        let parameter_types = types.into_iter().map(known).collect();
        Ok(Prepared { analysis, text: Arc::new(StatementText { sql, parameter_types }), named })
    }

    /// The statement; none if the text was empty.
    pub(crate) fn statement(&self) -> Option<&Statement> {
        self.analysis.first()
    }
}

/// Where a statement is run.
pub(crate) struct Run<'a> {
    pub statement: &'a Statement,
    pub text: Arc<StatementText>,
    /// It will come again.
    pub keep: bool,
    pub bind: Vec<u8>,
    /// It shares its implicit transaction with other statements.
    pub shared: bool,
}

/// What the proxy consumes, so that replicas never see it.
pub(crate) fn is_consumed(kind: &StatementKind) -> bool {
    matches!(
        kind,
        StatementKind::Begin(_)
            | StatementKind::Commit { .. }
            | StatementKind::Rollback { .. }
            | StatementKind::SetTransaction(_)
            | StatementKind::SetSessionCharacteristics(_)
            | StatementKind::Maintenance
            | StatementKind::Discard { all: true }
    )
}

impl Session {
    /// Why a statement may not run now, before anything is sent.
    pub(crate) fn check(&self, statement: &Statement) -> Result<(), Failure> {
        if self.transaction.failed
            && !matches!(
                statement.kind,
                StatementKind::Commit { .. } | StatementKind::Rollback { .. } | StatementKind::RollbackTo(_)
            )
        {
            return Err(PgError::in_failed_transaction().into());
        }
        match &statement.refused {
            Some(refusal) => Err(PgError::from(refusal).into()),
            None => Ok(()),
        }
    }

    /// Runs a statement to its completion. Rows go to the client as `relay` says; a completed statement's last answer
    /// is left in it, and nothing is left of one that the proxy consumed.
    pub(crate) async fn run_statement(&mut self, run: Run<'_>, relay: &mut Relay) -> Result<(), Failure> {
        if self.has_temporary
            && let Some(names) = run.statement.unqualified()
            && self.check(run.statement).is_ok()
            && self.are_temporary(names, run.statement).await?
        {
            let statement = run.statement.of_temporary();
            let sql = statement.text_for(&self.temporary_schema);
            let text = StatementText { sql, parameter_types: run.text.parameter_types.clone() };
            let run = Run { statement: &statement, text: Arc::new(text), ..run };
            return self.run_checked(run, relay).await;
        }
        self.run_checked(run, relay).await
    }

    async fn run_checked(&mut self, run: Run<'_>, relay: &mut Relay) -> Result<(), Failure> {
        let statement = run.statement;
        self.check(statement)?;
        self.check_verify(statement, run.shared)?;
        if self.control(&statement.kind).await? || self.local(statement).await? {
            return Ok(());
        }
        if let StatementKind::Outcome { .. } = statement.kind {
            return self.outcome(&run, relay).await;
        }
        if statement.kind == StatementKind::Maintenance {
            return self.maintain(&run).await;
        }
        self.enter_block();
        let flags = self.flags(statement)?;
        let (text, rewritten) = match &statement.kind {
            // Runs in a block what DISCARD ALL refuses to: its part that backends know of.
            StatementKind::Discard { all: true } => (
                Arc::new(StatementText { sql: "RESET ALL".into(), parameter_types: vec![] }),
                Some("DISCARD ALL"),
            ),
            _ => (run.text, None),
        };
        let kind = match statement.kind {
            StatementKind::CopyIn => OperationKind::CopyIn { bind: run.bind },
            _ => OperationKind::Execute { bind: run.bind },
        };
        if let Some(on_commit) = statement.temporary {
            self.make_temporary(on_commit, statement).await?;
        }
        if statement.discards_temporary() && self.has_temporary {
            let sql = format!("CALL steeldb.discard_temporary('{}')", self.temporary_schema);
            self.call(sql, statement).await?;
        }
        self.transaction.unverified_definition = self.is_eager() && !flags.verify && !flags.leading;
        self.operate(NewOperation { text, keep: run.keep, kind, flags }, statement, relay).await?;
        self.verify.ran(&statement.kind);
        if let StatementKind::RollbackTo(_) = statement.kind {
            self.transaction.failed = false;
        }
        if let StatementKind::DeclareCursor { name, row_order } = &statement.kind {
            self.transaction.cursors.insert(name.clone(), *row_order);
        }
        if let Some(tag) = rewritten {
            self.statements.clear();
            self.portals.clear();
            let mut completion = BytesMut::new();
            backend::command_complete(&mut completion, tag);
            relay.completion = completion.freeze();
        }
        Ok(())
    }

    fn flags(&self, statement: &Statement) -> Result<OperationFlags, Failure> {
        // A10: what such a lock keeps out, the snapshot of a transaction that has one does not show either. That does not
        // matter for the lock that a SELECT takes anyway: pg_dump takes it, to be sure to find its tables later.
        let late = self.transaction.snapshot;
        let leading = matches!(statement.kind, StatementKind::LockTable { .. }) && !late;
        if late && statement.kind == (StatementKind::LockTable { access_share: false }) {
            return Err(PgError::new("0A000", "LOCK TABLE after other statements is not supported")
                .hint("Lock tables first in the transaction. Only ACCESS SHARE MODE may come later.")
                .into());
        }
        let row_order = match &statement.kind {
            StatementKind::Query { row_order } | StatementKind::CopyOut { row_order } => *row_order,
            StatementKind::Fetch { name } => self.transaction.cursors.get(name).copied().unwrap_or(false),
            StatementKind::Explain { .. } | StatementKind::Show { .. } => true,
            _ => false,
        };
        let flags = statement.flags;
        Ok(OperationFlags {
            leading,
            row_order,
            must_vote: flags.locks || flags.sequences,
            verify: self.is_eager() && !leading && !statement.is_wall(),
            writes: flags.writes || flags.sequences,
        })
    }

    /// The statement that follows makes a temporary relation: its schema has to be there, and the server to know what
    /// becomes of it.
    async fn make_temporary(&mut self, on_commit: &str, statement: &Statement) -> Result<(), Failure> {
        self.has_temporary = true;
        self.call(format!("CALL steeldb.temporary('{}', '{on_commit}')", self.temporary_schema), statement)
            .await
    }

    /// Runs a statement of the proxy's own before the client's, in its transaction; nothing of it is shown.
    async fn call(&mut self, sql: String, statement: &Statement) -> Result<(), Failure> {
        let operation = NewOperation {
            text: Arc::new(StatementText { sql, parameter_types: Vec::new() }),
            keep: false,
            kind: OperationKind::Execute { bind: NO_PARAMETERS.to_vec() },
            flags: OperationFlags { writes: true, verify: self.is_eager(), ..OperationFlags::default() },
        };
        self.operate(operation, statement, &mut Relay::new(Describe::Hidden, 0)).await
    }

    /// Whether the objects of a definition are all temporary ones of this session: then it concerns nobody else.
    async fn are_temporary(&mut self, names: &[String], statement: &Statement) -> Result<bool, Failure> {
        self.enter_block();
        let quoted = |name: &String| {
            let name = format!("{}.\"{}\"", self.temporary_schema, name.replace('"', "\"\""));
            format!(
                "pg_catalog.to_regclass(E'{}') IS NOT NULL",
                name.replace('\\', "\\\\").replace('\'', "''")
            )
        };
        let sql = format!("SELECT {}", names.iter().map(quoted).collect::<Vec<_>>().join(" AND "));
        let operation = NewOperation {
            text: Arc::new(StatementText { sql, parameter_types: Vec::new() }),
            keep: false,
            kind: OperationKind::Execute { bind: NO_PARAMETERS.to_vec() },
            flags: OperationFlags { verify: self.is_eager(), ..OperationFlags::default() },
        };
        let mut relay = Relay::new(Describe::Rowwise, 0);
        self.operate(operation, statement, &mut relay).await?;
        // DataRow: one value of one byte.
        Ok(relay.taken.first().is_some_and(|row| row.last() == Some(&b't')))
    }

    /// Statements about what only the proxy holds.
    async fn local(&mut self, statement: &Statement) -> Result<bool, Failure> {
        match &statement.kind {
            StatementKind::Deallocate { name: Some(name) } if self.statements.contains_key(name) => {
                self.statements.remove(name);
                self.release();
                self.complete_tag("DEALLOCATE");
                Ok(true)
            }
            StatementKind::Deallocate { name: None } => {
                self.statements.clear();
                self.release();
                self.complete_tag("DEALLOCATE ALL");
                Ok(true)
            }
            StatementKind::Discard { all: true }
                if self.transaction.block == Block::Explicit || self.transaction.begun =>
            {
                Err(PgError::new("25001", "DISCARD ALL cannot run inside a transaction block").into())
            }
            StatementKind::Set { name, .. } if name == "client_encoding" => {
                // SET client_encoding TO 'x', SET NAMES 'x': the value is the last word.
                let value = statement.text.trim_end().rsplit(|c: char| c.is_whitespace() || c == '=').next();
                if value.is_some_and(|value| is_utf8(value) || value.eq_ignore_ascii_case("default")) {
                    return Ok(false);
                }
                Err(PgError::new("0A000", "client encodings other than UTF8 are not supported").into())
            }
            _ => Ok(false),
        }
    }

    /// VACUUM and ANALYZE: ordered by themselves, run by each replica outside any block.
    async fn maintain(&mut self, run: &Run<'_>) -> Result<(), Failure> {
        if self.transaction.block == Block::Explicit || self.transaction.begun || run.shared {
            let word = run.statement.text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
            let message = format!("{word} cannot run inside a transaction block");
            return Err(PgError::new("25001", message).into());
        }
        self.release();
        self.shim.maintain(run.text.sql.clone());
        let answer: Bytes = loop {
            match self.event().await? {
                Event::Maintained(result) => break result?,
                other => self.stray(other)?,
            }
        };
        for message in messages(&answer).flatten() {
            match message.tag {
                b'C' => self.complete(message.whole),
                b'N' | b'S' => self.client.out.extend_from_slice(message.whole),
                b'E' => {
                    let error = backend::with_position(message.whole, |at| run.statement.map_position(at));
                    return Err(Failure::Statement(crate::error::ErrorMessage::Backend(error)));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Parses and describes a statement at the replicas: ParameterDescription, then RowDescription or NoData.
    pub(crate) async fn describe(&mut self, prepared: &Prepared) -> Result<(Bytes, Bytes), Failure> {
        let nothing = || {
            let (mut parameters, mut columns) = (BytesMut::new(), BytesMut::new());
            backend::no_parameters(&mut parameters);
            backend::bare(&mut columns, b'n');
            (parameters.freeze(), columns.freeze())
        };
        let Some(statement) = prepared.statement().filter(|statement| !is_consumed(&statement.kind)) else {
            return Ok(nothing());
        };
        if let StatementKind::Outcome { argument, column } = &statement.kind {
            return Ok(crate::outcome::description(argument, column));
        }
        if self.is_eager() && statement.is_wall() {
            return Ok(nothing()); // which is what definitions answer with
        }
        if self.transaction.unverified_definition {
            return Err(not_alone());
        }
        self.enter_block();
        let mut relay = Relay::new(Describe::Taken, 0);
        let operation = NewOperation {
            text: prepared.text.clone(),
            keep: prepared.named,
            kind: OperationKind::Describe,
            flags: OperationFlags { verify: self.is_eager(), ..OperationFlags::default() },
        };
        self.operate(operation, statement, &mut relay).await?;
        let mut taken = relay.taken.into_iter();
        match (taken.next(), taken.next()) {
            (Some(parameters), Some(columns)) => Ok((parameters, columns)),
            _ => Ok(nothing()),
        }
    }
}
