//! One replica's process.

use crate::application::Echo;
use crate::identity;
use crate::liar::Lie;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;
use steeldb_ordering::Roster;
use steeldb_ordering_server::{DurableLog, MemoryLog, Server, ServerConfig};
use steeldb_transport::LinkOptions;
use steeldb_types::{ClientId, ReplicaId, View};
use tokio::sync::mpsc;

/// What a replica's process reads when it starts.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Which replica.
    pub me: ReplicaId,
    /// Where it listens.
    pub listen: String,
    /// Where it reaches each replica, by number.
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
    /// What it lies about.
    pub lie: Option<Lie>,
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
    let n = u16::try_from(config.replicas.len()).context("too many replicas")?;
    let view = View::of_size(n)?;
    let keys = view.replicas().map(|replica| identity::replica_key(replica).public()).collect();
    let clients: BTreeMap<_, _> = (1..=config.clients)
        .map(|client| (ClientId(client), identity::client_key(ClientId(client)).public()))
        .collect();
    let key = identity::replica_key(config.me);
    let genesis = Roster::of_keys(view, keys)?;
    let mut ordering = steeldb_ordering::Config::new(config.me, genesis, key, clients);
    ordering.request_timeout = Duration::from_millis(config.request_timeout_ms);
    ordering.resend_interval = ordering.request_timeout / 4;
    ordering.pending_requests_max = config.pending_requests_max;
    ordering.tentative = config.tentative;
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
            let (log, records) = DurableLog::open(path, move |upto| {
                // A server that is gone needs no word.
                let _ = sender.send(upto);
            })?;
            Server::start(server, application, log, records, persisted).await?
        }
        None => {
            let log = MemoryLog::new(MEMORY_LOG_BYTES);
            let server = Server::start(server, application, log, Vec::new(), persisted).await?;
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
