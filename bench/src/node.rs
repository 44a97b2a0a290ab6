//! A node: a host with its processes, in a control group of its own.

use crate::quota::{Group, Quota};
use anyhow::{Context as _, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

/// How long a process may take to stop before it is killed.
const PATIENCE: Duration = Duration::from_secs(90);

/// Enters the control groups named before `--`, then becomes the command behind it. The shell is replaced, so the
/// process keeps its number and its parent.
const ENTER: &str = r#"while [ "$1" != -- ]; do echo $$ >"$1" || exit 1; shift; done; shift; exec "$@""#;

/// What a node runs.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// The executable and its arguments.
    pub(crate) words: Vec<String>,
    /// Where it is run; its log goes there, too.
    pub(crate) folder: PathBuf,
    /// The signal that stops it in order.
    pub(crate) stop: Signal,
    /// Whether it says `ready` on its standard output.
    pub(crate) says_ready: bool,
}

/// A host.
pub(crate) struct Node {
    name: String,
    program: Program,
    group: Option<Group>,
    running: Option<Running>,
}

struct Running {
    child: Child,
    stdout: Option<ChildStdout>,
}

impl Node {
    /// A host that runs nothing yet. Without `quota` it has no control group, and its CPU time is not known.
    ///
    /// # Errors
    /// When no control group can be made.
    pub(crate) fn new(name: &str, program: Program, quota: Option<Quota>) -> anyhow::Result<Node> {
        let group = match quota {
            Some(quota) => {
                let group = Group::new(name)?;
                group.limit(Quota { cpus: None, ..quota })?;
                Some(group)
            }
            None => None,
        };
        Ok(Node { name: name.into(), program, group, running: None })
    }

    /// Starts its process. To be called on the main thread: the process is ended when the thread that started it ends.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let log = self.log();
        let file = OpenOptions::new().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        let doors = self.group.iter().flat_map(Group::doors).map(|door| door.display().to_string());
        let stdout = if self.program.says_ready { Stdio::piped() } else { Stdio::from(file.try_clone()?) };
        let mut child = Command::new("/bin/sh")
            .args(["-c", ENTER, "sh"])
            .args(doors)
            .arg("--")
            .args(&self.program.words)
            .current_dir(&self.program.folder)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        let stdout = child.stdout.take();
        self.running = Some(Running { child, stdout });
        Ok(())
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// When it ends before; names its log.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        let (name, log) = (self.name.clone(), self.log());
        let running = self.running.as_mut().ok_or_else(|| anyhow!("{name} has not been started"))?;
        let Some(stdout) = running.stdout.take() else { return Ok(()) };
        let mut lines = BufReader::new(stdout).lines();
        while let Some(line) = lines.next_line().await? {
            if line.starts_with("ready") {
                running.stdout = Some(lines.into_inner().into_inner());
                return Ok(());
            }
        }
        let status = running.child.wait().await?;
        bail!("{name} ended ({status}) before it was ready; its log: {}", log.display())
    }

    /// Fails if its process has ended by itself.
    ///
    /// # Errors
    /// When it has; names its log.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        let (name, log) = (self.name.clone(), self.log());
        if let Some(running) = &mut self.running
            && let Some(status) = running.child.try_wait()?
        {
            bail!("{name} ended by itself ({status}); its log: {}", log.display());
        }
        Ok(())
    }

    /// Sets or takes away its share of the CPUs.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn limit(&self, quota: Quota) -> anyhow::Result<()> {
        self.group.as_ref().map_or(Ok(()), |group| group.limit(quota))
    }

    /// CPU time used so far; none without a control group.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn used(&self) -> anyhow::Result<Option<Duration>> {
        self.group.as_ref().map(Group::used).transpose()
    }

    /// Kills all its processes at once, as a crash of the host does.
    ///
    /// # Errors
    /// When it has no control group to find them by.
    pub(crate) async fn crash(&mut self) -> anyhow::Result<()> {
        let group =
            self.group.as_ref().context("a host is crashed by its control group: leave out --no-quota")?;
        group.kill();
        if let Some(mut running) = self.running.take() {
            running.child.wait().await?;
        }
        Ok(())
    }

    /// Stops its process in order.
    pub(crate) async fn stop(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        if let Some(pid) = running.child.id().and_then(|id| i32::try_from(id).ok()) {
            let _ = kill(Pid::from_raw(pid), self.program.stop);
        }
        let ended: Result<std::io::Result<ExitStatus>, _> =
            tokio::time::timeout(PATIENCE, running.child.wait()).await;
        if ended.is_err() {
            eprintln!("{} does not stop and is killed; its log: {}", self.name, self.log().display());
            let _ = running.child.kill().await;
        }
    }

    fn log(&self) -> PathBuf {
        self.program.folder.join("log")
    }
}

/// A folder in which nodes run, removed at the end. Started by root, servers run as another user and must get through.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn work_folder() -> anyhow::Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("steeldb-bench-").tempdir();
    let folder = folder.context("cannot create a temporary folder")?;
    open(folder.path())?;
    Ok(folder)
}

/// Lets other users pass through a folder, if this process is root's.
///
/// # Errors
/// When its mode cannot be changed.
pub(crate) fn open(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    if nix::unistd::geteuid().is_root() {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711))
            .with_context(|| format!("cannot change the mode of {}", folder.display()))?;
    }
    Ok(())
}

/// Free ports of the loopback address, all different.
///
/// # Errors
/// When there are none.
pub(crate) fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let listeners: Vec<_> = (0..count)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()
        .context("no free port")?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}
