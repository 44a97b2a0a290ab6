//! `/metrics`, `/health`, `/ready` and `steeldb status`.

use crate::processes::{N, Processes, Which, application, connect, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The metrics that a process has, by the lines that say their type.
fn names(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .map(|line| {
            let (name, kind) = line.split_once(' ').unwrap();
            if kind == "counter" { format!("{name}_total") } else { name.to_string() }
        })
        .collect()
}

/// The sum of a metric's values over its labels.
fn sum(text: &str, name: &str) -> f64 {
    let values = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    values.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[test]
fn each_process_tells_how_it_is_and_the_cluster_is_told_by_all_of_them() {
    let mut cluster = Processes::start();
    application(async {
        let client = connect(&cluster.url()).await.unwrap();
        client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, word text)").await.unwrap();
        for id in 0..20 {
            let sql = format!("INSERT INTO t VALUES ({id}, 'unspeakable')");
            client.batch_execute(&sql).await.unwrap();
        }
        client.batch_execute("BEGIN; SELECT 1; ROLLBACK").await.unwrap();
        assert!(client.batch_execute("SELECT nonsense").await.is_err());
    });

    // Metrics: those that are documented, of what happened, and nothing that is secret.
    let documented = |definitions: &[steeldb_metrics::Definition]| {
        definitions.iter().map(|one| one.name.clone()).collect::<BTreeSet<String>>()
    };
    let (_, of_proxy) = cluster.get(Which::Proxy, "/metrics").unwrap();
    let known = documented(steeldb_pg_proxy::Monitor::default().definitions());
    assert!(names(&of_proxy).is_subset(&known), "{of_proxy}");
    assert!(sum(&of_proxy, "steeldb_proxy_transactions_committed_total") >= 21.0, "{of_proxy}");
    assert_eq!(sum(&of_proxy, "steeldb_proxy_errors_total"), 1.0, "{of_proxy}");
    assert_eq!(sum(&of_proxy, "steeldb_link_up"), N as f64, "{of_proxy}");
    let mut applied = 0;
    for id in 0..N {
        let known = documented(steeldb_replica::agent::Monitor::default().definitions());
        let text = until("the replica has counted what it did", || {
            let (_, text) = cluster.get(Which::Replica(id), "/metrics")?;
            (sum(&text, "steeldb_replica_applied_position") >= 40.0).then_some(text)
        });
        assert!(names(&text).is_subset(&known), "{text}");
        assert!(sum(&text, "steeldb_ordering_requests_total") >= 42.0, "{text}");
        assert!(sum(&text, "steeldb_log_commit_seconds_count") > 0.0, "{text}");
        assert_eq!(sum(&text, "steeldb_link_up"), (N - 1) as f64, "{text}");
        assert_eq!(sum(&text, "steeldb_replica_diverged"), 0.0, "{text}");
        // At a replica that was slow they may have been taken from a peer.
        applied += usize::from(sum(&text, "steeldb_replica_commit_seconds_count") >= 21.0);
        for secret in ["replica.key", "cluster.key"] {
            assert!(!text.contains(&cluster.secret(Which::Replica(id), secret)), "{secret}");
        }
        assert!(!text.contains("unspeakable") && !text.contains("nonsense"), "{text}");
        let (status, body) = cluster.get(Which::Replica(id), "/health").unwrap();
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &body["alive"], &body["name"]), (200, &json!(true), &json!(format!("r{id}"))));
    }
    assert!(applied >= N - 1, "a quorum votes");
    assert!(!of_proxy.contains("unspeakable") && !of_proxy.contains("nonsense"), "{of_proxy}");

    // The whole cluster.
    let status = |args: &[&str]| {
        let args: Vec<&str> = ["status"].into_iter().chain(args.iter().copied()).collect();
        let output = cluster.command(&args);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = status(&["--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["quorum"], &said["answered"]), (Some(0), &json!(true), &json!(N)), "{said}");
    assert_eq!(said["master"], json!({"epoch": 0, "replica": 1, "agree": [0, 1, 2, 3]}));
    assert!(said["position"].as_u64().unwrap() >= 40, "{said}");
    assert_eq!(said["replicas"][2]["status"]["version"], env!("CARGO_PKG_VERSION"));
    let (code, text) = status(&[]);
    assert_eq!(code, Some(0));
    assert!(text.contains("4 answer, a quorum is there") && text.contains("replica 1 in epoch 0"), "{text}");

    // Without a quorum.
    cluster.kill_one(Which::Replica(2));
    cluster.kill_one(Which::Replica(3));
    for which in [Which::Replica(0), Which::Replica(1), Which::Proxy] {
        let body = until("it is not ready any more", || {
            cluster.ready(which).filter(|(ready, _)| !ready).map(|(_, body)| body)
        });
        assert!(body["reasons"].to_string().contains("quorum"), "{body}");
        assert_eq!(cluster.get(which, "/health").unwrap().0, 200);
    }
    let output = cluster.command(&["status", "--json", "--patience", "2"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &said["quorum"]), (Some(1), &json!(false)), "{said}");
    assert_eq!((&said["replicas"][3]["up"], &said["replicas"][1]["up"]), (&json!(false), &json!(true)));
}
