//! Faults, and what replicas could disagree on, with four real servers. Names such as A9 or B5 are those of the schedules
//! that the design's rules close.

mod connections;
mod control;
mod definitions;
mod determinism;
mod locks;
mod sequences;
mod tables;

use steeldb_cluster_tests::sqlstate;
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

/// The SQLSTATE of statements that must fail.
#[track_caller]
fn fails<'a>(client: &'a Client, sql: &'a str) -> impl Future<Output = String> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        match client.batch_execute(sql).await {
            Ok(()) => panic!("{caller}: {sql}: succeeded"),
            Err(error) => sqlstate(&error),
        }
    }
}

/// The only value of a query, as text.
#[track_caller]
fn value<'a>(client: &'a Client, sql: &'a str) -> impl Future<Output = String> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        let said =
            client.simple_query(sql).await.unwrap_or_else(|error| panic!("{caller}: {sql}: {error:?}"));
        let row = said.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_string()),
            _ => None,
        });
        row.unwrap_or_default()
    }
}
