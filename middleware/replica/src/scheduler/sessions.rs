//! Sessions: what clients open, define and close, and what their backends report.

use super::event::{BackendReport, Connection};
use super::transaction::{Phase, Session, Statement};
use super::{Command, Effect, Scheduler};
use crate::guard;
use std::collections::BTreeMap;
use steeldb_types::{ClientId, SessionKey, TxId, limits};
use steeldb_wire::transaction::{ClientMessage, ReplicaMessage, SqlState, VoteKind, preamble};

impl Scheduler {
    pub(super) fn client_message(
        &mut self,
        connection: Connection,
        client: ClientId,
        message: ClientMessage,
    ) {
        let of = |session| SessionKey { client, session };
        match message {
            ClientMessage::OpenSession { session, database, role, parameters } => {
                self.open_session(connection, of(session), database, role, parameters);
            }
            ClientMessage::CloseSession { session } => self.close_session(of(session)),
            ClientMessage::Define { session, statement, text } => {
                let key = of(session);
                let Some(state) = self.sessions.get_mut(&key) else { return };
                if text.sql.len() > limits::STATEMENT_BYTES_MAX
                    || text.parameter_types.len() > usize::from(u16::MAX)
                    || state.statements.len() >= 2 * limits::NAMED_STATEMENTS_MAX
                {
                    return self.drop_session(key, "54000", "statement limits exceeded");
                }
                match guard::check(&text.sql) {
                    Ok(class) => {
                        state.statements.insert(
                            statement,
                            Statement { digest: text.digest(), class, text: text.clone() },
                        );
                        if state.ready {
                            self.backend(key, Command::Define { statement, text });
                        }
                    }
                    Err(refused) => self.drop_session(key, "42501", &refused.to_string()),
                }
            }
            ClientMessage::Forget { session, statement } => {
                let key = of(session);
                if let Some(state) = self.sessions.get_mut(&key)
                    && state.statements.remove(&statement).is_some()
                    && state.ready
                {
                    self.backend(key, Command::Forget(statement));
                }
            }
            ClientMessage::Operation(operation) => {
                if self.owns(connection, client, operation.tx) {
                    self.operation(operation);
                }
            }
            ClientMessage::CopyData { tx, number, data } => {
                if self.owns(connection, client, tx) {
                    self.copy_data(tx, number, data);
                }
            }
            ClientMessage::CopyEnd { tx, number, failure } => {
                if self.owns(connection, client, tx) {
                    self.copy_end(tx, number, failure);
                }
            }
            ClientMessage::Finish(finish) => {
                let tx = finish.finish.tx;
                if self.owns(connection, client, tx)
                    && self
                        .config
                        .clients
                        .get(&client)
                        .is_some_and(|rights| finish.verify(&rights.key).is_ok())
                {
                    self.finish(finish);
                }
            }
            ClientMessage::Acknowledge { session, bytes } => {
                let key = of(session);
                if self.sessions.get(&key).is_some_and(|session| session.ready) {
                    self.backend(key, Command::Acknowledge(bytes));
                }
            }
            ClientMessage::Cancel { tx } => {
                if self.owns(connection, client, tx)
                    && self.is_master()
                    && self
                        .transactions
                        .get(&tx)
                        .is_some_and(|t| t.phase == Phase::Running && !t.issued.is_empty())
                {
                    self.backend(tx.session, Command::Cancel);
                }
            }
            // The agent hands these to the ordering core.
            ClientMessage::Request { .. } => {}
        }
    }

    /// Whether a message about `tx` may come over this connection.
    fn owns(&self, connection: Connection, client: ClientId, tx: TxId) -> bool {
        tx.session.client == client
            && self
                .sessions
                .get(&tx.session)
                .is_some_and(|session| session.connection == connection && !session.closing)
    }

    fn open_session(
        &mut self,
        connection: Connection,
        key: SessionKey,
        database: String,
        role: String,
        parameters: Vec<(String, String)>,
    ) {
        let refuse = |scheduler: &mut Scheduler, sqlstate: &str, message: String| {
            let message = ReplicaMessage::SessionRefused {
                session: key.session,
                sqlstate: SqlState::parse(sqlstate),
                message,
            };
            scheduler.push(Effect::Reply { connection, message });
        };
        let Some(rights) = self.config.clients.get(&key.client) else { return };
        if !rights.databases.contains(&database) {
            let reason = format!("this proxy's key may not use database \"{database}\"");
            return refuse(self, "3D000", reason);
        }
        if !rights.roles.contains(&role) {
            let reason = format!("this proxy's key may not act as role \"{role}\"");
            return refuse(self, "28000", reason);
        }
        if self.sessions.contains_key(&key) {
            return refuse(self, "08P01", "the session is already open".into());
        }
        let open = self.sessions.keys().filter(|other| other.client == key.client).count();
        if open >= limits::SESSIONS_PER_CLIENT_MAX {
            return refuse(self, "53300", format!("too many sessions of one proxy (at most {open})"));
        }
        let session = Session {
            connection,
            database: database.clone(),
            preamble: preamble(&database, &role, &parameters),
            ready: false,
            closing: false,
            statements: BTreeMap::new(),
            current: None,
            counter: 0,
        };
        self.sessions.insert(key, session);
        self.push(Effect::OpenBackend { session: key, database, role, parameters });
    }

    /// The client closes a session. A transaction that it has finished goes on to its outcome first.
    pub(super) fn close_session(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.closing = true;
        if let Some(tx) = session.current {
            let unfinished = self.transactions.get(&tx).is_some_and(|t| t.finish.is_none());
            if unfinished {
                self.abandon(tx);
            }
        }
        self.end_session_if_idle(key);
    }

    pub(super) fn connection_lost(&mut self, connection: Connection) {
        let lost: Vec<SessionKey> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.connection == connection)
            .map(|(key, _)| *key)
            .collect();
        for key in lost {
            self.close_session(key);
        }
    }

    /// The client broke the protocol, or its backend is lost.
    pub(super) fn drop_session(&mut self, key: SessionKey, sqlstate: &str, message: &str) {
        self.reply(
            key,
            ReplicaMessage::SessionRefused {
                session: key.session,
                sqlstate: SqlState::parse(sqlstate),
                message: message.to_string(),
            },
        );
        self.close_session(key);
    }

    /// An unfinished transaction loses its client: an ordered Abort needs f + 1 such reports.
    fn abandon(&mut self, tx: TxId) {
        let Some(transaction) = self.transactions.get(&tx) else { return };
        if transaction.slot.is_some() {
            self.cast_against(tx, VoteKind::Gone);
            self.give_up(tx);
        } else {
            // Without a slot it ends without an ordered outcome (rule 3). A BEGIN delivered later finds no session.
            if transaction.leading_begun {
                self.backend(tx.session, Command::End { tx, commit: false });
            }
            self.forget(tx);
        }
    }

    /// Closes the backend of a session that the client has closed and whose transaction is over.
    pub(super) fn end_session_if_idle(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(&key) else { return };
        if session.closing && session.current.is_none() {
            self.sessions.remove(&key);
            self.backend(key, Command::Close);
        }
    }

    pub(super) fn backend_report(&mut self, key: SessionKey, report: BackendReport) {
        match report {
            BackendReport::Ready { parameters } => {
                let Some(session) = self.sessions.get_mut(&key) else {
                    return self.backend(key, Command::Close);
                };
                session.ready = true;
                let current = session.current;
                let statements: Vec<_> =
                    session.statements.iter().map(|(id, statement)| (*id, statement.text.clone())).collect();
                for (statement, text) in statements {
                    self.backend(key, Command::Define { statement, text });
                }
                self.reply(key, ReplicaMessage::SessionOpened { session: key.session, parameters });
                if let Some(tx) = current {
                    self.advance(tx);
                }
            }
            BackendReport::Lost { sqlstate, message } => self.backend_lost(key, sqlstate, message),
            BackendReport::Begun { tx } => self.begun(tx),
            BackendReport::NotBegun { tx, reason } => {
                tracing::warn!(%tx, reason, "no snapshot for a transaction");
                self.begun(tx);
                self.cast_against(tx, VoteKind::Blocked);
                self.give_up(tx);
            }
            BackendReport::Executed { tx, number, result, sqlstate, status, tag, copy_started } => {
                let result =
                    super::operations::OperationResult { result, sqlstate, status, tag, copy_started };
                self.executed(tx, number, result);
            }
            BackendReport::Completed { tx, result } => self.completed(tx, result),
            BackendReport::Prepared { tx, result } => self.prepared(tx, result),
            BackendReport::Ended { tx } => self.ended(tx),
        }
    }

    /// The backend of a session is gone: with it what was not prepared.
    fn backend_lost(&mut self, key: SessionKey, sqlstate: SqlState, message: String) {
        let Some(session) = self.sessions.remove(&key) else { return };
        let refused = ReplicaMessage::SessionRefused { session: key.session, sqlstate, message };
        self.push(Effect::Reply { connection: session.connection, message: refused });
        let Some(tx) = session.current else { return };
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        match transaction.phase {
            Phase::Prepared { .. } | Phase::GivenUp | Phase::ReadOnlyDone => {}
            Phase::Preparing { .. } => {
                // Whether PREPARE was done is not known: decoding will say. No vote is cast for what is not decoded.
                tracing::warn!(%tx, "backend lost while preparing");
            }
            Phase::Running | Phase::Completing | Phase::Queued { .. } => {
                transaction.phase = Phase::GivenUp;
                if transaction.slot.is_some() {
                    self.cast_against(tx, VoteKind::Failed { sqlstate });
                } else {
                    self.forget(tx);
                }
            }
        }
    }
}
