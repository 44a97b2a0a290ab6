//! A short run: seven kinds of faults, each once, to whomever the seed says.

mod common;

const FAULTS: &str = "agent-killed,server-killed,proxy-killed,host-stopped,partitioned,isolated,tampered";

#[test]
fn a_short_run_loses_nothing_and_leaves_equal_databases() {
    let run = common::chaos(&["--count", "7", "--seed", "4", "--hold-ms", "600", "--faults", FAULTS], None);
    let [transactions, faults, lost, divergent, anomalies] = run.numbers;
    assert_eq!((faults, lost, divergent, anomalies), (7, 0, 0, 0), "{}", run.text);
    assert_eq!(run.status, Some(0), "{}", run.text);
    assert!(transactions > 0, "{}", run.text);
    for kind in FAULTS.split(',') {
        let told = run.text.lines().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>());
        assert!(told.into_iter().any(|words| words == [kind, "1"]), "{kind}: {}", run.text);
    }
}
