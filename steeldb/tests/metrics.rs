//! What the processes tell, against what docs/metrics.md and the dashboard say of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use steeldb_metrics::Definition;

fn document(name: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn replica() -> Vec<Definition> {
    steeldb_replica::agent::Monitor::default().definitions().to_vec()
}

fn proxy() -> Vec<Definition> {
    steeldb_pg_proxy::Monitor::default().definitions().to_vec()
}

/// Name, type, unit, labels and meaning, as a row of the document.
fn row(one: &Definition) -> String {
    let labels: Vec<String> = one.labels.iter().map(|label| format!("`{label}`")).collect();
    let Definition { name, kind, unit, meaning, .. } = one;
    format!("| `{name}` | {kind} | {unit} | {} | {meaning} |", labels.join(", "))
}

/// The rows of the table behind a heading.
fn documented(heading: &str) -> BTreeSet<String> {
    let text = document("metrics.md");
    let section = text.split("\n## ").find(|section| section.starts_with(heading));
    let section = section.unwrap_or_else(|| panic!("no heading {heading}"));
    section.lines().filter(|line| line.starts_with("| `steeldb_")).map(str::to_string).collect()
}

#[test]
fn the_documented_list_and_the_exported_list_are_equal() {
    for (heading, exported) in [("Replica", replica()), ("Proxy", proxy())] {
        let exported: BTreeSet<String> = exported.iter().map(row).collect();
        let documented = documented(heading);
        let missing: Vec<&str> = exported.difference(&documented).map(String::as_str).collect();
        let unknown: Vec<&str> = documented.difference(&exported).map(String::as_str).collect();
        assert!(
            missing.is_empty() && unknown.is_empty(),
            "docs/metrics.md, {heading}: add\n{}\nand remove\n{}",
            missing.join("\n"),
            unknown.join("\n")
        );
    }
}

#[test]
fn what_both_export_means_the_same() {
    let of_replicas: BTreeMap<String, String> =
        replica().iter().map(|one| (one.name.clone(), row(one))).collect();
    let mut shared = 0;
    for one in proxy() {
        if let Some(other) = of_replicas.get(&one.name) {
            assert_eq!(*other, row(&one));
            shared += 1;
        }
    }
    assert!(shared > 0, "links are told by both");
}

/// The names that PromQL expressions of the dashboard use.
fn names_in(value: &serde_json::Value, names: &mut BTreeSet<String>, panels: &mut usize) {
    match value {
        serde_json::Value::Object(map) => {
            *panels += usize::from(map.contains_key("targets"));
            for (key, value) in map {
                match value.as_str() {
                    Some(text) if key == "expr" || key == "query" || key == "definition" => {
                        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
                        names.extend(words.filter(|word| word.starts_with("steeldb_")).map(str::to_string));
                    }
                    _ => names_in(value, names, panels),
                }
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| names_in(value, names, panels)),
        _ => {}
    }
}

#[test]
fn the_dashboard_shows_metrics_that_there_are() {
    let dashboard: serde_json::Value = serde_json::from_str(&document("steeldb-dashboard.json")).unwrap();
    let (mut used, mut panels) = (BTreeSet::new(), 0);
    names_in(&dashboard, &mut used, &mut panels);
    let mut there = BTreeSet::new();
    for one in replica().into_iter().chain(proxy()) {
        if one.kind == "histogram" {
            there.extend(["_bucket", "_sum", "_count"].map(|suffix| format!("{}{suffix}", one.name)));
        } else {
            there.insert(one.name);
        }
    }
    let unknown: Vec<&String> = used.difference(&there).collect();
    assert!(unknown.is_empty(), "the dashboard names what nobody exports: {unknown:?}");
    assert!(panels >= 12 && used.len() >= 25, "{panels} panels with {} metrics", used.len());
}
