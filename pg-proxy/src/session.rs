//! One client's session: messages in, answers out, and what is known between them.

use crate::backend;
use crate::client::Client;
use crate::error::{ErrorMessage, Failure, PgError};
use crate::frontend::Message;
use crate::monitor::Monitor;
use crate::portal::Portals;
use crate::retry::Attempt;
use crate::sql::{Analyzer, TransactionModes};
use crate::statement::Prepared;
use crate::transaction::{Block, Transaction};
use crate::verify::{VerifySetting, not_alone};
use bytes::{Bytes, BytesMut};
use std::collections::HashMap;
use std::sync::Arc;
use steeldb_client_shim::{Disagreement, Event, Session as Shim, ShimError};
use steeldb_types::temporary_schema;

/// A session past its start-up.
pub(crate) struct Session {
    pub client: Client,
    pub shim: Shim,
    pub analyzer: Arc<Analyzer>,
    /// Where its temporary relations are.
    pub temporary_schema: String,
    /// It has made some, whether they are still there or not.
    pub has_temporary: bool,
    /// How often a statement is run at most that conflicts with others and has shown nothing.
    pub tries: u32,
    pub monitor: Monitor,
    /// The client has its ReadyForQuery, and has said nothing since.
    resting: bool,
    /// COMMIT or ROLLBACK was sent, and is not answered.
    pub finishing: bool,
    /// The statement that may be run again.
    pub attempt: Option<Attempt>,
    /// The session's `default_transaction_...`.
    pub defaults: TransactionModes,
    pub transaction: Transaction,
    /// `steeldb.verify`.
    pub verify: VerifySetting,
    /// What replicas disagreed on, still to be written down.
    pub disagreements: Vec<Disagreement>,
    /// Named statements of the extended protocol; the unnamed one under "".
    pub statements: HashMap<String, Arc<Prepared>>,
    pub portals: Portals,
    /// Answers held back until the implicit transaction they belong to has its outcome.
    pub held: Option<BytesMut>,
    /// An error in the extended protocol: messages up to Sync are passed over.
    pub skip_to_sync: bool,
    /// A portal whose description was asked for by the last message.
    pub undescribed: Option<String>,
    /// The description of a named statement that was just parsed: ParameterDescription, RowDescription or NoData.
    pub described: Option<(String, (Bytes, Bytes))>,
}

impl Session {
    pub(crate) fn new(
        client: Client,
        shim: Shim,
        analyzer: Arc<Analyzer>,
        defaults: TransactionModes,
        verify: VerifySetting,
        tries: u32,
        monitor: Monitor,
    ) -> Session {
        let temporary_schema = temporary_schema(shim.key());
        Session {
            client,
            shim,
            temporary_schema,
            has_temporary: false,
            analyzer,
            tries,
            monitor,
            resting: true,
            finishing: false,
            attempt: None,
            defaults,
            transaction: Transaction::default(),
            verify,
            disagreements: Vec::new(),
            statements: HashMap::new(),
            portals: Portals::default(),
            held: None,
            skip_to_sync: false,
            undescribed: None,
            described: None,
        }
    }

    /// Serves the client until it leaves, or something ends the session; says what.
    /// `stop` is waited for where nothing is under way: no block is open, and no message unanswered.
    pub(crate) async fn run(&mut self, stop: impl Future<Output = ()>) -> Failure {
        let mut stop = std::pin::pin!(stop);
        loop {
            let rests = self.resting && self.transaction.block == Block::None;
            let message = tokio::select! {
                biased;
                () = &mut stop, if rests => return Failure::Fatal(terminated().into()),
                message = self.next_message() => message,
            };
            let handled = match message {
                Ok(message) => self.handle(message).await,
                Err(failure) => Err(failure),
            };
            if let Err(failure) = handled {
                return failure;
            }
        }
    }

    /// A transaction is open at the replicas.
    pub(crate) fn is_in_transaction(&self) -> bool {
        self.transaction.begun || self.finishing
    }

    async fn next_message(&mut self) -> Result<Message, Failure> {
        if let Some(message) = self.client.try_message()? {
            return Ok(message);
        }
        loop {
            tokio::select! {
                message = self.client.message() => return Ok(message?),
                event = self.shim.event() => self.stray(event)?,
            }
        }
    }

    /// An event that nothing waits for. Of a session that idles, only its loss matters.
    pub(crate) fn stray(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Lost(error) => Err(Failure::Fatal(PgError { severity: "FATAL", ..PgError::from(error) })),
            Event::Result { messages, .. } => {
                self.shim.consumed(messages.len());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The next event of the shim, unless the client vanishes first. What is there to send is sent if the event lets
    /// itself be waited for.
    pub(crate) async fn event(&mut self) -> Result<Event, Failure> {
        /// How long results lie here for more to join them. A statement's last piece comes well within it.
        const LINGER: std::time::Duration = std::time::Duration::from_millis(2);
        /// The same while the statement may be run again: what was shown cannot be taken back.
        const UNSEEN: std::time::Duration = std::time::Duration::from_secs(1);

        if let Some(event) = self.shim.try_event() {
            return self.unless_lost(event);
        }
        if !self.client.out.is_empty() {
            let linger = if self.is_unseen() { UNSEEN } else { LINGER };
            let event = tokio::time::timeout(linger, self.shim.event()).await;
            if let Ok(event) = event {
                return self.unless_lost(event);
            }
            self.client.flush().await?;
        }
        let event = tokio::select! {
            event = self.shim.event() => event,
            () = self.client.gone() => return Err(Failure::Gone),
        };
        self.unless_lost(event)
    }

    fn unless_lost(&mut self, event: Event) -> Result<Event, Failure> {
        match event {
            Event::Lost(_) => {
                self.stray(event)?;
                Err(Failure::Gone)
            }
            event => Ok(event),
        }
    }

    async fn handle(&mut self, message: Message) -> Result<(), Failure> {
        self.resting = false;
        if self.skip_to_sync && !matches!(message, Message::Sync | Message::Terminate) {
            return Ok(());
        }
        match message {
            Message::Query { sql } => {
                self.simple_query(sql).await?;
                self.ready().await
            }
            Message::TooLong { tag: b'Q', bytes } => {
                let failure = self.fail(PgError::message_too_long(bytes).into()).await;
                self.report(failure)?;
                self.ready().await
            }
            Message::Sync => {
                self.described = None;
                if !std::mem::take(&mut self.skip_to_sync) {
                    self.sync().await?;
                }
                self.attempt = None;
                self.ready().await
            }
            Message::Flush => {
                let described = match self.describe_pending().await {
                    // What it asks for may not be shown before Sync.
                    Ok(()) if self.transaction.unverified_definition => Err(not_alone()),
                    described => described,
                };
                if let Err(failure) = described {
                    let failure = self.fail(failure).await;
                    self.report(failure)?;
                    self.skip_to_sync = true;
                }
                self.release();
                Ok(self.client.flush().await?)
            }
            Message::Terminate => Err(Failure::Gone),
            // Left over from a COPY that failed early: PostgreSQL drops them, too.
            Message::CopyData { .. } | Message::CopyDone | Message::CopyFail { .. } => Ok(()),
            extended => {
                let mut result = self.extended(extended).await;
                if let Err(failure) = result {
                    let failure = self.fail(failure).await;
                    result = match self.tries_again(&failure) {
                        true => self.execute_again(false).await,
                        false => Err(failure),
                    };
                }
                if let Err(failure) = result {
                    self.report(failure)?;
                    self.skip_to_sync = true;
                    self.undescribed = None;
                }
                Ok(self.client.flush_if_full().await?)
            }
        }
    }

    /// The end of a pipeline: what is still owed, then the outcome of its implicit transaction.
    async fn sync(&mut self) -> Result<(), Failure> {
        let result = match self.describe_pending().await {
            Ok(()) => self.finish_implicit().await,
            Err(failure) => Err(self.fail(failure).await),
        };
        let result = match result {
            Err(failure) if self.tries_again(&failure) => self.execute_again(true).await,
            result => result,
        };
        match result {
            Ok(()) => Ok(()),
            Err(failure) => self.report(failure),
        }
    }

    /// ReadyForQuery, and everything before it.
    async fn ready(&mut self) -> Result<(), Failure> {
        self.release();
        self.note_disagreements().await?;
        self.resting = true;
        let status = self.transaction.status();
        backend::ready_for_query(&mut self.client.out, status);
        Ok(self.client.flush().await?)
    }

    /// Where answers go: behind what is held back, if something is.
    pub(crate) fn out(&mut self) -> &mut BytesMut {
        self.held.as_mut().unwrap_or(&mut self.client.out)
    }

    /// Lets go what is held back.
    pub(crate) fn release(&mut self) {
        if let Some(held) = self.held.take() {
            self.client.out.extend_from_slice(&held);
        }
    }

    /// Answers that end a statement. In an implicit transaction they wait for its outcome.
    pub(crate) fn complete(&mut self, answer: &[u8]) {
        if self.transaction.block == Block::Implicit {
            self.held.get_or_insert_default().extend_from_slice(answer);
        } else {
            self.out().extend_from_slice(answer);
        }
    }

    /// As [`Session::complete`], with a command tag.
    pub(crate) fn complete_tag(&mut self, tag: &str) {
        let mut answer = BytesMut::new();
        backend::command_complete(&mut answer, tag);
        self.complete(&answer);
    }

    pub(crate) fn warn(&mut self, sqlstate: &str, message: &str) {
        let warning = PgError::warning(sqlstate, message);
        backend::notice(self.out(), &warning);
    }

    /// Tells the client of a failure that leaves the session alive; passes on one that does not.
    pub(crate) fn report(&mut self, failure: Failure) -> Result<(), Failure> {
        match failure {
            Failure::Statement(ErrorMessage::Own(error)) => {
                self.monitor.metrics().error(error.sqlstate.as_str());
                backend::error(&mut self.client.out, &error);
            }
            Failure::Statement(ErrorMessage::Backend(message)) => {
                self.monitor.metrics().error(backend::error_field(&message, b'C').unwrap_or_default());
                self.client.out.extend_from_slice(&message);
            }
            failure => return Err(failure),
        }
        Ok(())
    }
}

/// What a client is told whose session ends with the proxy.
pub(crate) fn terminated() -> ShimError {
    ShimError::new("57P01", "terminating connection due to administrator command")
}
