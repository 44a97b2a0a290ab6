//! The postgres process and the thread that keeps it.
//!
//! The kernel sends the parent-death signal when the *thread* that spawned a process ends. So the process is spawned by
//! a thread of its own, which then waits for it and ends after it.

use super::ServerError;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::Command;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long each kind of shutdown is waited for before the next harder one.
const PATIENCE: [(Signal, Duration); 3] = [
    (Signal::SIGINT, Duration::from_secs(60)),
    (Signal::SIGQUIT, Duration::from_secs(15)),
    (Signal::SIGKILL, Duration::from_secs(5)),
];

/// How the process ended, once it has.
#[derive(Debug, Default)]
struct Ending {
    status: Mutex<Option<String>>,
    changed: Condvar,
}

/// A child process.
#[derive(Debug)]
pub(super) struct Process {
    pid: u32,
    ending: Arc<Ending>,
}

impl Process {
    /// Spawns `command` on a thread of its own.
    pub(super) fn spawn(mut command: Command) -> Result<Process, ServerError> {
        let program = command.get_program().to_os_string();
        let ending = Arc::new(Ending::default());
        let (sender, receiver) = mpsc::channel();
        let shared = ending.clone();
        let thread = std::thread::Builder::new().name("postgres-keeper".to_string()).spawn(move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => {
                    let _ = sender.send(Err(error));
                    return;
                }
            };
            let _ = sender.send(Ok(child.id()));
            let status = match child.wait() {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            };
            *shared.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
            shared.changed.notify_all();
        });
        thread.map_err(ServerError::io("start the thread that keeps", &program))?;
        let spawned = receiver.recv().unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let pid = spawned.map_err(ServerError::io("execute", &program))?;
        Ok(Process { pid, ending })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended; nothing while it runs.
    pub(super) fn ended(&self) -> Option<String> {
        self.ending.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it ends, at most `timeout`. Returns whether it has ended.
    pub(super) fn wait_ended(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut status = self.ending.status.lock().unwrap_or_else(PoisonError::into_inner);
        while status.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            status = self.ending.changed.wait_timeout(status, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Sends `first`, then harder signals until it ends. Returns whether it has ended.
    pub(super) fn stop(&self, first: Signal) -> bool {
        let from = PATIENCE.iter().position(|(signal, _)| *signal == first).unwrap_or(0);
        for (signal, patience) in &PATIENCE[from..] {
            // Until the thread has reaped it the id is ours, so no other process can be hit.
            if self.ended().is_none() {
                let _ = kill(Pid::from_raw(self.pid as i32), *signal);
            }
            if self.wait_ended(*patience) {
                return true;
            }
            tracing::warn!(pid = self.pid, %signal, "PostgreSQL does not end; trying harder");
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_stopped_and_reaped() {
        let mut command = Command::new("sleep");
        command.arg("1000");
        let process = Process::spawn(command).unwrap();
        assert_eq!(process.ended(), None);
        assert!(process.stop(Signal::SIGINT));
        assert!(process.ended().unwrap().contains("signal"));
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        assert!(Process::spawn(Command::new("/nonexistent/postgres")).is_err());
    }
}
