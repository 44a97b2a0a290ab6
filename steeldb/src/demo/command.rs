//! The COMMAND of `steeldb demo --run`: a shell in a process group of its own, kept by a process of ours that leads the
//! group, so that the whole group ends even when the demo is killed.

use super::directory::{DemoDirectory, NAME};
use super::terminal::Terminal;
use crate::cli::RunCommandArgs;
use crate::parent;
use crate::signals::{Signals, exit_code};
use anyhow::{Context as _, anyhow};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpgrp};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;
use tokio::process::{Child, Command};

/// How long COMMAND may take to end when the demo is interrupted.
const PATIENCE: Duration = Duration::from_secs(5);

/// A COMMAND that runs.
pub(crate) struct Running {
    child: Child,
    group: Pid,
    terminal: Option<Terminal>,
}

impl Running {
    /// Starts `command` against the demo in `directory`. To be called on the main thread, as for other children.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(command: &str, directory: &DemoDirectory) -> anyhow::Result<Running> {
        let program = std::env::current_exe().context("cannot find this executable")?;
        let (host, port) = directory.listen.rsplit_once(':').unwrap_or((&directory.listen, ""));
        let mut keeper = Command::new(program);
        keeper.arg("run-command").arg("--die-with-parent").arg(std::process::id().to_string());
        keeper.arg("--").arg(command);
        keeper
            .env("PGHOST", host.trim_start_matches('[').trim_end_matches(']'))
            .env("PGPORT", port)
            .env("PGUSER", NAME)
            .env("PGDATABASE", NAME)
            .env("STEELDB_PROXY_CONFIG", directory.proxy().join("proxy.toml"))
            .env("STEELDB_ADMINISTRATOR_KEY", directory.administrator());
        // What would lead elsewhere than the four above.
        for variable in ["PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGPASSWORD", "PGSSLMODE"] {
            keeper.env_remove(variable);
        }
        let child = keeper.process_group(0).spawn().context("cannot start the command")?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let group = Pid::from_raw(id.ok_or_else(|| anyhow!("the command ended at once"))?);
        Ok(Running { child, group, terminal: Terminal::hand_over(group) })
    }

    /// Waits for its end; its exit status as a shell reports it.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub(crate) async fn wait(&mut self) -> anyhow::Result<u8> {
        let status = self.child.wait().await.context("cannot wait for the command")?;
        Ok(code(status))
    }

    /// Ends the whole group and takes the terminal back. A group that has not ended by itself is asked first.
    pub(crate) async fn end(mut self) {
        if self.child.id().is_some() {
            let _ = killpg(self.group, Signal::SIGTERM);
            // Those that were stopped must run to end.
            let _ = killpg(self.group, Signal::SIGCONT);
            let _ = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        }
        let _ = killpg(self.group, Signal::SIGKILL);
        let _ = self.child.wait().await;
        if let Some(terminal) = self.terminal.take() {
            terminal.take_back();
        }
    }
}

/// `steeldb run-command`: the process that keeps a COMMAND. Ends with its status.
///
/// # Errors
/// When the shell cannot be started, or the demo is gone.
pub(crate) fn supervise(args: &RunCommandArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Caught, not ignored, so that the shell starts with the defaults: signals to the group are the shell's concern.
        let mut signals = Signals::new()?;
        parent::send_with(args.die_with_parent, Signal::SIGTERM)?;
        let mut shell = Command::new("sh").arg("-c").arg(&args.command).spawn().context("cannot start sh")?;
        loop {
            tokio::select! {
                status = shell.wait() => return Ok(ExitCode::from(code(status?))),
                _ = signals.each() => {
                    if !parent::is(args.die_with_parent) {
                        // The demo was killed: nobody else is left to end this group.
                        let _ = killpg(getpgrp(), Signal::SIGKILL);
                    }
                }
            }
        }
    })
}

fn code(status: ExitStatus) -> u8 {
    let by_signal = status.signal().and_then(|signal| u8::try_from(signal).ok()).map(exit_code);
    let by_itself = status.code().and_then(|code| u8::try_from(code).ok());
    by_itself.or(by_signal).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_a_shell() {
        assert_eq!(code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(code(ExitStatus::from_raw(0)), 0);
        assert_eq!(code(ExitStatus::from_raw(15)), 143);
    }
}
