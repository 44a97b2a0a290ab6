//! A child process of a demo: this executable with another subcommand.

use anyhow::{Context as _, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::OpenOptions;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::Instant;

/// A log above this size is put aside when its process starts.
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What is shown of a log.
const TAIL_LINES: usize = 15;
const TAIL_BYTES: u64 = 8 * 1024;

/// A replica or the proxy.
pub(crate) struct Managed {
    name: String,
    log: PathBuf,
    /// Where this run's lines begin in it.
    log_start: u64,
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    ended: Option<ExitStatus>,
}

impl Managed {
    /// Starts `steeldb ARGS`, logging to `folder`/log. To be called on the main thread: the kernel tells the child of
    /// its parent's end when the thread that started it ends.
    ///
    /// # Errors
    /// When the log cannot be written or the process not be started.
    pub(crate) fn start(name: String, folder: &Path, args: &[&str]) -> anyhow::Result<Managed> {
        let log = folder.join("log");
        if std::fs::metadata(&log).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
            let _ = std::fs::rename(&log, folder.join("log.old"));
        }
        let file = OpenOptions::new().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        let log_start = file.metadata().map_or(0, |metadata| metadata.len());
        let program = std::env::current_exe().context("cannot find this executable")?;
        let mut child = Command::new(program)
            .args(args)
            .arg("--die-with-parent")
            .arg(std::process::id().to_string())
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            // Ctrl-C is for the demo alone, which stops its children in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let stdout = child.stdout.take().ok_or_else(|| anyhow!("{name} has no output"))?;
        Ok(Managed { name, log, log_start, child, stdout: BufReader::new(stdout).lines(), ended: None })
    }

    /// Waits for its line `ready ...`.
    ///
    /// # Errors
    /// When it ends before; with the end of its log.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        while let Ok(Some(line)) = self.stdout.next_line().await {
            if line.starts_with("ready") {
                return Ok(());
            }
        }
        let status = self.ended().await;
        Err(anyhow!("{}", self.obituary(status)))
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        if let Some(status) = self.ended {
            return status;
        }
        // Waiting fails only for a process that somebody else has waited for: it is gone all the same.
        let status = self.child.wait().await.unwrap_or_default();
        self.ended = Some(status);
        status
    }

    /// Whether it is known to have ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Asks it to stop.
    pub(crate) fn ask_to_stop(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Waits for its end until `deadline`; then kills it.
    pub(crate) async fn stopped(&mut self, deadline: Instant) {
        if tokio::time::timeout_at(deadline, self.ended()).await.is_err() {
            eprintln!("{} does not stop and is killed; its log: {}", self.name, self.log.display());
            self.signal(Signal::SIGKILL);
            self.ended().await;
        }
    }

    /// How it ended, and the end of its log.
    pub(crate) fn obituary(&self, status: ExitStatus) -> String {
        let tail =
            tail(&self.log, self.log_start).unwrap_or_else(|error| format!("(cannot be read: {error})"));
        format!("{} ended ({status}); the end of {}:\n{tail}", self.name, self.log.display())
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

/// The last lines after `start`.
fn tail(log: &Path, start: u64) -> std::io::Result<String> {
    let mut file = std::fs::File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES).max(start)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    Ok(shown.iter().map(|line| format!("  | {line}")).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_short_and_survives_any_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let text: String = (0..10_000).map(|line| format!("line {line}\n")).collect();
        std::fs::write(&log, &text).unwrap();
        let shown = tail(&log, 0).unwrap();
        assert_eq!(shown.lines().count(), TAIL_LINES);
        assert!(shown.ends_with("line 9999"));
        let before_last = text.len() as u64 - 10;
        assert_eq!(tail(&log, before_last).unwrap(), "  | line 9999");
        std::fs::write(&log, [0xff; 100]).unwrap();
        assert!(tail(&log, 0).is_ok());
        std::fs::write(&log, "").unwrap();
        assert_eq!(tail(&log, 0).unwrap(), "");
    }
}
