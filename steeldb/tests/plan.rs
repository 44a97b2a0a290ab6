//! `steeldb cluster plan`: from a matrix, and on a cluster that measures, whose leader, weights and master are then what
//! its commands say.

use serde_json::Value;
use std::process::{Command, Output, Stdio};

fn steeldb(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steeldb"));
    command.args(args).env_remove("STEELDB_PROXY_CONFIG").stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_matrix_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let matrix = dir.path().join("ec2.toml");
    std::fs::write(&matrix, steeldb_sites::EC2).unwrap();
    let matrix = matrix.to_str().unwrap();
    let plan = |more: &[&str]| {
        let args = ["cluster", "plan", "--matrix", matrix, "--client", "oregon", "--sites"];
        steeldb(&[&args[..], more].concat())
    };
    let five = "oregon,ireland,sydney,sao-paulo,virginia";
    let output = plan(&[five, "--tentative", "--top", "2"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("the 2 fastest of 250 choices") && said.contains("513.3 ms."), "{said}");
    let command = "steeldb cluster weights --config proxy.toml --key administrator.key --leader 0 0,4\n";
    assert!(said.contains(command), "{said}");

    let refused = |more: &[&str], reason: &str| {
        let output = plan(more);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains(reason), "{reason:?} in {said}");
    };
    refused(&["oregon,ireland,sydney,paris"], "\"paris\" is unknown");
    refused(&["oregon,ireland,sydney"], "at least 4");
    assert_eq!(steeldb(&["cluster", "plan"]).status.code(), Some(2), "neither a cluster nor a matrix");
}

#[test]
fn a_cluster_measures_itself_and_does_what_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    // Links come up one after the other: until every pair is measured.
    let script = r#"
        plan() {
            tries=0
            until "$STEELDB" cluster plan --json >"$OUT/$1" && ! grep -q null "$OUT/$1"; do
                tries=$((tries + 1)); [ "$tries" -lt 600 ] || exit 9
                sleep 0.1
            done
        }
        plan before
        "$STEELDB" cluster weights --leader 3 1,3 && "$STEELDB" cluster leader 2 && "$STEELDB" master move 4
        plan after
        "$STEELDB" cluster weights 1,3; echo "again $?"
        psql -qc 'CREATE TABLE t (a int)'
    "#;
    let output = Command::new(env!("CARGO_BIN_EXE_steeldb"))
        .args(["demo", "--replicas", "5", "--listen", "127.0.0.1:0", "--run", script])
        .env("STEELDB", env!("CARGO_BIN_EXE_steeldb"))
        .env("OUT", dir.path())
        .env("TMPDIR", dir.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let read = |name: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(dir.path().join(name)).unwrap()).unwrap()
    };
    let (before, after) = (read("before"), read("after"));
    assert_eq!(before["choices"].as_array().unwrap().len(), 250);
    assert_eq!(before["round_trips_ms"]["4"].as_object().unwrap().len(), 5);
    assert!(before["choices"][0]["begin"]["counted"].as_array().unwrap().len() >= 3);
    let now = |plan: &Value| {
        let current = &plan["current"];
        (current["leader"].clone(), current["master"].clone(), current["heavy"].clone())
    };
    assert_eq!(now(&before), (0.into(), 1.into(), serde_json::json!([0, 1])));
    assert_eq!(now(&after), (2.into(), 4.into(), serde_json::json!([1, 3])));
    assert!(said.contains("the change changes nothing") && said.contains("again 1"), "{said}");
}
