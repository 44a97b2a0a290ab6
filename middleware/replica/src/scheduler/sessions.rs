//! Sessions: what clients open, define and close, and what their backends report.

use super::event::{BackendReport, Connection};
use super::resuming::Shown;
use super::transaction::{Phase, Session, Transaction};
use super::{Command, Effect, Scheduler};
use crate::guard;
use bytes::Bytes;
use std::collections::BTreeMap;
use steeldb_types::{ClientId, SessionId, SessionKey, TxId, limits};
use steeldb_wire::transaction::{ClientMessage, ReplicaMessage, SqlState, VoteKind, preamble};

/// Start-up parameters that are the agent's to set.
const NO_PARAMETERS: [&str; 3] = ["user", "database", "replication"];

/// Start-up parameters of a session, bytes in all; PostgreSQL takes packets of 10,000.
const PARAMETER_BYTES_MAX: usize = 8192;

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
            ClientMessage::Restore { session, settings } => {
                if self.is_open_over(connection, of(session)) {
                    self.restore_settings(of(session), settings);
                }
            }
            ClientMessage::CloseSession { session } => {
                if self.is_open_over(connection, of(session)) {
                    self.closed_by_client(of(session));
                    self.close_session(of(session));
                }
            }
            ClientMessage::Define { session, statement, text } => {
                if self.is_open_over(connection, of(session)) {
                    self.define(of(session), statement, text);
                }
            }
            ClientMessage::Forget { session, statement } => {
                if self.is_open_over(connection, of(session)) {
                    self.forget_statement(of(session), statement);
                }
            }
            ClientMessage::Operation(operation) => {
                if self.owns(connection, client, operation.tx) {
                    self.operation(operation);
                }
            }
            ClientMessage::CopyData { tx, number, data } => {
                self.copy_data_from(connection, client, tx, number, data.into());
            }
            ClientMessage::CopyEnd { tx, number, failure } => {
                if self.owns(connection, client, tx) {
                    self.copy_end(tx, number, failure);
                }
            }
            // The agent answers those itself.
            ClientMessage::Membership(_) => {}
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
                if self.is_open_over(connection, key) && self.sessions[&key].ready {
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
            ClientMessage::Resume { tx, epoch, operations, transcript } => {
                if self.owns(connection, client, tx) {
                    self.resume_asked(tx, Shown { epoch, operations, transcript });
                }
            }
            // The agent hands these to the ordering core.
            ClientMessage::Request { .. } => {}
        }
    }

    /// COPY data come over a connection.
    pub(super) fn copy_data_from(
        &mut self,
        connection: Connection,
        client: ClientId,
        tx: TxId,
        number: u32,
        data: Bytes,
    ) {
        if self.owns(connection, client, tx) {
            self.copy_data(tx, number, data);
        }
    }

    /// Whether a message about `tx` may come over this connection.
    fn owns(&self, connection: Connection, client: ClientId, tx: TxId) -> bool {
        tx.session.client == client && self.is_open_over(connection, tx.session)
    }

    fn is_open_over(&self, connection: Connection, key: SessionKey) -> bool {
        self.sessions.get(&key).is_some_and(|session| session.connection == connection && !session.closing)
    }

    /// The transactions of a session that are known here.
    pub(super) fn of_session(&self, key: SessionKey) -> impl Iterator<Item = &Transaction> {
        let (first, last) = (TxId { session: key, counter: 0 }, TxId { session: key, counter: u64::MAX });
        self.transactions.range(first..=last).map(|(_, transaction)| transaction)
    }

    /// Makes `tx` its session's transaction, leaving earlier ones behind; false if the session is past it. What was begun before
    /// the session was opened here is among them: its client does not send the rest of it here.
    pub(super) fn enter(&mut self, tx: TxId) -> bool {
        let Some(session) = self.sessions.get_mut(&tx.session) else { return false };
        if session.current == Some(tx) {
            return true;
        }
        if session.is_past(tx) {
            return false;
        }
        session.counter = tx.counter;
        session.current = Some(tx);
        let earlier = TxId { counter: 0, ..tx }..tx;
        let earlier: Vec<TxId> = self.transactions.range(earlier).map(|(tx, _)| *tx).collect();
        for before in earlier {
            self.leave_behind(before);
        }
        true
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
        if let Some((name, _)) = parameters.iter().find(|(name, _)| NO_PARAMETERS.contains(&name.as_str())) {
            // In a start-up packet the last "user" is the one that counts: it would be any role (A4).
            return refuse(self, "42501", format!("\"{name}\" is no start-up parameter of a session"));
        }
        let bytes: usize = parameters.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        if bytes > PARAMETER_BYTES_MAX {
            return refuse(self, "54000", "the start-up parameters are too long".into());
        }
        if self.sessions.contains_key(&key) {
            return refuse(self, "08P01", "the session is already open".into());
        }
        let of_client = SessionKey { client: key.client, session: SessionId(0) }..=SessionKey {
            client: key.client,
            session: SessionId(u64::MAX),
        };
        let open = self.sessions.range(of_client).count();
        if open >= limits::SESSIONS_PER_CLIENT_MAX {
            return refuse(self, "53300", format!("too many sessions of one proxy (at most {open})"));
        }
        let session = Session {
            connection,
            database: database.clone(),
            role: role.clone(),
            preamble: preamble(&database, &role, &parameters),
            ready: false,
            restored: false,
            backend: None,
            closing: false,
            statements: BTreeMap::new(),
            forgotten: Vec::new(),
            current: None,
            counter: 0,
            shown: None,
        };
        self.sessions.insert(key, session);
        self.push(Effect::OpenBackend { session: key, database, role, parameters });
        // A client opens its session between transactions: it does not send again here what others have.
        let (first, last) = (TxId { session: key, counter: 0 }, TxId { session: key, counter: u64::MAX });
        for transaction in self.transactions.range_mut(first..=last).map(|(_, transaction)| transaction) {
            transaction.strand();
        }
        self.pump();
    }

    /// The client brings a new session of its to the settings that it has elsewhere.
    fn restore_settings(&mut self, key: SessionKey, settings: Vec<String>) {
        let Some(session) = self.sessions.get(&key) else { return };
        let bytes: usize = settings.iter().map(String::len).sum();
        let fault = if session.counter > 0 {
            Some("settings are restored before the first transaction")
        } else if settings.len() > limits::RESTORED_SETTINGS_MAX || bytes > limits::RESTORED_BYTES_MAX {
            Some("too many settings to restore")
        } else if !settings.iter().all(|sql| guard::is_setting(sql)) {
            Some("only SET and RESET restore settings")
        } else {
            None
        };
        if let Some(fault) = fault {
            return self.drop_session(key, "08P01", fault);
        }
        if let Some(session) = self.sessions.get_mut(&key) {
            session.restored = true;
        }
        for sql in settings {
            self.backend(key, Command::Restore(sql));
        }
    }

    /// The client closes a session. A transaction that it has finished goes on to its outcome first.
    pub(super) fn close_session(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        session.closing = true;
        let abandoned: Vec<TxId> = self
            .of_session(key)
            .filter(|transaction| transaction.finish.is_none() || transaction.slot.is_none())
            .map(|transaction| transaction.tx)
            .collect();
        for tx in abandoned {
            self.abandon(tx);
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
            self.drop_without_slot(tx);
        }
    }

    /// Without a slot a transaction ends without an ordered outcome (rule 3). A BEGIN that is delivered later finds that
    /// its session is past it.
    pub(super) fn drop_without_slot(&mut self, tx: TxId) {
        if self.transactions.get(&tx).is_some_and(|transaction| transaction.leading_begun) {
            self.backend(tx.session, Command::End { tx, commit: false });
        }
        self.forget(tx);
    }

    /// Closes the backend of a session that its client has closed, once no transaction executes on it. What is prepared
    /// or given up does not: its outcome may be long in coming, or never come.
    pub(super) fn end_session_if_idle(&mut self, key: SessionKey) {
        if self.sessions.get(&key).is_some_and(|session| session.closing)
            && !self.of_session(key).any(|transaction| transaction.phase.needs_backend())
        {
            self.remove_session(key);
            self.backend(key, Command::Close);
            self.pump();
        }
    }

    fn remove_session(&mut self, key: SessionKey) -> Option<Session> {
        let session = self.sessions.remove(&key)?;
        self.let_go(key.client, session.statement_bytes());
        // Snapshots and imports that were under way may not be reported any more.
        if self.applying.snapshot_of.is_some_and(|tx| tx.session == key) {
            self.applying.snapshot_of = None;
        }
        let importing: Vec<TxId> = self
            .of_session(key)
            .filter(|transaction| transaction.begun && transaction.anchor.is_some())
            .filter(|transaction| !transaction.may_be_reexecuted())
            .map(|transaction| transaction.tx)
            .collect();
        for tx in importing {
            self.release_anchor_of(tx);
        }
        Some(session)
    }

    /// A transaction of the session does not need its backend any more: the next one may, or its end.
    pub(super) fn backend_free(&mut self, key: SessionKey) {
        self.forget_statements(key);
        self.end_session_if_idle(key);
        // The oldest: this replica may be several behind its client.
        let next = self.of_session(key).find(|transaction| transaction.phase.needs_backend());
        if let Some(tx) = next.map(|transaction| transaction.tx) {
            self.advance(tx);
        }
    }

    pub(super) fn backend_report(&mut self, key: SessionKey, report: BackendReport) {
        match report {
            BackendReport::Ready { parameters, process } => {
                let Some(session) = self.sessions.get_mut(&key) else {
                    return self.backend(key, Command::Close);
                };
                session.ready = true;
                session.backend = Some(process);
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
                // The anchor's backend may be gone: the next BEGIN takes another.
                self.pass_anchors();
                self.begun(tx);
                self.cast_against(tx, VoteKind::Blocked);
                self.give_up(tx);
            }
            BackendReport::Executed { tx, number, result, sqlstate, status, tag, copy_started, draws } => {
                let result =
                    super::operations::OperationResult { result, sqlstate, status, tag, copy_started, draws };
                self.executed(tx, number, result);
            }
            BackendReport::Completed { tx, result } => self.completed(tx, result),
            BackendReport::Prepared { tx, result } => self.prepared(tx, result),
            // Commands run in sequence: nothing but a redo waits for it.
            BackendReport::Ended { tx } => self.undone(tx),
        }
    }

    /// The backend of a session is gone: with it what was not prepared.
    fn backend_lost(&mut self, key: SessionKey, sqlstate: SqlState, message: String) {
        let Some(session) = self.remove_session(key) else { return };
        let refused = ReplicaMessage::SessionRefused { session: key.session, sqlstate, message };
        self.push(Effect::Reply { connection: session.connection, message: refused });
        let lost: Vec<(TxId, bool)> = self
            .of_session(key)
            .filter(|transaction| transaction.phase.needs_backend())
            .map(|transaction| (transaction.tx, transaction.slot.is_some()))
            .collect();
        for (tx, slotted) in lost {
            if !slotted {
                self.forget(tx);
                continue;
            }
            self.cast_against(tx, VoteKind::Failed { sqlstate });
            self.prepare_unanswered(tx);
            self.give_up(tx);
        }
        self.pump();
    }
}
