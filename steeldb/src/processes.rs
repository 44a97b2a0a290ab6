//! From configuration to running parts: the only place that knows how the agent, the proxy and the shim are started.

use crate::cli::{ProxyArgs, ReplicaArgs};
use crate::config::{Authentication, Cluster, ProxyConfig, ProxyFile, ReplicaConfig, ReplicaFile};
use crate::logging;
use crate::reload::Reloader;
use crate::signals::{self, Asked};
use anyhow::Context as _;
use std::io::Write as _;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use steeldb_client_shim::{Patience, Shim, ShimConfig};
use steeldb_metrics::{Endpoint, Identity, Readiness, Source};
use steeldb_pg_proxy::{Controls, Proxy, ProxyOptions, ProxySettings};
use steeldb_postgres::settings::Settings;
use steeldb_postgres::{Launcher, ServerConfig};
use steeldb_replica::agent::{
    AgentConfig, AgentSettings, Controls as AgentControls, DatabaseConfig, Monitor,
};
use steeldb_replica::scheduler::ClientRights;
use steeldb_transport::ReplicaAddress;
use steeldb_types::limits;
use tokio_util::sync::CancellationToken;

/// Of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The subcommand that becomes postgres.
const EXEC_POSTGRES: &str = "exec-postgres";

/// Connections of a server besides client sessions and anchors: the agent's own.
const AGENT_CONNECTIONS: u32 = 36;

/// How long a starting proxy waits for the links to all replicas.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// What of replica.toml takes effect while a replica runs.
const REPLICA_CHANGEABLE: [&str; 5] =
    ["log_level", "stop_timeout_s", "metrics.ready_lag_max", "catch_up.kept_mb", "catch_up.kept_hours"];

/// What of proxy.toml takes effect while a proxy runs: for sessions that begin, or when it stops.
const PROXY_CHANGEABLE: [&str; 6] =
    ["log_level", "stop_timeout_s", "max_sessions", "statement_tries", "verify", "authentication."];

/// `steeldb replica`, with its file as it was read.
///
/// # Errors
/// What keeps the replica from starting or going on.
pub(crate) async fn replica(args: ReplicaArgs, file: ReplicaFile) -> anyhow::Result<ExitCode> {
    let mut reloader = Reloader::new(&file, &REPLICA_CHANGEABLE);
    let config = file.check(&args.config)?;
    logging::configure(config.log_level.as_deref());
    let line = format!("ready replica {} {}", config.id.0, config.listen);
    let Asked { stop: asked, mut reload } = signals::asked()?;
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        asked.await;
        stopping.cancel();
    });
    let controls = AgentControls::new(agent_settings(&config));
    let source = Arc::new(ReplicaSource {
        monitor: Monitor::default(),
        name: config.id.to_string(),
        lag_max: AtomicU64::new(config.metrics.ready_lag_max),
    });
    source.monitor.names(&source.name, VERSION);
    let _endpoint = serve(config.metrics.listen.as_deref(), source.clone()).await?;
    let reloading = async {
        while reload.recv().await.is_some() {
            let read = || ReplicaFile::read(&args.config);
            reloader.reload(&args.config, read, |file| {
                let config = file.check(&args.config)?;
                logging::configure(config.log_level.as_deref());
                controls.set(agent_settings(&config));
                source.lag_max.store(config.metrics.ready_lag_max, Ordering::Relaxed);
                Ok(())
            });
        }
        std::future::pending::<()>().await;
    };
    let started = AtomicBool::new(false);
    let ready = || {
        started.store(true, Ordering::Relaxed);
        say_ready(&line);
    };
    // A start may take as long as a recovery. Whoever does not want to wait for it need not: PostgreSQL ends with this
    // process, and recovers next time.
    let stopped_early = async {
        stop.cancelled().await;
        if started.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    let agent = agent(config, source.monitor.clone(), controls.clone())?;
    tokio::select! {
        ended = steeldb_replica::agent::run(agent, ready, stop.cancelled()) => ended?,
        () = stopped_early => tracing::info!("stopped before it was ready"),
        () = reloading => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// `steeldb proxy`, with its file as it was read.
///
/// # Errors
/// What keeps the proxy from starting or going on.
pub(crate) async fn proxy(args: ProxyArgs, file: ProxyFile) -> anyhow::Result<ExitCode> {
    let mut reloader = Reloader::new(&file, &PROXY_CHANGEABLE);
    let config = file.check(&args.config)?;
    logging::configure(config.log_level.as_deref());
    let Asked { stop: mut shutdown, mut reload } = signals::asked()?;
    let shim = shim(&config)?;
    let mut options = ProxyOptions::new(config.listen.clone(), shim.clone());
    options.controls = Controls::new(proxy_settings(&config, &args.config)?);
    let (controls, monitor) = (options.controls.clone(), options.monitor.clone());
    let source = Arc::new(ProxySource { monitor, shim: shim.clone(), name: config.client.to_string() });
    source.monitor.names(&source.name, VERSION);
    let proxy = Proxy::bind(options).await?;
    let _endpoint = serve(config.metrics.listen.as_deref(), source).await?;
    tracing::info!(client = %config.client, listen = config.listen, "listening");
    let mut reloading = pin!(async {
        while reload.recv().await.is_some() {
            let read = || ProxyFile::read(&args.config);
            reloader.reload(&args.config, read, |file| {
                let config = file.check(&args.config)?;
                let settings = proxy_settings(&config, &args.config)?;
                logging::configure(config.log_level.as_deref());
                controls.set(settings);
                Ok(())
            });
        }
        std::future::pending::<ExitCode>().await
    });
    // A replica whose link comes up later must catch up with what was committed before: better to wait a little.
    tokio::select! {
        all = shim.connected(CONNECT_PATIENCE) => if !all {
            tracing::warn!(up = ?shim.links_up(), "not all replicas can be reached");
        },
        () = &mut shutdown => return Ok(ExitCode::SUCCESS),
        never = &mut reloading => return Ok(never),
    }
    let announcing = async {
        reachable(&shim, &config.cluster).await;
        say_ready(&format!("ready proxy {}", config.listen));
        std::future::pending().await
    };
    // Applications that come before a quorum can be reached are served meanwhile: they are told so.
    tokio::select! {
        () = proxy.run(shutdown) => Ok(ExitCode::SUCCESS),
        never = announcing => never,
        never = &mut reloading => Ok(never),
    }
}

/// Tells how a process is, where its configuration says; while the value lives.
async fn serve(listen: Option<&str>, source: Arc<dyn Source>) -> anyhow::Result<Option<AbortOnDrop>> {
    let Some(listen) = listen else { return Ok(None) };
    let endpoint =
        Endpoint::bind(listen).await.with_context(|| format!("metrics.listen: cannot listen on {listen}"))?;
    tracing::info!(listen, "metrics, health and readiness are told");
    Ok(Some(AbortOnDrop(tokio::spawn(endpoint.serve(source)))))
}

/// A task that ends with its value.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How a replica is.
struct ReplicaSource {
    monitor: Monitor,
    name: String,
    lag_max: AtomicU64,
}

impl Source for ReplicaSource {
    fn identity(&self) -> Identity {
        Identity { role: "replica", name: self.name.clone(), version: VERSION }
    }

    fn metrics(&self) -> String {
        self.monitor.text()
    }

    fn readiness(&self) -> Readiness {
        self.monitor.readiness(self.lag_max.load(Ordering::Relaxed))
    }
}

/// How a proxy is.
struct ProxySource {
    monitor: steeldb_pg_proxy::Monitor,
    shim: Shim,
    name: String,
}

impl Source for ProxySource {
    fn identity(&self) -> Identity {
        Identity { role: "proxy", name: self.name.clone(), version: VERSION }
    }

    fn metrics(&self) -> String {
        self.monitor.text(&self.shim)
    }

    fn readiness(&self) -> Readiness {
        self.monitor.readiness(&self.shim)
    }
}

fn agent_settings(config: &ReplicaConfig) -> AgentSettings {
    AgentSettings {
        stop_timeout: config.stop_timeout,
        kept_bytes: config.catch_up.kept_bytes(),
        kept_age: config.catch_up.kept_age(),
    }
}

/// # Errors
/// A users file that is none; it names the line.
fn proxy_settings(config: &ProxyConfig, file: &Path) -> anyhow::Result<ProxySettings> {
    Ok(ProxySettings {
        authentication: authentication(&config.authentication, file)?,
        sessions_max: config.max_sessions as usize,
        statement_tries: config.statement_tries,
        verify: config.verify,
        stop_timeout: config.stop_timeout,
    })
}

/// Waits until the master and a quorum of replicas can be reached.
async fn reachable(shim: &Shim, cluster: &Cluster) {
    loop {
        let up = shim.links_up();
        if up.contains(&shim.term().master) && cluster.view.is_quorum(up) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How applications show who they are, as the proxy takes it.
fn authentication(
    configured: &Authentication,
    file: &Path,
) -> anyhow::Result<steeldb_pg_proxy::Authentication> {
    Ok(match configured {
        Authentication::Trust => steeldb_pg_proxy::Authentication::Trust,
        Authentication::Scram(users) => {
            let origin = format!("the users file of {}", file.display());
            let users = steeldb_pg_proxy::Users::parse(&users.text(), &origin)?;
            steeldb_pg_proxy::Authentication::Scram(users.into())
        }
    })
}

/// A shim with the proxy's key.
///
/// # Errors
/// When the replicas' list is refused.
pub(crate) fn shim(config: &ProxyConfig) -> anyhow::Result<Shim> {
    let shim = ShimConfig {
        client: config.client,
        key: config.key.clone(),
        view: config.cluster.view.clone(),
        master: config.cluster.master,
        execution: config.cluster.execution,
        bulk_bytes_max: config.cluster.bulk_bytes_max,
        patience: Patience::default(),
    };
    Ok(Shim::start(shim, addresses(&config.cluster))?)
}

fn agent(config: ReplicaConfig, monitor: Monitor, controls: AgentControls) -> anyhow::Result<AgentConfig> {
    let ReplicaConfig { id, listen, key, cluster_key, data_dir, postgres, cluster, .. } = config;
    let ms = Duration::from_millis;
    let mut server = ServerConfig::new(data_dir.join("postgres"), Launcher::current_exe(EXEC_POSTGRES)?);
    server.start_timeout = postgres.start_timeout();
    server.binaries = postgres.binaries;
    server.user = postgres.user;
    server.settings = Settings {
        max_connections: postgres.max_sessions + limits::ANCHORS_MAX as u32 + AGENT_CONNECTIONS,
        max_prepared_transactions: postgres.max_sessions + limits::PREPARED_MARGIN as u32,
        shared_buffers_mb: postgres.shared_buffers_mb,
        fsync: postgres.fsync,
        ..Settings::default()
    };
    let replicas = addresses(&cluster);
    let rights = cluster.clients.into_iter().map(|(id, client)| {
        let rights = ClientRights { key: client.key, databases: client.databases, roles: client.roles };
        (id, rights)
    });
    let databases = cluster.databases.into_iter();
    Ok(AgentConfig {
        me: id,
        key,
        listen,
        view: cluster.view,
        master: cluster.master,
        replicas,
        clients: rights.collect(),
        administrators: cluster.administrators,
        cluster_key: *cluster_key,
        databases: databases.map(|entry| DatabaseConfig { name: entry.name, owner: entry.owner }).collect(),
        data_dir,
        server,
        request_timeout: ms(cluster.timeouts.request_timeout_ms),
        vote_timeout: ms(cluster.timeouts.vote_timeout_ms),
        idle_timeout: ms(cluster.timeouts.idle_in_transaction_timeout_ms),
        ddl_drain_timeout: ms(cluster.timeouts.ddl_drain_timeout_ms),
        execution: cluster.execution,
        tentative_replies: cluster.tentative_replies,
        window: cluster.window,
        bulk_bytes_max: cluster.bulk_bytes_max,
        soft_barrier: ms(cluster.timeouts.soft_barrier_ms),
        master_silence: ms(cluster.timeouts.master_silence_ms),
        clock_tolerance: ms(cluster.timeouts.clock_tolerance_ms),
        hook: Default::default(),
        monitor,
        controls,
    })
}

fn addresses(cluster: &Cluster) -> Vec<ReplicaAddress> {
    let entry = |replica: &crate::config::ReplicaEntry| ReplicaAddress {
        id: replica.id,
        address: replica.address.clone(),
        key: replica.key,
    };
    cluster.replicas.iter().map(entry).collect()
}

/// Tells whoever started this process that it is ready.
fn say_ready(line: &str) {
    let mut stdout = std::io::stdout().lock();
    // Nobody may be listening; that is no reason to stop.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
