//! The corpus: SQL scripts by class, run by several sessions at once on a cluster of four and, one after the other, on a
//! plain server. All four databases must be equal afterwards, and the answers PostgreSQL's.

mod script;

use bytes::Bytes;
use futures::{SinkExt as _, TryStreamExt as _};
use script::{Compare, Script, Step};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use steeldb_cluster_tests::{Cluster, Plain, Proxy, sqlstate};
use tokio::sync::Mutex;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

/// Sessions that run scripts at once.
const SESSIONS: usize = 3;

/// How often a script may be ended by 40001, as under load, and start over.
const TRIES: usize = 10;

/// No script takes so long unless it hangs.
const HANGS: Duration = Duration::from_secs(120);

/// What several scripts share.
const SHARED: &str = "CREATE SCHEMA corpus_shared;
    CREATE TABLE corpus_shared.t (id serial PRIMARY KEY, who text);
    CREATE TABLE corpus_shared.i (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, who text);
    CREATE SEQUENCE corpus_shared.s;
    CREATE SEQUENCE corpus_shared.ring MAXVALUE 5 CYCLE";

/// What a step answered: its columns and rows, or its error.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Answer {
    columns: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
    tags: Vec<u64>,
    error: Option<String>,
    /// Of the error.
    says: String,
    hint: bool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_corpus_answers_as_postgresql_and_leaves_equal_databases() {
    let scripts = script::read_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus"));
    assert!(scripts.len() >= 150, "{} scripts", scripts.len());
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = Arc::new(cluster.proxy().await.unwrap());
    let expected = plain(&scripts).await;

    let started = std::time::Instant::now();
    prepare(&proxy, &scripts).await;
    eprintln!("prepared after {:.1} s", started.elapsed().as_secs_f64());
    let done = run_all(&proxy, scripts.iter().filter(|script| !script.defines)).await;
    eprintln!("run after {:.1} s", started.elapsed().as_secs_f64());
    let mut again = 0;
    let mut answered: Vec<(String, Vec<Answer>)> = Vec::new();
    // One session: DDL ends what else runs, and DDL of others before all. What was ended above starts over here.
    for script in &scripts {
        match done.iter().find(|(name, _)| *name == script.name) {
            Some((_, Some(answers))) => answered.push((script.name.clone(), answers.clone())),
            ended => {
                again += usize::from(ended.is_some());
                answered.push((script.name.clone(), run(&proxy, script, ended.is_some()).await));
            }
        }
    }
    eprintln!("defined after {:.1} s", started.elapsed().as_secs_f64());
    proxy.identical().await;

    let mut wrong = Vec::new();
    for (name, answers) in answered {
        let at = scripts.iter().position(|script| script.name == name).unwrap();
        wrong.extend(differences(&scripts[at], &answers, &expected[at]));
    }
    eprintln!("{} scripts, {again} started over", scripts.len());
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// The answers of a plain server.
async fn plain(scripts: &[Script]) -> Vec<Vec<Answer>> {
    let server = Plain::start().await.unwrap();
    let mut expected = Vec::new();
    server.connect().await.unwrap().batch_execute(SHARED).await.unwrap();
    for script in scripts {
        if script.compare == Compare::Refused {
            expected.push(Vec::new()); // some of it would do something
            continue;
        }
        let client = server.connect().await.unwrap();
        let setup = format!("CREATE SCHEMA {0}; SET search_path = {0}; {1}", script.schema(), script.setup);
        client.batch_execute(&setup).await.unwrap_or_else(|error| panic!("{}: {error:?}", script.name));
        expected.push(play(&client, script).await.expect("a plain server serializes nothing"));
    }
    expected
}

/// Makes the schemas, some in each transaction: DDL is voted on with the whole catalog.
async fn prepare(proxy: &Proxy, scripts: &[Script]) {
    let client = proxy.connect().await.unwrap().client;
    client.batch_execute(SHARED).await.unwrap();
    for some in scripts.chunks(30) {
        let setup = |script: &Script| {
            format!("CREATE SCHEMA {0}; SET LOCAL search_path = {0};\n{1}", script.schema(), script.setup)
        };
        let sql: String = some.iter().map(setup).collect();
        let failed = |error| panic!("{} to {}: {error:?}", some[0].name, some[some.len() - 1].name);
        client.batch_execute(&format!("BEGIN;\n{sql}\nCOMMIT")).await.unwrap_or_else(failed);
    }
}

/// Runs scripts in several sessions at once; gives the answers, none of those that were ended for others' sake.
async fn run_all<'a>(
    proxy: &Arc<Proxy>,
    scripts: impl Iterator<Item = &'a Script>,
) -> Vec<(String, Option<Vec<Answer>>)> {
    let queue: Arc<Mutex<VecDeque<Script>>> = Arc::new(Mutex::new(scripts.cloned().collect()));
    let workers: Vec<_> = (0..SESSIONS)
        .map(|_| {
            let (queue, proxy) = (Arc::clone(&queue), Arc::clone(proxy));
            tokio::spawn(async move {
                let mut done = Vec::new();
                loop {
                    let Some(script) = queue.lock().await.pop_front() else { return done };
                    let client = connect(&proxy, &script).await;
                    let answers = tokio::time::timeout(HANGS, play(&client, &script)).await;
                    let answers = answers.unwrap_or_else(|_| panic!("{} hangs", script.name));
                    done.push((script.name, answers));
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.await.unwrap());
    }
    all
}

/// A session in the script's schema.
async fn connect(proxy: &Proxy, script: &Script) -> Arc<Client> {
    let path = format!("options='-c search_path={}'", script.schema());
    proxy.connect_with(&path).await.unwrap().client
}

/// Runs one script alone, again from the start whenever it is told to.
async fn run(proxy: &Proxy, script: &Script, again: bool) -> Vec<Answer> {
    let schema = script.schema();
    for tries in 0..TRIES {
        let client = connect(proxy, script).await;
        if again || tries > 0 {
            let sql = format!(
                "BEGIN; DROP SCHEMA {schema} CASCADE; CREATE SCHEMA {schema};\n{}\nCOMMIT",
                script.setup
            );
            match client.batch_execute(&sql).await {
                Err(error) if starts_over(&sqlstate(&error)) => continue,
                done => done.unwrap_or_else(|error| panic!("{}: {error:?}", script.name)),
            }
        }
        if let Some(answers) = play(&client, script).await {
            return answers;
        }
    }
    panic!("{} was started {TRIES} times and always ended", script.name);
}

/// Whether a transaction was ended for others' sake: by 40001 or 40P01, or with its session, whose settings went with it.
fn starts_over(sqlstate: &str) -> bool {
    ["40001", "40P01", "57P01"].contains(&sqlstate)
}

/// The steps' answers; none when the script has to start over.
async fn play(client: &Client, script: &Script) -> Option<Vec<Answer>> {
    let mut answers = Vec::new();
    for step in &script.steps {
        let answer = match step {
            Step::Query(sql) => client.simple_query(sql).await.map(|said| read(sql, &said)),
            Step::CopyIn(sql, data) => copy_in(client, sql, data).await,
            Step::CopyOut(sql) => copy_out(client, sql).await,
        };
        let answer = answer.unwrap_or_else(|error| Answer {
            error: Some(sqlstate(&error)),
            says: format!("{error:?}"),
            hint: error.as_db_error().is_some_and(|error| error.hint().is_some()),
            ..Answer::default()
        });
        if answer.error.as_deref().is_some_and(starts_over) {
            return None;
        }
        answers.push(answer);
    }
    Some(answers)
}

fn read(sql: &str, said: &[SimpleQueryMessage]) -> Answer {
    let mut answer = Answer::default();
    for message in said {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                answer.columns.extend(columns.iter().map(|column| column.name().to_string()));
            }
            SimpleQueryMessage::Row(row) => {
                answer.rows.push((0..row.len()).map(|column| row.get(column).map(str::to_string)).collect());
            }
            SimpleQueryMessage::CommandComplete(rows) => answer.tags.push(*rows),
            _ => {}
        }
    }
    if !sql.to_ascii_uppercase().contains("ORDER BY") && !sql.starts_with("FETCH") {
        answer.rows.sort();
    }
    answer
}

async fn copy_in(client: &Client, sql: &str, data: &str) -> Result<Answer, Error> {
    let sink = client.copy_in::<_, Bytes>(sql).await?;
    let mut sink = std::pin::pin!(sink);
    sink.send(Bytes::copy_from_slice(data.as_bytes())).await?;
    let rows = sink.finish().await?;
    Ok(Answer { tags: vec![rows], ..Answer::default() })
}

async fn copy_out(client: &Client, sql: &str) -> Result<Answer, Error> {
    let pieces: Vec<Bytes> = client.copy_out(sql).await?.try_collect().await?;
    let text = String::from_utf8_lossy(&pieces.concat()).into_owned();
    Ok(Answer { rows: text.lines().map(|line| vec![Some(line.to_string())]).collect(), ..Answer::default() })
}

/// What is not as it should be.
fn differences(script: &Script, answers: &[Answer], expected: &[Answer]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (at, (step, answer)) in script.steps.iter().zip(answers).enumerate() {
        let plain = expected.get(at);
        let equal = match (script.compare, plain) {
            (Compare::Refused, _) => answer.error.as_deref() == Some("0A000") && answer.hint,
            (_, None) => false,
            (Compare::Exact, Some(plain)) => {
                let of = |answer: &Answer| {
                    (answer.columns.clone(), answer.rows.clone(), answer.tags.clone(), answer.error.clone())
                };
                of(answer) == of(plain)
            }
            (Compare::Shape, Some(plain)) => {
                let of = |answer: &Answer| {
                    (answer.columns.clone(), answer.rows.len(), answer.tags.clone(), answer.error.clone())
                };
                of(answer) == of(plain)
            }
        };
        if !equal {
            wrong.push(format!("{}: {step:?}\n    here  {answer:?}\n    plain {plain:?}", script.name));
        }
    }
    wrong
}
