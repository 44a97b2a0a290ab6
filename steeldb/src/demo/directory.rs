//! The folder of a demo: one folder per process, and a marker that says whose it is and locks it.

use crate::cli::DEFAULT_LISTEN;
use crate::config::{Method, ProxyFile, ReplicaFile, Timeouts, is_loopback};
use crate::init::Blueprint;
use crate::ports;
use anyhow::{Context as _, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use steeldb_types::{Execution, FaultModel};

/// The file that makes a folder a demo's.
const MARKER: &str = "steeldb-demo";

/// Its first line, and the second one, written when all else is.
const MARKER_TEXT: &str = "This folder belongs to `steeldb demo`, which keeps its data here.\n";
const COMPLETE: &str = "The configuration is complete.\n";

const DEFAULT_REPLICAS: u16 = 4;

/// The database, the role, and what PGDATABASE and PGUSER say.
pub(crate) const NAME: &str = "app";

/// What is asked of a demo; what is left open is as the folder says, or as it is by default.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Wanted<'a> {
    /// How many replicas.
    pub(crate) replicas: Option<u16>,
    /// Where the proxy listens.
    pub(crate) listen: Option<&'a str>,
    /// When replicas other than the master execute.
    pub(crate) execution: Option<Execution>,
    /// Whether COMMIT is to be answered when the order is bound to say so; no: as it is.
    pub(crate) tentative: bool,
}

/// A demo's folder, locked while this lives. A temporary one is removed when dropped.
#[derive(Debug)]
pub(crate) struct DemoDirectory {
    path: PathBuf,
    /// How many replicas.
    pub(crate) replicas: u16,
    /// Where the proxy listens.
    pub(crate) listen: String,
    _lock: Flock<File>,
    // Dropped last: the folder goes when nothing in it is in use any more.
    _temporary: Option<tempfile::TempDir>,
}

impl DemoDirectory {
    /// Takes up the demo in `dir`, or makes one there or in a temporary folder.
    ///
    /// # Errors
    /// When `dir` holds something else or is in use, when what is asked for is not what is there, when the proxy's port
    /// is taken, or when something cannot be written.
    pub(crate) fn open(dir: Option<&Path>, wanted: Wanted<'_>) -> anyhow::Result<DemoDirectory> {
        let (path, temporary) = match dir {
            Some(dir) => (make(dir)?, None),
            None => {
                let temporary = tempfile::Builder::new().prefix("steeldb-demo-").tempdir();
                let temporary = temporary.context("cannot create a temporary folder")?;
                (temporary.path().to_path_buf(), Some(temporary))
            }
        };
        open_to_servers(&path, temporary.is_some())?;
        let (mut lock, complete) = mark(&path)?;
        let (replicas, listen) = if complete {
            take_up(&path, wanted)?
        } else {
            clear(&path)?;
            let written = create(&path, wanted)?;
            lock.write_all(COMPLETE.as_bytes())
                .with_context(|| format!("cannot write {}", path.join(MARKER).display()))?;
            written
        };
        Ok(DemoDirectory { path, replicas, listen, _lock: lock, _temporary: temporary })
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A replica's folder.
    pub(crate) fn replica(&self, id: u16) -> PathBuf {
        replica_folder(&self.path, id)
    }

    /// The proxy's folder.
    pub(crate) fn proxy(&self) -> PathBuf {
        self.path.join("proxy-1")
    }

    /// The administrator's key.
    pub(crate) fn administrator(&self) -> PathBuf {
        self.path.join("administrator.key")
    }
}

fn replica_folder(path: &Path, id: u16) -> PathBuf {
    path.join(format!("replica-{id}"))
}

fn make(dir: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    // Children run elsewhere: their paths must not depend on where this process was started.
    let path = dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))?;
    let entries = std::fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let empty = entries.into_iter().next().is_none();
    ensure!(
        empty || path.join(MARKER).exists(),
        "{} holds something else: give an empty folder, or one of an earlier demo",
        path.display()
    );
    Ok(path)
}

/// Started by root, the servers run as another user, who must be able to pass through the folder.
fn open_to_servers(path: &Path, ours: bool) -> anyhow::Result<()> {
    if ours && geteuid().is_root() {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(folder_mode()))
            .with_context(|| format!("cannot change the mode of {}", path.display()))?;
    }
    Ok(())
}

fn folder_mode() -> u32 {
    if geteuid().is_root() { 0o711 } else { 0o700 }
}

/// Locks the marker, creating it; whether the configuration beside it is complete.
fn mark(path: &Path) -> anyhow::Result<(Flock<File>, bool)> {
    let marker = path.join(MARKER);
    let mut options = OpenOptions::new();
    options.create(true).read(true).append(true);
    let file = options.open(&marker).with_context(|| format!("cannot write {}", marker.display()))?;
    let Ok(mut lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
        bail!("{} is in use by another demo", path.display())
    };
    let mut text = String::new();
    lock.read_to_string(&mut text).with_context(|| format!("cannot read {}", marker.display()))?;
    if text.is_empty() {
        lock.write_all(MARKER_TEXT.as_bytes())
            .with_context(|| format!("cannot write {}", marker.display()))?;
    }
    Ok((lock, text.ends_with(COMPLETE)))
}

/// Removes what an interrupted creation left; nothing has run on it.
fn clear(path: &Path) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("replica-") || name.starts_with("proxy-") {
            std::fs::remove_dir_all(entry.path())
                .with_context(|| format!("cannot remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

fn create(path: &Path, wanted: Wanted<'_>) -> anyhow::Result<(u16, String)> {
    let Wanted { replicas, listen, execution, tentative } = wanted;
    let replicas = replicas.unwrap_or(DEFAULT_REPLICAS);
    let listen = settle(listen.unwrap_or(DEFAULT_LISTEN), Method::Trust)?;
    let ports = ports::free(usize::from(replicas), &port(&listen).into_iter().collect())?;
    let blueprint = Blueprint {
        addresses: ports.into_iter().map(|port| format!("127.0.0.1:{port}")).collect(),
        faults: None,
        fault_model: FaultModel::Byzantine,
        execution: execution.unwrap_or_default(),
        tentative_replies: tentative,
        window: 1,
        proxies: 1,
        listen: listen.clone(),
        database: NAME.into(),
        owner: NAME.into(),
        folder_mode: folder_mode(),
        metrics: false,
        timeouts: Timeouts::default(),
    };
    blueprint.write(path)?;
    Ok((replicas, listen))
}

/// Reads what is there; moves replicas whose ports are taken by others, and the proxy if asked to.
fn take_up(path: &Path, wanted: Wanted<'_>) -> anyhow::Result<(u16, String)> {
    let Wanted { replicas, listen, execution, tentative } = wanted;
    let proxy_file = path.join("proxy-1").join("proxy.toml");
    let mut proxy = ProxyFile::read(&proxy_file)?;
    let count = u16::try_from(proxy.cluster.replicas.len()).unwrap_or(u16::MAX);
    if let Some(replicas) = replicas {
        ensure!(replicas == count, "{} holds {count} replicas, not {replicas}", path.display());
    }
    if let Some(execution) = execution {
        let before = proxy.cluster.execution;
        ensure!(
            execution == before,
            "{} has execution = {before:?}: change the key `execution` in all of its files",
            path.display()
        );
    }
    ensure!(
        !tentative || proxy.cluster.tentative_replies,
        "{} has tentative_replies = false: change the key `tentative_replies` in all of its files",
        path.display()
    );
    let settled = settle(listen.unwrap_or(&proxy.listen), proxy.authentication.method)?;
    let mut taken: BTreeSet<u16> = port(&settled).into_iter().collect();
    taken.extend(proxy.cluster.replicas.iter().filter_map(|replica| port(&replica.address)));
    let mut moved = BTreeMap::new();
    for replica in &proxy.cluster.replicas {
        if replica.address == settled || ports::is_free(&replica.address).is_err() {
            let port = ports::free(1, &taken)?[0];
            taken.insert(port);
            moved.insert(replica.id, format!("127.0.0.1:{port}"));
        }
    }
    if !moved.is_empty() {
        for id in 0..count {
            let file = replica_folder(path, id).join("replica.toml");
            let mut replica = ReplicaFile::read(&file)?;
            relocate(&mut replica.cluster.replicas, &moved);
            replica.write(&file)?;
        }
    }
    if !moved.is_empty() || settled != proxy.listen {
        relocate(&mut proxy.cluster.replicas, &moved);
        proxy.listen = settled.clone();
        proxy.write(&proxy_file)?;
    }
    Ok((count, settled))
}

fn relocate(
    replicas: &mut [crate::config::ReplicaEntry],
    moved: &BTreeMap<steeldb_types::ReplicaId, String>,
) {
    for replica in replicas {
        if let Some(address) = moved.get(&replica.id) {
            replica.address.clone_from(address);
        }
    }
}

/// Where the proxy is to listen: checked, and free at this moment.
fn settle(listen: &str, method: Method) -> anyhow::Result<String> {
    ensure!(
        is_loopback(listen) || method != Method::Trust,
        "--listen {listen}: the demo lets in whoever reaches it, so it listens on loopback addresses alone"
    );
    let Some((host, port)) = listen.rsplit_once(':') else { bail!("--listen {listen}: not HOST:PORT") };
    ensure!(port.parse::<u16>().is_ok(), "--listen {listen}: {port:?} is no port");
    let listen = match port {
        "0" => format!("{host}:{}", ports::free(1, &BTreeSet::new())?[0]),
        _ => listen.to_string(),
    };
    if let Err(error) = ports::is_free(&listen) {
        bail!("cannot listen on {listen}: {error} (another address: --listen HOST:PORT)");
    }
    Ok(listen)
}

fn port(address: &str) -> Option<u16> {
    address.rsplit_once(':').and_then(|(_, port)| port.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn wanted(replicas: Option<u16>, listen: Option<&str>) -> Wanted<'_> {
        Wanted { replicas, listen, ..Wanted::default() }
    }

    fn open(dir: &Path) -> anyhow::Result<DemoDirectory> {
        DemoDirectory::open(Some(dir), wanted(None, Some("127.0.0.1:0")))
    }

    fn said(result: anyhow::Result<DemoDirectory>) -> String {
        format!("{:#}", result.expect_err("is refused"))
    }

    #[test]
    fn a_folder_is_made_and_taken_up_again() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a/b");
        let demo = open(&target).unwrap();
        assert_eq!(demo.replicas, 4);
        let config = ProxyFile::load(&demo.proxy().join("proxy.toml")).unwrap();
        assert_eq!(config.listen, demo.listen);
        let key = ReplicaFile::load(&demo.replica(2).join("replica.toml")).unwrap().key.public();
        drop(demo);
        let again = DemoDirectory::open(Some(&target), wanted(Some(4), None)).unwrap();
        assert_eq!(again.listen, config.listen);
        assert_eq!(ReplicaFile::load(&again.replica(2).join("replica.toml")).unwrap().key.public(), key);
    }

    #[test]
    fn a_temporary_folder_goes_with_the_demo() {
        let demo = DemoDirectory::open(None, wanted(Some(5), Some("127.0.0.1:0"))).unwrap();
        let path = demo.path().to_path_buf();
        assert!(path.join("replica-4").exists());
        drop(demo);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_demo_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
        assert!(said(open(dir.path())).contains("holds something else"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn one_demo_at_a_time_with_the_replicas_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path()).unwrap();
        assert!(said(open(dir.path())).contains("is in use by another demo"));
        drop(first);
        let deferred = Wanted { execution: Some(Execution::Deferred), ..Wanted::default() };
        assert!(said(DemoDirectory::open(Some(dir.path()), deferred)).contains("change the key `execution`"));
        let tentative = Wanted { tentative: true, ..Wanted::default() };
        let refused = said(DemoDirectory::open(Some(dir.path()), tentative));
        assert!(refused.contains("change the key `tentative_replies`"));
        let other = DemoDirectory::open(Some(dir.path()), wanted(Some(7), None));
        assert!(said(other).contains("holds 4 replicas, not 7"));
    }

    #[test]
    fn an_interrupted_creation_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(MARKER), MARKER_TEXT).unwrap();
        std::fs::create_dir(dir.path().join("replica-0")).unwrap();
        assert_eq!(open(dir.path()).unwrap().replicas, 4);
    }

    #[test]
    fn a_replica_whose_port_is_taken_moves_in_every_file() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()).unwrap());
        let read = |id: u16| ReplicaFile::read(&replica_folder(dir.path(), id).join("replica.toml")).unwrap();
        let before = read(0).cluster.replicas;
        let _squatter = TcpListener::bind(&before[1].address).unwrap();
        let demo = open(dir.path()).unwrap();
        for id in 0..4 {
            let after = read(id).cluster.replicas;
            assert_ne!(after[1].address, before[1].address);
            assert_eq!((&after[0], &after[2], &after[3]), (&before[0], &before[2], &before[3]));
            assert!(ReplicaFile::load(&demo.replica(id).join("replica.toml")).is_ok());
        }
        let proxy = ProxyFile::load(&demo.proxy().join("proxy.toml")).unwrap();
        assert_eq!(proxy.cluster.replicas, read(0).cluster.replicas);
    }

    #[test]
    fn the_proxys_address_must_be_free_and_local() {
        let squatter = TcpListener::bind("127.0.0.1:0").unwrap();
        let busy = squatter.local_addr().unwrap().to_string();
        let error = said(DemoDirectory::open(None, wanted(None, Some(&busy))));
        assert!(error.contains(&busy) && error.lines().count() == 1, "{error}");
        assert!(said(DemoDirectory::open(None, wanted(None, Some("0.0.0.0:6432")))).contains("loopback"));
        assert!(said(DemoDirectory::open(None, wanted(None, Some("localhost")))).contains("not HOST:PORT"));
    }
}
