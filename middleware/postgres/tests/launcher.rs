//! A server dies with its agent even when the agent is killed. This test is its own main: it runs itself as the agent and
//! as the hidden subcommand.

mod common;

use common::{config, directory};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use steeldb_postgres::{Launcher, Server, exec};

fn main() {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(|arg| arg.to_str()) {
        Some("exec-postgres") => {
            eprintln!("{}", exec::exec_postgres(args));
            std::process::exit(1);
        }
        Some("agent") => agent(Path::new(&args.next().unwrap())),
        Some("--list") => println!("a_killed_agent_leaves_no_postgres: test"),
        _ => a_killed_agent_leaves_no_postgres(),
    }
}

/// Starts a server, says where, and waits to be killed.
fn agent(dir: &Path) {
    let mut config = config(dir);
    config.launcher = Launcher::current_exe("exec-postgres").unwrap();
    // Started on a thread that ends at once: the server must not end with it.
    let server = std::thread::spawn(|| Server::start(config).unwrap()).join().unwrap();
    println!("{} {}", server.pid(), server.socket_dir().display());
    let _ = std::io::stdin().read(&mut [0]);
}

fn a_killed_agent_leaves_no_postgres() {
    let dir = directory();
    let mut agent = Command::new(std::env::current_exe().unwrap())
        .arg("agent")
        .arg(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(agent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let (pid, socket_dir) = line.trim().split_once(' ').unwrap();
    let socket = steeldb_postgres::connection::socket_path(Path::new(socket_dir));
    UnixStream::connect(&socket).unwrap();
    let user = std::fs::metadata(dir.path().join("data")).unwrap();
    assert_ne!(std::os::unix::fs::MetadataExt::uid(&user), 0, "postgres must not run as root");

    agent.kill().unwrap();
    agent.wait().unwrap();
    let stat = format!("/proc/{pid}/stat");
    let gone = || match std::fs::read_to_string(&stat) {
        Err(_) => true,
        // Ended, but whoever inherited it has not looked yet.
        Ok(text) => text.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')),
    };
    let deadline = Instant::now() + common::HANG;
    while !gone() {
        assert!(Instant::now() < deadline, "postgres {pid} outlived its agent");
        std::thread::sleep(Duration::from_millis(5));
    }

    // And a new agent takes the data directory over.
    let mut config = config(dir.path());
    config.launcher = Launcher::current_exe("exec-postgres").unwrap();
    Server::start(config).unwrap().stop().unwrap();
    println!("test a_killed_agent_leaves_no_postgres ... ok");
}
