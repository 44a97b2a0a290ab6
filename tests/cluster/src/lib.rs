//! A cluster for tests: replicas in this process, each beside a real PostgreSQL server of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use steeldb_client_shim::{
    Completion, Decision, Event, Modes, NewOperation, OperationFlags, OperationKind, Session, Shim,
    ShimConfig, ShimError, StatementText,
};
use steeldb_postgres::{AGENT_ROLE, Backend, Launcher, ServerConfig};
use steeldb_replica::agent::{self, AgentConfig, DatabaseConfig};
use steeldb_replica::scheduler::ClientRights;
use steeldb_transport::ReplicaAddress;
use steeldb_types::{ClientId, ReplicaId, View, limits};
use steeldb_wire::auth::SecretKey;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The database and the role of tests.
pub const APP: &str = "app";

/// A cluster with its directory; ends with its value.
pub struct Cluster {
    /// The view.
    pub view: View,
    /// Where everything is.
    pub dir: tempfile::TempDir,
    replicas: Vec<ReplicaAddress>,
    running: BTreeMap<u16, Running>,
    next_client: u32,
}

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
}

fn replica_key(id: u16) -> SecretKey {
    SecretKey::from_seed(&[id as u8 + 1; 32])
}

fn client_key(id: u32) -> SecretKey {
    SecretKey::from_seed(&[id as u8 + 101; 32])
}

/// Clients that every test cluster knows.
const CLIENTS: u32 = 4;

impl Cluster {
    /// Starts n replicas and waits until all are ready.
    pub async fn start(n: u16) -> anyhow::Result<Cluster> {
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
        let replicas = (0..n)
            .map(|id| ReplicaAddress {
                id: ReplicaId(id),
                address: format!("{host}:{}", 7000 + id),
                key: replica_key(id).public(),
            })
            .collect();
        let mut cluster =
            Cluster { view: View::of_size(n)?, dir, replicas, running: BTreeMap::new(), next_client: 0 };
        cluster.start_all().await?;
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

    /// Stops all replicas.
    pub async fn stop_all(&mut self) -> anyhow::Result<()> {
        for id in 0..self.view.n() {
            self.stop_replica(id).await?;
        }
        Ok(())
    }

    fn agent_config(&self, id: u16) -> AgentConfig {
        let data_dir = self.dir.path().join(format!("replica-{id}"));
        let mut server = ServerConfig::new(data_dir.join("postgres"), Launcher::Direct);
        server.socket_dir = Some(self.socket_dir(id));
        server.settings.fsync = false;
        server.settings.shared_buffers_mb = 32;
        AgentConfig {
            me: ReplicaId(id),
            key: replica_key(id),
            listen: self.replicas[usize::from(id)].address.clone(),
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
            cluster_key: [9; 32],
            databases: vec![DatabaseConfig { name: APP.into(), owner: APP.into() }],
            data_dir,
            server,
            request_timeout: limits::REQUEST_TIMEOUT,
            vote_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(60),
        }
    }

    fn socket_dir(&self, id: u16) -> PathBuf {
        self.dir.path().join(format!("s{id}"))
    }

    /// A superuser's session on one replica's server: behind its agent's back.
    pub async fn behind(&self, id: u16) -> anyhow::Result<Backend> {
        Ok(Backend::connect(&self.socket_dir(id), APP, AGENT_ROLE, &[]).await?)
    }

    /// A shim of the next client.
    pub fn shim(&mut self) -> anyhow::Result<Shim> {
        let client = self.next_client;
        self.next_client += 1;
        anyhow::ensure!(client < CLIENTS, "the test cluster knows {CLIENTS} clients");
        let config = ShimConfig {
            client: ClientId(client),
            key: client_key(client),
            view: self.view.clone(),
            master: ReplicaId(0),
            patience: Default::default(),
        };
        Ok(Shim::start(config, self.replicas.clone())?)
    }

    /// A session of the application's role.
    pub async fn session(&mut self) -> anyhow::Result<Client> {
        let shim = self.shim()?;
        shim.connected(Duration::from_secs(20)).await;
        Ok(Client { session: shim.open(APP, APP, Vec::new()).await?, shim })
    }

    /// The replicas' directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// A client that talks to the shim without a proxy.
pub struct Client {
    /// The session.
    pub session: Session,
    /// Its shim.
    pub shim: Shim,
}

/// What an operation answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Rows in text form.
    pub rows: Vec<Vec<Option<String>>>,
    /// SQLSTATE of the error, if it failed.
    pub sqlstate: Option<String>,
}

impl Client {
    /// Starts a transaction.
    pub fn begin(&mut self) {
        self.session.begin(Modes::default());
    }

    /// Runs one statement in the transaction.
    pub async fn run(&mut self, sql: &str) -> Result<Answer, ShimError> {
        self.run_flagged(sql, OperationFlags::default()).await
    }

    /// Runs one statement with flags.
    pub async fn run_flagged(&mut self, sql: &str, flags: OperationFlags) -> Result<Answer, ShimError> {
        let text = Arc::new(StatementText { sql: sql.to_string(), parameter_types: Vec::new() });
        // No parameter formats, no parameters, no result formats.
        let kind = OperationKind::Execute { bind: vec![0, 0, 0, 0, 0, 0] };
        let number = self.session.operation(NewOperation { text, keep: false, kind, flags });
        let mut answer = Answer { rows: Vec::new(), sqlstate: None };
        loop {
            match self.session.event().await {
                Event::Result { messages, .. } => {
                    self.session.consumed(messages.len());
                    read(&messages, &mut answer);
                }
                Event::Executed { number: done, .. } if done == number => return Ok(answer),
                Event::OperationFailed { error, .. } | Event::Lost(error) => return Err(error),
                _ => {}
            }
        }
    }

    /// Commits.
    pub async fn commit(&mut self) -> Result<Completion, ShimError> {
        self.session.finish(Decision::Commit);
        self.session.finished().await
    }

    /// Rolls back.
    pub async fn rollback(&mut self) -> Result<Completion, ShimError> {
        self.session.finish(Decision::Rollback);
        self.session.finished().await
    }

    /// A transaction of one statement.
    pub async fn execute(&mut self, sql: &str) -> Result<Answer, ShimError> {
        self.begin();
        let answer = self.run(sql).await?;
        if answer.sqlstate.is_some() {
            self.rollback().await?;
        } else {
            self.commit().await?;
        }
        Ok(answer)
    }
}

fn read(messages: &[u8], answer: &mut Answer) {
    let mut rest = messages;
    while let Some((head, _)) = rest.split_at_checked(5) {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let body = &rest[5..1 + length];
        match head[0] {
            b'D' => answer.rows.push(steeldb_postgres::message::data_row(body).unwrap_or_default()),
            b'E' => {
                let fields = steeldb_postgres::message::ErrorFields::parse(&body.to_vec().into());
                answer.sqlstate = fields.ok().map(|fields| fields.sqlstate);
            }
            _ => {}
        }
        rest = &rest[1 + length..];
    }
}
