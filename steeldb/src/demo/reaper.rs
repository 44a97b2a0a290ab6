//! Nothing is left behind: orphans of this process's children become its own children, and are ended at the end.

use anyhow::Context as _;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getpid};
use std::time::Duration;
use tokio::time::Instant;

/// How long orphans may take to end after being asked.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes this process the one that orphans below it fall to.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn adopt_orphans() -> anyhow::Result<()> {
    prctl::set_child_subreaper(true).context("cannot adopt orphaned processes")
}

/// Ends and reaps all children that are left. To be called when all that are waited for elsewhere have ended.
pub(crate) async fn end_orphans() {
    let start = Instant::now();
    let mut asked = false;
    loop {
        for child in children() {
            // Those that have ended already are reaped here.
            let _ = waitpid(child, Some(WaitPidFlag::WNOHANG));
        }
        let left = children();
        if left.is_empty() {
            return;
        }
        let signal = match start.elapsed() > PATIENCE {
            true => Some(Signal::SIGKILL),
            false if !asked => Some(Signal::SIGTERM),
            false => None,
        };
        if let Some(signal) = signal {
            for child in left {
                let _ = kill(child, signal);
            }
            asked = true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The children of this process.
fn children() -> Vec<Pid> {
    let this = getpid();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| parent_of(*pid) == Some(this))
        .map(Pid::from_raw)
        .collect()
}

fn parent_of(pid: i32) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // pid (name) state ppid ...; the name may hold anything, so its end is looked for from behind.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok().map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_found() {
        let own = std::process::id() as i32;
        assert_eq!(parent_of(own), Some(nix::unistd::getppid()));
        assert_eq!(parent_of(0), None);
    }
}
