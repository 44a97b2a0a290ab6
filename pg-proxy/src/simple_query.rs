//! The simple query protocol: a text of any number of statements, which share one implicit transaction unless they say
//! otherwise.

use crate::backend;
use crate::error::Failure;
use crate::relay::{Describe, Relay};
use crate::session::Session;
use crate::sql::Analysis;
use crate::statement::{NO_PARAMETERS, Run};
use std::sync::Arc;
use steeldb_client_shim::StatementText;

impl Session {
    /// Runs a Query's statements up to the first error. Fails only when the session cannot go on.
    pub(crate) async fn simple_query(&mut self, sql: String) -> Result<(), Failure> {
        // PostgreSQL drops the unnamed statement and portal with each simple Query.
        self.statements.remove("");
        self.portals.remove("");
        self.attempt = None;
        let result = match self.analyzer.analyze(&sql) {
            Ok(analysis) => self.run_analysed(&analysis).await,
            Err(error) => Err(self.fail(crate::error::PgError::from(error).into()).await),
        };
        self.attempt = None;
        match result {
            Ok(()) => Ok(()),
            Err(failure) => self.report(failure),
        }
    }

    async fn run_analysed(&mut self, analysis: &Analysis) -> Result<(), Failure> {
        if let [only] = &analysis[..] {
            self.attempt(only);
        }
        loop {
            let result = match self.statements_of(analysis).await {
                Ok(()) => self.finish_implicit().await,
                Err(failure) => Err(self.fail(failure).await),
            };
            match result {
                Err(failure) if self.tries_again(&failure) => {}
                result => return result,
            }
        }
    }

    async fn statements_of(&mut self, analysis: &Analysis) -> Result<(), Failure> {
        if analysis.is_empty() {
            backend::bare(self.out(), b'I');
        }
        for statement in analysis.iter() {
            let text = StatementText {
                sql: statement.text_for(&self.temporary_schema),
                parameter_types: Vec::new(),
            };
            let run = Run {
                statement,
                text: Arc::new(text),
                keep: false,
                bind: NO_PARAMETERS.to_vec(),
                shared: analysis.len() > 1,
            };
            let mut relay = Relay::new(Describe::Rows, 0);
            self.run_statement(run, &mut relay).await?;
            self.complete(&relay.completion);
        }
        Ok(())
    }
}
