//! Runs the command and reads its report.

use std::process::{Command, Stdio};

/// What a run said.
pub struct Run {
    /// Its exit status.
    pub status: Option<i32>,
    /// The report, then what it told meanwhile.
    pub text: String,
    /// transactions, faults, lost, divergent, anomalies.
    pub numbers: [u64; 5],
}

/// Runs `chaos ARGS`, with a bug planted if one is named.
pub fn chaos(args: &[&str], planted_bug: Option<&str>) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chaos"));
    command.args(args).stdin(Stdio::null()).env_remove("STEELDB_PLANTED_BUG");
    command.envs(planted_bug.map(|bug| ("STEELDB_PLANTED_BUG", bug)));
    let run = command.output().unwrap();
    let out = String::from_utf8_lossy(&run.stdout).into_owned();
    let text = format!("{out}\n{}", String::from_utf8_lossy(&run.stderr));
    let last = out.lines().last().unwrap_or_default();
    let names = ["transactions", "faults", "lost", "divergent", "anomalies", "longest_stall_ms"];
    let pairs: Vec<(&str, u64)> = last
        .split(' ')
        .filter_map(|word| word.split_once('='))
        .filter_map(|(name, number)| Some((name, number.parse().ok()?)))
        .collect();
    assert!(pairs.iter().map(|(name, _)| *name).eq(names), "{text}");
    Run { status: run.status.code(), text, numbers: std::array::from_fn(|index| pairs[index].1) }
}
