//! What is certified deterministic, by the catalogs of a real server.

use std::os::unix::fs::PermissionsExt as _;
use steeldb_postgres::settings::Settings;
use steeldb_postgres::{AGENT_ROLE, Backend, Launcher, Server, ServerConfig, migrations, roles};
use steeldb_replica::certified::is_certified;
use steeldb_wire::transaction::StatementText;

const SCHEMA: &str = "
    CREATE TABLE account (id int PRIMARY KEY, branch int NOT NULL, name text, balance numeric(12, 2) NOT NULL,
                          opened timestamptz, flag bool DEFAULT true, UNIQUE (branch, name));
    CREATE TABLE ledger (account int NOT NULL, seq int NOT NULL, amount bigint NOT NULL, note varchar(40),
                         day date, PRIMARY KEY (account, seq));
    CREATE TABLE checked (id int PRIMARY KEY, v int CHECK (v > 0), w int GENERATED ALWAYS AS (v * 2) STORED);
    CREATE TABLE parted (id int NOT NULL, v int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (1000);
    CREATE TABLE measured (id int PRIMARY KEY, x float8, at timestamptz DEFAULT steeldb.now(), j jsonb);
    CREATE TABLE serial_one (id serial PRIMARY KEY, v int);
    CREATE TABLE keyless (v int, w int);
    CREATE TABLE late_key (id int UNIQUE DEFERRABLE INITIALLY DEFERRED, v int);
    CREATE TABLE some_keys (id int NOT NULL, v int);
    CREATE UNIQUE INDEX ON some_keys (id) WHERE v > 0;
    CREATE TABLE may_be_null (id int UNIQUE, v int);
    CREATE VIEW seen AS SELECT * FROM account;
    CREATE TABLE secured (id int PRIMARY KEY, v int);
    ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
    CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
    CREATE TABLE triggered (id int PRIMARY KEY, v int);
    CREATE TRIGGER t BEFORE UPDATE ON triggered FOR EACH ROW EXECUTE FUNCTION touch();
    CREATE TABLE ruled (id int PRIMARY KEY, v int);
    CREATE RULE r AS ON UPDATE TO ruled DO ALSO SELECT 1;
    CREATE TABLE parent (id int PRIMARY KEY, v int);
    CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE);
    CREATE FUNCTION says_immutable(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 1';
    CREATE TABLE by_own (id int PRIMARY KEY, v int CHECK (says_immutable(v) > 0));
    CREATE TYPE mood AS ENUM ('sad', 'glad');
    CREATE TABLE moody (id int PRIMARY KEY, m mood);
    CREATE SCHEMA a; CREATE SCHEMA b;
    CREATE TABLE a.twice (id int PRIMARY KEY); CREATE TABLE b.twice (id int PRIMARY KEY);
    CREATE TABLE a.\":opfuncid\" (id int PRIMARY KEY, \":resjunk\" int);
    CREATE FUNCTION a.abs(text) RETURNS text LANGUAGE sql AS 'SELECT $1';
    CREATE FUNCTION a.plus(mood, mood) RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE OPERATOR a.# (LEFTARG = mood, RIGHTARG = mood, FUNCTION = a.plus);
    CREATE TABLE grown (id int PRIMARY KEY, v int); CREATE TABLE heir () INHERITS (grown);
";

const CERTIFIED: &[&str] = &[
    "select 1",
    "select * from account",
    "select name from account where id = $1",
    "select name from account where id = 7 order by name",
    "select name, balance from account where id in (1, 2, 3) and balance > 10 and flag",
    "select * from account order by id",
    "select name from account order by balance, id desc limit 10",
    "select name from account order by branch, name, balance limit 10",
    "select balance from account where branch = 3 and name = $1 order by balance",
    "select amount from ledger where account = $1 order by seq limit 1",
    "select branch, count(*) from account group by branch order by branch",
    "select count(*), sum(amount), avg(amount), max(day), min(seq) from ledger where account = $1",
    "select sum(balance) from account",
    "select distinct branch from account order by branch limit 3",
    "select a.name, l.amount from account a join ledger l on a.id = l.account where a.id = $1",
    "select a.name from account a left join ledger l on a.id = l.account and l.seq > 3 where l.account is null",
    "select balance + 1, upper(name), balance / branch from account where id = 1",
    "select coalesce(name, 'none'), case when balance > 0 then branch else 0 end from account where id = 1",
    "select steeldb.now() from account where id = 1",
    "select name from account where id = any($1)",
    "select v from parted where id = 5",
    "select * from parted order by id",
    "select v from a.twice t, checked c where t.id = c.id",
    "select x from measured where id = 1 for update",
    "select name from account where id = 1 and branch between 2 and 3 for share",
    "update account set balance = balance + 1 where id = 1",
    "update account set name = $1, flag = false where id = $2 returning *",
    "update ledger set amount = amount - 5 where account = 1 and seq = $1",
    "update parted set v = v + 1 where id = 1",
    "update checked set v = 3 where id = 1 returning w",
    "delete from ledger where account = $1 and seq = 2 returning amount",
    "delete from child where id = 1",
    "insert into account (id, branch, name, balance) values (1, 2, 'x', 3.5)",
    "insert into ledger values ($1, $2, $3 + 1, 'note', null) returning *",
    "insert into parted values (1, 2), (3, 4)",
    "insert into measured (id, x) values (1, 2.5)",
    "insert into checked (id, v) values (1, 2)",
];

const NOT_CERTIFIED: &[&str] = &[
    // Which rows, and in what sequence.
    "select * from account order by balance",
    "select balance from account order by branch, name limit 10",
    "select name from account limit 1",
    "select name from account order by branch limit 1",
    "select balance from account where branch = 3 order by balance",
    "select v from late_key order by id",
    "select v from some_keys order by id",
    "select v from may_be_null order by id",
    "select w from keyless order by v",
    "select a.name from account a join ledger l on a.id = l.account order by a.id",
    "select branch, count(*) from account group by branch order by count(*)",
    "select balance, count(*) from account group by balance",
    "select distinct balance from account",
    "select min(balance) from account",
    "select v from grown where id = 1 order by v",
    "select x from measured group by x",
    // What functions do.
    "select random()",
    "select clock_timestamp()",
    "select now()",
    "select sum(x) from measured",
    "select array_agg(v) from keyless",
    "select string_agg(name, ',') from account",
    "select nextval('serial_one_id_seq')",
    "select steeldb.nextval('serial_one_id_seq')",
    "select pg_backend_pid()",
    "select says_immutable(1)",
    "select public.says_immutable(v) from checked where id = 1",
    "select abs(v) from checked where id = 1",
    "select to_char(opened, 'YYYY') from account where id = 1",
    "select opened::date from account where id = 1",
    "select version()",
    "select current_setting('port')",
    "select pg_catalog.now()",
    // What may fail, or not, by the plan.
    "select name from account where 1 / branch > 0",
    "select 1 / branch from account",
    "select 1 / $1 from account where id = 1",
    "update account set branch = $1 / 2 where id = 1",
    "update ledger set note = $1 where account = 1 and seq = 1",
    "select sum(1 / branch) from account where id = 1",
    "insert into ledger values (1, 1, 1 / $1, null, null), (2, 2, 2, null, null)",
    "select name from account where id::text::int = 1",
    // Values that depend on when they are read.
    "select name from account where opened > $1",
    "select name from account where opened > '2020-01-01'",
    "select 'today'::date",
    "insert into ledger values (1, 1, 1, '', $1)",
    // What tables are.
    "select * from seen",
    "select * from secured",
    "select relname from pg_class where oid = 1",
    "select * from information_schema.tables",
    "select * from steeldb.transaction",
    "select * from moody",
    "select * from twice",
    "select m # m from moody",
    "select id as \":resjunk\" from account where id = 1",
    "select \":resjunk\" from a.\":opfuncid\" where id = 1",
    "select ctid from account where id = 1",
    "select tableoid from account where id = 1",
    "select account from account where id = 1",
    "select * from absent",
    // What writes set off.
    "update triggered set v = 1 where id = 1",
    "update ruled set v = 1 where id = 1",
    "delete from parent where id = 1",
    "insert into by_own values (1, 1)",
    "update by_own set v = 1 where id = 1",
    "insert into serial_one (v) values (1)",
    "insert into seen (id) values (1)",
    // Which rows are written.
    "update account set balance = 0 where branch = 1",
    "update account set balance = 0",
    "delete from keyless where v = 1",
    "delete from late_key where id = 1",
];

#[tokio::test]
async fn the_list_of_what_is_certified_and_what_is_not() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let settings =
        Settings { shared_buffers_mb: 16, max_connections: 60, fsync: false, ..Settings::default() };
    let config = ServerConfig { settings, ..ServerConfig::new(dir.path().join("data"), Launcher::Direct) };
    let server = Server::start(config).unwrap();
    let socket = server.socket_dir().to_path_buf();
    let mut agent = Backend::connect(&socket, "postgres", AGENT_ROLE, &[]).await.unwrap();
    roles::create_role(&mut agent, "app").await.unwrap();
    roles::create_database(&mut agent, "app", "app").await.unwrap();
    let mut agent = Backend::connect(&socket, "app", AGENT_ROLE, &[]).await.unwrap();
    migrations::install(&mut agent).await.unwrap();
    let mut client = Backend::connect(&socket, "app", "app", &[]).await.unwrap();
    client.simple(SCHEMA).await.unwrap();

    let certified = async |sql: &str, row_order: bool, parameter_types: Vec<u32>| {
        let text = StatementText { sql: sql.to_string(), parameter_types };
        is_certified(&socket, "app", &text, row_order).await
    };
    let sorted = |sql: &str| sql.contains("order by");
    let mut wrong: Vec<&str> = Vec::new();
    for sql in CERTIFIED {
        if !certified(sql, sorted(sql), vec![]).await {
            wrong.push(sql);
        }
    }
    assert!(wrong.is_empty(), "not certified: {wrong:#?}");
    for sql in NOT_CERTIFIED {
        if certified(sql, sorted(sql), vec![]).await {
            wrong.push(sql);
        }
    }
    assert!(wrong.is_empty(), "certified: {wrong:#?}");

    // A client may ask for rows to be compared in sequence that come in none.
    assert!(!certified("select * from account", true, vec![]).await);
    assert!(certified("select count(*) from account", true, vec![]).await);
    assert!(certified("select name from account where id = 1", true, vec![]).await);
    // The types of parameters are the client's to say: as int8 one is still compared, as timestamptz it may be 'now'.
    assert!(certified("select name from account where id = $1", false, vec![20]).await);
    assert!(!certified("select $1", false, vec![1184]).await);
    // A table of the same name elsewhere, and it is not clear any more.
    client.simple("CREATE TABLE b.ledger (id int)").await.unwrap();
    assert!(!certified("select * from ledger", false, vec![]).await);
    assert!(certified("select * from public.ledger", false, vec![]).await);
}
