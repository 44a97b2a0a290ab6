//! Four replicas and a proxy, each a process.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One cluster at a time: each is four servers.
static TURN: Mutex<()> = Mutex::new(());

/// What has not happened by then does not.
const HANGS: Duration = Duration::from_secs(120);

/// Replicas.
pub const N: usize = 4;

/// A process of the cluster: a replica, or the proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    Replica(usize),
    Proxy,
}

/// A cluster of processes. They end with it.
pub struct Processes {
    /// A loopback network of its own.
    network: String,
    dir: tempfile::TempDir,
    replicas: Vec<Option<Child>>,
    proxy: Option<Child>,
    _turn: MutexGuard<'static, ()>,
}

pub fn steeldb() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steeldb"));
    command.env_remove("RUST_LOG").env_remove("STEELDB_PROXY_CONFIG").stdin(Stdio::null());
    command
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
}

/// Waits until something is there.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + HANGS;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Processes {
    /// Makes a cluster and starts it; waits until all of it is ready.
    pub fn start() -> Processes {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::Builder::new().prefix("steeldb-operations-").tempdir().unwrap();
        let process = std::process::id();
        let network = format!("127.{}.{}", 1 + process / 250 % 250, 1 + process % 250);
        let hosts: Vec<String> = (0..N).map(|id| format!("{network}.{}:7400", id + 1)).collect();
        let made = steeldb()
            .args(["init", "--dir", dir.path().join("conf").to_str().unwrap(), "--host", &hosts.join(",")])
            .args(["--metrics", "--listen", &format!("{network}.100:6432")])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut cluster =
            Processes { network, dir, replicas: (0..N).map(|_| None).collect(), proxy: None, _turn: turn };
        // Should this run as root, the servers run as somebody else, who must get to their folders.
        let passable = |path: PathBuf| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o711)).unwrap();
        };
        passable(cluster.dir.path().to_path_buf());
        passable(cluster.dir.path().join("conf"));
        for id in 0..N {
            passable(cluster.folder(Which::Replica(id)));
            cluster.edit(Which::Replica(id), "fsync = true", "fsync = false");
            cluster.edit(Which::Replica(id), "shared_buffers_mb = 128", "shared_buffers_mb = 32");
            let told = format!("\"{}\"", cluster.told_at(Which::Replica(id)));
            cluster.edit(Which::Replica(id), "\"127.0.0.1:9400\"", &told);
        }
        let told = format!("\"{}\"", cluster.told_at(Which::Proxy));
        cluster.edit(Which::Proxy, "\"127.0.0.1:9401\"", &told);
        for id in 0..N {
            cluster.start_one(Which::Replica(id));
        }
        cluster.start_one(Which::Proxy);
        for id in 0..N {
            cluster.wait_until_ready(Which::Replica(id));
        }
        cluster.wait_until_ready(Which::Proxy);
        cluster
    }

    fn folder(&self, which: Which) -> PathBuf {
        let name = match which {
            Which::Replica(id) => format!("replica-{id}"),
            Which::Proxy => "proxy-1".into(),
        };
        self.dir.path().join("conf").join(name)
    }

    /// Its configuration file.
    pub fn file(&self, which: Which) -> PathBuf {
        self.folder(which).join(if which == Which::Proxy { "proxy.toml" } else { "replica.toml" })
    }

    /// The administrator's key.
    pub fn administrator(&self) -> PathBuf {
        self.dir.path().join("conf/administrator.key")
    }

    /// A secret of a process, as its file holds it.
    pub fn secret(&self, which: Which, name: &str) -> String {
        std::fs::read_to_string(self.folder(which).join(name)).unwrap().trim().to_string()
    }

    /// Changes a text in its configuration.
    pub fn edit(&self, which: Which, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.file(which)).unwrap();
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        std::fs::write(self.file(which), changed).unwrap();
    }

    /// Where it tells how it is.
    fn told_at(&self, which: Which) -> String {
        match which {
            Which::Replica(id) => format!("{}.{}:9400", self.network, id + 1),
            Which::Proxy => format!("{}.100:9401", self.network),
        }
    }

    /// Starts a process.
    pub fn start_one(&mut self, which: Which) {
        let log = File::options().create(true).append(true).open(self.folder(which).join("log")).unwrap();
        let role = if which == Which::Proxy { "proxy" } else { "replica" };
        let child = steeldb()
            .args([role, "--config", self.file(which).to_str().unwrap()])
            .args(["--die-with-parent", &std::process::id().to_string()])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        *self.child(which) = Some(child);
    }

    fn child(&mut self, which: Which) -> &mut Option<Child> {
        match which {
            Which::Replica(id) => &mut self.replicas[id],
            Which::Proxy => &mut self.proxy,
        }
    }

    /// Sends a signal.
    pub fn signal(&mut self, which: Which, what: Signal) {
        signal(self.child(which).as_ref().unwrap(), what);
    }

    /// Asks a process to stop, and waits until it has, in good order.
    pub fn stop_one(&mut self, which: Which) {
        self.signal(which, Signal::SIGTERM);
        self.ended(which);
    }

    /// Waits for the end, in good order, of a process that was asked to stop.
    pub fn ended(&mut self, which: Which) {
        let mut child = self.child(which).take().unwrap();
        let status = until("it stops", || child.try_wait().unwrap());
        assert!(status.success(), "{which:?}: {status}\n{}", self.log(which));
    }

    /// Ends a process without a word.
    pub fn kill_one(&mut self, which: Which) {
        let mut child = self.child(which).take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// What it has logged.
    pub fn log(&self, which: Which) -> String {
        let bytes = std::fs::read(self.folder(which).join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Status and body of what it answers over HTTP; nothing if nobody does.
    pub fn get(&self, which: Which, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.told_at(which)).ok()?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).ok()?;
        let mut said = Vec::new();
        stream.read_to_end(&mut said).ok()?;
        let said = String::from_utf8(said).unwrap();
        let (head, body) = said.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_string()))
    }

    /// Whether it is ready, and what it says of it.
    pub fn ready(&self, which: Which) -> Option<(bool, Value)> {
        let (status, body) = self.get(which, "/ready")?;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status == 200, body["ready"] == true, "{body}");
        Some((status == 200, body))
    }

    /// As the recipe says: asks until it is.
    pub fn wait_until_ready(&mut self, which: Which) {
        until(&format!("{which:?} is ready"), || {
            if let Some(status) = self.child(which).as_mut().unwrap().try_wait().unwrap() {
                panic!("{which:?} ended: {status}\n{}", self.log(which));
            }
            self.ready(which).filter(|(ready, _)| *ready)
        });
    }

    /// Runs `steeldb ARGS` with the proxy's configuration.
    pub fn command(&self, args: &[&str]) -> Output {
        steeldb().args(args).args(["--config", self.file(Which::Proxy).to_str().unwrap()]).output().unwrap()
    }

    /// What a driver connects to.
    pub fn url(&self) -> String {
        format!("host={}.100 port=6432 user=app dbname=app", self.network)
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        let mut children: Vec<Child> =
            self.proxy.take().into_iter().chain(self.replicas.iter_mut().filter_map(Option::take)).collect();
        for child in &children {
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
        }
        let deadline = Instant::now() + HANGS;
        for child in &mut children {
            while matches!(child.try_wait(), Ok(None)) {
                if Instant::now() > deadline {
                    let _ = child.kill();
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        if std::thread::panicking() {
            for which in (0..N).map(Which::Replica).chain([Which::Proxy]) {
                let log = self.log(which);
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("--- {which:?}\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
            }
        }
    }
}

/// Runs statements of an application.
pub fn application<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// A driver's connection. It runs as long as the runtime.
pub async fn connect(url: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(async move {
        // The client's calls fail, too.
        let _ = connection.await;
    });
    Ok(client)
}
