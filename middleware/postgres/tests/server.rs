//! Starting, stopping and finding what was left behind.

mod common;

use common::{HANG, config, directory};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use steeldb_postgres::{AGENT_ROLE, Backend, Server, ServerError};

async fn admin(server: &Server) -> Backend {
    Backend::connect(server.socket_dir(), "postgres", AGENT_ROLE, &[]).await.unwrap()
}

#[tokio::test]
async fn a_server_keeps_its_data_over_a_stop_and_a_crash() {
    let dir = directory();
    let server = Server::start(config(dir.path())).unwrap();
    let mut session = admin(&server).await;
    session.simple("CREATE TABLE t AS SELECT 1 AS a").await.unwrap();
    drop(session);
    server.stop().unwrap();

    let server = Server::start(config(dir.path())).unwrap();
    let mut session = admin(&server).await;
    assert_eq!(session.simple("SELECT a FROM t").await.unwrap().value(), Some("1"));
    session.simple("BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'p'").await.unwrap();
    server.stop_immediately().unwrap();

    let server = Server::start(config(dir.path())).unwrap();
    let mut session = admin(&server).await;
    session.simple("COMMIT PREPARED 'p'").await.unwrap();
    assert_eq!(session.simple("SELECT count(*) FROM t").await.unwrap().value(), Some("2"));
    for (name, value) in [
        ("listen_addresses", ""),
        ("wal_level", "logical"),
        ("data_checksums", "on"),
        ("lc_collate", "C.UTF-8"),
        ("TimeZone", "UTC"),
        ("jit", "off"),
        ("synchronize_seqscans", "off"),
        ("max_prepared_transactions", "20"),
    ] {
        assert_eq!(session.simple(&format!("SHOW {name}")).await.unwrap().value(), Some(value), "{name}");
    }
}

#[tokio::test]
async fn a_live_server_of_a_dead_agent_is_stopped_first() {
    let dir = directory();
    let first = Server::start(config(dir.path())).unwrap();
    let mut session = admin(&first).await;
    // As after a kill -9 of an agent that started it directly: nobody stops it.
    let second = Server::start(config(dir.path())).unwrap();
    assert_ne!(first.pid(), second.pid());
    assert!(session.simple("SELECT 1").await.is_err());
    drop(first);
    admin(&second).await.simple("SELECT 1").await.unwrap();
}

#[test]
fn a_stale_pid_file_that_names_a_live_stranger_does_not_hinder() {
    let dir = directory();
    Server::start(config(dir.path())).unwrap().stop().unwrap();
    let stale = format!("{}\n{}\n1\n5432\n\n\n\nready\n", std::process::id(), dir.path().display());
    std::fs::write(dir.path().join("data/postmaster.pid"), stale).unwrap();
    Server::start(config(dir.path())).unwrap();
}

#[test]
fn a_stale_socket_lock_that_names_a_live_server_of_another_directory_does_not_hinder() {
    let (dir, elsewhere) = (directory(), directory());
    let stranger = Server::start(config(elsewhere.path())).unwrap();
    Server::start(config(dir.path())).unwrap().stop().unwrap();
    let stale = format!("{}\n{}\n1\n5432\n\n", stranger.pid(), dir.path().join("data").display());
    std::fs::write(dir.path().join("data.socket/.s.PGSQL.5432.lock"), stale).unwrap();
    Server::start(config(dir.path())).unwrap();
}

#[test]
fn orphaned_backends_of_a_killed_postmaster_do_not_hinder() {
    let dir = directory();
    let server = Server::start(config(dir.path())).unwrap();
    kill(Pid::from_raw(server.pid() as i32), Signal::SIGKILL).unwrap();
    Server::start(config(dir.path())).unwrap();
}

#[test]
fn a_drop_stops_the_server() {
    let dir = directory();
    let server = Server::start(config(dir.path())).unwrap();
    drop(server);
    assert!(!dir.path().join("data/postmaster.pid").exists());
}

#[test]
fn a_failed_start_shows_the_end_of_the_log() {
    let dir = directory();
    Server::start(config(dir.path())).unwrap().stop().unwrap();
    std::fs::write(dir.path().join("data/postgresql.auto.conf"), "no_such_setting = 1\n").unwrap();
    let error = Server::start(config(dir.path())).unwrap_err();
    assert!(matches!(&error, ServerError::Ended { .. }), "{error}");
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[tokio::test]
async fn a_long_path_gets_a_short_socket_directory() {
    let dir = directory();
    let mut config = config(dir.path());
    config.data_dir = dir.path().join("x".repeat(120));
    let server = Server::start(config).unwrap();
    assert!(server.socket_dir().starts_with("/tmp"));
    admin(&server).await.simple("SELECT 1").await.unwrap();
    let socket_dir = server.socket_dir().to_path_buf();
    server.stop().unwrap();
    std::fs::remove_dir_all(socket_dir).unwrap();
}

#[tokio::test]
async fn a_running_statement_can_be_cancelled_and_errors_keep_their_codes() {
    let dir = directory();
    let server = Server::start(config(dir.path())).unwrap();
    let mut session = admin(&server).await;
    let cancel = session.cancel_handle();
    let mut watcher = admin(&server).await;
    let sleeping = tokio::spawn(async move { session.simple("SELECT pg_sleep(1000)").await });
    let seen =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(%' AND state = 'active'";
    let running = async { while watcher.simple(seen).await.unwrap().value() != Some("1") {} };
    tokio::time::timeout(HANG, running).await.unwrap();
    cancel.cancel().await.unwrap();
    let error = tokio::time::timeout(HANG, sleeping).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.sqlstate(), Some("57014"));
    let refused = Backend::connect(server.socket_dir(), "nowhere", AGENT_ROLE, &[]).await.err().unwrap();
    assert_eq!(refused.sqlstate(), Some("3D000"));
}
