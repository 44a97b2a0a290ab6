//! What an earlier server left: a pid file of a dead one, or a live one whose agent is gone.
//!
//! A process counts as using a data directory when the kernel says so (a postgres process' working directory is its
//! data directory), never because a file names its id: ids are used again.

use super::ServerError;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long each kind of shutdown is waited for.
const PATIENCE: [(Signal, Duration); 3] = [
    (Signal::SIGINT, Duration::from_secs(60)),
    (Signal::SIGQUIT, Duration::from_secs(15)),
    (Signal::SIGKILL, Duration::from_secs(5)),
];

/// Whether the postmaster `pid` accepts sessions: line 1 of its pid file is its id, line 8 its state.
pub(super) fn is_ready(data_dir: &Path, pid: u32) -> bool {
    let Ok(text) = fs::read_to_string(data_dir.join("postmaster.pid")) else { return false };
    let mut lines = text.lines();
    lines.next().is_some_and(|line| line.trim() == pid.to_string())
        && lines.nth(6).is_some_and(|line| line.trim() == "ready")
}

/// Stops every postgres process on `data_dir` and removes a pid file that then names nobody.
pub(super) fn stop_leftover(data_dir: &Path) -> Result<(), ServerError> {
    let pid_file = data_dir.join("postmaster.pid");
    let named = fs::read_to_string(&pid_file)
        .ok()
        .and_then(|text| text.lines().next().and_then(|line| line.trim().parse::<i32>().ok()));
    end_walsenders(data_dir);
    let mut alive = processes_on(data_dir);
    for (signal, patience) in PATIENCE {
        if alive.is_empty() {
            break;
        }
        // The postmaster ends its children; without one each must be told.
        let postmaster = named.filter(|pid| alive.contains(pid));
        let targets = postmaster.map_or_else(|| alive.clone(), |pid| vec![pid]);
        tracing::warn!(?targets, %signal, data_dir = %data_dir.display(), "stopping what another agent left running");
        for pid in targets {
            let _ = kill(Pid::from_raw(pid), signal);
        }
        let deadline = Instant::now() + patience;
        while !alive.is_empty() && Instant::now() < deadline {
            // They are not our children, so there is nothing to wait on.
            std::thread::sleep(Duration::from_millis(10));
            alive = processes_on(data_dir);
        }
    }
    if let Some(pid) = alive.first() {
        return Err(ServerError::LeftRunning { pid: *pid, data_dir: data_dir.to_path_buf() });
    }
    remove(&pid_file)
}

/// Removes the lock file beside the socket of an earlier server on `data_dir`, once [`stop_leftover`] has seen that there
/// is none: postgres would take any live process with that number for it, and a killed one that nobody has waited for.
pub(super) fn remove_socket_lock(data_dir: &Path, socket_dir: &Path) -> Result<(), ServerError> {
    let mut file = crate::connection::socket_path(socket_dir).into_os_string();
    file.push(".lock");
    let file = Path::new(&file);
    // Line 2 is the data directory of the server that made it.
    let text = fs::read_to_string(file).unwrap_or_default();
    match text.lines().nth(1).map(Path::new) == Some(data_dir) {
        true => remove(file),
        false => Ok(()),
    }
}

fn remove(file: &Path) -> Result<(), ServerError> {
    if fs::read_link("/proc/self/cwd").is_err() {
        // Nobody could be seen, so nobody can be ruled out: postgres judges the file itself.
        return Ok(());
    }
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ServerError::io("remove", file)(error))
        }
        _ => Ok(()),
    }
}

/// Ends the walsenders on `data_dir`. A fast shutdown waits until each has been told that all of the log was flushed by
/// its reader; a decoding stream confirms only what is no longer needed, so that would never be.
pub(super) fn end_walsenders(data_dir: &Path) {
    for pid in processes_on(data_dir) {
        let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if title.starts_with(b"postgres: walsender") {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}

/// The postgres processes whose working directory is `data_dir`.
fn processes_on(data_dir: &Path) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let directory = fs::read_link(entry.path().join("cwd")).ok()?;
            let name = fs::read_to_string(entry.path().join("comm")).ok()?;
            (directory == data_dir && name.trim() == "postgres").then_some(pid)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_that_names_nobody_on_this_directory_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("postmaster.pid");
        // This very process lives, but is no postgres on that directory.
        fs::write(&file, format!("{}\n", std::process::id())).unwrap();
        stop_leftover(dir.path()).unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn readiness_is_read_from_the_pid_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("postmaster.pid"), "42\n/d\n1\n5432\n/s\n\n1 2\nready   \n").unwrap();
        assert!(is_ready(dir.path(), 42));
        assert!(!is_ready(dir.path(), 43));
    }
}
