//! A session's backend: one task writes commands, one reads their results, so that operations are pipelined.
//!
//! Every operation is a group of its own up to Sync, so each gets an answer whatever its predecessors did. Statements are
//! parsed under names of ours and reused once the backend has confirmed them.

use super::maintenance::error_response;
use crate::scheduler::{BackendReport, Command, Completion, Event, TagKind};
use bytes::{BufMut as _, Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use steeldb_postgres::connection::{BackendReader, BackendWriter, CancelHandle};
use steeldb_postgres::message::{self, RawMessage, tag};
use steeldb_postgres::transaction::{
    ASSIGNED_XID_SQL, BEGIN_TRANSACTION_SQL, CONSTRAINTS_SQL, RECORD_TRANSACTION_SQL, Record, RecordSecret,
    TransactionStart,
};
use steeldb_postgres::{Backend, BackendError, quote, roles};
use steeldb_transport::{ConnectionId, ReplicaLinks};
use steeldb_types::{Digest, SessionKey, TxId, limits};
use steeldb_wire::codec;
use steeldb_wire::transaction::{
    OperationKind, ReplicaMessage, ResultDigest, SqlState, StatementId, StatementText,
};
use tokio::sync::{Notify, mpsc};

/// The agent's own prepared statements in a client's session. Their names cannot clash with operations' names.
#[derive(Clone, Copy)]
enum Own {
    Begin,
    Record,
    Complete,
}

impl Own {
    fn name(self) -> &'static str {
        match self {
            Own::Begin => "steeldb_begin",
            Own::Record => "steeldb_record",
            Own::Complete => "steeldb_complete",
        }
    }

    fn sql(self) -> String {
        match self {
            Own::Begin => BEGIN_TRANSACTION_SQL.to_string(),
            Own::Record => RECORD_TRANSACTION_SQL.to_string(),
            Own::Complete => format!("{ASSIGNED_XID_SQL}, steeldb.ddl_effects()"),
        }
    }
}

/// A piece of a result is sent once it has this size, or nothing more is there.
const PIECE_BYTES: usize = 32 * 1024;

/// What the worker of a session needs.
pub(super) struct Start {
    pub session: SessionKey,
    pub socket_dir: PathBuf,
    pub database: String,
    pub role: String,
    pub parameters: Vec<(String, String)>,
    pub secret: RecordSecret,
    pub connection: ConnectionId,
    pub links: ReplicaLinks,
    pub events: mpsc::UnboundedSender<Event>,
}

/// What the writer is told.
pub(super) enum Input {
    Command(Command),
    /// The backend did not ask for the COPY data of the operation that runs.
    NoCopy,
}

/// What the reader waits for, in the order written.
enum Expect {
    Operation { tx: TxId, number: u32, show: bool, digest: Box<ResultDigest>, parsed: Option<Parsed> },
    Adopted { tx: TxId, number: u32, sqlstate: SqlState },
    Begun { tx: TxId },
    Leading { tx: TxId },
    Complete { tx: TxId },
    Prepare { tx: TxId },
    Ended { tx: TxId },
    Ignored,
}

/// A statement that is parsed under a name, if the backend agrees.
struct Parsed {
    statement: StatementId,
    name: String,
    /// Names of before a DEALLOCATE ALL are gone.
    epoch: u64,
}

/// What writer and reader share.
struct Shared {
    outstanding: AtomicUsize,
    drained: Notify,
    /// Result bytes sent and not acknowledged.
    unacknowledged: AtomicU64,
    acknowledged: Notify,
    /// The transaction is being rolled back: results are not shown any more.
    discard: AtomicBool,
    /// Statements that the backend has parsed, and under which name, since the epoch began.
    parsed: Mutex<(u64, BTreeMap<StatementId, String>)>,
    /// The digest of DDL effects that completing found, for PREPARE.
    ddl_effects: Mutex<Option<Digest>>,
}

/// Starts a session's backend; its fate is reported as events.
pub(super) fn spawn(start: Start) -> mpsc::UnboundedSender<Input> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let back = sender.clone();
    tokio::spawn(async move {
        let (session, events) = (start.session, start.events.clone());
        let report = |report| {
            let _ = events.send(Event::Backend { session, report });
        };
        match connect(&start).await {
            Ok(backend) => {
                let parameters = backend.parameters().to_vec();
                report(BackendReport::Ready { parameters });
                let (sqlstate, message) = serve(start, backend, receiver, back).await;
                report(BackendReport::Lost { sqlstate: SqlState::parse(&sqlstate), message });
            }
            Err((sqlstate, message)) => {
                report(BackendReport::Lost { sqlstate: SqlState::parse(&sqlstate), message });
            }
        }
    });
    sender
}

async fn connect(start: &Start) -> Result<Backend, (String, String)> {
    let shown = |error: BackendError| match error {
        BackendError::Server(fields) => (fields.sqlstate.clone(), fields.message.clone()),
        other => ("58000".to_string(), other.to_string()),
    };
    let mut agent = Backend::connect(&start.socket_dir, &start.database, steeldb_postgres::AGENT_ROLE, &[])
        .await
        .map_err(shown)?;
    roles::check_role(&mut agent, &start.role).await.map_err(|refused| match refused {
        roles::RoleRefused::Backend(error) => shown(error),
        refused => ("28000".to_string(), refused.to_string()),
    })?;
    let mut backend = Backend::connect(&start.socket_dir, &start.database, &start.role, &start.parameters)
        .await
        .map_err(shown)?;
    let mut out = BytesMut::new();
    let io = |error: std::io::Error| ("58000".to_string(), error.to_string());
    for own in [Own::Begin, Own::Record, Own::Complete] {
        message::parse(own.name(), &own.sql(), &[], &mut out).map_err(io)?;
    }
    message::sync(&mut out);
    backend.send(&out).await.map_err(shown)?;
    backend.answer().await.map_err(shown)?;
    Ok(backend)
}

/// Runs the session until its backend is lost or closed; says why.
async fn serve(
    start: Start,
    backend: Backend,
    inputs: mpsc::UnboundedReceiver<Input>,
    back: mpsc::UnboundedSender<Input>,
) -> (String, String) {
    let cancel = backend.cancel_handle();
    let (reader, writer) = backend.into_split();
    let shared = Arc::new(Shared {
        outstanding: AtomicUsize::new(0),
        drained: Notify::new(),
        unacknowledged: AtomicU64::new(0),
        acknowledged: Notify::new(),
        discard: AtomicBool::new(false),
        parsed: Mutex::new((0, BTreeMap::new())),
        ddl_effects: Mutex::new(None),
    });
    let (expects, expected) = mpsc::unbounded_channel();
    let reading = Reader {
        reader,
        expected,
        shared: Arc::clone(&shared),
        back,
        session: start.session,
        connection: start.connection,
        links: start.links,
        events: start.events,
    };
    let writing = Writer {
        writer,
        inputs,
        expects,
        shared,
        cancel,
        secret: start.secret,
        statements: BTreeMap::new(),
        names: 0,
        out: BytesMut::with_capacity(16 * 1024),
        copy_open: false,
        in_block: false,
        own_parsed: true,
    };
    let reading = tokio::spawn(reading.run());
    let closed = writing.run().await;
    let closing = closed.is_ok();
    if closing {
        reading.abort();
        return ("57P01".into(), "the session was closed".into());
    }
    let fault = match reading.await {
        Ok(Err(fault)) => Some(fault),
        _ => closed.err(),
    };
    match fault {
        Some(BackendError::Server(fields)) => (fields.sqlstate.clone(), fields.message.clone()),
        Some(other) => ("57P01".into(), other.to_string()),
        None => ("57P01".into(), "the backend is gone".into()),
    }
}

struct Writer {
    writer: BackendWriter,
    inputs: mpsc::UnboundedReceiver<Input>,
    expects: mpsc::UnboundedSender<Expect>,
    shared: Arc<Shared>,
    cancel: CancelHandle,
    secret: RecordSecret,
    statements: BTreeMap<StatementId, StatementText>,
    names: u64,
    out: BytesMut,
    /// A COPY's data are being written; its Sync is not.
    copy_open: bool,
    in_block: bool,
    /// The agent's own statements are prepared.
    own_parsed: bool,
}

impl Writer {
    /// Ends with Ok when the session is closed, with the error when the backend is lost.
    async fn run(mut self) -> Result<(), BackendError> {
        loop {
            let input = tokio::select! {
                input = self.inputs.recv() => input,
                () = self.expects.closed() => return Err(BackendError::Closed),
            };
            let mut next = input;
            loop {
                match next {
                    None | Some(Input::Command(Command::Close)) => {
                        message::terminate(&mut self.out);
                        let _ = self.writer.send(&self.out).await;
                        return Ok(());
                    }
                    Some(Input::NoCopy) => self.no_copy(),
                    Some(Input::Command(command)) => self.command(command).await?,
                }
                match self.inputs.try_recv() {
                    Ok(more) if self.out.len() < 256 * 1024 => next = Some(more),
                    Ok(more) => {
                        self.writer.send_all(&mut self.out).await?;
                        next = Some(more);
                    }
                    Err(_) => break,
                }
            }
            self.writer.send_all(&mut self.out).await?;
        }
    }

    fn expect(&mut self, expect: Expect) {
        self.shared.outstanding.fetch_add(1, Ordering::AcqRel);
        // The reader ends only with the backend; the writer notices that by itself.
        let _ = self.expects.send(expect);
    }

    fn no_copy(&mut self) {
        if self.copy_open {
            self.copy_open = false;
            message::sync(&mut self.out);
        }
    }

    async fn command(&mut self, command: Command) -> Result<(), BackendError> {
        match command {
            Command::Define { statement, text } => {
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
                self.in_block = true;
                message::query("BEGIN ISOLATION LEVEL REPEATABLE READ", &mut self.out)?;
                self.expect(Expect::Leading { tx });
            }
            Command::Begin { tx, modes, snapshot, timestamp, seed } => {
                self.shared.discard.store(false, Ordering::Release);
                *lock(&self.shared.ddl_effects) = None;
                let begin = if self.in_block { "" } else { "BEGIN ISOLATION LEVEL REPEATABLE READ; " };
                let read_only = if modes.read_only { "SET TRANSACTION READ ONLY; " } else { "" };
                let sql = format!("{begin}{read_only}SET TRANSACTION SNAPSHOT {}", quote::literal(&snapshot));
                self.in_block = true;
                message::query(&sql, &mut self.out)?;
                let start = TransactionStart::new(timestamp, &seed);
                self.run_own(Own::Begin, &start.parameters())?;
                self.expect(Expect::Begun { tx });
            }
            Command::BeginHere { tx, modes, timestamp, seed } => {
                *lock(&self.shared.ddl_effects) = None;
                let read_only = if modes.read_only { "SET TRANSACTION READ ONLY" } else { "" };
                message::query(read_only, &mut self.out)?;
                let start = TransactionStart::new(timestamp, &seed);
                // A query: it takes the snapshot.
                self.run_own(Own::Begin, &start.parameters())?;
                self.expect(Expect::Begun { tx });
            }
            Command::Execute { tx, number, statement, row_order, kind, show } => {
                self.execute(tx, number, statement, row_order, kind, show)?;
            }
            Command::Adopt { tx, number, sqlstate } => {
                // Any error fails the block as the master's did; the transcript takes the master's SQLSTATE.
                message::query("SELECT 1 / 0", &mut self.out)?;
                self.expect(Expect::Adopted { tx, number, sqlstate });
            }
            Command::CopyData(data) => {
                if self.copy_open {
                    message::copy_data(&data, &mut self.out)?;
                    if self.out.len() >= 256 * 1024 {
                        self.writer.send_all(&mut self.out).await?;
                    }
                }
            }
            Command::CopyEnd(failure) => {
                if self.copy_open {
                    self.copy_open = false;
                    match failure {
                        None => message::copy_done(&mut self.out),
                        Some(reason) => message::copy_fail(&reason, &mut self.out)?,
                    }
                    message::sync(&mut self.out);
                }
            }
            Command::Complete { tx } => {
                message::query(CONSTRAINTS_SQL, &mut self.out)?;
                self.run_own(Own::Complete, &[])?;
                self.expect(Expect::Complete { tx });
            }
            Command::Prepare { tx, slot, operations, transcript, gid, .. } => {
                let record = Record { tx, slot, operations, transcript };
                let parameters = record.parameters(&self.secret);
                let parameters: Vec<Option<&str>> =
                    parameters.iter().map(|text| Some(text.as_str())).collect();
                self.run_own(Own::Record, &parameters)?;
                message::query(&format!("PREPARE TRANSACTION {}", quote::literal(&gid)), &mut self.out)?;
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

    /// Runs one of the agent's own statements: prepared, or unnamed once the client has deallocated all.
    fn run_own(&mut self, own: Own, parameters: &[Option<&str>]) -> Result<(), BackendError> {
        let mut name = own.name();
        if !self.own_parsed {
            name = "";
            message::parse(name, &own.sql(), &[], &mut self.out)?;
        }
        message::bind("", name, parameters, &mut self.out)?;
        message::execute("", 0, &mut self.out)?;
        message::sync(&mut self.out);
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
                self.names += 1;
                let name = format!("steeldb_{}", self.names);
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
            self.copy_open = true;
            message::flush(&mut self.out);
        } else {
            message::sync(&mut self.out);
        }
        if self.statements.get(&statement).is_some_and(|text| deallocates_all(&text.sql)) {
            let mut parsed = lock(&self.shared.parsed);
            parsed.0 += 1;
            parsed.1.clear();
            self.own_parsed = false;
        }
        let digest = Box::new(ResultDigest::new(row_order));
        self.expect(Expect::Operation { tx, number, show, digest, parsed });
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

    /// Ends the block. What still runs is cancelled, and waited for, so that no cancel can hit what comes later.
    async fn end(&mut self, tx: TxId, commit: bool) -> Result<(), BackendError> {
        if !commit {
            self.shared.discard.store(true, Ordering::Release);
            self.shared.acknowledged.notify_one();
            if self.copy_open {
                self.copy_open = false;
                message::copy_fail("the transaction is rolled back", &mut self.out)?;
                message::sync(&mut self.out);
            }
            self.writer.send_all(&mut self.out).await?;
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

struct Reader {
    reader: BackendReader,
    expected: mpsc::UnboundedReceiver<Expect>,
    shared: Arc<Shared>,
    back: mpsc::UnboundedSender<Input>,
    session: SessionKey,
    connection: ConnectionId,
    links: ReplicaLinks,
    events: mpsc::UnboundedSender<Event>,
}

impl Reader {
    async fn run(mut self) -> Result<(), BackendError> {
        while let Some(expect) = self.next_expect().await? {
            let report = match expect {
                Expect::Operation { tx, number, show, digest, parsed } => {
                    Some(self.operation(tx, number, show, digest, parsed).await?)
                }
                Expect::Adopted { tx, number, sqlstate } => {
                    let answer = self.answer().await?;
                    Some(BackendReport::Executed {
                        tx,
                        number,
                        result: ResultDigest::error(sqlstate.0),
                        sqlstate: Some(sqlstate),
                        status: answer.status,
                        tag: TagKind::Plain,
                        copy_started: false,
                    })
                }
                Expect::Begun { tx } => {
                    let mut failed = None;
                    for _ in 0..2 {
                        let answer = self.answer().await?;
                        failed = failed.or(answer.error);
                    }
                    Some(match failed {
                        None => BackendReport::Begun { tx },
                        Some((_, reason)) => BackendReport::NotBegun { tx, reason },
                    })
                }
                Expect::Leading { tx } => {
                    let answer = self.answer().await?;
                    answer.error.map(|(_, reason)| BackendReport::NotBegun { tx, reason })
                }
                Expect::Complete { tx } => {
                    let constraints = self.answer().await?;
                    let state = self.answer().await?;
                    Some(BackendReport::Completed { tx, result: self.completion(constraints, state) })
                }
                Expect::Prepare { tx } => {
                    let recorded = self.answer().await?;
                    let prepared = self.answer().await?;
                    let result = match (recorded.error, prepared.error) {
                        (Some((sqlstate, _)), _) | (None, Some((sqlstate, _))) => Err(sqlstate),
                        // PREPARE of a failed transaction answers ROLLBACK without an error (B6).
                        (None, None) if prepared.tag != "PREPARE TRANSACTION" => {
                            Err(SqlState::parse("25P02"))
                        }
                        (None, None) => Ok(lock(&self.shared.ddl_effects).take()),
                    };
                    Some(BackendReport::Prepared { tx, result })
                }
                Expect::Ended { tx } => {
                    self.answer().await?;
                    Some(BackendReport::Ended { tx })
                }
                Expect::Ignored => {
                    self.answer().await?;
                    None
                }
            };
            self.shared.outstanding.fetch_sub(1, Ordering::AcqRel);
            self.shared.drained.notify_one();
            if let Some(report) = report
                && self.events.send(Event::Backend { session: self.session, report }).is_err()
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The next answer to wait for. Meanwhile the backend may say something of its own accord, such as that it is
    /// being shut down.
    async fn next_expect(&mut self) -> Result<Option<Expect>, BackendError> {
        loop {
            tokio::select! {
                biased;
                expect = self.expected.recv() => return Ok(expect),
                message = self.reader.next_message() => {
                    let message = message?;
                    if message.tag == tag::ERROR_RESPONSE {
                        return Err(steeldb_postgres::connection::server_error(&message)?);
                    }
                }
            }
        }
    }

    fn completion(&self, constraints: AgentAnswer, state: AgentAnswer) -> Result<Completion, SqlState> {
        if let Some((sqlstate, message)) = constraints.error.or(state.error) {
            tracing::debug!(session = %self.session, %sqlstate, message, "a transaction cannot be completed");
            return Err(sqlstate);
        }
        let wrote = state.row.first().cloned().flatten().as_deref() == Some("t");
        let effects = state.row.get(1).cloned().flatten();
        let digest = effects.as_deref().and_then(|text| text.strip_prefix("\\x")).and_then(|text| {
            let mut digest = [0u8; 32];
            hex::decode_to_slice(text, &mut digest).ok().map(|()| Digest(digest))
        });
        let ddl = effects.is_some();
        if ddl && digest.is_none() {
            // The client has set bytea_output; its transaction can try again without.
            return Err(SqlState::parse("0A000"));
        }
        *lock(&self.shared.ddl_effects) = digest;
        Ok(Completion { wrote, ddl })
    }

    /// Reads an operation's messages, hashing them, and showing them where the client waits for them.
    async fn operation(
        &mut self,
        tx: TxId,
        number: u32,
        show: bool,
        mut digest: Box<ResultDigest>,
        parsed: Option<Parsed>,
    ) -> Result<BackendReport, BackendError> {
        let mut piece = Vec::new();
        let mut copy_started = false;
        let mut kind = TagKind::Plain;
        let mut failure = None;
        let status = loop {
            let message = match self.reader.buffered_message()? {
                Some(message) => message,
                None => {
                    self.send_piece(tx, number, &mut piece).await;
                    self.reader.next_message().await?
                }
            };
            match message.tag {
                tag::READY_FOR_QUERY => break message.body.first().copied().unwrap_or(b'I'),
                tag::PARSE_COMPLETE => {
                    if let Some(parsed) = &parsed {
                        let mut known = lock(&self.shared.parsed);
                        if known.0 == parsed.epoch {
                            known.1.insert(parsed.statement, parsed.name.clone());
                        }
                    }
                    continue;
                }
                tag::BIND_COMPLETE | tag::CLOSE_COMPLETE | tag::NOTIFICATION_RESPONSE => continue,
                tag::COPY_IN_RESPONSE => copy_started = true,
                tag::COMMAND_COMPLETE => kind = tag_kind(message::command_tag(&message.body)?),
                tag::ERROR_RESPONSE if !copy_started => {
                    // If it is a COPY, its Sync is still to come; otherwise this changes nothing.
                    let _ = self.back.send(Input::NoCopy);
                }
                _ => {}
            }
            if let Err(error) = digest.message(message.tag, &message.body) {
                failure = Some(error.to_string());
            }
            if show {
                append(&mut piece, &message);
                if piece.len() >= PIECE_BYTES {
                    self.send_piece(tx, number, &mut piece).await;
                }
            }
        };
        if show && let Some(reason) = failure {
            append_bytes(&mut piece, &error_response("54000", &reason));
        }
        self.send_piece(tx, number, &mut piece).await;
        if status == b'I' {
            kind = TagKind::BlockEnded;
        }
        let sqlstate = digest.sqlstate().map(SqlState::parse);
        Ok(BackendReport::Executed {
            tx,
            number,
            result: digest.finish(),
            sqlstate,
            status,
            tag: kind,
            copy_started,
        })
    }

    /// Sends what has gathered, once the shim has passed on enough of what it got.
    async fn send_piece(&mut self, tx: TxId, number: u32, piece: &mut Vec<u8>) {
        if piece.is_empty() {
            return;
        }
        let messages = std::mem::take(piece);
        while self.shared.unacknowledged.load(Ordering::Acquire) > limits::RESULT_WINDOW_BYTES as u64 {
            if self.shared.discard.load(Ordering::Acquire) || self.events.is_closed() {
                return;
            }
            self.shared.acknowledged.notified().await;
        }
        if self.shared.discard.load(Ordering::Acquire) {
            return;
        }
        self.shared.unacknowledged.fetch_add(messages.len() as u64, Ordering::AcqRel);
        let frame = codec::encode(&ReplicaMessage::Result { tx, number, messages });
        self.links.send_client(self.connection, Bytes::from(frame));
    }

    /// The answer to one of the agent's own commands.
    async fn answer(&mut self) -> Result<AgentAnswer, BackendError> {
        let mut answer = AgentAnswer { tag: String::new(), error: None, row: Vec::new(), status: b'I' };
        loop {
            let message = self.reader.next_message().await?;
            match message.tag {
                tag::READY_FOR_QUERY => {
                    answer.status = message.body.first().copied().unwrap_or(b'I');
                    return Ok(answer);
                }
                tag::COMMAND_COMPLETE => answer.tag = message::command_tag(&message.body)?.to_string(),
                tag::DATA_ROW => answer.row = message::data_row(&message.body)?,
                tag::ERROR_RESPONSE => {
                    let fields = message::ErrorFields::parse(&message.body)?;
                    answer.error = Some((SqlState::parse(&fields.sqlstate), fields.message.clone()));
                }
                _ => {}
            }
        }
    }
}

struct AgentAnswer {
    tag: String,
    error: Option<(SqlState, String)>,
    row: Vec<Option<String>>,
    status: u8,
}

fn append(piece: &mut Vec<u8>, message: &RawMessage) {
    piece.put_u8(message.tag);
    piece.put_u32(message.body.len() as u32 + 4);
    piece.put_slice(&message.body);
}

/// Whether a statement throws all prepared statements away.
fn deallocates_all(sql: &str) -> bool {
    let mut words = sql.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let first = words.next().unwrap_or_default();
    (first.eq_ignore_ascii_case("deallocate") || first.eq_ignore_ascii_case("discard"))
        && words.any(|word| word.eq_ignore_ascii_case("all"))
}

fn append_bytes(piece: &mut Vec<u8>, bytes: &[u8]) {
    piece.extend_from_slice(bytes);
}

/// What a command tag says about its statement.
fn tag_kind(tag: &str) -> TagKind {
    let first = tag.split(' ').next().unwrap_or_default();
    let ddl: BTreeSet<&str> = [
        "CREATE", "ALTER", "DROP", "TRUNCATE", "GRANT", "REVOKE", "COMMENT", "REFRESH", "REINDEX", "CLUSTER",
        "SECURITY", "REASSIGN", "IMPORT",
    ]
    .into();
    match first {
        "SET" | "RESET" | "DISCARD" => TagKind::Settings,
        "LOCK" => TagKind::Lock,
        _ if ddl.contains(first) => TagKind::Ddl,
        _ => TagKind::Plain,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
