//! The listening side: accepts connections, takes them through their start-up, and finds sessions for cancel requests.

use crate::authentication::{Authentication, authenticate};
use crate::backend;
use crate::client::Client;
use crate::error::{Failure, PgError};
use crate::session::Session;
use crate::sql::Analyzer;
use crate::startup::{Purpose, Startup, purpose};
use crate::verify::{Verify, VerifySetting};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use steeldb_client_shim::{Canceller, Shim, ShimError};
use steeldb_types::limits;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tracing::Instrument as _;

/// Connections in start-up, beyond the sessions: cancel requests among them.
const STARTING_MAX: usize = 100;

/// How long to wait before accepting again when the system has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Conflicting statements find their rows free after one run or two; what is still not through by then is worth telling.
pub const STATEMENT_TRIES: u32 = 4;

/// What a proxy needs.
#[derive(Clone)]
pub struct ProxyOptions {
    /// Where to listen, host:port; all addresses that the host has.
    pub listen: String,
    /// The cluster.
    pub shim: Shim,
    /// Who may log in.
    pub authentication: Authentication,
    /// Sessions at once; at most [`limits::SESSIONS_PER_CLIENT_MAX`], since each is a backend on every replica.
    pub sessions_max: usize,
    /// How often a statement is run at most that conflicts with others (40001, 40P01) in a transaction of its own and has
    /// shown nothing; 1: never again.
    pub statement_tries: u32,
    /// When sessions verify results, unless they say otherwise.
    pub verify: Verify,
    /// How long a client may take until it is authenticated.
    pub startup_timeout: Duration,
    /// How long sessions may take to end their statements when the proxy stops.
    pub stop_timeout: Duration,
}

impl ProxyOptions {
    /// Defaults: no authentication, 200 sessions, a minute to start.
    pub fn new(listen: impl Into<String>, shim: Shim) -> ProxyOptions {
        ProxyOptions {
            listen: listen.into(),
            shim,
            authentication: Authentication::Trust,
            sessions_max: limits::SESSIONS_PER_CLIENT_MAX,
            statement_tries: STATEMENT_TRIES,
            verify: Verify::default(),
            startup_timeout: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(5),
        }
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
    stop: watch::Receiver<bool>,
}

/// Listens and serves until `shutdown` is done; then lets statements in progress end, for a bounded time.
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
        let (stopping, stop) = watch::channel(false);
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
        let _ = stopping.send(true);
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(server.options.stop_timeout, all).await.is_err() {
            tracing::warn!("sessions are cut off");
        }
    }
}

/// Counts something while it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    /// Nothing when there are `max` already.
    fn below(counter: &'a AtomicUsize, max: usize) -> Option<Counted<'a>> {
        let before = counter.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(counter);
        (before < max).then_some(counted)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
    let Some(_starting) = Counted::below(&server.starting, STARTING_MAX) else {
        return Err(too_many("too many connections are starting"));
    };
    let authenticated = async {
        let startup = match purpose(client).await? {
            Purpose::Cancel { process, secret } => {
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
        authenticate(client, &server.options.authentication, &startup.user).await?;
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
    let verify = *startup.verify.get_or_insert(server.options.verify);
    // The backends know it, too: SHOW and RESET are theirs.
    startup.settings.push((crate::verify::PARAMETER.to_string(), verify.name().to_string()));
    let max = server.options.sessions_max.min(limits::SESSIONS_PER_CLIENT_MAX);
    let Some(counted) = Counted::below(&server.sessions, max) else {
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
    let tries = server.options.statement_tries;
    let mut session = Session::new(client, shim, server.analyzer.clone(), startup.defaults, verify, tries);
    let failure = match session.client.flush().await {
        Err(error) => error.into(),
        Ok(()) => {
            let mut stop = server.stop.clone();
            tokio::select! {
                failure = session.run() => failure,
                _ = stop.wait_for(|stop| *stop) => {
                    let error = ShimError::new("57P01", "terminating connection due to administrator command");
                    Failure::Fatal(PgError { severity: "FATAL", ..session.shim.last_word(error).into() })
                }
            }
        }
    };
    server.keys().remove(&key);
    farewell(&mut session.client, failure).await;
    tracing::debug!("session closed");
}

/// A last word, if there is someone to hear it.
async fn farewell(client: &mut Client, failure: Failure) {
    /// A client that does not read may not hold up the end of its session.
    const LAST_WORD: Duration = Duration::from_secs(1);

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
