//! The listening side: accepts connections, takes them through their start-up, and finds sessions for cancel requests.

use crate::authentication::authenticate;
use crate::backend;
use crate::client::Client;
use crate::error::{Failure, PgError};
use crate::monitor::Monitor;
use crate::session::{Session, terminated};
use crate::settings::{Controls, ProxySettings};
use crate::sql::Analyzer;
use crate::startup::{Purpose, Startup, purpose};
use crate::verify::VerifySetting;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use steeldb_client_shim::{Canceller, Shim};
use steeldb_metrics::Gauge;
use steeldb_types::limits;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tracing::Instrument as _;

/// Connections in start-up, beyond the sessions: cancel requests among them.
const STARTING_MAX: usize = 100;

/// How long to wait before accepting again when the system has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A client that does not read may not hold up the end of its session.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Conflicting statements find their rows free after one run or two; what is still not through by then is worth telling.
pub const STATEMENT_TRIES: u32 = 4;

/// What a proxy needs.
#[derive(Clone)]
pub struct ProxyOptions {
    /// Where to listen, host:port; all addresses that the host has.
    pub listen: String,
    /// The cluster.
    pub shim: Shim,
    /// What can be changed while it runs.
    pub controls: Controls,
    /// Where it tells how it is.
    pub monitor: Monitor,
    /// How long a client may take until it is authenticated.
    pub startup_timeout: Duration,
}

impl ProxyOptions {
    /// Default settings, a minute to start.
    pub fn new(listen: impl Into<String>, shim: Shim) -> ProxyOptions {
        ProxyOptions {
            listen: listen.into(),
            shim,
            controls: Controls::default(),
            monitor: Monitor::default(),
            startup_timeout: Duration::from_secs(60),
        }
    }

    /// With other settings.
    pub fn set(&mut self, change: impl FnOnce(&mut ProxySettings)) {
        let mut settings = self.controls.settings();
        change(&mut settings);
        self.controls.set(settings);
    }
}

/// Why a proxy cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}")]
pub struct ListenError {
    /// Where.
    pub address: String,
    /// Why.
    pub error: io::Error,
}

/// A proxy that listens and does not accept yet.
pub struct Proxy {
    listener: TcpListener,
    options: ProxyOptions,
}

struct Server {
    options: ProxyOptions,
    analyzer: Arc<Analyzer>,
    keys: Mutex<HashMap<(u32, u32), Canceller>>,
    processes: AtomicU32,
    sessions: AtomicUsize,
    starting: AtomicUsize,
    stop: watch::Receiver<Stop>,
}

/// How far a proxy has stopped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
enum Stop {
    Not,
    /// Sessions end where nothing is under way.
    AtRest,
    /// Sessions end.
    Now,
}

/// Listens and serves until `shutdown` is done; then lets transactions that are open end, for a bounded time.
///
/// # Errors
/// [`ListenError`] when it cannot listen.
pub async fn run(options: ProxyOptions, shutdown: impl Future<Output = ()>) -> Result<(), ListenError> {
    Proxy::bind(options).await?.run(shutdown).await;
    Ok(())
}

impl Proxy {
    /// Listens.
    ///
    /// # Errors
    /// [`ListenError`] says where and why it cannot.
    pub async fn bind(options: ProxyOptions) -> Result<Proxy, ListenError> {
        let listener = TcpListener::bind(&options.listen)
            .await
            .map_err(|error| ListenError { address: options.listen.clone(), error })?;
        Ok(Proxy { listener, options })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` is done.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let (stopping, stop) = watch::channel(Stop::Not);
        let server = Arc::new(Server {
            analyzer: Arc::new(Analyzer::default()),
            keys: Mutex::default(),
            processes: AtomicU32::new(1),
            sessions: AtomicUsize::new(0),
            starting: AtomicUsize::new(0),
            stop,
            options: self.options,
        });
        let mut tasks = tokio::task::JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        server.options.monitor.metrics().connections.inc();
                        let span = tracing::info_span!("client", %peer);
                        tasks.spawn(serve(server.clone(), stream).instrument(span));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = tasks.join_next() => {}
            }
        }
        drop(self.listener);
        let _ = stopping.send(Stop::AtRest);
        let mut all = std::pin::pin!(async { while tasks.join_next().await.is_some() {} });
        let patience = server.options.controls.settings().stop_timeout;
        if tokio::time::timeout(patience, &mut all).await.is_ok() {
            return;
        }
        tracing::warn!(sessions = server.sessions.load(Ordering::Relaxed), "sessions are broken off");
        let _ = stopping.send(Stop::Now);
        if tokio::time::timeout(2 * LAST_WORD, all).await.is_err() {
            tracing::warn!("sessions are cut off");
        }
    }
}

/// Counts something while it lives.
struct Counted<'a>(&'a AtomicUsize, &'a Gauge);

impl<'a> Counted<'a> {
    /// Nothing when there are `max` already.
    fn below(counter: &'a AtomicUsize, shown: &'a Gauge, max: usize) -> Option<Counted<'a>> {
        let before = counter.fetch_add(1, Ordering::Relaxed);
        shown.inc();
        let counted = Counted(counter, shown);
        (before < max).then_some(counted)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        self.1.dec();
    }
}

async fn serve(server: Arc<Server>, stream: TcpStream) {
    // Answers are written whole; waiting for more would only delay them.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut client = Client::new(stream);
    let failure = match start(&server, &mut client).await {
        Ok(Some((session, key))) => return serve_session(&server, client, session, key).await,
        Ok(None) => return,
        Err(failure) => failure,
    };
    if let Failure::Fatal(error) = &failure {
        server.options.monitor.metrics().refused(error.sqlstate.as_str());
    }
    farewell(&mut client, failure).await;
}

/// What start-up leads to.
struct Started<'a> {
    startup: Startup,
    shim: steeldb_client_shim::Session,
    _counted: Counted<'a>,
}

/// Takes a connection to where its session begins; nothing for a cancel request.
async fn start<'a>(
    server: &'a Server,
    client: &mut Client,
) -> Result<Option<(Started<'a>, (u32, u32))>, Failure> {
    let too_many = |message: &str| Failure::Fatal(PgError::fatal("53300", message.to_string()));
    let (metrics, settings) = (server.options.monitor.metrics(), server.options.controls.settings());
    let Some(_starting) = Counted::below(&server.starting, &metrics.starting, STARTING_MAX) else {
        return Err(too_many("too many connections are starting"));
    };
    let authenticated = async {
        let startup = match purpose(client).await? {
            Purpose::Cancel { process, secret } => {
                metrics.cancels.inc();
                if let Some(canceller) = server.keys().get(&(process, secret)) {
                    canceller.cancel();
                }
                return Ok(None);
            }
            Purpose::Session(startup) => *startup,
        };
        if startup.newer_minor || !startup.unknown_options.is_empty() {
            backend::negotiate_protocol_version(&mut client.out, &startup.unknown_options);
        }
        let authenticated = authenticate(client, &settings.authentication, &startup.user).await;
        if let Err(Failure::Fatal(error)) = &authenticated
            && error.sqlstate.as_str().starts_with("28")
        {
            metrics.authentication_failures.inc();
        }
        authenticated?;
        Ok::<Option<Startup>, Failure>(Some(startup))
    };
    let timeout = server.options.startup_timeout;
    let startup = match tokio::time::timeout(timeout, authenticated).await {
        Ok(startup) => startup?,
        Err(_) => {
            return Err(Failure::Fatal(PgError::fatal("57014", "canceling authentication due to timeout")));
        }
    };
    let Some(mut startup) = startup else { return Ok(None) };
    let verify = *startup.verify.get_or_insert(settings.verify);
    // The backends know it, too: SHOW and RESET are theirs.
    startup.settings.push((crate::verify::PARAMETER.to_string(), verify.name().to_string()));
    let max = settings.sessions_max.min(limits::SESSIONS_PER_CLIENT_MAX);
    metrics.sessions_max.set(i64::try_from(max).unwrap_or(i64::MAX));
    let Some(counted) = Counted::below(&server.sessions, &metrics.sessions, max) else {
        return Err(too_many("sorry, too many clients already"));
    };
    let shim = tokio::select! {
        shim = server.options.shim.open(&startup.database, &startup.user, startup.settings.clone()) => shim,
        () = client.gone() => return Err(Failure::Gone),
    };
    let shim = shim.map_err(|error| Failure::Fatal(PgError { severity: "FATAL", ..error.into() }))?;
    let key = (server.processes.fetch_add(1, Ordering::Relaxed), rand::random());
    server.keys().insert(key, shim.canceller());
    Ok(Some((Started { startup, shim, _counted: counted }, key)))
}

async fn serve_session(server: &Server, mut client: Client, started: Started<'_>, key: (u32, u32)) {
    let Started { startup, shim, _counted } = started;
    backend::authentication_ok(&mut client.out);
    for (name, value) in shim.parameters() {
        let value = match (name.as_str(), startup.defaults.read_only) {
            // Drivers that look for a server that can be written to ask for it here; the backends know nothing of it.
            ("default_transaction_read_only", Some(true)) => "on",
            _ => value,
        };
        backend::parameter_status(&mut client.out, name, value);
    }
    backend::backend_key_data(&mut client.out, key.0, key.1);
    backend::ready_for_query(&mut client.out, b'I');
    tracing::debug!(user = startup.user, database = startup.database, "session opened");
    let verify = VerifySetting::new(startup.verify.unwrap_or_default());
    let tries = server.options.controls.settings().statement_tries;
    let (analyzer, monitor) = (server.analyzer.clone(), server.options.monitor.clone());
    let mut session = Session::new(client, shim, analyzer, startup.defaults, verify, tries, monitor);
    let failure = match session.client.flush().await {
        Err(error) => error.into(),
        Ok(()) => {
            let (mut rest, mut stop) = (server.stop.clone(), server.stop.clone());
            let at_rest = async move {
                let _ = rest.wait_for(|stop| *stop >= Stop::AtRest).await;
            };
            let failure = tokio::select! {
                failure = session.run(at_rest) => failure,
                _ = stop.wait_for(|stop| *stop >= Stop::Now) => {
                    Failure::Fatal(session.shim.last_word(terminated()).into())
                }
            };
            match failure {
                Failure::Fatal(error) => Failure::Fatal(PgError { severity: "FATAL", ..error }),
                failure => failure,
            }
        }
    };
    if session.is_in_transaction() {
        let metrics = server.options.monitor.metrics();
        match &failure {
            Failure::Fatal(error) if error.sqlstate.as_str() == "08007" => metrics.in_doubt.inc(),
            _ => metrics.abandoned.inc(),
        };
    }
    server.keys().remove(&key);
    farewell(&mut session.client, failure).await;
    tracing::debug!("session closed");
}

/// A last word, if there is someone to hear it.
async fn farewell(client: &mut Client, failure: Failure) {
    let error = match failure {
        Failure::Gone | Failure::Statement(crate::error::ErrorMessage::Backend(_)) => return,
        Failure::Fatal(error) | Failure::Statement(crate::error::ErrorMessage::Own(error)) => error,
    };
    tracing::info!(sqlstate = %error.sqlstate, "session ended: {}", error.message);
    backend::error(&mut client.out, &error);
    let _ = tokio::time::timeout(LAST_WORD, client.flush()).await;
}

impl Server {
    fn keys(&self) -> MutexGuard<'_, HashMap<(u32, u32), Canceller>> {
        // Whole between statements, whatever a task that panicked left behind.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
