//! A build of the whole system with a rule broken: snapshots are used on for two commits more, alike on all replicas, so
//! that every vote is equal and every database, too. Only what clients are told shows it, and the checker says what.
//! With the feature `planted-bugs`.

#![cfg(feature = "planted-bugs")]

use std::process::{Command, Stdio};

#[test]
fn stale_snapshots_of_a_real_cluster_are_caught_as_real_time_violations() {
    let run = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(["--seconds", "5", "--seed", "1", "--no-faults", "--no-tpcc"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert_eq!(run.status.code(), Some(1), "{out}\n{err}");
    assert!(out.contains("WRONG: real-time violation"), "{out}\n{err}");
    assert!(out.contains(" lost=0 divergent=0 "), "{out}\n{err}");
}
