//! SIGHUP and SIGTERM.

use crate::processes::{Processes, Which, application, connect, until};
use nix::sys::signal::Signal;

/// Waits until a process has logged a line with all of these.
fn logged(cluster: &Processes, which: Which, parts: &[&str]) {
    until(&format!("{which:?} logs {parts:?}"), || {
        let log = cluster.log(which);
        log.lines().any(|line| parts.iter().all(|part| line.contains(part))).then_some(())
    });
}

fn refused(result: Result<tokio_postgres::Client, tokio_postgres::Error>) -> String {
    let error = result.expect_err("it is not let in");
    error.code().map(|code| code.code().to_string()).unwrap_or_default()
}

#[test]
fn sighup_takes_over_what_can_be_changed_and_names_what_cannot() {
    let mut cluster = Processes::start();
    let replica = Which::Replica(1);

    // What a replica logs, and what it cannot change.
    cluster.edit(replica, "#log_level = \"info\"", "log_level = \"debug\"");
    cluster.edit(replica, "kept_mb = 1024", "kept_mb = 64");
    cluster.edit(replica, "max_sessions = 200", "max_sessions = 20");
    cluster.edit(replica, "ready_lag_max = 100", "ready_lag_max = 123");
    cluster.signal(replica, Signal::SIGHUP);
    logged(
        &cluster,
        replica,
        &["configuration reloaded", "catch_up.kept_mb, log_level, metrics.ready_lag_max"],
    );
    logged(&cluster, replica, &["take effect at the next start", "postgres.max_sessions"]);
    assert_eq!(cluster.ready(replica).unwrap().1["lag_max"], 123);
    cluster.kill_one(Which::Replica(3));
    cluster.start_one(Which::Replica(3));
    logged(&cluster, replica, &[" DEBUG ", "link up"]);
    cluster.wait_until_ready(Which::Replica(3));

    application(async {
        // One session more than there may be; those that are there stay.
        let first = connect(&cluster.url()).await.unwrap();
        cluster.edit(Which::Proxy, "max_sessions = 200", "max_sessions = 1");
        cluster.signal(Which::Proxy, Signal::SIGHUP);
        logged(&cluster, Which::Proxy, &["configuration reloaded", "max_sessions"]);
        assert_eq!(refused(connect(&cluster.url()).await), "53300");
        first.batch_execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();

        // Passwords from now on.
        let users = cluster.file(Which::Proxy).with_file_name("users");
        std::fs::write(&users, "").unwrap();
        std::fs::set_permissions(&users, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        cluster.edit(Which::Proxy, "max_sessions = 1", "max_sessions = 10");
        cluster.edit(Which::Proxy, "method = \"trust\"", "method = \"scram-sha-256\"");
        cluster.edit(Which::Proxy, "#users_file = \"users\"", "users_file = \"users\"");
        cluster.signal(Which::Proxy, Signal::SIGHUP);
        logged(&cluster, Which::Proxy, &["configuration reloaded", "authentication.method"]);
        assert!(connect(&cluster.url()).await.is_err(), "nobody is listed");

        // A file that is none changes nothing.
        cluster.edit(Which::Proxy, "max_sessions = 10", "max_sessions = 0");
        cluster.signal(Which::Proxy, Signal::SIGHUP);
        logged(&cluster, Which::Proxy, &["not reloaded", "max_sessions: 0 is not between 1 and 200"]);
        first.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();

        // SIGTERM: an open transaction may end, and then its session does.
        first.batch_execute("BEGIN; INSERT INTO t VALUES (2)").await.unwrap();
        cluster.signal(Which::Proxy, Signal::SIGTERM);
        logged(&cluster, Which::Proxy, &["stopping"]);
        first.batch_execute("INSERT INTO t VALUES (3); COMMIT").await.unwrap();
        let ended = first.batch_execute("SELECT 1").await;
        assert!(ended.is_err());
    });
    cluster.ended(Which::Proxy);
    cluster.stop_one(replica);
    logged(&cluster, replica, &["stopping"]);
}
