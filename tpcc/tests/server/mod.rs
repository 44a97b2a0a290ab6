//! A private PostgreSQL server that lives as long as its test.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use steeldb_tpcc::Connection;
use tempfile::TempDir;

/// Debian's place for the server's programs; STEELDB_POSTGRES_BIN names another.
const POSTGRES_BIN: &str = "/usr/lib/postgresql/15/bin";

/// A server on a Unix socket in a directory of its own.
pub struct Server {
    process: Child,
    directory: TempDir,
}

impl Server {
    /// Initialises and starts a server; returns once it accepts connections.
    pub fn start() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        // PostgreSQL refuses to run as root, so that the directory must be someone else's.
        if let Some(user) = unprivileged_user() {
            let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
            std::os::unix::fs::chown(directory.path(), Some(uid), Some(gid)).expect("chown of the directory");
        }
        let data = directory.path().join("data");
        let initialised = program("initdb")
            .args([
                "--auth=trust",
                "--no-sync",
                "--encoding=UTF8",
                "--locale=C",
                "--username=postgres",
                "--pgdata",
            ])
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .expect("initdb starts");
        assert!(initialised.success(), "initdb failed");

        let mut process = program("postgres")
            .arg("-D")
            .arg(&data)
            .args([
                "-c",
                "listen_addresses=",
                "-c",
                "fsync=off",
                "-c",
                "lc_messages=C",
                "-c",
                "log_min_messages=warning",
            ])
            .arg("-c")
            .arg(format!("unix_socket_directories={}", directory.path().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("postgres starts");
        let mut log = BufReader::new(process.stderr.take().expect("a piped log")).lines();
        let is_ready =
            log.by_ref().map_while(Result::ok).any(|line| line.contains("ready to accept connections"));
        assert!(is_ready, "the server ended before it was ready");
        // Keep reading, or a full pipe would stop the server.
        std::thread::spawn(move || log.for_each(drop));
        Self { process, directory }
    }

    /// How to reach it.
    pub fn connection(&self) -> Connection {
        Connection::to(format!("host={} user=postgres dbname=postgres", self.directory.path().display()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGINT is PostgreSQL's fast shutdown.
        if let Ok(pid) = i32::try_from(self.process.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
        let _ = self.process.wait();
    }
}

fn unprivileged_user() -> Option<User> {
    geteuid().is_root().then(|| {
        User::from_name("postgres").ok().flatten().expect("as root, the tests need a user named postgres")
    })
}

fn program(name: &str) -> Command {
    let bin =
        std::env::var_os("STEELDB_POSTGRES_BIN").map_or_else(|| PathBuf::from(POSTGRES_BIN), PathBuf::from);
    let mut command = Command::new(bin.join(name));
    command.current_dir("/");
    if let Some(user) = unprivileged_user() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}
