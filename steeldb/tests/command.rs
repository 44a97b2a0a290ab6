//! The executable as a user meets it: what it says, on which stream, with which status. What needs no PostgreSQL.

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn steeldb(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steeldb"));
    command.args(args).env_remove("RUST_LOG").env_remove("STEELDB_PROXY_CONFIG").stdin(Stdio::null());
    command.output().unwrap()
}

/// Fails with status 1 and one line on stderr that holds all of `parts`.
fn refused(args: &[&str], parts: &[&str]) {
    let output = steeldb(args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} in {said}");
    }
}

fn init(dir: &Path) {
    let output = steeldb(&["init", "--dir", dir.to_str().unwrap(), "--local"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    for folder in ["replica-0", "replica-1", "replica-2", "replica-3", "proxy-1"] {
        assert!(said.contains(dir.join(folder).to_str().unwrap()), "{said}");
    }
}

fn edit(file: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    let changed = text.replacen(from, to, 1);
    assert_ne!(changed, text);
    std::fs::write(file, changed).unwrap();
}

#[test]
fn a_bad_configuration_is_one_line_that_says_what_and_where() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    refused(&["replica", "--config", "/nowhere/replica.toml"], &["cannot read /nowhere/replica.toml"]);

    let replica = path("replica-2/replica.toml");
    let run = ["replica", "--config", &replica];
    std::fs::copy(path("replica-1/replica.key"), path("replica-2/replica.key")).unwrap();
    refused(&run, &[&replica, "key_file", "replica.key holds the key of"]);

    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(path("replica-2/replica.key"), mode).unwrap();
    refused(&run, &["replica-2/replica.key", "0644", "chmod 600"]);

    edit(Path::new(&replica), "data_dir =", "data_dri =");
    refused(&run, &[&replica, "line", "data_dri"]);

    let proxy = path("proxy-1/proxy.toml");
    edit(Path::new(&proxy), "127.0.0.1:6432", "0.0.0.0:6432");
    refused(&["proxy", "--config", &proxy], &[&proxy, "authentication.method", "0.0.0.0:6432"]);
    refused(&["verify", "--config", &proxy], &[&proxy, "authentication.method"]);
}

#[test]
fn a_missing_postgresql_is_one_line_that_says_what_to_install() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let replica = dir.path().join("replica-0/replica.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_steeldb"))
        .args(["replica", "--log-level", "error", "--config", replica.to_str().unwrap()])
        .env("STEELDB_PG_BIN", "/nowhere")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("/nowhere") && said.contains("apt-get install postgresql"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn init_overwrites_nothing() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let path = dir.path().to_str().unwrap();
    refused(&["init", "--dir", path, "--local"], &["replica-0 exists"]);
}

#[test]
fn demo_refuses_what_it_cannot_do_before_it_starts_anything() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("something"), "else").unwrap();
    let path = dir.path().to_str().unwrap();
    refused(&["demo", "--dir", path, "--listen", "127.0.0.1:0"], &[path, "holds something else"]);
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    refused(&["demo", "--listen", &address], &[&address, "in use", "--listen"]);
    refused(&["demo", "--listen", "0.0.0.0:0"], &["loopback"]);
    let output = steeldb(&["demo", "--replicas", "3"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_process_that_must_end_with_its_parent_knows_its_parent() {
    // Process 1 is not this test.
    refused(&["replica", "--config", "/nowhere", "--die-with-parent", "1"], &["process 1", "not its parent"]);
}

#[test]
fn passwords_become_verifiers() {
    use std::io::Write as _;
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    let set = |password: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_steeldb"))
            .args(["proxy-password", "--users", users.to_str().unwrap(), "app"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    assert!(set("open sesame\n").status.success());
    let text = std::fs::read_to_string(&users).unwrap();
    assert!(text.contains("\"app\" SCRAM-SHA-256$4096:") && !text.contains("sesame"), "{text}");
    assert_eq!(set("\n").status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(&users).unwrap(), text);
    let users = users.to_str().unwrap();
    refused(&["proxy-password", "--users", users, "--remove", "nobody"], &["nobody"]);
    assert!(steeldb(&["proxy-password", "--users", users, "--remove", "app"]).status.success());
}
