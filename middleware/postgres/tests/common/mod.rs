//! Real servers and databases for the tests.
#![allow(dead_code, missing_docs)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use steeldb_postgres::decoding::{self, Decoded, DecodingStream};
use steeldb_postgres::settings::Settings;
use steeldb_postgres::transaction::{self, Record, RecordSecret, TransactionStart};
use steeldb_postgres::{
    AGENT_ROLE, Backend, Launcher, PUBLICATION, Server, ServerConfig, WriteSet, migrations, roles,
};
use steeldb_types::{Digest, Position, Timestamp, TxId};

/// A bound on waits that only a bug makes long; never a measure.
pub const HANG: Duration = Duration::from_secs(120);

pub const CLIENT_ROLE: &str = "app";

/// A directory that an unprivileged postgres can reach.
pub fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

pub fn config(dir: &Path) -> ServerConfig {
    let settings = Settings {
        max_connections: 40,
        max_prepared_transactions: 20,
        max_replication_slots: 16,
        shared_buffers_mb: 16,
        fsync: false,
    };
    ServerConfig { settings, ..ServerConfig::new(dir.join("data"), Launcher::Direct) }
}

/// A server in a directory that goes with it.
pub struct TestServer {
    pub server: Server,
    pub _dir: tempfile::TempDir,
}

impl TestServer {
    pub fn start() -> TestServer {
        let dir = directory();
        let server = Server::start(config(dir.path())).unwrap();
        TestServer { server, _dir: dir }
    }

    /// The server that the tests of one file share while any of them runs; it stops with the last one.
    pub fn shared() -> Arc<TestServer> {
        static SHARED: Mutex<Weak<TestServer>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(TestServer::start());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    pub async fn connect(&self, database: &str, role: &str) -> Backend {
        Backend::connect(self.server.socket_dir(), database, role, &[]).await.unwrap()
    }

    /// A new database with everything installed, owned by the client's role.
    pub async fn database(&self, name: &str) -> Database<'_> {
        let mut postgres = self.connect("postgres", AGENT_ROLE).await;
        if let Err(error) = roles::create_role(&mut postgres, CLIENT_ROLE).await {
            let code = error.sqlstate().map(str::to_string);
            // Two tests may create it at once.
            assert!(matches!(code.as_deref(), Some("42710" | "23505")), "{error}");
        }
        roles::create_database(&mut postgres, name, CLIENT_ROLE).await.unwrap();
        let mut admin = self.connect(name, AGENT_ROLE).await;
        migrations::install(&mut admin).await.unwrap();
        let secret = RecordSecret::load(&mut admin).await.unwrap();
        let mut client = self.connect(name, CLIENT_ROLE).await;
        let mac = format!("\\x{}", hex::encode(secret.session_mac(client.process_id(), 7)));
        client.extended("SELECT steeldb.arm_draws(7, true, $1)", &[Some(&mac)]).await.unwrap();
        Database { server: self, name: name.to_string(), admin, client, secret, counter: 0 }
    }
}

/// A database with a session of the agent and one of a client.
pub struct Database<'a> {
    pub server: &'a TestServer,
    pub name: String,
    pub admin: Backend,
    pub client: Backend,
    pub secret: RecordSecret,
    pub counter: u64,
}

pub fn start() -> TransactionStart {
    TransactionStart::new(TxId::default(), Timestamp(1_700_000_000_123_456), &[7; 32])
}

impl Database<'_> {
    pub async fn stream(&self) -> DecodingStream {
        let socket = self.server.server.socket_dir();
        let slot = format!("slot_{}", self.name);
        tokio::time::timeout(HANG, decoding::create_slot(socket, &self.name, &slot)).await.unwrap().unwrap();
        DecodingStream::start(socket, &self.name, &slot, PUBLICATION).await.unwrap()
    }

    pub fn gid(&self) -> String {
        format!("{}-{}", self.name, self.counter)
    }

    /// Begins a client's transaction as the agent does.
    pub async fn begin(&mut self) {
        self.client.simple("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
        transaction::begin_transaction(&mut self.client, &start()).await.unwrap();
    }

    /// Ends it: constraints, record, PREPARE TRANSACTION.
    pub async fn prepare(&mut self) {
        self.counter += 1;
        self.client.simple(&transaction::complete_sql("", false)).await.unwrap();
        let tx = TxId { counter: self.counter, ..TxId::default() };
        let record =
            Record { tx, slot: Position(self.counter), operations: 1, transcript: Digest::of("test", &[]) };
        transaction::record_transaction(&mut self.client, &self.secret, &record).await.unwrap();
        let prepared = self.client.simple(&format!("PREPARE TRANSACTION '{}'", self.gid())).await.unwrap();
        assert_eq!(prepared.tag(), "PREPARE TRANSACTION");
    }

    pub async fn resolve(&mut self, commit: bool) {
        let verb = if commit { "COMMIT" } else { "ROLLBACK" };
        self.admin.simple(&format!("{verb} PREPARED '{}'", self.gid())).await.unwrap();
    }

    /// Runs `sql` as a client's transaction, prepares and commits it.
    pub async fn commit(&mut self, sql: &str) {
        self.begin().await;
        self.client.simple(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        self.prepare().await;
        self.resolve(true).await;
    }

    /// Runs `sql` as [`Database::commit`] does and gives its write set from `stream`.
    pub async fn write_set(&mut self, stream: &mut DecodingStream, sql: &str) -> WriteSet {
        self.commit(sql).await;
        let gid = self.gid();
        let write_set = loop {
            match next(stream).await {
                Decoded::Prepared { gid: prepared, write_set, .. } if prepared == gid => break write_set,
                _ => {}
            }
        };
        assert!(matches!(next(stream).await, Decoded::Resolved { committed: true, .. }));
        write_set
    }

    /// The SQLSTATE with which a client's `sql` fails in a transaction, which is rolled back.
    pub async fn refused(&mut self, sql: &str) -> String {
        self.begin().await;
        let result = self.client.simple(sql).await;
        self.client.simple("ROLLBACK").await.unwrap();
        let error = result.expect_err(sql);
        error.sqlstate().unwrap_or_else(|| panic!("{sql}: {error}")).to_string()
    }

    /// The only value of a client's query in a transaction.
    pub async fn value(&mut self, sql: &str) -> String {
        self.begin().await;
        let answer = self.client.simple(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        self.client.simple("COMMIT").await.unwrap();
        answer.value().unwrap_or("null").to_string()
    }
}

pub async fn next(stream: &mut DecodingStream) -> Decoded {
    tokio::time::timeout(HANG, stream.next()).await.expect("nothing was decoded").unwrap()
}
