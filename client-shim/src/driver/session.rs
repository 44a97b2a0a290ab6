//! One session of the application: its core, run inside whatever task uses it.

use super::Shared;
use super::inbox::{Inbox, Input};
use crate::ShimError;
use crate::core::{Core, Event, NewOperation, Waiting};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use steeldb_types::{SessionId, SessionKey, TxId, View};
use steeldb_wire::codec::encode;
use steeldb_wire::transaction::{Decision, Modes};
use tokio::time::Instant;

/// Bytes waiting on a link past which COPY data are held back.
const BACKLOG_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What may wait on a link beyond a quorum's before COPY data are held back for it, too, and for how long at a time: a
/// replica that is a little slower than others keeps its link, and one that does not read at all holds up nobody for long.
const SLOW_BACKLOG_BYTES: usize = 64 * 1024 * 1024;
const SLOW_PATIENCE: Duration = Duration::from_millis(50);

/// How often a link's backlog is looked at while COPY data are held back.
const BACKLOG_POLL: Duration = Duration::from_millis(2);

/// A session. Commands return at once; what comes of them comes as [`Event`]s, in order, from [`Session::event`]. The
/// session is closed on all replicas when it is dropped.
pub struct Session {
    core: Core,
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    id: SessionId,
    parameters: Vec<(String, String)>,
    /// The wait in progress and when it ends, so that giving up [`Session::event`] does not start it anew.
    deadline: Option<((Waiting, u64), Instant)>,
    /// When the transaction began and how many bytes it sent: replicas may take the longer to finish it.
    begun_at: Instant,
    sent_bytes: usize,
}

/// What each megabyte sent adds to the wait for a transaction's outcome: other replicas start on it when it is
/// finished, and give each other this time and more.
const OUTCOME_PER_MEGABYTE: Duration = Duration::from_secs(4);

/// Cancels what a session does, from any task.
#[derive(Clone)]
pub struct Canceller {
    inbox: Arc<Inbox>,
}

impl Canceller {
    /// Cancels what the session does now, if it does anything.
    pub fn cancel(&self) {
        self.inbox.push(Input::Cancel);
    }
}

impl Session {
    pub(super) fn new(core: Core, shared: Arc<Shared>, inbox: Arc<Inbox>, id: SessionId) -> Session {
        let mut session = Session {
            core,
            shared,
            inbox,
            id,
            parameters: Vec::new(),
            deadline: None,
            begun_at: Instant::now(),
            sent_bytes: 0,
        };
        session.flush();
        session
    }

    pub(super) fn set_parameters(&mut self, parameters: Vec<(String, String)>) {
        self.parameters = parameters;
    }

    /// The master's parameters when the session was opened.
    pub fn parameters(&self) -> &[(String, String)] {
        &self.parameters
    }

    /// What the order knows the session by.
    pub fn key(&self) -> SessionKey {
        SessionKey { client: self.shared.config.client, session: self.id }
    }

    /// A handle that cancels what the session does.
    pub fn canceller(&self) -> Canceller {
        Canceller { inbox: self.inbox.clone() }
    }

    /// Starts a transaction. Nothing is sent before its first operation.
    pub fn begin(&mut self, modes: Modes) {
        // Links may have gone and come since somebody last waited for something: the transaction's replicas are those of
        // now.
        while let Some(input) = self.inbox.try_take() {
            self.take(input);
        }
        self.begun_at = Instant::now();
        self.sent_bytes = 0;
        self.core.begin(modes);
    }

    /// The transaction that runs, if any.
    pub fn tx(&self) -> Option<TxId> {
        self.core.tx()
    }

    /// A statement failed and no ROLLBACK TO has succeeded since, or the transaction cannot go on.
    pub fn in_failed_transaction(&self) -> bool {
        self.core.in_failed_transaction()
    }

    /// Adds an operation to the transaction; its number. Its answer comes as [`Event::Result`]s and one
    /// [`Event::Executed`], or as [`Event::OperationFailed`].
    pub fn operation(&mut self, operation: NewOperation) -> u32 {
        self.sent_bytes += operation.text.sql.len();
        let number = self.core.operation(operation);
        self.flush();
        number
    }

    /// COPY data for the operation that asked for them.
    pub fn copy_data(&mut self, chunk: &[u8]) {
        self.sent_bytes += chunk.len();
        self.core.copy_data(chunk);
        self.flush();
    }

    /// The end of the COPY data; `failure` is CopyFail's message.
    pub fn copy_end(&mut self, failure: Option<String>) {
        self.core.copy_end(failure);
        self.flush();
    }

    /// Waits until the links have room for more COPY data: the master's, and those of a quorum. Whoever is slower
    /// than that holds up nobody for long and loses its link in the end.
    pub async fn room(&self) {
        let links = &self.shared.links;
        let has_room = |replica| links.backlog(replica) < BACKLOG_BYTES_MAX;
        let is_quorum = |view: View| view.is_quorum(view.replicas().filter(|r| has_room(*r)));
        while !has_room(self.shared.term().master) || !is_quorum(self.shared.view()) {
            tokio::time::sleep(BACKLOG_POLL).await;
        }
        let is_slow = |replica| links.backlog(replica) >= SLOW_BACKLOG_BYTES;
        let until = Instant::now() + SLOW_PATIENCE;
        while Instant::now() < until && self.shared.view().replicas().any(is_slow) {
            tokio::time::sleep(BACKLOG_POLL).await;
        }
    }

    /// COMMIT or ROLLBACK; answered by [`Event::Finished`].
    pub fn finish(&mut self, decision: Decision) {
        self.core.finish(decision);
        self.flush();
    }

    /// Runs VACUUM or ANALYZE; answered by [`Event::Maintained`].
    pub fn maintain(&mut self, sql: String) {
        self.core.maintain(sql);
        self.flush();
    }

    /// Asks what became of a transaction; answered by [`Event::Told`].
    pub fn ask(&mut self, tx: TxId) {
        self.core.ask(tx);
        self.flush();
    }

    /// What the application is told when its session ends with `error`: that its COMMIT is in doubt, if it is.
    pub fn last_word(&self, error: ShimError) -> ShimError {
        self.core.last_word(error)
    }

    pub(super) fn verify(&mut self) {
        self.core.verify();
        self.flush();
    }

    /// This many bytes of results were passed on.
    pub fn consumed(&mut self, bytes: usize) {
        self.core.consumed(bytes);
        self.flush();
    }

    /// The next event that is there already.
    pub fn try_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.core.poll_event() {
                return Some(event);
            }
            let input = self.inbox.try_take()?;
            self.take(input);
        }
    }

    /// Waits for the next event. Nothing is lost if the wait is given up. Without anything under way it waits for the
    /// session to be lost.
    pub async fn event(&mut self) -> Event {
        loop {
            if let Some(event) = self.try_event() {
                return event;
            }
            let waiting = self.core.waiting();
            if self.deadline.map(|(waiting, _)| waiting) != waiting {
                self.deadline = waiting.map(|waiting| (waiting, Instant::now() + self.patience(waiting.0)));
            }
            let input = match self.deadline {
                None => Ok(self.inbox.take().await),
                Some((_, deadline)) => tokio::time::timeout_at(deadline, self.inbox.take()).await,
            };
            match (input, self.deadline) {
                (Ok(input), _) => self.take(input),
                (Err(_), Some(((waiting, _), _))) => {
                    self.core.expire(waiting);
                    self.flush();
                }
                (Err(_), None) => {}
            }
        }
    }

    /// Waits for the end of the transaction, past results that nobody wants any more.
    ///
    /// # Errors
    /// As [`Event::Finished`], or the session was lost.
    pub async fn finished(&mut self) -> Result<crate::Completion, ShimError> {
        loop {
            match self.event().await {
                Event::Finished(result) => return result,
                Event::Lost(error) => return Err(error),
                Event::Result { messages, .. } => self.consumed(messages.len()),
                _ => {}
            }
        }
    }

    fn patience(&self, waiting: Waiting) -> Duration {
        let patience = &self.shared.config.patience;
        match waiting {
            Waiting::Opening => patience.opening,
            Waiting::Replicas => patience.replicas,
            Waiting::Slot => patience.slot,
            // It is asked for several times.
            Waiting::Answer => patience.slot / 6,
            Waiting::Master => patience.master,
            Waiting::Verification | Waiting::Outcome => {
                let megabytes = u32::try_from(self.sent_bytes >> 20).unwrap_or(u32::MAX);
                patience.outcome + self.begun_at.elapsed() * 4 + OUTCOME_PER_MEGABYTE * megabytes.min(100_000)
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Message(from, message, _) => self.core.receive(from, message),
            Input::LinkUp(replica) => self.core.link_up(replica),
            Input::LinkDown(replica) => self.core.link_down(replica),
            Input::ViewChanged(view) => self.core.change_view(view),
            Input::TermBegan(term) => self.core.begin_term(term),
            Input::Cancel => self.core.cancel(),
        }
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(transmit) = self.core.poll_transmit() {
            // Encoded once, shared by all links.
            let frame = Bytes::from(encode(&transmit.message));
            for replica in transmit.to {
                if transmit.at_once.is_none_or(|only| only == replica) {
                    self.shared.links.send(replica, frame.clone());
                } else {
                    let patience = self.shared.config.execution.gather();
                    self.shared.links.send_relaxed(replica, frame.clone(), patience);
                }
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.core.close();
        self.flush();
        self.shared.state().inboxes.remove(&self.id);
    }
}
