//! A short run: the command, its faults, its last line.

use std::process::{Command, Stdio};

#[test]
fn a_short_run_loses_nothing_and_leaves_equal_databases() {
    let run = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args(["--seconds", "30", "--seed", "4"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    let last = out.lines().last().unwrap_or_default();
    let numbers: Vec<u64> = last.split(' ').filter_map(|word| word.split_once('=')?.1.parse().ok()).collect();
    let [transactions, faults, lost, divergent, anomalies, _] = numbers[..] else { panic!("{out}\n{err}") };
    assert!(run.status.success(), "{out}\n{err}");
    assert_eq!((lost, divergent, anomalies), (0, 0, 0), "{out}\n{err}");
    assert!(transactions > 0 && faults > 0, "{out}\n{err}");
}
