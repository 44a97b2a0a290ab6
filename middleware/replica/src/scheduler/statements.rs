//! Statements: what a session defines and forgets, within bounds.

use super::transaction::{Statement, size_of_statement};
use super::{Command, Scheduler};
use crate::guard;
use std::sync::Arc;
use steeldb_types::{SessionKey, limits};
use steeldb_wire::transaction::{StatementId, StatementText};

impl Scheduler {
    /// A statement gets its number.
    pub(super) fn define(&mut self, key: SessionKey, statement: StatementId, text: StatementText) {
        let Some(session) = self.sessions.get(&key) else { return };
        let known = session.statements.contains_key(&statement)
            || session.forgotten.iter().any(|(forgotten, _)| *forgotten == statement);
        if known {
            // What backends have parsed under the number is the old text, and transcripts would name the new one.
            return self.drop_session(key, "08P01", "a statement's number is used twice");
        }
        if text.sql.len() > limits::STATEMENT_BYTES_MAX
            || text.parameter_types.len() > usize::from(u16::MAX)
            || session.statements.len() + session.forgotten.len() >= 2 * limits::NAMED_STATEMENTS_MAX
            || !self.has_room(key.client, size_of_statement(&text))
        {
            return self.drop_session(key, "54000", "statement limits exceeded");
        }
        match guard::check(&text.sql) {
            Ok(class) => {
                self.hold(key.client, size_of_statement(&text));
                let Some(session) = self.sessions.get_mut(&key) else { return };
                let digest = text.digest();
                let known = Statement { digest, class, text: text.clone() };
                session.statements.insert(statement, Arc::new(known));
                if session.ready {
                    self.backend(key, Command::Define { statement, text });
                }
            }
            Err(refused) => self.drop_session(key, "42501", &refused.to_string()),
        }
    }

    /// A statement is not used again; at the backend it goes once no buffered operation can name it.
    pub(super) fn forget_statement(&mut self, key: SessionKey, statement: StatementId) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if let Some(known) = session.statements.remove(&statement) {
            session.forgotten.push((statement, size_of_statement(&known.text)));
        }
        self.forget_statements(key);
    }

    /// Passes on what is forgotten, unless operations still wait here: a client that heard from faster replicas may
    /// have gone on while this one still executes.
    pub(super) fn forget_statements(&mut self, key: SessionKey) {
        let waiting = self
            .of_session(key)
            .any(|transaction| !transaction.waiting.is_empty() || !transaction.kept.is_empty());
        let Some(session) = self.sessions.get_mut(&key) else { return };
        if waiting || session.forgotten.is_empty() {
            return;
        }
        let (ready, forgotten) = (session.ready, std::mem::take(&mut session.forgotten));
        for (statement, bytes) in forgotten {
            self.let_go(key.client, bytes);
            if ready {
                self.backend(key, Command::Forget(statement));
            }
        }
    }
}
