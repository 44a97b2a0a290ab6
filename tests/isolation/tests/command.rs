//! The command `isolation check`.

use std::process::{Command, Output};

fn checked(text: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("history");
    std::fs::write(&file, text).unwrap();
    Command::new(env!("CARGO_BIN_EXE_isolation")).arg("check").arg(&file).output().unwrap()
}

const FIRST: &str = r#"{"id":1,"client":1,"begin_us":0,"end_us":10,"outcome":"committed","operations":[{"append":{"key":"a","value":1}}]}"#;

fn second(values: &str) -> String {
    let read = format!(r#"{{"read":{{"key":"a","values":{values}}}}}"#);
    format!(r#"{{"id":2,"client":2,"begin_us":20,"end_us":30,"outcome":"committed","operations":[{read}]}}"#)
}

#[test]
fn the_status_says_whether_there_is_an_anomaly() {
    let clean = checked(&format!("{FIRST}\n{}\n", second("[1]")));
    assert_eq!(clean.status.code(), Some(0), "{clean:?}");
    assert!(String::from_utf8_lossy(&clean.stdout).trim_end().ends_with("strong snapshot isolation"));

    let stale = checked(&format!("{FIRST}\n{}\n", second("[]")));
    assert_eq!(stale.status.code(), Some(1), "{stale:?}");
    let said = String::from_utf8_lossy(&stale.stdout);
    assert!(said.contains("T2 -rw-> T1: T2 read \"a\" up to nothing"), "{said}");
    assert!(said.trim_end().ends_with("ANOMALIES: real-time violation"), "{said}");
}

#[test]
fn what_is_no_history_is_named() {
    let wrong = checked(&format!("{FIRST}\nnonsense\n"));
    assert_eq!(wrong.status.code(), Some(2));
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(said.contains("line 2: not a transaction") && said.lines().count() == 1, "{said}");
    let missing = Command::new(env!("CARGO_BIN_EXE_isolation")).args(["check", "/nowhere"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(2));
}
