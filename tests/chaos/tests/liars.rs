//! A replica that lies in each of the ways that it knows, one after the other; whoever is the master.

#![cfg(feature = "adversary")]

mod common;

#[test]
fn a_lying_replica_loses_and_shows_nothing() {
    let args = ["--count", "5", "--seed", "2", "--hold-ms", "600", "--faults", "byzantine"];
    let run = common::chaos(&args, None);
    let [_, faults, lost, divergent, anomalies] = run.numbers;
    assert_eq!((faults, lost, divergent, anomalies), (5, 0, 0, 0), "{}", run.text);
    assert_eq!(run.status, Some(0), "{}", run.text);
    for lie in ["mismatch", "transcripts", "outcomes", "answers", "silent"] {
        assert!(run.text.contains(&format!("byzantine ({lie})")), "{lie}: {}", run.text);
    }
}
