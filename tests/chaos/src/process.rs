//! A process of the cluster: `steeldb replica` or `steeldb proxy`.

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// How long a child that ends by itself may take, such as TPC-C's checks.
const CHILD_PATIENCE: Duration = Duration::from_secs(600);

/// A running process. Ends with this one, however that ends.
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    ready: bool,
}

impl Process {
    /// Starts `program ARGS` in `folder`, where its log goes. To be called on the main thread, with whose end the kernel
    /// ends the child.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        name: &str,
        program: &Path,
        folder: &Path,
        args: &[&str],
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Process> {
        let log = folder.join("log");
        let file = OpenOptions::new().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        let mut child = Command::new(program)
            .args(args)
            .arg("--die-with-parent")
            .arg(std::process::id().to_string())
            .current_dir(folder)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let stdout = child.stdout.take().context("a process without output")?;
        let stdout = BufReader::new(stdout).lines();
        Ok(Process { name: name.to_string(), log, child, stdout, ready: false })
    }

    /// Waits for its line `ready ...`.
    ///
    /// # Errors
    /// When it ends before.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        while !self.ready {
            match self.stdout.next_line().await? {
                Some(line) => self.ready = line.starts_with("ready"),
                None => {
                    let status = self.child.wait().await?;
                    anyhow::bail!(
                        "{} ended ({status}) before it was ready: {}",
                        self.name,
                        self.log.display()
                    );
                }
            }
        }
        Ok(())
    }

    /// Sends a signal, if it still runs.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            // It may have ended by itself.
            let _ = kill(pid, signal);
        }
    }

    /// Kills it as a crash would, and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn crash(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGKILL);
        self.child.wait().await.with_context(|| format!("cannot wait for {}", self.name))?;
        Ok(())
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM);
        self.child.wait().await.with_context(|| format!("cannot wait for {}", self.name))?;
        Ok(())
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    fn pid(&self) -> Option<Pid> {
        self.child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw)
    }
}

/// Waits for a child that ends by itself.
///
/// # Errors
/// When it does not.
pub(crate) async fn ended(child: &mut Child) -> anyhow::Result<std::process::ExitStatus> {
    let status = tokio::time::timeout(CHILD_PATIENCE, child.wait()).await;
    Ok(status.context("a child of this program does not end")??)
}

/// Runs a command to its end; whether that was good.
///
/// # Errors
/// When it cannot be started, or does not end.
pub(crate) async fn finished(command: &mut Command) -> anyhow::Result<bool> {
    let mut child = command.stdin(Stdio::null()).kill_on_drop(true).spawn()?;
    Ok(ended(&mut child).await?.success())
}
