//! `steeldb bench` end to end: real servers, small, without quotas.

use std::process::Command;

#[test]
fn a_comparison_writes_reports_a_table_and_plots() {
    let out = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_steeldb"))
        .args(["bench", "lan", "--no-quota", "--small", "--runs", "1", "--seconds", "2", "--warmup", "0"])
        .args(["--warehouses", "1", "--terminals", "2", "--systems", "plain,speculative", "--out"])
        .arg(out.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let read = |name: &str| std::fs::read_to_string(out.path().join(name)).unwrap();
    let table = read("lan.md");
    for part in
        ["steeldb bench lan --no-quota", "| plain PostgreSQL ", "| SteelDB, speculative ", "(lan-commit.svg)"]
    {
        assert!(table.contains(part), "{part} is missing in:\n{table}");
    }
    assert!(String::from_utf8_lossy(&output.stdout).contains("| plain PostgreSQL "));
    let raw: serde_json::Value = serde_json::from_str(&read("lan.json")).unwrap();
    assert_eq!(raw["points"][1]["runs"][0]["report"]["setup"]["terminals"], 2);
    assert!(raw["points"][1]["runs"][0]["report"]["tpm_total"].as_f64().unwrap() > 0.0);
    for plot in ["lan-throughput.svg", "lan-new-order.svg", "lan-commit.svg"] {
        assert!(read(plot).starts_with("<svg"), "{plot}");
    }
}

#[test]
fn what_cannot_be_run_is_refused_before_anything_is_started() {
    let refused = |args: &[&str]| {
        let out = tempfile::tempdir().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_steeldb"))
            .arg("bench")
            .args(args)
            .arg("--out")
            .arg(out.path())
            .output()
            .unwrap();
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused(&["timeline", "--no-quota"]).contains("control groups"));
    assert!(refused(&["geo", "--sites", "oregon,ireland"]).contains("--sites"));
    assert!(refused(&["geo", "--sites", "oregon,ireland,sydney,sao-paulo,atlantis"]).contains("atlantis"));
    assert!(refused(&["geo", "--matrix", "no-such-file.toml"]).contains("no-such-file.toml"));
}
