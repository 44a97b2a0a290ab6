//! `steeldb demo` with real servers: data survive, statuses are handed on, nothing is left behind.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One cluster at a time: each is four servers.
static TURN: Mutex<()> = Mutex::new(());

/// A folder that the servers' user can pass through, should this run as root.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    dir
}

fn demo(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steeldb"));
    command.arg("demo").args(args).env("STEELDB", env!("CARGO_BIN_EXE_steeldb")).stdin(Stdio::null());
    command
}

/// Reads stdout up to the line that begins with `start`.
fn wait_for(child: &mut Child, start: &str) {
    let stdout = child.stdout.take().unwrap();
    let found = BufReader::new(stdout).lines().any(|line| line.is_ok_and(|line| line.starts_with(start)));
    assert!(found, "the demo ended without saying {start:?}");
}

/// The processes that work in `dir` or were started with it.
fn processes_of(dir: &Path) -> Vec<String> {
    let name = dir.to_str().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let uses = |process: &PathBuf| {
        let directory = std::fs::read_link(process.join("cwd")).unwrap_or_default();
        let arguments = std::fs::read(process.join("cmdline")).unwrap_or_default();
        directory.starts_with(dir) || String::from_utf8_lossy(&arguments).contains(name)
    };
    entries.filter(uses).map(|process| process.display().to_string()).collect()
}

#[test]
fn data_survive_and_the_status_is_the_commands() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = folder();
    let path = dir.path().join("demo");
    let run = |command: &str| {
        let args = ["--dir", path.to_str().unwrap(), "--listen", "127.0.0.1:0", "--run", command];
        demo(&args).output().unwrap()
    };
    let first = run("psql -qc 'CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t VALUES (1), (2)' && exit 5");
    assert_eq!(first.status.code(), Some(5), "{}", String::from_utf8_lossy(&first.stderr));
    assert!(processes_of(&path).is_empty());

    let second = run("psql -Atc 'SELECT sum(a) FROM t' && \"$STEELDB\" verify");
    let said = String::from_utf8_lossy(&second.stdout).into_owned();
    assert_eq!(second.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&second.stderr));
    assert!(said.starts_with("3\n") && said.contains("public.t") && said.contains("identical: "), "{said}");
    assert!(processes_of(&path).is_empty());
}

#[test]
fn a_demo_that_is_terminated_leaves_nothing() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = folder();
    let mut child =
        demo(&["--listen", "127.0.0.1:0"]).env("TMPDIR", dir.path()).stdout(Stdio::piped()).spawn().unwrap();
    wait_for(&mut child, "ready: psql -h 127.0.0.1 -p ");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(processes_of(dir.path()).is_empty());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the temporary folder is removed");
}

#[test]
fn a_demo_that_is_killed_leaves_no_process() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = folder();
    // The command carries the folder's name, too, so that it is looked for below.
    let command = format!("echo started; sleep 1000 # {}", dir.path().display());
    let mut child = demo(&["--dir", dir.path().join("demo").to_str().unwrap(), "--listen", "127.0.0.1:0"])
        .args(["--run", &command])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(&mut child, "started");
    assert!(processes_of(dir.path()).len() > 5);
    child.kill().unwrap();
    child.wait().unwrap();
    // They are not this test's children: all that can be done is to look until they are gone.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !processes_of(dir.path()).is_empty() {
        assert!(Instant::now() < deadline, "left behind: {:?}", processes_of(dir.path()));
        std::thread::sleep(Duration::from_millis(20));
    }
}
