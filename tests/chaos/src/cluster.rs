//! Four replicas and two proxies in processes of their own, every link through a relay that can be cut.

use crate::comparison::Comparison;
use crate::process::Process;
use crate::schedule::{Lie, Replies};
use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use steeldb::config::{ProxyFile, ReplicaEntry, ReplicaFile, read_seed};
use steeldb_client_shim::{Patience, Shim, ShimConfig};
use steeldb_postgres::{AGENT_ROLE, Backend};
use steeldb_transport::ReplicaAddress;
use steeldb_types::{ReplicaId, Term};
use steeldb_wan::{Conditions, Emulator, Matrix, Relay, RelayConfig};
use steeldb_wire::auth::SecretKey;
use steeldb_wire::transaction::{MasterMove, ReplicaStatus};
use tokio::process::Command;

/// The database and the role.
pub const APP: &str = "app";

/// Replicas; one may be faulty.
pub const REPLICAS: u16 = 4;

/// Proxies for applications. A third client of the replicas compares the databases.
pub const PROXIES: u16 = 2;

/// How long replicas may take to answer about themselves.
const STATUS_PATIENCE: Duration = Duration::from_secs(5);

/// How long an ordered change of the master may take.
const MOVE_PATIENCE: Duration = Duration::from_secs(60);

/// The environment variable that names the file that says how a replica lies, in a build that can.
const ADVERSARY: &str = "STEELDB_ADVERSARY";

/// That file, in the replica's folder.
const LIE: &str = "lie";

/// A running cluster. Its processes end with it, and with this process.
pub struct Cluster {
    program: PathBuf,
    folder: PathBuf,
    replicas: BTreeMap<ReplicaId, Process>,
    proxies: BTreeMap<u16, Process>,
    urls: Vec<String>,
    network: Emulator,
    _relays: Vec<Relay>,
    observer: Shim,
}

impl Cluster {
    /// Writes the configuration into `folder`, starts everything and waits until all replicas hold the same.
    ///
    /// # Errors
    /// When something cannot be written or started.
    pub async fn start(program: &Path, folder: &Path, replies: Replies) -> anyhow::Result<Cluster> {
        init(program, folder, replies).await?;
        let sites = (0..REPLICAS).map(replica_site).chain((1..=PROXIES).map(proxy_site));
        let network = Emulator::new(&Matrix::uniform(sites, Conditions::default()), 0);
        // A loopback host of this process' own, and ports below those that outgoing connections get.
        let process = std::process::id();
        let host = format!("127.{}.{}.1", 1 + process / 250 % 250, 1 + process % 250);
        let address = |id: u16| format!("{host}:{}", 7000 + id);
        let mut relays = Vec::new();
        for id in 0..REPLICAS {
            let path = folder.join(format!("replica-{id}/replica.toml"));
            let mut file = ReplicaFile::read(&path)?;
            file.listen = Some(address(id));
            file.postgres.shared_buffers_mb = 32;
            // Processes are killed, the machine is not.
            file.postgres.fsync = false;
            for entry in &mut file.cluster.replicas {
                entry.address = address(entry.id.0);
                if entry.id.0 != id {
                    let link = (replica_site(id), entry);
                    relays.push(relay(&network, link).await?);
                }
            }
            file.write(&path)?;
        }
        let mut urls = Vec::new();
        for number in 1..=PROXIES + 1 {
            let path = folder.join(format!("proxy-{number}/proxy.toml"));
            let mut file = ProxyFile::read(&path)?;
            let port = 7100 + number;
            file.listen = format!("{host}:{port}");
            for entry in &mut file.cluster.replicas {
                entry.address = address(entry.id.0);
                if number <= PROXIES {
                    let link = (proxy_site(number), entry);
                    relays.push(relay(&network, link).await?);
                }
            }
            file.write(&path)?;
            if number <= PROXIES {
                urls.push(format!("postgresql://{APP}@{host}:{port}/{APP}"));
            }
        }
        let observer = observer(&folder.join(format!("proxy-{}/proxy.toml", PROXIES + 1)))?;
        let (program, folder) = (program.to_path_buf(), folder.to_path_buf());
        let (replicas, proxies, _relays) = (BTreeMap::new(), BTreeMap::new(), relays);
        let mut cluster = Cluster { program, folder, replicas, proxies, urls, network, _relays, observer };
        for id in (0..REPLICAS).map(ReplicaId) {
            cluster.launch(id)?;
        }
        for process in cluster.replicas.values_mut() {
            process.ready().await?;
        }
        for number in 1..=PROXIES {
            cluster.start_proxy(number).await?;
        }
        Ok(cluster)
    }

    /// Connection strings, one for each proxy.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// The command under test.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Starts a replica that does not run and waits until it is ready.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_replica(&mut self, replica: ReplicaId) -> anyhow::Result<()> {
        self.launch(replica)?.ready().await
    }

    fn launch(&mut self, replica: ReplicaId) -> anyhow::Result<&mut Process> {
        let folder = self.folder.join(format!("replica-{}", replica.0));
        let lie = folder.join(LIE);
        let lie = lie.to_str().context("the folder's path is not UTF-8")?;
        let args = ["replica", "--config", "replica.toml", "--log-level", "info"];
        let name = format!("replica {}", replica.0);
        let process = Process::start(&name, &self.program, &folder, &args, &[(ADVERSARY, lie)])?;
        self.replicas.insert(replica, process);
        self.replica(replica)
    }

    /// Starts a proxy that does not run and waits until it is ready.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_proxy(&mut self, number: u16) -> anyhow::Result<()> {
        let folder = self.folder.join(format!("proxy-{number}"));
        let args = ["proxy", "--config", "proxy.toml", "--log-level", "info"];
        let mut process = Process::start(&format!("proxy {number}"), &self.program, &folder, &args, &[])?;
        process.ready().await?;
        self.proxies.insert(number, process);
        Ok(())
    }

    /// Kills a proxy.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn crash_proxy(&mut self, number: u16) -> anyhow::Result<()> {
        self.proxies.get_mut(&number).context("no such proxy")?.crash().await
    }

    /// A replica's process.
    ///
    /// # Errors
    /// When it has none.
    pub fn replica(&mut self, replica: ReplicaId) -> anyhow::Result<&mut Process> {
        self.replicas.get_mut(&replica).with_context(|| format!("{replica} does not run"))
    }

    /// Sends a signal to a replica's PostgreSQL server: to the postmaster, or to all of its processes.
    ///
    /// # Errors
    /// When there is no server.
    pub fn signal_server(&self, replica: ReplicaId, signal: Signal, backends: bool) -> anyhow::Result<()> {
        let postmaster = self.postmaster(replica)?;
        let children = if backends { children(postmaster) } else { Vec::new() };
        send(std::iter::once(postmaster).chain(children), signal);
        Ok(())
    }

    /// Kills a replica's agent and all of its server's processes at once, and waits until the agent is gone.
    ///
    /// # Errors
    /// When there is no server.
    pub async fn crash_host(&mut self, replica: ReplicaId) -> anyhow::Result<()> {
        let postmaster = self.postmaster(replica)?;
        let processes = [vec![postmaster], children(postmaster)].concat();
        self.replica(replica)?.signal(Signal::SIGKILL);
        send(processes, Signal::SIGKILL);
        self.replica(replica)?.crash().await
    }

    fn postmaster(&self, replica: ReplicaId) -> anyhow::Result<i32> {
        let file = self.data(replica).join("postmaster.pid");
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let first = text.lines().next().unwrap_or_default().trim();
        first.parse().with_context(|| file.display().to_string())
    }

    /// Has a replica lie from now on, or tell the truth.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn tell(&self, replica: ReplicaId, lie: Option<Lie>) -> anyhow::Result<()> {
        let file = self.folder.join(format!("replica-{}", replica.0)).join(LIE);
        // Whole at once: the agent reads it at any moment.
        let next = file.with_extension("next");
        std::fs::write(&next, lie.map_or("", Lie::name))
            .and_then(|()| std::fs::rename(&next, &file))
            .with_context(|| file.display().to_string())
    }

    /// Who the master and the ordering leader are.
    ///
    /// # Errors
    /// When no two replicas agree on either.
    pub async fn roles(&self) -> anyhow::Result<Roles> {
        let statuses = self.observer.status(STATUS_PATIENCE).await;
        let view = self.observer.view();
        let newest = |key: fn(&ReplicaStatus) -> (u64, ReplicaId)| {
            let alike = |wanted: &(u64, ReplicaId)| {
                let same = statuses.iter().filter(|(_, status)| key(status) == *wanted);
                view.has_correct(same.map(|(replica, _)| *replica))
            };
            statuses.values().map(key).filter(alike).max()
        };
        let (epoch, master) = newest(|status| (status.term.epoch, status.term.master))
            .context("no two replicas agree on the master")?;
        let (_, leader) = newest(|status| (status.regency, status.leader))
            .context("no two replicas agree on the leader")?;
        Ok(Roles { term: Term { epoch, master }, leader })
    }

    /// The replicas that have taken themselves out, and why. Those that do not answer are not among them.
    pub async fn diverged(&self) -> Vec<(ReplicaId, String)> {
        let statuses = self.observer.status(STATUS_PATIENCE).await;
        statuses.into_iter().filter_map(|(replica, status)| Some((replica, status.diverged?))).collect()
    }

    /// Makes another replica the master, as an administrator does.
    ///
    /// # Errors
    /// When it is not ordered in time.
    pub async fn move_master(&self, from: Term, to: ReplicaId) -> anyhow::Result<()> {
        let key = SecretKey::from_seed(&*read_seed(&self.folder.join("administrator.key"))?);
        let roster = self.observer.roster().context("no roster")?;
        let wish = MasterMove::new(from, roster.digest(), to, &key);
        self.observer.move_master(&wish, MOVE_PATIENCE).await?;
        Ok(())
    }

    /// A superuser's session on one replica's server, behind its agent.
    ///
    /// # Errors
    /// When there is no server.
    pub async fn behind(&self, replica: ReplicaId) -> anyhow::Result<Backend> {
        let socket = self.folder.join(format!("replica-{}/data/postgres.socket", replica.0));
        Ok(Backend::connect(&socket, APP, AGENT_ROLE, &[]).await?)
    }

    fn data(&self, replica: ReplicaId) -> PathBuf {
        self.folder.join(format!("replica-{}/data/postgres", replica.0))
    }

    /// Cuts a replica off from the others, and from the proxies if `everybody`.
    ///
    /// # Errors
    /// When there is no such replica.
    pub fn cut(&self, replica: ReplicaId, everybody: bool) -> anyhow::Result<()> {
        let site = replica_site(replica.0);
        for (from, to, pair) in self.network.pairs() {
            let other = if from == site { to } else { from };
            let concerned = from != to && (from == site || to == site);
            if concerned && (everybody || other.starts_with("replica")) {
                pair.cut(true);
            }
        }
        Ok(())
    }

    /// Mends all that is cut.
    pub fn mend(&self) {
        self.network.heal();
    }

    /// What all replicas hold, at one place in the order; of those that answer within `patience`.
    ///
    /// # Errors
    /// When they turn the question away.
    pub async fn compare(&self, patience: Duration) -> anyhow::Result<Comparison> {
        let answers = self.observer.verify(APP, patience).await?;
        Ok(Comparison::new(answers))
    }

    /// Stops everything in good order.
    ///
    /// # Errors
    /// When a process cannot be waited for.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        for process in self.proxies.values_mut() {
            process.stop().await?;
        }
        for process in self.replicas.values_mut() {
            process.signal(Signal::SIGTERM);
        }
        for process in self.replicas.values_mut() {
            process.stop().await?;
        }
        Ok(())
    }
}

/// Who is what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Roles {
    /// The master's term.
    pub term: Term,
    /// The ordering leader.
    pub leader: ReplicaId,
}

/// Runs `steeldb init`.
async fn init(program: &Path, folder: &Path, replies: Replies) -> anyhow::Result<()> {
    let clients = (PROXIES + 1).to_string();
    let status = Command::new(program)
        .args(["init", "--local", "--proxies", &clients, "--dir"])
        .arg(folder)
        .args(replies.arguments())
        .stdout(std::process::Stdio::null())
        .status()
        .await
        .with_context(|| format!("cannot run {}", program.display()))?;
    anyhow::ensure!(status.success(), "steeldb init: {status}");
    // As root the servers run as another user, who must get to their folders.
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711))?;
    for id in 0..REPLICAS {
        let folder = folder.join(format!("replica-{id}"));
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711))?;
    }
    Ok(())
}

/// A relay in front of a replica for who connects from a site; the entry comes to name it.
async fn relay(network: &Emulator, link: (String, &mut ReplicaEntry)) -> anyhow::Result<Relay> {
    let (from, entry) = link;
    let host = entry.address.rsplit_once(':').map_or("127.0.0.1", |(host, _)| host);
    let listen = format!("{host}:0");
    let config = RelayConfig { from, to: replica_site(entry.id.0), listen, target: entry.address.clone() };
    let relay = Relay::start(network, config).await?;
    entry.address = relay.address().to_string();
    Ok(relay)
}

/// A client of the replicas that asks for digests alone.
fn observer(file: &Path) -> anyhow::Result<Shim> {
    let config = ProxyFile::load(file)?;
    let addresses = config.cluster.replicas.iter().map(|entry| ReplicaAddress {
        id: entry.id,
        address: entry.address.clone(),
        key: entry.key,
    });
    let addresses = addresses.collect();
    let shim = ShimConfig {
        client: config.client,
        key: config.key.clone(),
        view: config.cluster.view.clone(),
        master: config.cluster.master,
        execution: config.cluster.execution,
        bulk_bytes_max: config.cluster.bulk_bytes_max,
        patience: Patience::default(),
    };
    Ok(Shim::start(shim, addresses)?)
}

/// Sends a signal to processes; one may have ended meanwhile.
fn send(processes: impl IntoIterator<Item = i32>, signal: Signal) {
    for process in processes {
        let _ = kill(Pid::from_raw(process), signal);
    }
}

/// The processes whose parent is `process`.
fn children(process: i32) -> Vec<i32> {
    let parent = |pid: i32| -> Option<i32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // pid (name) state ppid ...; the name may hold anything.
        let (_, rest) = stat.rsplit_once(')')?;
        rest.split_whitespace().nth(1)?.parse().ok()
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| parent(*pid) == Some(process)).collect()
}

fn replica_site(id: u16) -> String {
    format!("replica {id}")
}

fn proxy_site(number: u16) -> String {
    format!("proxy {number}")
}
