//! A SteelDB cluster of real processes, one node per replica and one for the proxy.

use crate::node::{Node, Program, free_ports, open, work_folder};
use crate::quota::Quota;
use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use steeldb_wan::{Emulator, Relay, RelayConfig};
use tokio::process::Command;

/// What kind of cluster.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// n.
    pub(crate) replicas: u16,
    /// f; as many as n allows unless given.
    pub(crate) faults: Option<u16>,
    /// `speculative` or `deferred`.
    pub(crate) execution: &'static str,
    /// Whether COMMIT is answered when the order is bound to say so.
    pub(crate) tentative: bool,
    /// Consensus instances in flight.
    pub(crate) window: u8,
    /// Replicas of weight V_max; as SteelDB chooses if empty.
    pub(crate) heavy: Vec<u16>,
    /// The first master; as SteelDB chooses unless given.
    pub(crate) master: Option<u16>,
    /// Whether its time-outs are those for hosts that are far apart.
    pub(crate) wide_area: bool,
}

impl Shape {
    /// n replicas and nothing special.
    pub(crate) fn of(replicas: u16, execution: &'static str) -> Shape {
        Shape {
            replicas,
            faults: None,
            execution,
            tentative: false,
            window: 1,
            heavy: Vec::new(),
            master: None,
            wide_area: false,
        }
    }
}

/// Where the replicas are; the first site has the proxy, too.
pub(crate) struct Sites<'a> {
    pub(crate) network: &'a Emulator,
    /// By replica number.
    pub(crate) names: &'a [String],
}

/// A running cluster.
pub(crate) struct Cluster {
    replicas: Vec<Node>,
    proxy: Node,
    master: u16,
    url: String,
    // Relays are cut before the processes that they connect are gone, and folders go last.
    _relays: Vec<Relay>,
    _folder: tempfile::TempDir,
}

impl Cluster {
    /// Sets a cluster up with `steeldb init`, starts it and waits until it is ready.
    ///
    /// # Errors
    /// When a step fails; names the process and its log.
    pub(crate) async fn start(
        shape: &Shape,
        quota: Option<Quota>,
        sites: Option<Sites<'_>>,
    ) -> anyhow::Result<Cluster> {
        let folder = work_folder()?;
        let ports = free_ports(usize::from(shape.replicas) + 1)?;
        let address = |port: &u16| format!("127.0.0.1:{port}");
        let (proxy_port, replica_ports) = ports.split_last().context("there is a proxy")?;
        init(folder.path(), shape, replica_ports, &address(proxy_port)).await?;
        let targets: Vec<String> = replica_ports.iter().map(address).collect();
        let mut relays = Vec::new();
        let mut master = 0;
        for (name, file, id) in files(folder.path(), shape.replicas) {
            open(file.parent().context("a file is in a folder")?)?;
            let mut config = read(&file)?;
            if let Some(id) = id {
                // What others reach may be a relay; it listens where it is.
                config.insert("listen".into(), targets[usize::from(id)].clone().into());
            }
            adjust(&mut config, shape).with_context(|| format!("in {}", file.display()))?;
            master = master_of(&config)?;
            if let Some(sites) = &sites {
                let from = sites.names[usize::from(id.unwrap_or(0))].clone();
                relays.extend(through_relays(&mut config, sites, &from, id).await.context(name)?);
            }
            write(&file, &config)?;
        }
        let mut nodes = Vec::new();
        for (name, file, id) in files(folder.path(), shape.replicas) {
            let command = if id.is_some() { "replica" } else { "proxy" };
            nodes.push(Node::new(&name, program(command, &file)?, quota)?);
        }
        for node in &mut nodes {
            node.start()?;
        }
        for node in &mut nodes {
            node.ready().await?;
        }
        let proxy = nodes.pop().context("there is a proxy")?;
        let url = format!("postgresql://app@127.0.0.1:{proxy_port}/app");
        Ok(Cluster { replicas: nodes, proxy, master, url, _relays: relays, _folder: folder })
    }

    /// Where clients connect.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The replica that is master at the start.
    pub(crate) fn master(&self) -> u16 {
        self.master
    }

    /// A replica's node.
    pub(crate) fn replica(&mut self, id: u16) -> &mut Node {
        &mut self.replicas[usize::from(id)]
    }

    /// All nodes by what they are.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&'static str, &Node)> {
        self.replicas.iter().map(|node| ("replicas", node)).chain([("proxy", &self.proxy)])
    }

    /// Fails if a process has ended by itself.
    ///
    /// # Errors
    /// When one has.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.replicas.iter_mut().chain([&mut self.proxy]).try_for_each(Node::check)
    }

    /// Stops everything in order: the proxy first, so that no client meets a cluster that is half gone.
    pub(crate) async fn stop(&mut self) {
        self.proxy.stop().await;
        for replica in &mut self.replicas {
            replica.stop().await;
        }
    }
}

/// The executable that this process runs, which has all subcommands.
fn executable() -> anyhow::Result<String> {
    let program = std::env::current_exe().context("cannot find this executable")?;
    program.into_os_string().into_string().map_err(|path| anyhow::anyhow!("{} is not UTF-8", path.display()))
}

fn program(command: &str, file: &Path) -> anyhow::Result<Program> {
    let folder = file.parent().context("a file is in a folder")?.to_path_buf();
    let words = [
        executable()?,
        command.into(),
        "--config".into(),
        file.display().to_string(),
        "--log-level".into(),
        "warn".into(),
        "--die-with-parent".into(),
        std::process::id().to_string(),
    ];
    Ok(Program { words: words.into(), folder, stop: Signal::SIGTERM, says_ready: true })
}

async fn init(folder: &Path, shape: &Shape, ports: &[u16], proxy: &str) -> anyhow::Result<()> {
    let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let mut command = Command::new(executable()?);
    command.args(["init", "--execution", shape.execution, "--listen", proxy, "--host", &hosts.join(",")]);
    if let Some(faults) = shape.faults {
        command.args(["--faults", &faults.to_string()]);
    }
    if shape.wide_area {
        command.arg("--wide-area");
    }
    if shape.tentative {
        command.arg("--tentative");
    }
    command.args(["--window", &shape.window.to_string()]);
    let output = command.arg("--dir").arg(folder).stdin(Stdio::null()).output().await?;
    if !output.status.success() {
        bail!("steeldb init failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The configuration files with the names of their processes; replicas with their numbers, then the proxy.
fn files(folder: &Path, replicas: u16) -> Vec<(String, PathBuf, Option<u16>)> {
    let replica = |id| (format!("replica-{id}"), folder.join(format!("replica-{id}/replica.toml")), Some(id));
    let proxy = ("proxy".to_string(), folder.join("proxy-1/proxy.toml"), None);
    (0..replicas).map(replica).chain([proxy]).collect()
}

fn read(file: &Path) -> anyhow::Result<toml::Table> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    text.parse().with_context(|| format!("cannot understand {}", file.display()))
}

fn write(file: &Path, config: &toml::Table) -> anyhow::Result<()> {
    let text = toml::to_string(config)?;
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn cluster_of(config: &mut toml::Table) -> anyhow::Result<&mut toml::Table> {
    config.get_mut("cluster").and_then(toml::Value::as_table_mut).context("there is no [cluster]")
}

fn adjust(config: &mut toml::Table, shape: &Shape) -> anyhow::Result<()> {
    let cluster = cluster_of(config)?;
    if !shape.heavy.is_empty() {
        let heavy: Vec<toml::Value> = shape.heavy.iter().map(|id| i64::from(*id).into()).collect();
        cluster.insert("heavy".into(), heavy.into());
    }
    if let Some(master) = shape.master {
        cluster.insert("master".into(), i64::from(master).into());
    }
    Ok(())
}

fn master_of(config: &toml::Table) -> anyhow::Result<u16> {
    let master = config.get("cluster").and_then(|cluster| cluster.get("master"));
    let master = master.and_then(toml::Value::as_integer).context("cluster.master is no number")?;
    Ok(u16::try_from(master)?)
}

/// Puts a relay between this process and every replica elsewhere, and names it as the replica's address.
async fn through_relays(
    config: &mut toml::Table,
    sites: &Sites<'_>,
    from: &str,
    own: Option<u16>,
) -> anyhow::Result<Vec<Relay>> {
    let replicas = cluster_of(config)?.get_mut("replicas").and_then(toml::Value::as_array_mut);
    let mut relays = Vec::new();
    for (id, entry) in (0u16..).zip(replicas.context("cluster.replicas is no list")?) {
        if own == Some(id) {
            continue;
        }
        let entry = entry.as_table_mut().context("an entry of cluster.replicas is no table")?;
        let target =
            entry.get("address").and_then(toml::Value::as_str).context("a replica has no address")?;
        let relay = RelayConfig {
            from: from.into(),
            to: sites.names[usize::from(id)].clone(),
            listen: "127.0.0.1:0".into(),
            target: target.into(),
        };
        let relay = Relay::start(sites.network, relay).await?;
        entry.insert("address".into(), relay.address().to_string().into());
        relays.push(relay);
    }
    Ok(relays)
}
