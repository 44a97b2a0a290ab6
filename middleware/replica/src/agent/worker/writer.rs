//! Writes a session's commands to its backend.

use super::super::hook::{Hook, Point};
use super::drawing::Drawing;
use super::feeding::Feeding;
use super::{Expect, Input, Parsed, Shared, lock, settings};
use crate::effects::{Effects, Kind};
use crate::guard::{self, Class};
use crate::scheduler::Command;
use crate::script::{Script, SessionState, Step};
use crate::spool::Data;
use bytes::{BufMut as _, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use steeldb_postgres::connection::{BackendWriter, CancelHandle};
use steeldb_postgres::message;
use steeldb_postgres::transaction::{Record, RecordSecret, TransactionStart, complete_sql};
use steeldb_postgres::{BackendError, quote};
use steeldb_types::{Slot, TxId};
use steeldb_wire::codec;
use steeldb_wire::transaction::{Modes, OperationKind, ResultDigest, StatementId, StatementText};
use tokio::sync::mpsc;

/// How long a backend may take to read what it is sent before it is cancelled, when a block is to end.
const PATIENCE: Duration = Duration::from_millis(20);

/// How long a backend that is not wanted any more may take to be told so.
const PARTING: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    pub(super) writer: BackendWriter,
    pub(super) inputs: mpsc::UnboundedReceiver<Input>,
    pub(super) expects: mpsc::UnboundedSender<Expect>,
    pub(super) shared: Arc<Shared>,
    pub(super) cancel: CancelHandle,
    pub(super) secret: RecordSecret,
    pub(super) statements: BTreeMap<StatementId, StatementText>,
    pub(super) parsed_names: u64,
    pub(super) out: BytesMut,
    /// The COPY whose data are being written; its Sync is not.
    pub(super) feeding: Option<Feeding>,
    /// What came while data were being written, and waits for their end.
    pub(super) deferred: VecDeque<Input>,
    /// The COPY data of the transaction that is to be prepared.
    pub(super) copies: BTreeMap<u32, Data>,
    pub(super) in_block: bool,
    pub(super) drawing: Drawing,
    /// How the backend was started.
    pub(super) session: SessionState,
    /// The attributes of the transaction that runs.
    pub(super) modes: Modes,
    /// Settings that have to be asked for by name.
    pub(super) names: settings::Names,
    /// What the client has set is known, or asked for, in this transaction.
    pub(super) settings_asked: bool,
    /// The schema of its temporary relations, and whether there may be any.
    pub(super) temporary_schema: String,
    pub(super) has_temporary: bool,
    /// Where scripts are kept.
    pub(super) effects: Effects,
    /// Where a test stops it.
    pub(super) hook: Hook,
}

impl Writer {
    /// Ends with Ok when the session is closed, with the error when the backend is lost.
    pub(super) async fn run(mut self) -> Result<(), BackendError> {
        loop {
            let mut next = match self.is_feeding() {
                true => match self.feed().await? {
                    Some(input) => input,
                    None => continue,
                },
                false => match self.deferred.pop_front() {
                    Some(input) => Some(input),
                    None => tokio::select! {
                        input = self.inputs.recv() => input,
                        () = self.expects.closed() => return Err(BackendError::Closed),
                    },
                },
            };
            loop {
                match next {
                    None | Some(Input::Command(Command::Close)) => {
                        message::terminate(&mut self.out);
                        let _ = tokio::time::timeout(PARTING, self.writer.send(&self.out)).await;
                        return Ok(());
                    }
                    Some(Input::Feed(reader)) => self.start_feeding(reader),
                    Some(Input::Copies(copies)) => self.copies = copies,
                    Some(Input::NoCopy { tx, number }) => self.no_copy(tx, number),
                    Some(Input::UnexpectedCopy) => self.refuse_copy()?,
                    Some(Input::Command(command)) => self.command(command).await?,
                }
                if self.is_feeding() {
                    break; // what comes behind the data waits for their end
                }
                let Some(more) = self.deferred.pop_front().or_else(|| self.inputs.try_recv().ok()) else {
                    self.writer.send_all(&mut self.out).await?;
                    break;
                };
                if self.out.len() >= 256 * 1024 {
                    self.writer.send_all(&mut self.out).await?;
                }
                next = Some(more);
            }
        }
    }

    fn expect(&mut self, expect: Expect) {
        self.shared.outstanding.fetch_add(1, Ordering::AcqRel);
        // The reader ends only with the backend; the writer notices that by itself.
        let _ = self.expects.send(expect);
    }

    /// A statement that is no COPY operation asked for COPY data. Its Sync was swallowed, so another one follows.
    fn refuse_copy(&mut self) -> Result<(), BackendError> {
        message::copy_fail("COPY FROM STDIN comes as an operation of its own kind", &mut self.out)?;
        message::sync(&mut self.out);
        Ok(())
    }

    async fn command(&mut self, command: Command) -> Result<(), BackendError> {
        match command {
            Command::Restore(sql) => {
                message::extended(&sql, &[], &mut self.out)?;
                message::sync(&mut self.out);
                self.expect(Expect::Restored);
            }
            Command::Define { statement, text } => {
                self.has_temporary |= text.sql.contains(&format!("{}.", self.temporary_schema));
                self.statements.insert(statement, text);
            }
            Command::Forget(statement) => {
                self.statements.remove(&statement);
                let name = lock(&self.shared.parsed).1.remove(&statement);
                if let Some(name) = name {
                    message::close(b'S', &name, &mut self.out)?;
                    message::sync(&mut self.out);
                    self.expect(Expect::Ignored);
                }
            }
            Command::BeginLeading { tx, modes: _ } => {
                self.shared.discard.store(false, Ordering::Release);
                self.shared.rows.store(0, Ordering::Release);
                self.in_block = true;
                self.settings_asked = false;
                message::query("BEGIN ISOLATION LEVEL REPEATABLE READ", &mut self.out)?;
                self.expect(Expect::Leading { tx });
            }
            Command::Begin { tx, modes, snapshot, timestamp, seed, has_temporary } => {
                self.has_temporary |= has_temporary;
                self.shared.discard.store(false, Ordering::Release);
                self.shared.rows.store(0, Ordering::Release);
                *lock(&self.shared.ddl_effects) = None;
                let mut sql = String::new();
                self.modes = modes;
                if !self.in_block {
                    self.settings_asked = false;
                    sql.push_str("BEGIN ISOLATION LEVEL REPEATABLE READ; ");
                }
                if modes.read_only {
                    sql.push_str("SET TRANSACTION READ ONLY; ");
                }
                sql.push_str("SET TRANSACTION SNAPSHOT ");
                quote::push_literal(&mut sql, &snapshot);
                TransactionStart::new(tx, timestamp, &seed).push_sql(&mut sql);
                self.in_block = true;
                message::query(&sql, &mut self.out)?;
                self.expect(Expect::Begun { tx });
                if !modes.read_only && self.shared.disarmed.swap(false, Ordering::AcqRel) {
                    self.drawing.arm_again(&mut self.out)?;
                    self.expect(Expect::Ignored);
                }
            }
            Command::BeginHere { tx, modes, timestamp, seed, has_temporary } => {
                self.has_temporary |= has_temporary;
                *lock(&self.shared.ddl_effects) = None;
                let mut sql = String::new();
                if modes.read_only {
                    sql.push_str("SET TRANSACTION READ ONLY");
                }
                TransactionStart::new(tx, timestamp, &seed).push_sql(&mut sql);
                // A query takes the snapshot.
                sql.push_str("; SELECT 1");
                message::query(&sql, &mut self.out)?;
                self.expect(Expect::Begun { tx });
            }
            Command::Execute { tx, number, statement, row_order, kind, show, draws } => {
                self.look_at(statement, draws.is_some())?;
                if self.drawing.hand_over(draws.as_ref(), &mut self.out)? {
                    self.expect(Expect::Ignored);
                }
                self.execute(tx, number, statement, row_order, kind, show)?;
            }
            Command::Adopt { tx, number, sqlstate } => {
                // Any error fails the block as the master's did; the transcript takes the master's SQLSTATE.
                message::query("SELECT 1 / 0", &mut self.out)?;
                self.expect(Expect::Adopted { tx, number, sqlstate });
            }
            Command::Complete { tx } => {
                message::query(&complete_sql(&self.temporary_schema, self.has_temporary), &mut self.out)?;
                self.expect(Expect::Complete { tx });
            }
            Command::Prepare { tx, slot, operations, transcript, gid, ddl: _, script, marks } => {
                if let Some(steps) = script {
                    self.keep_script(tx, slot, &gid, steps).await?;
                }
                self.hook.pass(Point::BeforePrepare).await;
                let record = Record { tx, slot, operations, transcript };
                let ran_ddl = lock(&self.shared.ddl_effects).is_some();
                let mut sql = record.sql(&self.secret, ran_ddl);
                if let Some(draws) = record.draws_sql(&self.secret, &marks) {
                    sql.push_str("; ");
                    sql.push_str(&draws);
                }
                sql.push_str("; PREPARE TRANSACTION ");
                quote::push_literal(&mut sql, &gid);
                message::query(&sql, &mut self.out)?;
                self.in_block = false;
                self.expect(Expect::Prepare { tx });
            }
            Command::End { tx, commit } => self.end(tx, commit).await?,
            Command::Acknowledge(bytes) => {
                let bytes = u64::from(bytes);
                let _ =
                    self.shared.unacknowledged.fetch_update(Ordering::AcqRel, Ordering::Acquire, |before| {
                        Some(before.saturating_sub(bytes))
                    });
                self.shared.acknowledged.notify_one();
            }
            Command::Cancel => {
                let cancel = self.cancel.clone();
                tokio::spawn(async move {
                    let _ = cancel.cancel().await;
                });
            }
            Command::Close => {}
        }
        Ok(())
    }

    fn execute(
        &mut self,
        tx: TxId,
        number: u32,
        statement: StatementId,
        row_order: bool,
        kind: OperationKind,
        show: bool,
    ) -> Result<(), BackendError> {
        let (epoch, known) = {
            let parsed = lock(&self.shared.parsed);
            (parsed.0, parsed.1.get(&statement).cloned())
        };
        let (name, parsed) = match known {
            Some(name) => (name, None),
            None => {
                self.parsed_names += 1;
                let name = format!("steeldb_{}", self.parsed_names);
                let empty = StatementText { sql: String::new(), parameter_types: Vec::new() };
                let text = self.statements.get(&statement).unwrap_or(&empty);
                message::parse(&name, &text.sql, &text.parameter_types, &mut self.out)?;
                (name.clone(), Some(Parsed { statement, name, epoch }))
            }
        };
        let mut copy = false;
        match kind {
            OperationKind::Describe => message::describe(b'S', &name, &mut self.out)?,
            OperationKind::Execute { bind } => self.bind_and_execute(&name, &bind)?,
            OperationKind::CopyIn { bind } => {
                self.bind_and_execute(&name, &bind)?;
                copy = true;
            }
        }
        if copy {
            // Its Sync goes behind the data, or at once when the backend does not ask for any.
            self.feeding = Some(Feeding { tx, number, reader: None });
            message::flush(&mut self.out);
        } else {
            message::sync(&mut self.out);
        }
        if self.statements.get(&statement).is_some_and(|text| deallocates_all(&text.sql)) {
            let mut parsed = lock(&self.shared.parsed);
            parsed.0 += 1;
            parsed.1.clear();
        }
        let digest = Box::new(ResultDigest::new(row_order));
        self.expect(Expect::Operation { tx, number, show, copy, digest, parsed });
        Ok(())
    }

    fn bind_and_execute(&mut self, name: &str, bind: &[u8]) -> Result<(), BackendError> {
        self.out.put_u8(b'B');
        self.out.put_u32((4 + 1 + name.len() + 1 + bind.len()) as u32);
        self.out.put_u8(0);
        self.out.put_slice(name.as_bytes());
        self.out.put_u8(0);
        self.out.put_slice(bind);
        message::describe(b'P', "", &mut self.out)?;
        message::execute("", 0, &mut self.out)?;
        Ok(())
    }

    /// Looks at a statement that is to be executed: what it sets, and whether it is DDL, whose script needs to know what
    /// is set.
    fn look_at(&mut self, statement: StatementId, scripted: bool) -> Result<(), BackendError> {
        let Some(text) = self.statements.get(&statement) else { return Ok(()) };
        self.names.note(&text.sql);
        if scripted && !self.settings_asked && matches!(guard::check(&text.sql), Ok(Class::Ddl)) {
            self.ask_settings()?;
        }
        Ok(())
    }

    fn ask_settings(&mut self) -> Result<(), BackendError> {
        self.settings_asked = true;
        message::query(&self.names.sql(), &mut self.out)?;
        self.expect(Expect::Settings);
        Ok(())
    }

    /// Keeps what the transaction did on disk, before it is prepared: what a quorum has prepared may be committed, and is
    /// then wanted by who missed it.
    async fn keep_script(
        &mut self,
        tx: TxId,
        slot: Slot,
        gid: &str,
        steps: Vec<Step>,
    ) -> Result<(), BackendError> {
        if !self.settings_asked {
            // It ran DDL in a function.
            self.ask_settings()?;
            self.writer.send_all(&mut self.out).await?;
            self.until_drained().await?;
        }
        let settings = lock(&self.shared.settings).clone();
        let Some(steps) = self.with_copies(steps).await else { return Ok(()) };
        let statement = |step: &Step| {
            let statement = step.operation.statement;
            Some((statement, self.statements.get(&statement)?.clone()))
        };
        let script = Script {
            tx,
            slot,
            modes: self.modes,
            session: SessionState { settings, ..self.session.clone() },
            statements: steps.iter().filter_map(statement).collect(),
            steps,
        };
        let ticket = self.effects.keep(Kind::Script, gid, codec::encode(&script)).await;
        self.effects.until_durable(ticket).await;
        Ok(())
    }

    /// Waits until all that was sent is answered.
    async fn until_drained(&self) -> Result<(), BackendError> {
        while self.shared.outstanding.load(Ordering::Acquire) > 0 {
            if self.expects.is_closed() {
                return Err(BackendError::Closed);
            }
            let _ = tokio::time::timeout(Duration::from_millis(20), self.shared.drained.notified()).await;
        }
        Ok(())
    }

    /// Ends the block. What still runs is cancelled, and waited for, so that no cancel can hit what comes later.
    async fn end(&mut self, tx: TxId, commit: bool) -> Result<(), BackendError> {
        if !commit {
            self.shared.discard.store(true, Ordering::Release);
            self.shared.acknowledged.notify_one();
            self.forget_deferred();
            if self.feeding.take().is_some() {
                message::copy_fail("the transaction is rolled back", &mut self.out)?;
                message::sync(&mut self.out);
            }
            // A backend that waits for locks reads nothing.
            loop {
                match tokio::time::timeout(PATIENCE, self.writer.send_all(&mut self.out)).await {
                    Ok(sent) => break sent?,
                    Err(_) => self.cancel.cancel().await?,
                }
            }
            while self.shared.outstanding.load(Ordering::Acquire) > 0 {
                if self.expects.is_closed() {
                    return Err(BackendError::Closed);
                }
                let drained = self.shared.drained.notified();
                let _ = tokio::time::timeout(Duration::from_millis(20), drained).await;
                if self.shared.outstanding.load(Ordering::Acquire) > 0 {
                    self.cancel.cancel().await?;
                }
            }
        }
        self.in_block = false;
        message::query(if commit { "COMMIT" } else { "ROLLBACK" }, &mut self.out)?;
        self.expect(Expect::Ended { tx });
        Ok(())
    }
}

/// Whether a statement throws all prepared statements away.
fn deallocates_all(sql: &str) -> bool {
    let mut words = sql.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let first = words.next().unwrap_or_default();
    (first.eq_ignore_ascii_case("deallocate") || first.eq_ignore_ascii_case("discard"))
        && words.any(|word| word.eq_ignore_ascii_case("all"))
}
