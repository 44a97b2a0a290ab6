//! Histories of a real PostgreSQL server: it is caught where it promises less than what is checked, and not where it
//! promises that much. So the workload makes the conflicts that matter, and the checker sees them.

use std::time::Duration;
use steeldb_isolation::workload::{Options, Workload};
use steeldb_isolation::{Kind, Report, check};
use steeldb_postgres::connection::PORT;
use steeldb_postgres::{AGENT_ROLE, Backend, Launcher, Server, ServerConfig, roles};

const APP: &str = "app";

/// Commits of a round. A few hundred show what there is to see; more than one round is a matter of luck.
const COMMITS: u64 = 1500;
const ROUNDS: u64 = 10;

struct Plain {
    server: Server,
    _dir: tempfile::TempDir,
}

impl Plain {
    async fn start() -> Plain {
        let dir = tempfile::Builder::new().prefix("steeldb-test-").tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut config = ServerConfig::new(dir.path().join("data"), Launcher::Direct);
        config.settings.fsync = false;
        config.settings.shared_buffers_mb = 32;
        let server = tokio::task::spawn_blocking(move || Server::start(config)).await.unwrap().unwrap();
        let mut admin = Backend::connect(server.socket_dir(), "postgres", AGENT_ROLE, &[]).await.unwrap();
        roles::create_role(&mut admin, APP).await.unwrap();
        roles::create_database(&mut admin, APP, APP).await.unwrap();
        Plain { server, _dir: dir }
    }

    async fn round(&self, level: &str, seed: u64) -> Report {
        let socket = self.server.socket_dir().display();
        let url = format!("host={socket} port={PORT} user={APP} dbname={APP}");
        let options = Options { level: level.into(), ..Options::new(vec![url], seed) };
        let workload = Workload::start(options).await.unwrap();
        while workload.committed() < COMMITS {
            // Gives the clients the processor; what is waited for are their commits.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        check(&workload.finish().await.unwrap())
    }
}

#[tokio::test]
async fn read_committed_is_caught_losing_updates() {
    let plain = Plain::start().await;
    for seed in 1..=ROUNDS {
        let report = plain.round("READ COMMITTED", seed).await;
        assert_eq!(report.lost, []);
        if report.kinds().contains(&Kind::LostUpdate) {
            println!("round {seed}: {:?}", report.kinds());
            return;
        }
    }
    panic!("{ROUNDS} rounds of {COMMITS} commits at READ COMMITTED lost no update");
}

#[tokio::test]
async fn repeatable_read_of_one_server_is_clean() {
    let plain = Plain::start().await;
    let report = plain.round("REPEATABLE READ", 1).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.unknown, 0);
    // It could have shown something.
    assert!(report.aborted > 0, "{report}");
    assert!(report.dependencies.iter().all(|count| *count > 100), "{report}");
}
