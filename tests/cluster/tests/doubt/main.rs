//! Transactions in doubt, on four real servers: proxies that are killed at every point of a COMMIT, what is said of their
//! transactions afterwards, and what is in the database (E1); statements that are run again (E2); several proxies.

mod kills;
mod proxies;
mod retries;

use steeldb_cluster_tests::{Proxy, sqlstate};
use tokio_postgres::Client;

/// Runs statements that must succeed.
#[track_caller]
fn run<'a>(client: &'a Client, sql: &'a str) -> impl Future<Output = ()> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        if let Err(error) = client.batch_execute(sql).await {
            panic!("{caller}: {sql}: {error:?}");
        }
    }
}

/// The only value of a query, as text; or the SQLSTATE.
async fn value(client: &Client, sql: &str) -> Result<String, String> {
    let said = client.simple_query(sql).await.map_err(|error| sqlstate(&error))?;
    let row = said.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_string()),
        _ => None,
    });
    Ok(row.unwrap_or_default())
}

/// What became of a transaction, as soon as something has.
async fn outcome(client: &Client, tx: &str) -> String {
    loop {
        let state = value(client, &format!("SELECT steeldb.outcome('{tx}')")).await.unwrap();
        if state != "in progress" {
            return state;
        }
        // Each question is ordered: no more than a few between two looks at the clock of T_vote.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

async fn connect(proxy: &Proxy) -> std::sync::Arc<Client> {
    proxy.connect().await.unwrap().client
}
