//! Programs of PostgreSQL's and others, run against a proxy.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// A program that has not ended by then hangs: it is ended, and the test fails with what it said.
const HANGS: Duration = Duration::from_secs(300);

/// A program to run. It ends with the test.
pub struct Program {
    command: Command,
    name: String,
    input: Vec<u8>,
}

/// What a program said.
#[derive(Debug)]
pub struct Said {
    /// Its status; -1 for a signal.
    pub status: i32,
    /// On stdout.
    pub out: String,
    /// On stderr.
    pub err: String,
}

impl Program {
    pub(crate) fn new(name: &str) -> Program {
        let path = find(name).unwrap_or_else(|| {
            panic!("{name} is not there; install it (Debian: apt-get install postgresql postgresql-client)")
        });
        let mut command = Command::new(path);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        Program { command, name: name.to_string(), input: Vec::new() }
    }

    /// A program by its name, with no variables of a proxy's.
    pub fn named(name: &str) -> Program {
        Program::new(name)
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: &str) -> Program {
        self.command.env(name, value);
        self
    }

    /// Adds arguments.
    pub fn args(mut self, arguments: &[&str]) -> Program {
        self.command.args(arguments);
        self
    }

    /// What it reads.
    pub fn input(mut self, text: &str) -> Program {
        self.input = text.as_bytes().to_vec();
        self
    }

    /// Runs it to its end.
    pub async fn run(mut self) -> Said {
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let mut stdin = child.stdin.take().expect("piped");
        let input = std::mem::take(&mut self.input);
        let feed = async move {
            // A program may end without reading all of it.
            let _ = stdin.write_all(&input).await;
        };
        let both = async { tokio::join!(feed, child.wait_with_output()).1 };
        let output = match tokio::time::timeout(HANGS, both).await {
            Ok(output) => output.unwrap_or_else(|error| panic!("{}: {error}", self.name)),
            Err(_) => panic!("{} hangs", self.name),
        };
        Said {
            status: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    /// Asserts that it succeeded and complained about nothing; what it said on stdout, by lines.
    #[track_caller]
    pub fn lines(&self) -> Vec<&str> {
        assert!(self.status == 0 && self.err.is_empty(), "{self:?}");
        self.out.lines().collect()
    }

    /// The SQLSTATEs of the errors that psql told of.
    pub fn errors(&self) -> Vec<&str> {
        self.err.lines().filter_map(|line| line.strip_prefix("ERROR:  ")).collect()
    }
}

/// psql and pgbench stand beside the servers' programs or in the path.
fn find(name: &str) -> Option<PathBuf> {
    let beside = steeldb_postgres::server::find_binaries(None).ok();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories = beside.into_iter().chain(std::env::split_paths(&path));
    if name.contains('/') {
        return Path::new(name).exists().then(|| name.into());
    }
    directories.find_map(|directory| Some(directory.join(name)).filter(|path| path.is_file()))
}

/// A Python that has psycopg 2 or 3.
///
/// # Errors
/// What is missing, and how to install it.
pub async fn python_with_psycopg() -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian's own Python is the one that Debian's packages are for, whatever comes before it in the path.
    let candidates = std::env::split_paths(&path).map(|directory| directory.join("python3"));
    let candidates: Vec<PathBuf> = std::iter::once("/usr/bin/python3".into()).chain(candidates).collect();
    for python in candidates.iter().filter(|python| python.is_file()) {
        for module in ["psycopg2", "psycopg"] {
            let import = format!("import {module}");
            let mut command = Command::new(python);
            command.args(["-c", &import]).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
            if command.status().await.is_ok_and(|status| status.success()) {
                return Ok(python.clone());
            }
        }
    }
    Err("no python3 with psycopg2 or psycopg; install it (Debian: apt-get install python3-psycopg2)".into())
}
