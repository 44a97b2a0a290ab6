//! The cluster: replicas in this process.

use crate::trap::{Trap, Traps};
use crate::{APP, Client, Crash, Cut, Doomed, Proxy, Severed, identical};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use steeldb_client_shim::{Shim, ShimConfig};
use steeldb_postgres::{AGENT_ROLE, Backend, Launcher, ServerConfig};
use steeldb_replica::agent::{self, AgentConfig, Controls, DatabaseConfig, Monitor, Point};
use steeldb_replica::scheduler::ClientRights;
use steeldb_transport::ReplicaAddress;
use steeldb_types::{ClientId, Execution, ReplicaId, View, limits};
use steeldb_wire::auth::SecretKey;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, MutexGuard, oneshot};
use tokio::task::JoinHandle;

/// Clients that every test cluster knows.
const CLIENTS: u32 = 16;

/// How long a replica may take to end once a test is over. Then it is cut off, which ends its server, too.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// One cluster at a time: each is four servers, and they would only take the processors from each other.
static TURN: LazyLock<Mutex<()>> = LazyLock::new(Mutex::default);

/// How replicas agree on the order, and when they say so.
#[derive(Clone, Copy)]
struct Agreement {
    tentative_replies: bool,
    window: usize,
}

/// A cluster with its directory. Replicas and servers end with it, however the test ends.
pub struct Cluster {
    /// The view.
    pub view: View,
    host: String,
    replicas: Vec<ReplicaAddress>,
    /// Where replicas listen that have moved since the cluster began.
    moved: BTreeMap<u16, String>,
    running: BTreeMap<u16, Running>,
    traps: Traps,
    next_client: u32,
    idle_timeout: Duration,
    execution: Execution,
    /// Whether COMMIT is answered when the order is bound to say so.
    agreement: Agreement,
    master_silence: Duration,
    /// Transactions that a server can hold prepared, where a test is about that.
    places: Option<u32>,
    /// COPY data that a transaction may have.
    bulk_bytes_max: u64,
    /// Where everything is. Removed after the servers have ended.
    dir: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
}

/// COPY data that a transaction may have.
pub const BULK_BYTES_MAX: u64 = 96 * 1024 * 1024;

/// How long masters may be silent where no test is about that: longer than a busy machine makes them.
const PATIENT: Duration = Duration::from_secs(60);

fn replica_key(id: u16) -> SecretKey {
    SecretKey::from_seed(&[id as u8 + 1; 32])
}

/// The key that changes of the membership are signed with.
pub fn administrator_key() -> SecretKey {
    SecretKey::from_seed(&[250; 32])
}

fn client_key(id: u32) -> SecretKey {
    SecretKey::from_seed(&[id as u8 + 101; 32])
}

impl Cluster {
    /// Starts n replicas, of which as many as possible may lie, and waits until all are ready.
    pub async fn start(n: u16) -> anyhow::Result<Cluster> {
        Cluster::start_in(View::of_size(n)?).await
    }

    /// Starts the replicas of a view and waits until all are ready.
    pub async fn start_in(view: View) -> anyhow::Result<Cluster> {
        Cluster::launch_all(view, Duration::from_secs(60), Execution::default(), PATIENT, None).await
    }

    /// As [`Cluster::start`], with the time after which a transaction whose client is idle is ended.
    pub async fn start_with(n: u16, idle_timeout: Duration) -> anyhow::Result<Cluster> {
        Cluster::launch_all(View::of_size(n)?, idle_timeout, Execution::default(), PATIENT, None).await
    }

    /// As [`Cluster::start`], with the time at which replicas other than the master execute.
    pub async fn start_executing(n: u16, execution: Execution) -> anyhow::Result<Cluster> {
        Cluster::launch_all(View::of_size(n)?, Duration::from_secs(60), execution, PATIENT, None).await
    }

    /// As [`Cluster::start_executing`], with a master that is replaced when it is silent for as long as it may be in
    /// production.
    pub async fn start_watching(n: u16, execution: Execution) -> anyhow::Result<Cluster> {
        let silence = limits::MASTER_SILENCE;
        Cluster::launch_all(View::of_size(n)?, Duration::from_secs(60), execution, silence, None).await
    }

    /// As [`Cluster::start`], with servers that can hold so many transactions prepared at once.
    pub async fn start_cramped(n: u16, places: u32) -> anyhow::Result<Cluster> {
        let (idle, execution) = (Duration::from_secs(60), Execution::default());
        Cluster::launch_all(View::of_size(n)?, idle, execution, PATIENT, Some(places)).await
    }

    /// As [`Cluster::start`], with replicas that answer COMMIT when the order is bound to say so, and so many consensus
    /// instances in flight.
    pub async fn start_tentative(n: u16, window: usize) -> anyhow::Result<Cluster> {
        let (view, idle, execution) = (View::of_size(n)?, Duration::from_secs(60), Execution::default());
        let agreement = Agreement { tentative_replies: true, window };
        Cluster::launch_agreeing(view, idle, execution, PATIENT, None, agreement).await
    }

    async fn launch_all(
        view: View,
        idle_timeout: Duration,
        execution: Execution,
        master_silence: Duration,
        places: Option<u32>,
    ) -> anyhow::Result<Cluster> {
        let agreement = Agreement { tentative_replies: false, window: 1 };
        Cluster::launch_agreeing(view, idle_timeout, execution, master_silence, places, agreement).await
    }

    async fn launch_agreeing(
        view: View,
        idle_timeout: Duration,
        execution: Execution,
        master_silence: Duration,
        places: Option<u32>,
        agreement: Agreement,
    ) -> anyhow::Result<Cluster> {
        let turn = TURN.lock().await;
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let dir = tempfile::Builder::new().prefix("steeldb-test-").tempdir()?;
        // As root the servers run as another user, who must get to their directories.
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        // A loopback network of its own for each cluster: no two can want the same port.
        static CLUSTERS: AtomicU8 = AtomicU8::new(1);
        let (process, nth) = (std::process::id(), CLUSTERS.fetch_add(1, Ordering::Relaxed));
        let host = format!("127.{}.{}.{nth}", 1 + process / 250 % 250, 1 + process % 250);
        let replicas = (0..view.n())
            .map(|id| ReplicaAddress {
                id: ReplicaId(id),
                address: format!("{host}:{}", 7000 + id),
                key: replica_key(id).public(),
            })
            .collect();
        let mut cluster = Cluster {
            view,
            host,
            replicas,
            moved: BTreeMap::new(),
            running: BTreeMap::new(),
            traps: Traps::default(),
            next_client: 0,
            idle_timeout,
            execution,
            agreement,
            master_silence,
            places,
            bulk_bytes_max: BULK_BYTES_MAX,
            dir,
            _turn: turn,
        };
        cluster.start_all().await?;
        // A replica is ready when clients can connect; the test begins when the replicas have found each other, too.
        identical(&cluster.shim().await?).await;
        Ok(cluster)
    }

    /// Starts every replica that does not run.
    pub async fn start_all(&mut self) -> anyhow::Result<()> {
        let mut waiting = Vec::new();
        for id in 0..self.view.n() {
            if !self.running.contains_key(&id) {
                waiting.push((id, self.launch(id)));
            }
        }
        for (id, ready) in waiting {
            self.await_ready(id, ready).await?;
        }
        Ok(())
    }

    /// Starts one replica.
    pub async fn start_replica(&mut self, id: u16) -> anyhow::Result<()> {
        let ready = self.launch(id);
        self.await_ready(id, ready).await
    }

    async fn await_ready(&mut self, id: u16, ready: oneshot::Receiver<()>) -> anyhow::Result<()> {
        if ready.await.is_err() {
            let running = self.running.remove(&id);
            if let Some(running) = running {
                running.task.await??;
            }
            anyhow::bail!("replica {id} ended before it was ready");
        }
        Ok(())
    }

    fn launch(&mut self, id: u16) -> oneshot::Receiver<()> {
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = oneshot::channel();
        self.traps.up(id);
        let config = self.agent_config(id);
        let task = tokio::spawn(agent::run(
            config,
            move || {
                let _ = ready.send(());
            },
            async move {
                let _ = stopped.await;
            },
        ));
        self.running.insert(id, Running { stop, task });
        is_ready
    }

    /// Stops one replica and its server, gracefully.
    pub async fn stop_replica(&mut self, id: u16) -> anyhow::Result<()> {
        if let Some(running) = self.running.remove(&id) {
            let _ = running.stop.send(());
            running.task.await??;
        }
        Ok(())
    }

    /// A replica's host loses power: its server is killed, its agent says no word more.
    pub async fn crash_replica(&mut self, id: u16) -> anyhow::Result<()> {
        if let Some(running) = self.running.remove(&id) {
            self.traps.down(id);
            let server = crate::trap::pid(&self.pid_file(id));
            // First, or it could still tell clients what became of its server.
            running.task.abort();
            crate::trap::kill(server);
            let _ = running.task.await;
        }
        Ok(())
    }

    /// Has a replica crash at the next step of a kind; resolves when that has happened. An agent that is to crash stands
    /// still then: [`Cluster::cut_off`] ends it.
    pub fn crash_at(&self, id: u16, point: Point, crash: Crash) -> oneshot::Receiver<()> {
        let all = || self.running.keys().copied().collect();
        let (servers, agents): (Vec<u16>, Vec<u16>) = match crash {
            Crash::Agent => (vec![], vec![id]),
            Crash::Server => (vec![id], vec![]),
            Crash::Host => (vec![id], vec![id]),
            Crash::AllHosts => (all(), all()),
        };
        let pid_files = servers.into_iter().map(|id| self.pid_file(id)).collect();
        self.traps.set(id, Trap { point, pid_files, agents })
    }

    /// Resolves at a replica's next step of a kind; nothing is done there.
    pub fn reaches(&self, id: u16, point: Point) -> oneshot::Receiver<()> {
        self.traps.set(id, Trap { point, pid_files: vec![], agents: vec![] })
    }

    /// Kills a replica's server.
    pub fn kill_server(&self, id: u16) {
        crate::trap::kill(crate::trap::pid(&self.pid_file(id)));
    }

    /// Ends an agent without a word.
    pub async fn cut_off(&mut self, id: u16) {
        if let Some(running) = self.running.remove(&id) {
            running.task.abort();
            let _ = running.task.await;
        }
    }

    fn pid_file(&self, id: u16) -> PathBuf {
        self.data_dir(id).join("postgres/postmaster.pid")
    }

    /// Waits until nothing is prepared on any server.
    pub async fn nothing_prepared(&self) -> anyhow::Result<()> {
        for id in 0..self.view.n() {
            while self.prepared(id).await?.into_iter().next().is_some() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// What is prepared on a replica's server.
    pub async fn prepared(&self, id: u16) -> anyhow::Result<Vec<String>> {
        let answer = self.behind(id).await?.simple("SELECT gid FROM pg_prepared_xacts").await?;
        Ok(answer.rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
    }

    /// Stops all replicas.
    pub async fn stop_all(&mut self) -> anyhow::Result<()> {
        for id in 0..self.view.n() {
            self.stop_replica(id).await?;
        }
        Ok(())
    }

    fn agent_config(&self, id: u16) -> AgentConfig {
        let data_dir = self.data_dir(id);
        let mut server = ServerConfig::new(data_dir.join("postgres"), Launcher::Direct);
        server.socket_dir = Some(self.socket_dir(id));
        server.settings.fsync = false;
        server.settings.shared_buffers_mb = 32;
        if let Some(places) = self.places {
            server.settings.max_prepared_transactions = places;
        }
        AgentConfig {
            monitor: Monitor::default(),
            controls: Controls::default(),
            me: ReplicaId(id),
            key: replica_key(id),
            listen: self.address(id).to_string(),
            view: self.view.clone(),
            master: ReplicaId(0),
            replicas: self.replicas.clone(),
            clients: (0..CLIENTS)
                .map(|client| {
                    let rights = ClientRights {
                        key: client_key(client).public(),
                        databases: vec![APP.into()],
                        roles: vec![APP.into()],
                    };
                    (ClientId(client), rights)
                })
                .collect(),
            administrators: vec![administrator_key().public()],
            cluster_key: [9; 32],
            databases: vec![DatabaseConfig { name: APP.into(), owner: APP.into() }],
            data_dir,
            server,
            request_timeout: limits::REQUEST_TIMEOUT,
            vote_timeout: limits::VOTE_TIMEOUT,
            idle_timeout: self.idle_timeout,
            ddl_drain_timeout: limits::DDL_DRAIN_TIMEOUT,
            execution: self.execution,
            tentative_replies: self.agreement.tentative_replies,
            window: self.agreement.window,
            // Long, so that what a test sees does not hang on how busy the machine is.
            soft_barrier: Duration::from_secs(2),
            bulk_bytes_max: self.bulk_bytes_max,
            master_silence: self.master_silence,
            clock_tolerance: limits::CLOCK_TOLERANCE,
            hook: self.traps.hook(id),
        }
    }

    fn socket_dir(&self, id: u16) -> PathBuf {
        self.dir.path().join(format!("s{id}"))
    }

    /// Where a replica listens, host:port.
    pub fn address(&self, id: u16) -> &str {
        self.moved.get(&id).unwrap_or(&self.replicas[usize::from(id)].address)
    }

    /// From its next start on a replica listens elsewhere; where. Its own configuration says so and no other's.
    pub fn move_replica(&mut self, id: u16) -> String {
        let address = format!("{}:{}", self.host, 7500 + id);
        self.moved.insert(id, address.clone());
        address
    }

    /// Where a replica keeps its data.
    pub fn data_dir(&self, id: u16) -> PathBuf {
        self.dir.path().join(format!("replica-{id}"))
    }

    /// A superuser's session on one replica's server: behind its agent's back.
    pub async fn behind(&self, id: u16) -> anyhow::Result<Backend> {
        Ok(Backend::connect(&self.socket_dir(id), APP, AGENT_ROLE, &[]).await?)
    }

    /// The process numbers of the running servers' postmasters.
    pub fn postmasters(&self) -> anyhow::Result<Vec<u32>> {
        let pid_file = |id: &u16| self.pid_file(*id);
        let read = |id| -> anyhow::Result<u32> {
            let text = std::fs::read_to_string(pid_file(id))?;
            Ok(text.lines().next().unwrap_or_default().trim().parse()?)
        };
        self.running.keys().map(read).collect()
    }

    fn take_client(&mut self) -> anyhow::Result<u32> {
        let client = self.next_client;
        self.next_client += 1;
        anyhow::ensure!(client < CLIENTS, "the test cluster knows {CLIENTS} clients");
        Ok(client)
    }

    fn shim_config(&self, client: u32) -> ShimConfig {
        ShimConfig {
            client: ClientId(client),
            key: client_key(client),
            view: self.view.clone(),
            master: ReplicaId(0),
            execution: self.execution,
            // The replicas' own bound is what tests are about.
            bulk_bytes_max: limits::BULK_BYTES_MAX,
            patience: Default::default(),
        }
    }

    /// A shim of the next client, with links to all replicas.
    pub async fn shim(&mut self) -> anyhow::Result<Shim> {
        let client = self.take_client()?;
        let shim = Shim::start(self.shim_config(client), self.replicas.clone())?;
        shim.connected(Duration::from_secs(20)).await;
        Ok(shim)
    }

    /// A session without a proxy, over links that end.
    pub async fn severed_session(&mut self, cut: Cut) -> anyhow::Result<(Client, Severed)> {
        let client = self.take_client()?;
        let (shim, severed) = Severed::shim(self.shim_config(client), self.replicas.clone(), cut)?;
        shim.connected(Duration::from_secs(20)).await;
        Ok((Client { session: shim.open(APP, APP, Vec::new()).await?, shim }, severed))
    }

    /// A proxy that can be killed, as the next client, over links that end.
    pub async fn doomed_proxy(&mut self, cut: Cut) -> anyhow::Result<Doomed> {
        let client = self.take_client()?;
        let (host, config) = (self.host.clone(), self.shim_config(client));
        Doomed::start(&host, config, self.replicas.clone(), cut).await
    }

    /// The same of a proxy that asks for nothing again however slow this machine is.
    pub async fn patient_proxy(&mut self, cut: Cut) -> anyhow::Result<Doomed> {
        let client = self.take_client()?;
        let (host, mut config) = (self.host.clone(), self.shim_config(client));
        config.patience.slot = Duration::from_secs(600);
        Doomed::start(&host, config, self.replicas.clone(), cut).await
    }

    /// A shim of the next client, with links to all replicas but one: which never hears from it.
    pub async fn shim_without(&mut self, id: u16) -> anyhow::Result<Shim> {
        let (client, mut replicas) = (self.take_client()?, self.replicas.clone());
        // Nobody listens there.
        replicas[usize::from(id)].address = format!("{}:1", self.host);
        let shim = Shim::start(self.shim_config(client), replicas)?;
        while shim.links_up().len() + 1 < usize::from(self.view.n()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(shim)
    }

    /// A session of the application's role, without a proxy.
    pub async fn session(&mut self) -> anyhow::Result<Client> {
        let shim = self.shim().await?;
        Ok(Client { session: shim.open(APP, APP, Vec::new()).await?, shim })
    }

    /// A proxy in this process, as the next client.
    pub async fn proxy(&mut self) -> anyhow::Result<Proxy> {
        let shim = self.shim().await?;
        Proxy::start(&self.host, shim).await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let running: Vec<Running> = std::mem::take(&mut self.running).into_values().collect();
        let tasks: Vec<JoinHandle<_>> = running
            .into_iter()
            .map(|running| {
                let _ = running.stop.send(());
                running.task
            })
            .collect();
        // The directory is removed after this: by then no server may use it.
        tokio::task::block_in_place(|| {
            Handle::current().block_on(async {
                for mut task in tasks {
                    if tokio::time::timeout(STOP_PATIENCE, &mut task).await.is_err() {
                        task.abort();
                        let _ = task.await;
                    }
                }
            });
        });
    }
}
