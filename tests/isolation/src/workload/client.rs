//! One client with its connection.
//!
//! Invariant: a transaction is told as aborted only if it cannot have taken effect: its COMMIT was never sent, or an
//! answer to it says that nothing happened. Where the connection is lost after COMMIT, or the answer says that the
//! outcome is not known (class 08, 40003, 57P), it is unknown.

use super::Shared;
use super::plan::Step;
use crate::history::{Operation, Outcome, Transaction, UNSET, Value};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::{Client as Driver, Error, NoTls, SimpleQueryMessage};

/// A pause before connecting again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// How often the last reads are tried.
const READ_TRIES: usize = 100;

/// Keys that are read in one transaction at the end.
const READ_KEYS: usize = 100;

/// How a COMMIT, or a step before it, ended.
enum Failure {
    /// Nothing happened.
    Aborted,
    /// The connection is gone, or of no use any more.
    Lost,
}

pub(super) struct Client {
    shared: Arc<Shared>,
    number: u32,
    /// Which proxy is next; clients begin with different ones.
    proxy: usize,
    connection: Option<Connection>,
}

struct Connection {
    driver: Driver,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    pub(super) fn new(shared: Arc<Shared>, number: u32) -> Client {
        let proxy = number as usize % shared.options.urls.len();
        Client { shared, number, proxy, connection: None }
    }

    /// Runs one transaction and records it. Returns early when no proxy can be reached.
    pub(super) async fn run(&mut self, steps: &[Step]) -> Option<Outcome> {
        self.connect().await?;
        let driver = &self.connection.as_ref()?.driver;
        let mut operations = Vec::new();
        let mut begin_us = self.shared.now_us();
        let begin = format!("BEGIN ISOLATION LEVEL {}", self.shared.options.level);
        let patience = self.shared.options.patience;
        let mut committing = false;
        let transaction = async {
            driver.batch_execute(&begin).await?;
            // What is acknowledged before the first statement is sent has to be seen.
            begin_us = self.shared.now_us();
            for step in steps {
                // An operation counts from when it is sent: what it writes may be there even if it was not answered.
                if let Step::Append(key, value) = step {
                    operations.push(Operation::Append { key: key.clone(), value: *value });
                } else if let Step::Set(key, value) = step {
                    operations.push(Operation::Set { key: key.clone(), value: *value });
                }
                operations.extend(perform(driver, step).await?);
            }
            committing = true;
            driver.batch_execute("COMMIT").await
        };
        let ended = tokio::time::timeout(patience, transaction).await;
        let (outcome, lost) = match ended {
            Ok(Ok(())) => (Outcome::Committed, false),
            Ok(Err(error)) if committing => match failure(&error) {
                Failure::Aborted => (Outcome::Aborted, false),
                Failure::Lost => (Outcome::Unknown, true),
            },
            Ok(Err(error)) => (Outcome::Aborted, matches!(failure(&error), Failure::Lost)),
            Err(_) if committing => (Outcome::Unknown, true),
            Err(_) => (Outcome::Aborted, true),
        };
        let end_us = self.shared.now_us();
        // A connection on which the ROLLBACK fails, too, is of no use.
        if lost || (outcome == Outcome::Aborted && !committing && !self.rolled_back().await) {
            self.connection = None;
        }
        if outcome == Outcome::Committed {
            self.shared.committed.fetch_add(1, Ordering::Relaxed);
        }
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        self.shared.record(Transaction { id, client: self.number, begin_us, end_us, outcome, operations });
        Some(outcome)
    }

    /// Reads all lists and registers, many in a transaction, each until one such commits.
    pub(super) async fn read_everything(&mut self) -> anyhow::Result<()> {
        let mut keys = BTreeSet::new();
        for transaction in self.shared.history.lock().unwrap_or_else(|error| error.into_inner()).iter() {
            keys.extend(transaction.operations.iter().map(|operation| match operation {
                Operation::Append { key, .. } | Operation::Read { key, .. } => Step::Read(key.clone()),
                Operation::Get { key, .. } | Operation::Set { key, .. } => Step::Get(key.clone()),
            }));
        }
        let steps: Vec<Step> = keys.into_iter().collect();
        for steps in steps.chunks(READ_KEYS) {
            let mut tries = 0;
            while self.run(steps).await != Some(Outcome::Committed) {
                tries += 1;
                anyhow::ensure!(
                    tries < READ_TRIES,
                    "the lists could not be read at the end, in {tries} tries"
                );
                tokio::time::sleep(RECONNECT_PAUSE).await;
            }
        }
        Ok(())
    }

    async fn rolled_back(&self) -> bool {
        let Some(connection) = &self.connection else { return false };
        let rollback = connection.driver.batch_execute("ROLLBACK");
        match tokio::time::timeout(self.shared.options.patience, rollback).await {
            // That it was shown something wrong (A15) ends the transaction all the same.
            Ok(_) => !connection.driver.is_closed(),
            Err(_) => false,
        }
    }

    /// Makes sure that there is a connection; another proxy's turn comes with each failure.
    async fn connect(&mut self) -> Option<()> {
        if self.connection.as_ref().is_some_and(|connection| !connection.driver.is_closed()) {
            return Some(());
        }
        let url = &self.shared.options.urls[self.proxy];
        let connecting = tokio_postgres::connect(url, NoTls);
        match tokio::time::timeout(self.shared.options.patience, connecting).await {
            Ok(Ok((driver, connection))) => {
                let task = tokio::spawn(async move {
                    // Its error is the statement's, too.
                    let _ = connection.await;
                });
                self.connection = Some(Connection { driver, task });
                Some(())
            }
            _ => {
                self.proxy = (self.proxy + 1) % self.shared.options.urls.len();
                tokio::time::sleep(RECONNECT_PAUSE).await;
                None
            }
        }
    }
}

/// Sends a step; what a read answered.
async fn perform(driver: &Driver, step: &Step) -> Result<Option<Operation>, Error> {
    // Keys are letters, digits and dots of our own making, so that they need no quoting.
    let sql = match step {
        Step::Append(key, value) => format!(
            "INSERT INTO isolation_list VALUES ('{key}', ARRAY[{value}]) \
             ON CONFLICT (key) DO UPDATE SET list = isolation_list.list || excluded.list"
        ),
        Step::Read(key) => format!("SELECT list FROM isolation_list WHERE key = '{key}'"),
        Step::Get(key) => format!("SELECT value FROM isolation_register WHERE id = {}", number(key)),
        Step::Set(key, value) => format!(
            "INSERT INTO isolation_register VALUES ({}, {value}) \
             ON CONFLICT (id) DO UPDATE SET value = excluded.value",
            number(key)
        ),
    };
    let answer = driver.simple_query(&sql).await?;
    let first = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_string),
        _ => None,
    });
    Ok(match step {
        Step::Append(..) | Step::Set(..) => None,
        Step::Read(key) => {
            let values = first.map_or_else(Vec::new, |text| parse_list(&text));
            Some(Operation::Read { key: key.clone(), values })
        }
        Step::Get(key) => {
            let value = first.map_or(UNSET, |text| parse(&text));
            Some(Operation::Get { key: key.clone(), value })
        }
    })
}

/// A register's number: its name without the r.
fn number(key: &str) -> &str {
    key.trim_start_matches('r')
}

/// A list as PostgreSQL writes it. What is no number is a value that nobody wrote, and the checker says so.
fn parse_list(text: &str) -> Vec<Value> {
    let inner = text.trim_start_matches('{').trim_end_matches('}');
    inner.split(',').filter(|value| !value.is_empty()).map(parse).collect()
}

fn parse(text: &str) -> Value {
    text.parse().unwrap_or(Value::MAX)
}

/// What an error says about the transaction, had it been the answer to COMMIT.
fn failure(error: &Error) -> Failure {
    let Some(code) = error.code() else { return Failure::Lost };
    let code = code.code();
    match code.starts_with("08") || code.starts_with("57P") || code == "40003" {
        true => Failure::Lost,
        false => Failure::Aborted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_garbage_is_no_value_of_ours() {
        assert_eq!(parse_list("{}"), Vec::<Value>::new());
        assert_eq!(parse_list("{1,22,3}"), [1, 22, 3]);
        assert_eq!(parse_list("{1,NULL}"), [1, Value::MAX]);
    }
}
