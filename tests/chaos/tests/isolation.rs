//! Histories of a whole cluster, made through two proxies by eight clients on few keys, have no isolation anomaly; of a
//! build with a rule broken they have, and the checker says which. The broken rule: snapshots are used on for two
//! commits more, alike on all replicas, so that every vote is equal and every database, too. Only what clients are told
//! shows it.

mod common;

const ARGS: [&str; 6] = ["--no-faults", "--no-tpcc", "--seed", "1", "--seconds", "6"];

#[test]
fn histories_of_a_cluster_have_no_anomaly() {
    let run = common::chaos(&ARGS, None);
    let [transactions, faults, lost, divergent, anomalies] = run.numbers;
    assert_eq!((faults, lost, divergent, anomalies), (0, 0, 0, 0), "{}", run.text);
    assert_eq!(run.status, Some(0), "{}", run.text);
    assert!(transactions > 0, "{}", run.text);
}

#[test]
#[cfg(feature = "planted-bugs")]
fn stale_snapshots_of_a_cluster_are_caught_as_real_time_violations() {
    let run = common::chaos(&ARGS, Some("snapshot-used-on"));
    let [_, _, lost, divergent, anomalies] = run.numbers;
    assert!(anomalies > 0, "{}", run.text);
    assert_eq!((lost, divergent), (0, 0), "{}", run.text);
    assert!(run.text.contains("WRONG: real-time violation"), "{}", run.text);
    assert_eq!(run.status, Some(1), "{}", run.text);
}
