//! PostgreSQL by itself: one server, or a primary with synchronous standbys.

use crate::node::{Node, Program, free_ports, open, work_folder};
use crate::quota::Quota;
use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio_postgres::NoTls;

/// How long a server may take until it lets somebody in.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// The settings of the replicas' servers that bear on speed (docs/performance.md): durable, without parallel plans or JIT.
const SETTINGS: &str = "
fsync = on
synchronous_commit = on
shared_buffers = 128MB
max_connections = 300
max_wal_size = 2GB
checkpoint_timeout = 15min
max_parallel_workers_per_gather = 0
jit = off
";

/// Running servers.
pub(crate) struct Postgres {
    servers: Vec<Node>,
    url: String,
    _folder: tempfile::TempDir,
}

impl Postgres {
    /// Starts a primary and as many standbys; with standbys, any `quorum` of them must have a commit on disk.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or a step fails.
    pub(crate) async fn start(
        standbys: usize,
        quorum: usize,
        quota: Option<Quota>,
    ) -> anyhow::Result<Postgres> {
        let folder = work_folder()?;
        let binaries = binaries()?;
        let ports = free_ports(standbys + 1)?;
        let data = |number: usize| folder.path().join(format!("server-{number}/data"));
        for number in 0..=standbys {
            prepare(&folder.path().join(format!("server-{number}")))?;
        }
        let primary = data(0);
        let initdb = binaries.join("initdb");
        run(
            &initdb,
            &["--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums", "-U", "app"],
            &primary,
        )
        .await?;
        settle(&primary, ports[0], SETTINGS)?;
        let mut servers = vec![Node::new("postgres-0", program(&binaries, &primary)?, quota)?];
        servers[0].start()?;
        let maintenance = format!("postgresql://app@127.0.0.1:{}/postgres", ports[0]);
        execute(&maintenance, "CREATE DATABASE app").await?;
        for (number, port) in ports.iter().enumerate().skip(1) {
            let (source, name) = (ports[0].to_string(), format!("standby{number}"));
            let from = format!("host=127.0.0.1 port={source} user=app application_name={name}");
            run(
                &binaries.join("pg_basebackup"),
                &["-d", &from, "-X", "stream", "-R", "-c", "fast"],
                &data(number),
            )
            .await?;
            settle(&data(number), *port, SETTINGS)?;
            let mut standby =
                Node::new(&format!("postgres-{number}"), program(&binaries, &data(number))?, quota)?;
            standby.start()?;
            servers.push(standby);
        }
        if standbys > 0 {
            let names: Vec<String> = (1..=standbys).map(|number| format!("standby{number}")).collect();
            let setting = format!("ANY {quorum} ({})", names.join(", "));
            execute(&maintenance, &format!("ALTER SYSTEM SET synchronous_standby_names = '{setting}'"))
                .await?;
            execute(&maintenance, "SELECT pg_reload_conf()").await?;
            wait_for_standbys(&maintenance, standbys).await?;
        }
        let url = format!("postgresql://app@127.0.0.1:{}/app", ports[0]);
        Ok(Postgres { servers, url, _folder: folder })
    }

    /// Where clients connect.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// All nodes by what they are.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&'static str, &Node)> {
        let kinds = std::iter::once("replicas").cycle();
        kinds.zip(&self.servers)
    }

    /// Fails if a server has ended by itself.
    ///
    /// # Errors
    /// When one has.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.servers.iter_mut().try_for_each(Node::check)
    }

    /// Stops everything.
    pub(crate) async fn stop(&mut self) {
        for server in &mut self.servers {
            server.stop().await;
        }
    }
}

/// The newest version's programs, where Debian puts them.
fn binaries() -> anyhow::Result<PathBuf> {
    if let Some(given) = std::env::var_os("STEELDB_PG_BIN") {
        return Ok(given.into());
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.filter_map(|entry| {
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let binaries = entry.path().join("bin");
        binaries.join("initdb").exists().then_some((version, binaries))
    });
    let newest = found.max_by_key(|(version, _)| *version);
    newest.map(|(_, binaries)| binaries).context(
        "no PostgreSQL server is installed (apt-get install postgresql); elsewhere, name its bin folder in STEELDB_PG_BIN",
    )
}

/// A folder that the server's user may write to.
fn prepare(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    open(folder)?;
    if let Some(user) = server_user()? {
        nix::unistd::chown(folder, Some(user.uid), Some(user.gid))
            .with_context(|| format!("cannot give {} to {}", folder.display(), user.name))?;
    }
    Ok(())
}

/// PostgreSQL refuses to run as root.
fn server_user() -> anyhow::Result<Option<nix::unistd::User>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let user = nix::unistd::User::from_name("postgres")?;
    Ok(Some(user.context("started by root, servers run as the user postgres, and there is none")?))
}

/// The words in front of a command that make it the server's user's.
fn as_user() -> anyhow::Result<Vec<String>> {
    let Some(user) = server_user()? else {
        return Ok(vec!["setpriv".into(), "--pdeathsig".into(), "QUIT".into()]);
    };
    Ok(vec![
        "setpriv".into(),
        format!("--reuid={}", user.uid),
        format!("--regid={}", user.gid),
        "--clear-groups".into(),
        // After the change of the user, which forgets it.
        "setpriv".into(),
        "--pdeathsig".into(),
        "QUIT".into(),
    ])
}

fn program(binaries: &Path, data: &Path) -> anyhow::Result<Program> {
    let mut words = as_user()?;
    words.extend([binaries.join("postgres").display().to_string(), "-D".into(), data.display().to_string()]);
    let folder = data.parent().context("data are in a folder")?.to_path_buf();
    Ok(Program { words, folder, stop: Signal::SIGINT, says_ready: false })
}

async fn run(program: &Path, args: &[&str], data: &Path) -> anyhow::Result<()> {
    let words = as_user()?;
    let folder = data.parent().context("data are in a folder")?;
    let output = Command::new(&words[0])
        .args(&words[1..])
        .arg(program)
        .args(args)
        .arg("-D")
        .arg(data)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("cannot run {}", program.display()))?;
    if !output.status.success() {
        bail!("{} failed: {}", program.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn settle(data: &Path, port: u16, settings: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let file = data.join("postgresql.conf");
    let sockets = data.parent().context("data are in a folder")?;
    let own = format!(
        "\nport = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\n{settings}",
        sockets.display()
    );
    let mut conf = std::fs::OpenOptions::new().append(true).open(&file)?;
    conf.write_all(own.as_bytes()).with_context(|| format!("cannot write {}", file.display()))
}

/// Runs one statement, waiting for the server to let somebody in.
async fn execute(url: &str, statement: &str) -> anyhow::Result<()> {
    session(url).await?.batch_execute(statement).await.with_context(|| format!("{statement} failed"))
}

async fn session(url: &str) -> anyhow::Result<tokio_postgres::Client> {
    let deadline = tokio::time::Instant::now() + START_PATIENCE;
    loop {
        match tokio_postgres::connect(url, NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                return Ok(client);
            }
            Err(error) if tokio::time::Instant::now() > deadline => {
                return Err(error).context("the server lets nobody in");
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn wait_for_standbys(url: &str, standbys: usize) -> anyhow::Result<()> {
    let client = session(url).await?;
    let question =
        "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum' AND state = 'streaming'";
    let deadline = tokio::time::Instant::now() + START_PATIENCE;
    loop {
        let streaming: i64 = client.query_one(question, &[]).await?.get(0);
        if usize::try_from(streaming) == Ok(standbys) {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            bail!("{streaming} of {standbys} standbys follow after {START_PATIENCE:?}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
