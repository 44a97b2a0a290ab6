//! A client that talks to the shim without a proxy: what it sends, no analysis has seen.

use crate::{APP, identical};
use std::sync::Arc;
use steeldb_client_shim::{
    Completion, Decision, Event, Modes, NewOperation, OperationFlags, OperationKind, Session, Shim,
    ShimError, StatementText,
};
use steeldb_postgres::message::{ErrorFields, data_row};

/// A client that talks to the shim without a proxy.
pub struct Client {
    /// The session.
    pub session: Session,
    /// Its shim.
    pub shim: Shim,
}

/// What an operation answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Rows in text form.
    pub rows: Vec<Vec<Option<String>>>,
    /// SQLSTATE of the error, if it failed.
    pub sqlstate: Option<String>,
}

impl Client {
    /// Another session over the same links.
    pub async fn another(&self) -> Result<Client, ShimError> {
        Ok(Client { session: self.shim.open(APP, APP, Vec::new()).await?, shim: self.shim.clone() })
    }

    /// Starts a transaction.
    pub fn begin(&mut self) {
        self.session.begin(Modes::default());
    }

    /// Runs one statement in the transaction.
    pub async fn run(&mut self, sql: &str) -> Result<Answer, ShimError> {
        self.run_flagged(sql, OperationFlags::default()).await
    }

    /// Runs one statement with flags.
    pub async fn run_flagged(&mut self, sql: &str, flags: OperationFlags) -> Result<Answer, ShimError> {
        let text = Arc::new(StatementText { sql: sql.to_string(), parameter_types: Vec::new() });
        // No parameter formats, no parameters, no result formats.
        let kind = OperationKind::Execute { bind: vec![0, 0, 0, 0, 0, 0] };
        let number = self.session.operation(NewOperation { text, keep: false, kind, flags });
        let mut answer = Answer { rows: Vec::new(), sqlstate: None };
        loop {
            match self.session.event().await {
                Event::Result { messages, .. } => {
                    self.session.consumed(messages.len());
                    read(&messages, &mut answer);
                }
                Event::Executed { number: done, .. } if done == number => return Ok(answer),
                Event::OperationFailed { error, .. } | Event::Lost(error) => return Err(error),
                _ => {}
            }
        }
    }

    /// Commits.
    pub async fn commit(&mut self) -> Result<Completion, ShimError> {
        self.session.finish(Decision::Commit);
        self.session.finished().await
    }

    /// Rolls back.
    pub async fn rollback(&mut self) -> Result<Completion, ShimError> {
        self.session.finish(Decision::Rollback);
        self.session.finished().await
    }

    /// A transaction of one statement.
    pub async fn execute(&mut self, sql: &str) -> Result<Answer, ShimError> {
        self.begin();
        let answer = self.run(sql).await?;
        if answer.sqlstate.is_some() {
            self.rollback().await?;
        } else {
            self.commit().await?;
        }
        Ok(answer)
    }

    /// Asserts that all replicas hold the same.
    pub async fn identical(&self) {
        identical(&self.shim).await;
    }
}

fn read(messages: &[u8], answer: &mut Answer) {
    let mut rest = messages;
    while let Some((head, _)) = rest.split_at_checked(5) {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let body = &rest[5..1 + length];
        match head[0] {
            b'D' => answer.rows.push(data_row(body).unwrap_or_default()),
            b'E' => {
                let fields = ErrorFields::parse(&body.to_vec().into());
                answer.sqlstate = fields.ok().map(|fields| fields.sqlstate);
            }
            _ => {}
        }
        rest = &rest[1 + length..];
    }
}
