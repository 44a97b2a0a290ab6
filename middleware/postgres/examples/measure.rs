//! Measures what this crate adds to a transaction, on a throw-away server:
//! `cargo run --release -p steeldb-postgres --example measure`.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};
use steeldb_postgres::transaction::{self, Record, RecordSecret, TransactionStart};
use steeldb_postgres::{
    AGENT_ROLE, Backend, Change, Decoded, DecodingStream, Identity, Launcher, Operation, PUBLICATION, Row,
    Server, ServerConfig, WriteSet, decoding, digest, migrations, roles,
};
use steeldb_types::{Digest, Position, Timestamp, TxId};

const ROUNDS: usize = 2000;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    println!("{what:55} p50 {:8.1} us   p99 {:8.1} us", at(0.5), at(0.99));
}

async fn timed(session: &mut Backend, what: &str, sql: &str, values: &[Option<&str>]) -> Result<(), Failure> {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let started = Instant::now();
        session.extended(sql, values).await?;
        times.push(started.elapsed());
    }
    report(what, times);
    Ok(())
}

/// *w* of many updates, whose order is followed by their keys, and of the same where all values identify a row: then nothing
/// is followed.
fn write_sets() -> Result<(), Failure> {
    const CHANGES: usize = 100_000;
    let row = |columns: &[(&str, String)]| {
        Row::new(columns.iter().map(|(name, value)| (name.to_string(), Some(value.clone()))).collect())
    };
    for round in 1..=3 {
        for (what, identity) in [("by key", Identity::Key(vec![0])), ("by all values", Identity::Row)] {
            let change = |id: usize| -> Result<Change, Failure> {
                let old = row(&[("id", id.to_string())])?;
                let new = row(&[("id", id.to_string()), ("v", format!("{id:0100}"))])?;
                let operation = Operation::Update { old, new };
                Ok(Change {
                    schema: "public".into(),
                    table: "t".into(),
                    identity: identity.clone(),
                    operation,
                })
            };
            let changes = (0..CHANGES).map(change).collect::<Result<Vec<_>, _>>()?;
            let started = Instant::now();
            WriteSet::new(changes).digest()?;
            let each = started.elapsed().as_secs_f64() * 1e6 / CHANGES as f64;
            println!("{:55} {each:8.2} us per change", format!("w, rows known {what}, round {round}"));
        }
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    write_sets()?;
    let dir = tempfile::tempdir()?;
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
    let server = Server::start(ServerConfig::new(dir.path().join("data"), Launcher::Direct))?;
    let connect =
        async |database: &str, role: &str| Backend::connect(server.socket_dir(), database, role, &[]).await;
    let mut postgres = connect("postgres", AGENT_ROLE).await?;
    roles::create_role(&mut postgres, "app").await?;
    roles::create_database(&mut postgres, "measure", "app").await?;
    let mut admin = connect("measure", AGENT_ROLE).await?;
    migrations::install(&mut admin).await?;
    decoding::create_slot(server.socket_dir(), "measure", "measure").await?;
    let stream = DecodingStream::start(server.socket_dir(), "measure", "measure", PUBLICATION).await?;
    let secret = RecordSecret::load(&mut admin).await?;
    let mut client = connect("measure", "app").await?;
    client.simple("CREATE TABLE t (id int PRIMARY KEY, v int)").await?;
    client.simple("INSERT INTO t SELECT i, 0 FROM generate_series(1, 1000) AS i").await?;
    // No agent takes these rows away here, and with them every transaction would be one that ran DDL.
    admin.simple("DELETE FROM steeldb.ddl_command").await?;

    let start = TransactionStart::new(TxId::default(), Timestamp(1_700_000_000_123_456), &[7; 32]);
    client.simple("BEGIN").await?;
    timed(&mut client, "SELECT 1", "SELECT 1", &[]).await?;
    let started = Instant::now();
    for _ in 0..ROUNDS {
        transaction::begin_transaction(&mut client, &start).await?;
    }
    println!("{:55} {:8.2} us", "begin_transaction", started.elapsed().as_secs_f64() * 1e6 / ROUNDS as f64);
    let started = Instant::now();
    for _ in 0..ROUNDS {
        client.simple(&transaction::complete_sql("", false)).await?;
    }
    println!("{:55} {:8.2} us", "complete", started.elapsed().as_secs_f64() * 1e6 / ROUNDS as f64);
    for expression in ["1", "pg_catalog.now()", "now()", "pg_catalog.gen_random_uuid()", "gen_random_uuid()"]
    {
        let started = Instant::now();
        client.simple(&format!("SELECT count({expression}) FROM generate_series(1, 100000)")).await?;
        println!("{:55} {:8.2} us per row", expression, started.elapsed().as_secs_f64() * 1e6 / 1e5);
    }
    client.simple("ROLLBACK").await?;

    prepare_to_decoded(&mut client, &mut admin, stream, &secret, &start).await?;

    client.simple("CREATE TABLE big AS SELECT i, md5(i::text) AS a, i / 7.0 AS b FROM generate_series(1, 500000) AS i").await?;
    admin.simple("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
    let started = Instant::now();
    digest::table_digests(&mut admin, b"salt").await?;
    println!("{:55} {:8.2} us per row", "table digest", started.elapsed().as_secs_f64() * 1e6 / 5e5);
    let started = Instant::now();
    digest::catalog_digest(&mut admin).await?;
    println!("{:55} {:8.2} ms", "catalog digest", started.elapsed().as_secs_f64() * 1e3);
    admin.simple("ROLLBACK").await?;
    server.stop()?;
    Ok(())
}

/// From the answer to PREPARE TRANSACTION to its write set and digest.
async fn prepare_to_decoded(
    client: &mut Backend,
    admin: &mut Backend,
    mut stream: DecodingStream,
    secret: &RecordSecret,
    start: &TransactionStart,
) -> Result<(), Failure> {
    let (mut records, mut prepares, mut waits, mut commits) = (vec![], vec![], vec![], vec![]);
    for counter in 1..=ROUNDS as u64 {
        let tx = TxId { counter, ..TxId::default() };
        let slot = Position(counter);
        client.simple("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        transaction::begin_transaction(client, start).await?;
        client.simple(&format!("UPDATE t SET v = v + 1 WHERE id = {}", counter % 1000 + 1)).await?;
        let started = Instant::now();
        let record = Record { tx, slot, operations: 1, transcript: Digest::of("t", &[]) };
        transaction::record_transaction(client, secret, &record).await?;
        records.push(started.elapsed());
        let gid = transaction::gid(tx, slot);
        let started = Instant::now();
        client.simple(&format!("PREPARE TRANSACTION '{gid}'")).await?;
        prepares.push(started.elapsed());
        let started = Instant::now();
        let lsn = match stream.next().await? {
            Decoded::Prepared { lsn, write_set, .. } => {
                write_set.digest()?;
                lsn
            }
            other => return Err(format!("{other:?}").into()),
        };
        waits.push(started.elapsed());
        let started = Instant::now();
        admin.simple(&format!("COMMIT PREPARED '{gid}'")).await?;
        commits.push(started.elapsed());
        stream.next().await?;
        stream.confirm(lsn).await?;
    }
    report("record_transaction", records);
    report("PREPARE TRANSACTION (fsync on)", prepares);
    report("PREPARE returned -> write set and digest", waits);
    report("COMMIT PREPARED (fsync on)", commits);
    Ok(())
}
