//! A private PostgreSQL server: one data directory, one Unix socket, one agent.
//!
//! Invariants:
//! - while a [`Server`] lives its postgres runs, or [`Server::has_ended`] says that it does not;
//! - no postgres outlives its agent: a drop stops it, and with [`Launcher::Subcommand`] even `kill -9` of the agent does;
//! - two postmasters never share a data directory: what a dead agent left running is stopped before a new start.
//!
//! Everything here blocks; call it from `spawn_blocking` in asynchronous code.

mod binaries;
mod directories;
mod leftover;
mod process;

pub use binaries::find_binaries;

use crate::exec::ExecArgs;
use crate::settings::{self, Settings};
use nix::sys::signal::Signal;
use process::Process;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The file in the data directory that the server's log goes to.
pub const LOG_FILE: &str = "steeldb-postgres.log";

/// A log above this size is started anew with the server.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How postgres is started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Launcher {
    /// Through a hidden subcommand that calls [`crate::exec::exec_postgres`]: the program and its leading arguments,
    /// such as the current executable and `exec-postgres`. The server then dies with this process, however it ends.
    Subcommand {
        /// The program.
        program: PathBuf,
        /// What comes before the arguments of `exec_postgres`.
        args: Vec<String>,
    },
    /// Directly: the server is stopped when the [`Server`] is dropped, but survives a `kill -9` of this process until
    /// the next start on its data directory. For tests.
    Direct,
}

impl Launcher {
    /// This executable with the hidden subcommand `name`.
    ///
    /// # Errors
    /// When the executable's path cannot be told.
    pub fn current_exe(name: &str) -> Result<Launcher, ServerError> {
        let program = std::env::current_exe().map_err(ServerError::io("find this executable", "."))?;
        Ok(Launcher::Subcommand { program, args: vec![name.to_string()] })
    }
}

/// What to start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerConfig {
    /// The data directory; created and initialised when it does not exist or is empty.
    pub data_dir: PathBuf,
    /// The socket's directory; `<data_dir>.socket` unless given. One whose socket path would exceed what the system
    /// takes is replaced by a short one under /tmp.
    pub socket_dir: Option<PathBuf>,
    /// The directory with initdb and postgres; searched for unless given. `STEELDB_PG_BIN` goes before both.
    pub binaries: Option<PathBuf>,
    /// Whom to run postgres as when this process is root. Ignored otherwise.
    pub user: String,
    /// Sizes and durability.
    pub settings: Settings,
    /// How postgres is started.
    pub launcher: Launcher,
    /// How long a start may take, crash recovery included.
    pub start_timeout: Duration,
}

impl ServerConfig {
    /// The defaults for `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>, launcher: Launcher) -> ServerConfig {
        ServerConfig {
            data_dir: data_dir.into(),
            socket_dir: None,
            binaries: None,
            user: "postgres".to_string(),
            settings: Settings::default(),
            launcher,
            start_timeout: Duration::from_secs(300),
        }
    }
}

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No PostgreSQL was found.
    #[error(
        "PostgreSQL 15 or newer was not found (looked for initdb and postgres in {looked_in}); install it with: apt-get install postgresql"
    )]
    NotInstalled {
        /// Where it was looked for.
        looked_in: String,
    },
    /// Running as root without the unprivileged user that postgres needs.
    #[error(
        "postgres refuses to run as root and there is no user {user:?} to run it as; create it with: adduser --system --group {user}"
    )]
    NoSuchUser {
        /// The user configured.
        user: String,
    },
    /// A directory that the server's user cannot pass.
    #[error(
        "user {user:?} cannot reach {path}: {blocked} is closed to it (make it searchable: chmod o+x {blocked})"
    )]
    Unreachable {
        /// The server's user.
        user: String,
        /// The directory to reach.
        path: PathBuf,
        /// The directory that is closed.
        blocked: PathBuf,
    },
    /// A directory that is not what it must be.
    #[error("{path}: {reason}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The system refused something.
    #[error("cannot {what} {path}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// initdb failed.
    #[error("initdb failed: {output}")]
    Initdb {
        /// What it said.
        output: String,
    },
    /// postgres ended before it was ready.
    #[error("PostgreSQL did not start ({status}); the end of {log}:\n{tail}")]
    Ended {
        /// How it ended.
        status: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// postgres was not ready in time; it has been stopped.
    #[error("PostgreSQL was not ready after {after:?}; the end of {log}:\n{tail}")]
    Timeout {
        /// The time given.
        after: Duration,
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// A server left by another agent could not be stopped.
    #[error("process {pid} still uses {data_dir} and does not end")]
    LeftRunning {
        /// Its process.
        pid: i32,
        /// The data directory.
        data_dir: PathBuf,
    },
}

impl ServerError {
    pub(crate) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> ServerError {
        let path = path.into();
        move |error| ServerError::Io { what, path, error }
    }
}

/// A running private server. Dropping it stops postgres.
#[derive(Debug)]
pub struct Server {
    data_dir: PathBuf,
    socket_dir: PathBuf,
    process: Process,
}

impl Server {
    /// Starts postgres on the configured data directory and waits until it accepts sessions.
    ///
    /// # Errors
    /// [`ServerError`]; when postgres itself failed, with the end of its log.
    pub fn start(config: ServerConfig) -> Result<Server, ServerError> {
        let binaries = find_binaries(config.binaries.as_deref())?;
        let owner = directories::Owner::find(&config.user)?;
        let data_dir = directories::absolute(&config.data_dir)?;
        leftover::stop_leftover(&data_dir)?;
        if !data_dir.join("PG_VERSION").exists() {
            initialise(&binaries, &data_dir, &owner, &config.settings)?;
        }
        directories::make_private(&data_dir, &owner)?;
        let wanted = config.socket_dir.unwrap_or_else(|| directories::default_socket_dir(&data_dir));
        let socket_dir = directories::make_socket_dir(&wanted, &owner)?;
        leftover::remove_socket_lock(&data_dir, &socket_dir)?;
        write_configuration(&data_dir, &socket_dir, &owner, &config.settings)?;

        let log = open_log(&data_dir, &owner)?;
        let program = binaries.join("postgres");
        let mut command = command(&config.launcher, &owner, program, &data_dir);
        command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(ServerError::io("share the log", &data_dir))?)
            .stderr(log);
        let process = Process::spawn(command)?;
        let mut server = Server { data_dir, socket_dir, process };
        server.wait_until_ready(config.start_timeout)?;
        tracing::info!(pid = server.pid(), data_dir = %server.data_dir.display(), "PostgreSQL started");
        Ok(server)
    }

    /// The socket's directory, as [`crate::Backend::connect`] takes it.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// The data directory, absolute.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The postmaster's process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Whether postgres has ended by itself, and how.
    pub fn has_ended(&self) -> Option<String> {
        self.process.ended()
    }

    /// The last lines of the server's log.
    pub fn log_tail(&self) -> String {
        log_tail(&self.data_dir)
    }

    /// Shuts the server down (fast: sessions and decoding streams are ended, a checkpoint is written) and waits for its
    /// end.
    ///
    /// # Errors
    /// [`ServerError::LeftRunning`] when it does not end even when killed.
    pub fn stop(mut self) -> Result<(), ServerError> {
        self.shut_down(Signal::SIGINT)
    }

    /// Ends the server at once, as a crash would; the next start recovers. For tests of crashes.
    ///
    /// # Errors
    /// As [`Server::stop`].
    pub fn stop_immediately(mut self) -> Result<(), ServerError> {
        self.shut_down(Signal::SIGQUIT)
    }

    fn shut_down(&mut self, first: Signal) -> Result<(), ServerError> {
        leftover::end_walsenders(&self.data_dir);
        if self.process.stop(first) {
            return Ok(());
        }
        Err(ServerError::LeftRunning { pid: self.pid() as i32, data_dir: self.data_dir.clone() })
    }

    /// As pg_ctl does: the postmaster writes its state into the eighth line of its pid file.
    fn wait_until_ready(&mut self, timeout: Duration) -> Result<(), ServerError> {
        let started = Instant::now();
        let log = self.data_dir.join(LOG_FILE);
        loop {
            if let Some(status) = self.process.ended() {
                return Err(ServerError::Ended { status, log, tail: self.log_tail() });
            }
            if leftover::is_ready(&self.data_dir, self.pid()) {
                return Ok(());
            }
            if started.elapsed() > timeout {
                self.shut_down(Signal::SIGQUIT)?;
                return Err(ServerError::Timeout { after: timeout, log, tail: self.log_tail() });
            }
            self.process.wait_ended(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.process.ended().is_none() {
            // There is nobody to tell.
            let _ = self.shut_down(Signal::SIGINT);
        }
    }
}

fn command(launcher: &Launcher, owner: &directories::Owner, program: PathBuf, data_dir: &Path) -> Command {
    let args = vec!["-D".into(), data_dir.as_os_str().to_owned()];
    match launcher {
        Launcher::Direct => {
            let mut command = Command::new(program);
            command.args(args);
            owner.drop_privileges(&mut command);
            command
        }
        Launcher::Subcommand { program: launcher, args: leading } => {
            let exec = ExecArgs { parent: std::process::id(), user: owner.ids(), program, args };
            let mut command = Command::new(launcher);
            command.args(leading).args(exec.to_args());
            command
        }
    }
}

/// Runs initdb beside the data directory and moves the result into place, so that an interrupted one is never taken
/// for a database.
fn initialise(
    binaries: &Path,
    data_dir: &Path,
    owner: &directories::Owner,
    settings: &Settings,
) -> Result<(), ServerError> {
    directories::check_empty(data_dir)?;
    let fresh = directories::sibling(data_dir, "new");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).map_err(ServerError::io("remove", &fresh))?;
    }
    directories::make_private(&fresh, owner)?;
    let mut command = Command::new(binaries.join("initdb"));
    command.arg("-D").arg(&fresh).args([
        "--username",
        crate::AGENT_ROLE,
        "--auth=trust",
        "--encoding=UTF8",
        // One collation everywhere, by code point, whatever the machine's locale is.
        "--locale=C.UTF-8",
        "--data-checksums",
        "--no-instructions",
    ]);
    if !settings.fsync {
        command.arg("--no-sync");
    }
    owner.drop_privileges(&mut command);
    let output = command
        .current_dir("/")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(ServerError::io("run initdb in", binaries))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        return Err(ServerError::Initdb { output: String::from_utf8_lossy(&said).trim().to_string() });
    }
    fs::rename(&fresh, data_dir).map_err(ServerError::io("move the new database to", data_dir))
}

fn write_configuration(
    data_dir: &Path,
    socket_dir: &Path,
    owner: &directories::Owner,
    settings: &Settings,
) -> Result<(), ServerError> {
    let socket_dir = socket_dir.to_str().ok_or_else(|| ServerError::Directory {
        path: socket_dir.to_path_buf(),
        reason: "the path is not UTF-8".to_string(),
    })?;
    owner.write(&data_dir.join("steeldb.conf"), &settings.render(socket_dir))?;
    owner.write(&data_dir.join("pg_hba.conf"), &settings::host_based_access())?;
    let main = data_dir.join("postgresql.conf");
    let text = fs::read_to_string(&main).map_err(ServerError::io("read", &main))?;
    let include = "include 'steeldb.conf'";
    if !text.lines().any(|line| line.trim() == include) {
        owner.write(&main, &format!("{text}\n{include}\n"))?;
    }
    Ok(())
}

fn open_log(data_dir: &Path, owner: &directories::Owner) -> Result<fs::File, ServerError> {
    let path = data_dir.join(LOG_FILE);
    let long = fs::metadata(&path).is_ok_and(|file| file.len() > LOG_BYTES_MAX);
    let mut options = fs::OpenOptions::new();
    options.create(true).append(true);
    let mut log = options.open(&path).map_err(ServerError::io("open", &path))?;
    if long {
        log.set_len(0).map_err(ServerError::io("truncate", &path))?;
    }
    let _ = writeln!(log, "--- start by agent {}", std::process::id());
    owner.give(&path)?;
    Ok(log)
}

/// The last lines of the log, at most 20 lines of at most 8 KiB together, from the last start on.
fn log_tail(data_dir: &Path) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let Ok(mut file) = fs::File::open(data_dir.join(LOG_FILE)) else { return "(no log)".to_string() };
    let len = file.metadata().map_or(0, |file| file.len());
    let _ = file.seek(SeekFrom::Start(len.saturating_sub(8192)));
    let mut bytes = Vec::new();
    let _ = file.take(8192).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let text = text.rsplit_once("--- start by agent").map_or(text.as_ref(), |(_, last)| last);
    let lines: Vec<&str> = text.lines().skip(1).collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
