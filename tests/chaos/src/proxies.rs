//! Sessions through proxies, for what chaos itself asks.

use anyhow::Context as _;
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// Until a connection or an answer counts as lost. The proxy itself gives up earlier.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a statement is tried.
const SETTLED_PATIENCE: Duration = Duration::from_secs(300);

/// A session; nothing if there is none to be had.
pub(crate) async fn connect(url: &str) -> Option<Client> {
    let connecting = tokio::time::timeout(PATIENCE, tokio_postgres::connect(url, NoTls)).await;
    let (client, connection) = connecting.ok()?.ok()?;
    tokio::spawn(async move {
        // Its error is the statement's, too.
        let _ = connection.await;
    });
    Some(client)
}

/// Runs statements through one proxy after the other until they succeed; the numbers in their rows' first column.
///
/// # Errors
/// What they failed with at last.
pub(crate) async fn query(urls: &[String], sql: &str) -> anyhow::Result<Vec<u64>> {
    let deadline = Instant::now() + SETTLED_PATIENCE;
    let mut tries = urls.iter().cycle();
    loop {
        let url = tries.next().context("no proxy")?;
        let error = match connect(url).await {
            Some(client) => match tokio::time::timeout(PATIENCE, client.simple_query(sql)).await {
                Ok(Ok(messages)) => {
                    let numbers = messages.iter().filter_map(|message| match message {
                        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
                        _ => None,
                    });
                    return Ok(numbers.collect());
                }
                Ok(Err(error)) => anyhow::anyhow!(error),
                Err(_) => anyhow::anyhow!("no answer"),
            },
            None => anyhow::anyhow!("no connection to {url}"),
        };
        if Instant::now() > deadline {
            return Err(error.context(format!("{sql:?} does not succeed")));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
