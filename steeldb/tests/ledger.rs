//! `steeldb ledger` on the log of a replica that is not running.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, mpsc};
use steeldb::config::{Cluster, read_seed};
use steeldb_ordering::{Claim, Decision, InstanceNumber, Proof, Proposal, Record, Regency, Request};
use steeldb_ordering_log::Options;
use steeldb_ordering_server::{DurableLog, Storage as _};
use steeldb_types::{Digest, ReplicaId, Timestamp};
use steeldb_wire::auth::{Namespace, SecretKey};
use steeldb_wire::codec::encode;

fn steeldb(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steeldb"));
    command.args(args).env_remove("RUST_LOG").env_remove("STEELDB_PROXY_CONFIG").output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A decision signed with the keys that `steeldb init` made.
fn decision(dir: &Path, number: u64) -> Arc<Decision> {
    let request = Request::Certified { key: Digest([number as u8; 32]), payload: vec![7; 100] };
    let instance = InstanceNumber(number);
    let timestamp = Timestamp(number as i64);
    let proposal = Arc::new(Proposal { instance, timestamp, requests: vec![Arc::new(request)] });
    let claim = Claim { regency: Regency::new(0, 0), value: proposal.digest() };
    let bytes = encode(&(claim.regency, instance, claim.value));
    let accept = |signer: u16| {
        let seed = read_seed(&dir.join(format!("replica-{signer}/replica.key"))).unwrap();
        (ReplicaId(signer), SecretKey::from_seed(&seed).sign(Namespace::Accept, &bytes))
    };
    Arc::new(Decision { proposal, proof: Proof { instance, claim, accepts: [0, 1, 3].map(accept).to_vec() } })
}

/// Writes the log of replica 1, with other records between decisions.
fn write_log(dir: &Path, numbers: std::ops::RangeInclusive<u64>) {
    let data = dir.join("replica-1/data");
    std::fs::create_dir_all(&data).unwrap();
    let (sender, persisted) = mpsc::channel();
    let (mut log, _) = DurableLog::open(&data.join("journal"), Options::default(), move |upto| {
        sender.send(upto.unwrap()).unwrap()
    })
    .unwrap();
    let mut sequence = 0;
    for number in numbers {
        log.append(sequence + 1, Record::Decision(decision(dir, number)));
        log.append(sequence + 2, Record::Regency(Regency::new(0, 0)));
        sequence += 2;
    }
    while persisted.recv().unwrap() < sequence {}
}

#[test]
fn a_log_is_exported_continued_and_checked_and_a_change_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    assert!(steeldb(&["init", "--dir", &path(""), "--local"]).status.success());
    let (replica, proxy, archive) =
        (path("replica-1/replica.toml"), path("proxy-1/proxy.toml"), path("archive"));
    let data = Cluster::read(Path::new(&replica)).unwrap();
    assert_eq!(data.genesis().unwrap(), Cluster::read(Path::new(&proxy)).unwrap().genesis().unwrap());

    write_log(dir.path(), 1..=3);
    let export = ["ledger", "export", "--config", &replica, "--out", &archive];
    assert!(said(&steeldb(&export)).contains("blocks 1 to 3, tip "));
    write_log(dir.path(), 4..=5);
    assert!(said(&steeldb(&export)).contains("blocks 1 to 5, tip "));

    let verify = ["ledger", "verify", "--config", &proxy, &archive];
    let output = steeldb(&verify);
    assert!(output.status.success() && said(&output).contains("5 blocks with 5 requests hold"), "{output:?}");

    let mut bytes = std::fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&archive, bytes).unwrap();
    let output = steeldb(&verify);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("block 3"), "{}", said(&output));
    assert!(said(&steeldb(&export)).contains("block 3"), "what does not hold is not continued");
}
