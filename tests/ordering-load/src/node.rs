//! One replica's process.

use crate::application::Echo;
use crate::identity;
use crate::liar::{Lie, LyingDisk};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use steeldb_ordering::RegistryConfig;
use steeldb_ordering_log::{Directory, Options};
use steeldb_ordering_server::{DurableLog, Held, MemoryLog, Server, ServerConfig};
use steeldb_transport::LinkOptions;
use steeldb_types::{ClientId, FaultModel, ReplicaId, limits};
use tokio::sync::mpsc;

/// What a replica's process reads when it starts.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Which replica.
    pub me: ReplicaId,
    /// Where it listens.
    pub listen: String,
    /// Where the replicas of the genesis view are, by number.
    pub genesis: Vec<String>,
    /// What faulty ones of them may do.
    pub model: FaultModel,
    /// Where it reaches each of them.
    pub replicas: Vec<String>,
    /// Clients 1 to this one may connect.
    pub clients: u32,
    /// The log; nothing: in memory alone.
    pub log: Option<PathBuf>,
    /// The core's, milliseconds.
    pub request_timeout_ms: u64,
    /// Requests that may wait.
    pub pending_requests_max: usize,
    /// Whether it replies before the decision.
    pub tentative: bool,
    /// Consensus instances in flight.
    pub window: usize,
    /// Checkpoints, and what is kept besides.
    pub checkpoints: Checkpoints,
    /// After how long an idle client makes room for another; nothing: no clients join.
    pub idle_timeout: Option<Duration>,
    /// What it lies about.
    pub lie: Option<Lie>,
}

/// When checkpoints are taken, and what is kept for replicas that are behind.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoints {
    /// Instances between two; 0: none.
    pub interval: u64,
    /// Instances before one that stay in the log.
    pub decisions_kept: u64,
    /// Bytes of decided batches in memory.
    pub decisions_kept_bytes: usize,
    /// Bytes of a segment of the log: what is cut is whole segments.
    pub segment_bytes: u64,
}

impl Checkpoints {
    /// None at all.
    pub fn none() -> Checkpoints {
        Checkpoints {
            interval: 0,
            decisions_kept: limits::DECISIONS_KEPT,
            decisions_kept_bytes: limits::DECISIONS_KEPT_BYTES,
            segment_bytes: Options::default().segment_bytes,
        }
    }
}

/// Bytes of decisions kept for those that are behind when there is no log.
const MEMORY_LOG_BYTES: usize = 1 << 30;

/// Said on standard output when clients can connect.
pub const READY: &str = "ready";

/// Runs a replica until it is killed or its log fails.
///
/// # Errors
/// What keeps it from starting or going on.
pub async fn run(config: NodeConfig) -> anyhow::Result<()> {
    let clients: BTreeMap<_, _> = (1..=config.clients)
        .map(|client| (ClientId(client), identity::client_key(ClientId(client)).public()))
        .collect();
    let key = identity::replica_key(config.me);
    let genesis = identity::genesis(&config.genesis, config.model)?;
    let mut ordering = steeldb_ordering::Config::new(config.me, genesis, key, clients);
    ordering.request_timeout = Duration::from_millis(config.request_timeout_ms);
    ordering.resend_interval = ordering.request_timeout / 4;
    ordering.pending_requests_max = config.pending_requests_max;
    ordering.administrators = vec![identity::administrator_key().public()];
    ordering.tentative = config.tentative;
    ordering.window = config.window;
    ordering.checkpoint_interval = config.checkpoints.interval;
    ordering.decisions_kept = config.checkpoints.decisions_kept;
    ordering.decisions_kept_bytes = config.checkpoints.decisions_kept_bytes;
    ordering.registry =
        config.idle_timeout.map(|idle_timeout| RegistryConfig { idle_timeout, ..RegistryConfig::default() });
    let server = ServerConfig {
        ordering,
        listen: config.listen.clone(),
        replicas: identity::replicas(&config.replicas),
        options: LinkOptions::default(),
    };
    let application = Echo::lying(config.lie);
    let (sender, persisted) = mpsc::unbounded_channel();
    let mut server = match &config.log {
        Some(path) => {
            let options = Options { segment_bytes: config.checkpoints.segment_bytes, ..Options::default() };
            let persisting = move |upto| {
                // A server that is gone needs no word.
                let _ = sender.send(upto);
            };
            let (log, held) = match config.lie {
                Some(Lie::State) => {
                    let (log, states) = (Directory::open(path)?, Directory::open(&path.join("checkpoints"))?);
                    DurableLog::on(Arc::new(log), Arc::new(LyingDisk(states)), options, persisting)?
                }
                _ => DurableLog::open(path, options, persisting)?,
            };
            Server::start(server, application, log, held, persisted).await?
        }
        None => {
            let log = MemoryLog::new(MEMORY_LOG_BYTES)?;
            let server = Server::start(server, application, log, Held::default(), persisted).await?;
            drop(sender);
            server
        }
    };
    let mut out = std::io::stdout();
    writeln!(out, "{READY} {}", server.address())?;
    out.flush()?;
    server.ended().await?;
    Ok(())
}
