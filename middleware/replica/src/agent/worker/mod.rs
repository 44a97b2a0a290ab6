//! A session's backend: one task writes commands, one reads their results, so that operations are pipelined.
//!
//! Every operation is a group of its own up to Sync, so each gets an answer whatever its predecessors did. Statements are
//! parsed under names of ours and reused once the backend has confirmed them.

mod drawing;
mod feeding;
mod reader;
mod settings;
mod writer;

use super::hook::Hook;
use super::keeper;
use crate::effects::Effects;
use crate::scheduler::{BackendReport, Command};
use crate::script::SessionState;
use crate::spool;
use bytes::BytesMut;
use drawing::Drawing;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use steeldb_postgres::transaction::RecordSecret;
use steeldb_postgres::{Backend, BackendError, roles};
use steeldb_transport::{ConnectionId, ReplicaLinks};
use steeldb_types::{Digest, SessionKey, TxId, temporary_schema};
use steeldb_wire::transaction::{Modes, ResultDigest, SqlState, StatementId};
use tokio::sync::{Notify, mpsc};

/// How long a server that is not there is waited for: it may be starting again.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// What the databases' search_path is without a session's own (`migrations/0006_publication.sql`).
const SEARCH_PATH: &str = "\"$user\", public, steeldb, pg_catalog";

/// What the worker of a session needs.
pub(super) struct Start {
    pub socket_dir: PathBuf,
    pub database: String,
    pub role: String,
    pub parameters: Vec<(String, String)>,
    pub secret: RecordSecret,
    pub connection: ConnectionId,
    pub links: ReplicaLinks,
    pub reports: Reports,
    /// How long a client may take none of the results that it asked for.
    pub patience: Duration,
    /// Its operations draw from sequences: this is the master.
    pub draws: bool,
    /// What its client had set before, of a session that is another's again.
    pub settings: Vec<(String, String)>,
    /// Where scripts are kept.
    pub effects: Effects,
    /// Where a test stops it.
    pub hook: Hook,
}

/// Where a worker reports to. A session that was lost may be opened again, and the old worker's last words must not end
/// the new one: so each report says whose it is.
#[derive(Clone)]
pub(super) struct Reports {
    pub session: SessionKey,
    /// Counts this process' workers.
    pub incarnation: u64,
    pub sender: mpsc::UnboundedSender<Report>,
}

/// What a worker reports.
pub(super) struct Report {
    pub session: SessionKey,
    pub incarnation: u64,
    pub report: BackendReport,
}

impl Reports {
    /// False when nobody listens any more.
    fn send(&self, report: BackendReport) -> bool {
        let Reports { session, incarnation, ref sender } = *self;
        sender.send(Report { session, incarnation, report }).is_ok()
    }

    fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// What the writer is told.
pub(super) enum Input {
    Command(Command),
    /// The data of the COPY that was executed last.
    Feed(spool::Reader),
    /// The COPY data of the transaction that is to be prepared, for its script.
    Copies(BTreeMap<u32, spool::Data>),
    /// The backend did not ask for the COPY data of an operation.
    NoCopy {
        tx: TxId,
        number: u32,
    },
    /// The backend asks for COPY data that no operation brings.
    UnexpectedCopy,
}

/// What the reader waits for, in the order written.
enum Expect {
    Operation {
        tx: TxId,
        number: u32,
        show: bool,
        copy: bool,
        digest: Box<ResultDigest>,
        parsed: Option<Parsed>,
    },
    Adopted {
        tx: TxId,
        number: u32,
        sqlstate: SqlState,
    },
    Begun {
        tx: TxId,
    },
    Leading {
        tx: TxId,
    },
    Complete {
        tx: TxId,
    },
    Prepare {
        tx: TxId,
    },
    Ended {
        tx: TxId,
    },
    /// What the client has set.
    Settings,
    Restored,
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
    /// What the client had set when it was last asked for.
    settings: Mutex<Vec<(String, String)>>,
    /// What completing found, for PREPARE: whether DDL commands are recorded, and the digest of what is not temporary.
    ddl_effects: Mutex<Option<Option<Digest>>>,
    /// How many rows the transaction that runs has changed, by its commands' tags.
    rows: AtomicU64,
    /// Why the COPY that runs was broken off here.
    lost: Mutex<Option<spool::Lost>>,
    /// The client has thrown away what its session knew of sequences, and with it what proves the agent.
    disarmed: AtomicBool,
}

/// Sessions for what is executed again: nobody is shown anything, and nothing is drawn.
pub(super) struct Reexecuting {
    pub socket_dir: PathBuf,
    pub secret: RecordSecret,
    pub links: ReplicaLinks,
    pub effects: Effects,
    pub hook: Hook,
}

impl Reexecuting {
    /// Starts the backend of a session as another replica's was.
    pub(super) fn spawn(
        self,
        session: SessionKey,
        state: &SessionState,
        sender: mpsc::UnboundedSender<Report>,
    ) -> mpsc::UnboundedSender<Input> {
        spawn(Start {
            socket_dir: self.socket_dir,
            database: state.database.clone(),
            role: state.role.clone(),
            parameters: state.parameters.clone(),
            secret: self.secret,
            connection: ConnectionId(u64::MAX),
            links: self.links,
            reports: Reports { session, incarnation: 0, sender },
            patience: Duration::MAX,
            draws: false,
            settings: state.settings.clone(),
            effects: self.effects,
            hook: self.hook,
        })
    }
}

/// Starts a session's backend; its fate is reported as events.
pub(super) fn spawn(start: Start) -> mpsc::UnboundedSender<Input> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let back = sender.clone();
    tokio::spawn(async move {
        let reports = start.reports.clone();
        match connect(&start).await {
            Ok((backend, drawing)) => {
                let parameters = backend.parameters().to_vec();
                let process = backend.process_id().unsigned_abs();
                reports.send(BackendReport::Ready { parameters, process });
                let (sqlstate, message) = serve(start, backend, drawing, receiver, back).await;
                reports.send(BackendReport::Lost { sqlstate: SqlState::parse(&sqlstate), message });
            }
            Err((sqlstate, message)) => {
                reports.send(BackendReport::Lost { sqlstate: SqlState::parse(&sqlstate), message });
            }
        }
    });
    sender
}

/// The start-up parameters of a session's backend: its own, and a search_path that begins with the schema of its temporary
/// relations. While that does not exist, PostgreSQL passes over it.
pub(super) fn parameters(session: SessionKey, given: &[(String, String)]) -> Vec<(String, String)> {
    let schema = temporary_schema(session);
    let mut parameters = given.to_vec();
    match parameters.iter_mut().find(|(name, _)| name.eq_ignore_ascii_case("search_path")) {
        Some((_, path)) if path.trim().is_empty() => *path = schema,
        Some((_, path)) => *path = format!("{schema}, {path}"),
        None => parameters.push(("search_path".into(), format!("{schema}, {SEARCH_PATH}"))),
    }
    parameters
}

async fn connect(start: &Start) -> Result<(Backend, Drawing), (String, String)> {
    let shown = |error: BackendError| match error {
        BackendError::Server(fields) => (fields.sqlstate.clone(), fields.message.clone()),
        other => ("58000".to_string(), other.to_string()),
    };
    let (dir, role) = (&start.socket_dir, steeldb_postgres::AGENT_ROLE);
    let mut agent =
        keeper::connect(dir, &start.database, role, &[], CONNECT_PATIENCE).await.map_err(shown)?;
    roles::check_role(&mut agent, &start.role).await.map_err(|refused| match refused {
        roles::RoleRefused::Backend(error) => shown(error),
        refused => ("28000".to_string(), refused.to_string()),
    })?;
    let parameters = parameters(start.reports.session, &start.parameters);
    let mut backend = Backend::connect(&start.socket_dir, &start.database, &start.role, &parameters)
        .await
        .map_err(shown)?;
    let drawing = Drawing::arm(&mut backend, &start.secret, start.draws).await.map_err(shown)?;
    for (name, value) in &start.settings {
        let sql = "SELECT pg_catalog.set_config($1, $2, false)";
        backend.extended(sql, &[Some(name), Some(value)]).await.map_err(shown)?;
    }
    Ok((backend, drawing))
}

/// Runs the session until its backend is lost or closed; says why.
async fn serve(
    start: Start,
    backend: Backend,
    drawing: Drawing,
    inputs: mpsc::UnboundedReceiver<Input>,
    back: mpsc::UnboundedSender<Input>,
) -> (String, String) {
    let session = start.reports.session;
    let cancel = backend.cancel_handle();
    let (reader, writer) = backend.into_split();
    let shared = Arc::new(Shared {
        outstanding: AtomicUsize::new(0),
        drained: Notify::new(),
        unacknowledged: AtomicU64::new(0),
        acknowledged: Notify::new(),
        discard: AtomicBool::new(false),
        parsed: Mutex::new((0, BTreeMap::new())),
        settings: Mutex::default(),
        ddl_effects: Mutex::new(None),
        rows: AtomicU64::new(0),
        lost: Mutex::new(None),
        disarmed: AtomicBool::new(false),
    });
    let (expects, expected) = mpsc::unbounded_channel();
    let reading = reader::Reader {
        reader,
        expected,
        shared: Arc::clone(&shared),
        back,
        session: start.reports.session,
        connection: start.connection,
        links: start.links,
        reports: start.reports,
        patience: start.patience,
        drawing: drawing.clone(),
        hook: start.hook.clone(),
    };
    let writing = writer::Writer {
        writer,
        inputs,
        expects,
        shared,
        cancel,
        secret: start.secret,
        statements: BTreeMap::new(),
        parsed_names: 0,
        out: BytesMut::with_capacity(16 * 1024),
        feeding: None,
        deferred: VecDeque::new(),
        copies: BTreeMap::new(),
        in_block: false,
        drawing,
        temporary_schema: temporary_schema(session),
        has_temporary: false,
        session: SessionState {
            database: start.database,
            role: start.role,
            parameters: start.parameters,
            settings: Vec::new(),
        },
        modes: Modes::default(),
        names: settings::Names::default(),
        settings_asked: false,
        effects: start.effects,
        hook: start.hook.clone(),
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

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
