//! Crashes of an agent, a server, a host and all hosts, at every step of the protocol. Afterwards no acknowledged commit is
//! lost, all databases are equal, nothing stays prepared, and the service goes on.

use steeldb_cluster_tests::{Client, Cluster, Crash};
use steeldb_replica::agent::Point;

const STEPS: [Point; 6] = [
    Point::BeforePrepare,
    Point::Prepared,
    Point::VoteSent,
    Point::Decided,
    Point::BeforeCommit,
    Point::Committed,
];

/// Transactions that may pass before a replica reaches a step.
const TRIES_MAX: u32 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: part of make nightly"]
async fn an_agent_crashes_at_every_step() {
    crashes(Crash::Agent, &[(3, false), (0, false)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_crashes_at_every_step_and_its_agent_starts_it_again() {
    crashes(Crash::Server, &[(3, false), (0, false)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: part of make nightly"]
async fn a_host_crashes_at_every_step() {
    crashes(Crash::Host, &[(3, false), (0, false)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: part of make nightly"]
async fn a_host_crashes_at_every_step_of_ddl() {
    crashes(Crash::Host, &[(3, true)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: part of make nightly"]
async fn all_hosts_crash_at_every_step() {
    crashes(Crash::AllHosts, &[(1, false), (1, true)]).await;
}

async fn crashes(crash: Crash, replicas: &[(u16, bool)]) {
    let mut cluster = Cluster::start(4).await.unwrap();
    let mut client = cluster.session().await.unwrap();
    client.execute("create table t (id int primary key, n int)").await.unwrap();
    client.execute("insert into t values (0, 0)").await.unwrap();
    let (mut id, mut acknowledged) = (0, Vec::new());
    for (replica, ddl) in replicas {
        for step in STEPS {
            client.shim.connected(std::time::Duration::from_secs(60)).await;
            client.identical().await;
            let mut sprung = cluster.crash_at(*replica, step, crash);
            // A replica that is slower than the three others need not vote: then it is the turn of the next transaction.
            let mut running = Box::pin(transaction(&client, id + 1, *ddl));
            let mut tries = 1;
            loop {
                id += 1;
                tokio::select! {
                    biased;
                    reached = &mut sprung => {
                        reached.unwrap();
                        break;
                    }
                    result = &mut running => {
                        println!("{crash:?} of {replica} not yet at {step:?}: {result:?}");
                        if result.is_ok() {
                            acknowledged.push(id);
                        }
                        assert!(tries < TRIES_MAX, "{crash:?} of {replica}: it never reaches {step:?}");
                        tries += 1;
                        running = Box::pin(transaction(&client, id + 1, *ddl));
                    }
                }
            }
            let restart = async {
                match crash {
                    Crash::Agent | Crash::Host => cluster.cut_off(*replica).await,
                    Crash::AllHosts => {
                        for replica in 0..4 {
                            cluster.cut_off(replica).await;
                        }
                    }
                    Crash::Server => {}
                }
                cluster.start_all().await.unwrap();
            };
            let (result, ()) = futures::future::join(running, restart).await;
            println!("{crash:?} of {replica} at {step:?}: {result:?}");
            if result.is_ok() {
                acknowledged.push(id);
            }
            client.shim.connected(std::time::Duration::from_secs(60)).await;
            client.identical().await;
            cluster.nothing_prepared().await.unwrap();
            let mut next = goes_on(&client, 1000 + id).await;
            acknowledged.push(1000 + id);
            let rows = next.execute("select id from t").await.unwrap().rows;
            for id in &acknowledged {
                let id = vec![Some(id.to_string())];
                assert!(rows.contains(&id), "{id:?} was acknowledged: {crash:?} of {replica} at {step:?}");
            }
            client.identical().await;
        }
    }
    cluster.stop_all().await.unwrap();
}

async fn transaction(client: &Client, id: i32, ddl: bool) -> Result<(), String> {
    let mut client = client.another().await.map_err(|error| error.to_string())?;
    client.begin();
    let mut statements =
        vec![format!("insert into t values ({id}, 0)"), "update t set n = n + 1 where id = 0".into()];
    if ddl {
        statements.push(format!("create table t{id} as select * from t"));
    }
    for sql in statements {
        let answer = client.run(&sql).await.map_err(|error| error.to_string())?;
        if let Some(sqlstate) = answer.sqlstate {
            return Err(sqlstate);
        }
    }
    client.commit().await.map(|_| ()).map_err(|error| error.to_string())
}

/// A transaction that is tried until it commits, and its session.
async fn goes_on(client: &Client, id: i32) -> Client {
    loop {
        // What is refused is refused after a while, so this does not spin.
        let Ok(mut session) = client.another().await else { continue };
        let sql = format!("insert into t values ({id}, 0) on conflict do nothing");
        match session.execute(&sql).await {
            Ok(answer) if answer.sqlstate.is_none() => return session,
            other => println!("not yet: {other:?}"),
        }
    }
}
