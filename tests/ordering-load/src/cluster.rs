//! n replicas in processes of their own.

use crate::application::State;
use crate::cpu;
use crate::identity;
use crate::liar::Lie;
use crate::node::{Checkpoints, NodeConfig, READY};
use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use steeldb_ordering::{Account, Roster};
use steeldb_ordering_server::{Acceptance, Client, JoinError};
use steeldb_transport::{ClientConfig, LinkOptions};
use steeldb_types::{ClientId, FaultModel, ReplicaId, View};
use steeldb_wan::{Conditions, Emulator, Matrix, Relay, RelayConfig};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// How a cluster is to be.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The executable of this crate.
    pub program: PathBuf,
    /// Replicas.
    pub n: u16,
    /// What faulty ones may do.
    pub model: FaultModel,
    /// Clients 1 to this one.
    pub clients: u32,
    /// Whether records go to disk.
    pub log: bool,
    /// The core's request time-out.
    pub request_timeout: Duration,
    /// Requests that may wait at a replica.
    pub pending_requests_max: usize,
    /// Whether links between replicas go through relays that can be cut.
    pub relayed: bool,
    /// A wide-area network, through which all links go then; else every replica is a site of its own, next to the others.
    pub sites: Option<Sites>,
    /// Whether replicas reply before the decision.
    pub tentative: bool,
    /// Consensus instances in flight.
    pub window: usize,
    /// Checkpoints, and what is kept besides.
    pub checkpoints: Checkpoints,
    /// After how long an idle client makes room for another; nothing: no clients join.
    pub idle_timeout: Option<Duration>,
    /// A replica that lies, and about what.
    pub liar: Option<(ReplicaId, Lie)>,
}

impl ClusterOptions {
    /// A replica's site.
    fn site(&self, replica: ReplicaId) -> String {
        let named = self.sites.as_ref().and_then(|sites| sites.replicas.get(usize::from(replica.0)));
        named.cloned().unwrap_or_else(|| replica.to_string())
    }

    /// Four replicas with a log, default bounds.
    pub fn new(program: PathBuf) -> ClusterOptions {
        ClusterOptions {
            program,
            n: 4,
            model: FaultModel::Byzantine,
            clients: 8,
            log: true,
            request_timeout: steeldb_types::limits::REQUEST_TIMEOUT,
            pending_requests_max: steeldb_types::limits::PENDING_REQUESTS_MAX,
            relayed: false,
            sites: None,
            tentative: false,
            window: 1,
            checkpoints: Checkpoints::none(),
            idle_timeout: None,
            liar: None,
        }
    }
}

/// Where replicas are.
#[derive(Clone, Debug)]
pub struct Sites {
    /// What lies between them.
    pub matrix: Matrix,
    /// Each replica's site, by number.
    pub replicas: Vec<String>,
    /// Of the delays.
    pub seed: u64,
}

/// Replicas that may join.
const SPARE_ADDRESSES: usize = 2;

/// A running cluster. Its processes end with it, and with this process.
pub struct Cluster {
    options: ClusterOptions,
    folder: tempfile::TempDir,
    addresses: Vec<String>,
    processes: BTreeMap<ReplicaId, Child>,
    /// Between the replicas, each a site of its own; used when links are relayed.
    network: Emulator,
    relays: BTreeMap<(ReplicaId, ReplicaId), Relay>,
    genesis: Roster,
}

impl Cluster {
    /// Starts all replicas and waits until each is ready.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub async fn start(options: ClusterOptions) -> anyhow::Result<Cluster> {
        let folder = tempfile::tempdir()?;
        let addresses = own_addresses(usize::from(options.n) + SPARE_ADDRESSES);
        let genesis = identity::genesis(&addresses[..usize::from(options.n)], options.model)?;
        let view = genesis.view().clone();
        let (processes, relays) = (BTreeMap::new(), BTreeMap::new());
        let network = match &options.sites {
            Some(sites) => Emulator::new(&sites.matrix, sites.seed),
            None => {
                let sites = view.replicas().map(|replica| replica.to_string());
                Emulator::new(&Matrix::uniform(sites, Conditions::default()), 0)
            }
        };
        let mut cluster = Cluster { options, folder, addresses, processes, network, relays, genesis };
        for replica in view.replicas() {
            cluster.start_replica(replica).await?;
        }
        Ok(cluster)
    }

    /// The view that the cluster began with.
    pub fn view(&self) -> &View {
        self.genesis.view()
    }

    /// That view, and who its replicas are.
    pub fn genesis(&self) -> Roster {
        self.genesis.clone()
    }

    /// Where the replicas listen, and where ones that are to join may.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Clients 1 to this one are known.
    pub fn clients(&self) -> u32 {
        self.options.clients
    }

    /// A replica's log.
    pub fn log(&self, replica: ReplicaId) -> PathBuf {
        self.folder.path().join(format!("log-{}", replica.0))
    }

    /// What a replica has logged for people.
    pub fn said(&self, replica: ReplicaId) -> String {
        std::fs::read_to_string(self.errors(replica)).unwrap_or_default()
    }

    fn errors(&self, replica: ReplicaId) -> PathBuf {
        self.folder.path().join(format!("errors-{}", replica.0))
    }

    /// Starts a replica that is not running, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not start; what it logged is in the error.
    pub async fn start_replica(&mut self, replica: ReplicaId) -> anyhow::Result<()> {
        let genesis = self.addresses[..usize::from(self.options.n)].to_vec();
        let mut replicas = genesis.clone();
        if self.options.relayed || self.options.sites.is_some() {
            // The one with the higher number dials.
            for peer in 0..replica.0 {
                let target = self.addresses[usize::from(peer)].clone();
                let peer = ReplicaId(peer);
                let relay = match self.relays.entry((replica, peer)) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(none) => {
                        let (from, to) = (self.options.site(replica), self.options.site(peer));
                        let relay = RelayConfig { from, to, listen: "127.0.0.1:0".into(), target };
                        none.insert(Relay::start(&self.network, relay).await?)
                    }
                };
                replicas[usize::from(peer.0)] = relay.address().to_string();
            }
        }
        let config = NodeConfig {
            me: replica,
            listen: self.addresses[usize::from(replica.0)].clone(),
            genesis,
            model: self.options.model,
            replicas,
            clients: self.options.clients,
            log: self.options.log.then(|| self.log(replica)),
            request_timeout_ms: u64::try_from(self.options.request_timeout.as_millis())?,
            pending_requests_max: self.options.pending_requests_max,
            tentative: self.options.tentative,
            window: self.options.window,
            checkpoints: self.options.checkpoints,
            idle_timeout: self.options.idle_timeout,
            lie: self.options.liar.filter(|(liar, _)| *liar == replica).map(|(_, lie)| lie),
        };
        let path = self.folder.path().join(format!("node-{}.json", replica.0));
        std::fs::write(&path, serde_json::to_vec_pretty(&config)?)?;
        let errors = self.errors(replica);
        let child = spawn(&self.options.program, &path, &errors)
            .await
            .with_context(|| format!("{replica} does not start: {}", self.said(replica)))?;
        self.processes.insert(replica, child);
        Ok(())
    }

    /// Sends a signal to a replica's process.
    ///
    /// # Errors
    /// When it is not running.
    pub fn signal(&self, replica: ReplicaId, signal: Signal) -> anyhow::Result<()> {
        let pid = self.pid(replica).with_context(|| format!("{replica} is not running"))?;
        kill(Pid::from_raw(i32::try_from(pid)?), signal)?;
        Ok(())
    }

    /// Kills a replica's process as a crash would, and waits until it is gone.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn crash(&mut self, replica: ReplicaId) -> anyhow::Result<()> {
        let mut child = self.processes.remove(&replica).context("not running")?;
        child.kill().await?;
        Ok(())
    }

    /// Cuts a replica off from all others, or lets it back; clients still reach it. For relayed clusters.
    ///
    /// # Errors
    /// When there is no such replica.
    pub fn isolate(&self, replica: ReplicaId, cut: bool) -> anyhow::Result<()> {
        Ok(self.network.isolate(&self.options.site(replica), cut)?)
    }

    /// CPU time that all running replicas have used.
    pub fn cpu_used(&self) -> Duration {
        self.processes.keys().filter_map(|replica| cpu::used(self.pid(*replica)?)).sum()
    }

    /// What a client needs to reach the cluster.
    pub fn client_config(&self, client: ClientId) -> ClientConfig {
        ClientConfig {
            client,
            key: identity::client_key(client),
            replicas: identity::replicas(&self.addresses[..usize::from(self.options.n)]),
            options: LinkOptions::default(),
        }
    }

    /// A client at a site of the cluster's network, with links to a quorum through it. The relays are the links' own.
    ///
    /// # Errors
    /// When there is no such site, or as [`Client::start`].
    pub async fn client_at(&self, site: &str, client: ClientId) -> anyhow::Result<(Client, Vec<Relay>)> {
        let mut config = self.client_config(client);
        let mut relays = Vec::new();
        for replica in &mut config.replicas {
            let relay = RelayConfig {
                from: site.into(),
                to: self.options.site(replica.id),
                listen: "127.0.0.1:0".into(),
                target: replica.address.clone(),
            };
            let relay = Relay::start(&self.network, relay).await?;
            replica.address = relay.address().to_string();
            relays.push(relay);
        }
        let client = Client::start(config, self.genesis(), Acceptance::Quorum)?;
        client.ready().await;
        Ok((client, relays))
    }

    /// A client with links to a quorum.
    ///
    /// # Errors
    /// As [`Client::start`].
    pub async fn client(&self, client: ClientId) -> anyhow::Result<Client> {
        let client = Client::start(self.client_config(client), self.genesis(), Acceptance::Quorum)?;
        client.ready().await;
        Ok(client)
    }

    /// Has a client of a seed's key join for an account, with the authority's credential.
    ///
    /// # Errors
    /// As [`Client::join`].
    pub async fn join(&self, seed: u32, account: Account) -> Result<Client, JoinError> {
        let config = ClientConfig { key: identity::guest_key(seed), ..self.client_config(ClientId(0)) };
        let credential = identity::credential(&account, &config.key.public());
        Client::join(config, self.genesis(), Acceptance::Quorum, account, credential).await
    }

    /// Asks all replicas of the client's view for their states until all tell the same.
    ///
    /// # Errors
    /// When one answers something else than a state.
    pub async fn agreed_state(&self, client: &Client) -> anyhow::Result<State> {
        loop {
            let mut states = Vec::new();
            let roster = client.roster();
            for replica in roster.view().replicas() {
                if let Some(bytes) = client.query(replica, Vec::new()).await {
                    states.push(State::decode(&bytes)?);
                }
            }
            if states.len() == usize::from(roster.view().n()) && states.windows(2).all(|two| two[0] == two[1])
            {
                return Ok(states.remove(0));
            }
            // Not yet: gives the replicas the processor; the condition above is what is waited for.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn pid(&self, replica: ReplicaId) -> Option<u32> {
        self.processes.get(&replica)?.id()
    }
}

async fn spawn(program: &Path, config: &Path, errors: &Path) -> anyhow::Result<Child> {
    let errors = std::fs::OpenOptions::new().create(true).append(true).open(errors)?;
    let mut child = Command::new(program)
        .arg("replica")
        .arg("--config")
        .arg(config)
        .arg("--die-with-parent")
        .arg(std::process::id().to_string())
        .env("RUST_LOG", "warn,steeldb_ordering_server=info")
        .stdout(Stdio::piped())
        .stderr(errors)
        .kill_on_drop(true)
        .spawn()?;
    let stdout = child.stdout.take().context("no standard output")?;
    let first = BufReader::new(stdout).lines().next_line().await?.unwrap_or_default();
    anyhow::ensure!(first.starts_with(READY), "it said {first:?}");
    Ok(child)
}

/// Addresses that nobody else takes: a loopback host of this process' own, and ports below those that outgoing connections
/// get, each handed out once.
fn own_addresses(count: usize) -> Vec<String> {
    static PORT: AtomicU16 = AtomicU16::new(7000);
    let process = std::process::id();
    let host = format!("127.{}.{}.1", 1 + process / 250 % 250, 1 + process % 250);
    (0..count).map(|_| format!("{host}:{}", PORT.fetch_add(1, Ordering::Relaxed))).collect()
}
