//! Reads a backend's answers in the order its commands were written.

use super::super::hook::{Hook, Point};
use super::super::maintenance::error_with_hint;
use super::drawing::Drawing;
use super::{Expect, Input, Parsed, Reports, Shared, lock};
use crate::reach::Names;
use crate::scheduler::{BackendReport, Completion, TagKind};
use bytes::{BufMut as _, Bytes};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use steeldb_postgres::BackendError;
use steeldb_postgres::connection::BackendReader;
use steeldb_postgres::message::{self, RawMessage, tag};
use steeldb_transport::{ConnectionId, ReplicaLinks};
use steeldb_types::{Digest, SessionKey, TxId, limits};
use steeldb_wire::codec;
use steeldb_wire::transaction::{Draws, ReplicaMessage, ResultDigest, SqlState};
use tokio::sync::mpsc;

/// A piece of a result is sent once it has this size, or nothing more is there.
const PIECE_BYTES: usize = 32 * 1024;

pub(super) struct Reader {
    pub(super) reader: BackendReader,
    pub(super) expected: mpsc::UnboundedReceiver<Expect>,
    pub(super) shared: Arc<Shared>,
    pub(super) back: mpsc::UnboundedSender<Input>,
    pub(super) session: SessionKey,
    pub(super) connection: ConnectionId,
    pub(super) links: ReplicaLinks,
    pub(super) reports: Reports,
    pub(super) patience: Duration,
    pub(super) drawing: Drawing,
    /// Where a test stops it.
    pub(super) hook: Hook,
}

impl Reader {
    pub(super) async fn run(mut self) -> Result<(), BackendError> {
        while let Some(expect) = self.next_expect().await? {
            let report = match expect {
                Expect::Operation { tx, number, show, copy, digest, parsed } => {
                    Some(self.operation(tx, number, show, copy, digest, parsed).await?)
                }
                Expect::Adopted { tx, number, sqlstate } => {
                    let answer = self.answer().await?;
                    Some(BackendReport::Executed {
                        tx,
                        number,
                        result: ResultDigest::error(sqlstate.0),
                        sqlstate: Some(sqlstate),
                        status: answer.status,
                        tag: TagKind::Plain,
                        copy_started: false,
                        draws: Draws::NONE,
                    })
                }
                Expect::Begun { tx } => Some(match self.answer().await?.error {
                    None => BackendReport::Begun { tx },
                    Some((_, reason)) => BackendReport::NotBegun { tx, reason },
                }),
                Expect::Leading { tx } => {
                    let answer = self.answer().await?;
                    answer.error.map(|(_, reason)| BackendReport::NotBegun { tx, reason })
                }
                Expect::Complete { tx } => {
                    let answer = self.answer().await?;
                    Some(BackendReport::Completed { tx, result: self.completion(answer) })
                }
                Expect::Prepare { tx } => {
                    let answer = self.answer().await?;
                    self.hook.pass(Point::Prepared).await;
                    let result = match answer.error {
                        Some((sqlstate, _)) => Err(sqlstate),
                        // PREPARE of a failed transaction answers ROLLBACK without an error (B6).
                        None if answer.tag != "PREPARE TRANSACTION" => Err(SqlState::parse("25P02")),
                        None => Ok(lock(&self.shared.ddl_effects).take().flatten()),
                    };
                    Some(BackendReport::Prepared { tx, result })
                }
                Expect::Ended { tx } => {
                    self.answer().await?;
                    Some(BackendReport::Ended { tx })
                }
                Expect::Settings => {
                    let answer = self.answer().await?;
                    // One that has failed before cannot be asked, and will not be prepared either.
                    let text = answer.row.into_iter().next().flatten().unwrap_or_default();
                    *lock(&self.shared.settings) = super::settings::parse(&text);
                    None
                }
                Expect::Restored => {
                    if let Some((sqlstate, message)) = self.answer().await?.error {
                        // It would answer otherwise than the others.
                        let what =
                            format!("a setting of the session cannot be restored here: {sqlstate} {message}");
                        return Err(BackendError::Protocol(what));
                    }
                    None
                }
                Expect::Ignored => {
                    self.answer().await?;
                    None
                }
            };
            self.shared.outstanding.fetch_sub(1, Ordering::AcqRel);
            self.shared.drained.notify_one();
            if let Some(report) = report
                && !self.reports.send(report)
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The next answer to wait for. Meanwhile the backend may say something of its own accord, such as that it is
    /// being shut down.
    async fn next_expect(&mut self) -> Result<Option<Expect>, BackendError> {
        loop {
            tokio::select! {
                biased;
                expect = self.expected.recv() => return Ok(expect),
                message = self.reader.next_message() => {
                    let message = message?;
                    if message.tag == tag::ERROR_RESPONSE {
                        return Err(steeldb_postgres::connection::server_error(&message)?);
                    }
                }
            }
        }
    }

    fn completion(&self, answer: AgentAnswer) -> Result<Completion, SqlState> {
        if let Some((sqlstate, message)) = answer.error {
            tracing::debug!(session = %self.session, %sqlstate, message, "a transaction cannot be completed");
            return Err(sqlstate);
        }
        let wrote = answer.row.first().cloned().flatten().as_deref() == Some("t");
        let effects = answer.row.get(1).cloned().flatten();
        let digest = effects.as_deref().and_then(|text| text.strip_prefix("\\x")).and_then(|text| {
            let mut digest = [0u8; 32];
            hex::decode_to_slice(text, &mut digest).ok().map(|()| Digest(digest))
        });
        // No digest, in either form that the client may have set: nothing but temporary relations.
        let temporary = effects.as_deref().is_some_and(|effects| matches!(effects, "" | "\\x"));
        let ddl = effects.is_some() && !temporary;
        if ddl && digest.is_none() {
            // The client has set bytea_output; its transaction can try again without.
            return Err(SqlState::parse("0A000"));
        }
        *lock(&self.shared.ddl_effects) = (ddl || temporary).then_some(digest);
        let rows = self.shared.rows.load(Ordering::Acquire);
        let names = answer.row.get(2).and_then(Option::as_deref).and_then(Names::parse).map(Arc::new);
        Ok(Completion { wrote, ddl, temporary, names, rows })
    }

    /// Reads an operation's messages, hashing them, and showing them where the client waits for them.
    async fn operation(
        &mut self,
        tx: TxId,
        number: u32,
        show: bool,
        copy: bool,
        mut digest: Box<ResultDigest>,
        parsed: Option<Parsed>,
    ) -> Result<BackendReport, BackendError> {
        let mut piece = Vec::new();
        let mut copy_started = false;
        let mut kind = TagKind::Plain;
        let mut failure = None;
        let mut draws = Draws::default();
        let status = loop {
            let message = match self.reader.buffered_message() {
                Ok(Some(message)) => Ok(message),
                Ok(None) => {
                    self.send_piece(tx, number, &mut piece).await?;
                    self.reader.next_message().await
                }
                Err(error) => Err(error),
            };
            let message = match message {
                Ok(message) => message,
                // A notice is part of no result; that it is missing changes nothing.
                Err(BackendError::TooLarge { tag: 'N', .. }) => continue,
                Err(BackendError::TooLarge { len, max, .. }) => {
                    failure.get_or_insert_with(|| TooLarge::message(len, max));
                    continue;
                }
                Err(error) => return Err(error),
            };
            match message.tag {
                tag::READY_FOR_QUERY => break message.body.first().copied().unwrap_or(b'I'),
                tag::PARSE_COMPLETE => {
                    if let Some(parsed) = &parsed {
                        let mut known = lock(&self.shared.parsed);
                        if known.0 == parsed.epoch {
                            known.1.insert(parsed.statement, parsed.name.clone());
                        }
                    }
                    continue;
                }
                tag::BIND_COMPLETE | tag::CLOSE_COMPLETE | tag::NOTIFICATION_RESPONSE => continue,
                tag::COPY_IN_RESPONSE if !copy => {
                    // It would wait for data for ever, deaf to Sync and to cancels.
                    let _ = self.back.send(Input::UnexpectedCopy);
                    continue;
                }
                tag::COPY_IN_RESPONSE => copy_started = true,
                tag::NOTICE_RESPONSE
                    if self.drawing.note(&message::ErrorFields::parse(&message.body)?, &mut draws) =>
                {
                    continue;
                }
                tag::COMMAND_COMPLETE => {
                    let tag = message::command_tag(&message.body)?;
                    kind = tag_kind(tag);
                    self.shared.rows.fetch_add(rows_of(tag), Ordering::AcqRel);
                    if tag.starts_with("DISCARD") {
                        self.shared.disarmed.store(true, Ordering::Release);
                    }
                }
                tag::ERROR_RESPONSE if !copy_started => {
                    // If it is a COPY, its Sync is still to come; otherwise this changes nothing.
                    let _ = self.back.send(Input::NoCopy { tx, number });
                }
                _ => {}
            }
            if failure.is_some() {
                continue;
            }
            if message.tag == tag::ERROR_RESPONSE
                && let Some(lost) = lock(&self.shared.lost).take()
            {
                // It fails since its data are lost here, and not as the backend was told to say.
                let error = error_with_hint(lost.sqlstate, &lost.reason, "Make room on the replica's disk.");
                let _ = digest.message(tag::ERROR_RESPONSE, error.get(5..).unwrap_or_default());
                if show {
                    append_bytes(&mut piece, &error);
                }
                continue;
            }
            if let Err(error) = digest.message(message.tag, &message.body) {
                failure = Some(TooLarge { reason: error.to_string(), hint: "" });
                continue;
            }
            if show {
                append(&mut piece, &message);
                if piece.len() >= PIECE_BYTES {
                    self.send_piece(tx, number, &mut piece).await?;
                }
            }
        };
        if let Some(TooLarge { reason, hint }) = failure {
            // The result is this error, wherever the operation is executed: the canonical result, too.
            let error = error_with_hint("54000", &reason, hint);
            let _ = digest.message(tag::ERROR_RESPONSE, error.get(5..).unwrap_or_default());
            if show {
                append_bytes(&mut piece, &error);
            }
        }
        self.send_piece(tx, number, &mut piece).await?;
        if status == b'I' {
            kind = TagKind::BlockEnded;
        }
        let sqlstate = digest.sqlstate().map(SqlState::parse);
        Ok(BackendReport::Executed {
            tx,
            number,
            result: digest.finish(),
            sqlstate,
            status,
            tag: kind,
            copy_started,
            draws,
        })
    }

    /// Sends what has gathered, once the shim has passed on enough of what it got.
    ///
    /// # Errors
    /// [`BackendError::Io`], timed out: the client takes nothing. The session ends, since its transaction holds locks.
    async fn send_piece(&mut self, tx: TxId, number: u32, piece: &mut Vec<u8>) -> Result<(), BackendError> {
        if piece.is_empty() {
            return Ok(());
        }
        #[cfg(feature = "adversary")]
        crate::agent::adversary::twist_result(piece);
        let messages = std::mem::take(piece);
        while self.shared.unacknowledged.load(Ordering::Acquire) > limits::RESULT_WINDOW_BYTES as u64 {
            if self.shared.discard.load(Ordering::Acquire) || self.reports.is_closed() {
                return Ok(());
            }
            let acknowledged = self.shared.acknowledged.notified();
            if tokio::time::timeout(self.patience, acknowledged).await.is_err() {
                let reason = "the client takes none of its results";
                return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, reason).into());
            }
        }
        if self.shared.discard.load(Ordering::Acquire) {
            return Ok(());
        }
        self.shared.unacknowledged.fetch_add(messages.len() as u64, Ordering::AcqRel);
        let frame = codec::encode(&ReplicaMessage::Result { tx, number, messages });
        self.links.send_client(self.connection, Bytes::from(frame));
        Ok(())
    }

    /// The answer to one of the agent's own commands.
    async fn answer(&mut self) -> Result<AgentAnswer, BackendError> {
        let mut answer = AgentAnswer { tag: String::new(), error: None, row: Vec::new(), status: b'I' };
        loop {
            let message = self.reader.next_message().await?;
            match message.tag {
                tag::READY_FOR_QUERY => {
                    answer.status = message.body.first().copied().unwrap_or(b'I');
                    return Ok(answer);
                }
                tag::COMMAND_COMPLETE => answer.tag = message::command_tag(&message.body)?.to_string(),
                tag::DATA_ROW => answer.row = message::data_row(&message.body)?,
                tag::ERROR_RESPONSE => {
                    let fields = message::ErrorFields::parse(&message.body)?;
                    answer.error = Some((SqlState::parse(&fields.sqlstate), fields.message.clone()));
                }
                _ => {}
            }
        }
    }
}

/// Why a result ends in an error that the server knows nothing of.
struct TooLarge {
    reason: String,
    hint: &'static str,
}

impl TooLarge {
    fn message(len: usize, max: usize) -> TooLarge {
        TooLarge {
            reason: format!("a row of {len} bytes is too large to be passed on: at most {max} are"),
            hint: "Read large values in parts, as with substr(), or in binary format.",
        }
    }
}

struct AgentAnswer {
    tag: String,
    error: Option<(SqlState, String)>,
    row: Vec<Option<String>>,
    status: u8,
}

fn append(piece: &mut Vec<u8>, message: &RawMessage) {
    piece.put_u8(message.tag);
    piece.put_u32(message.body.len() as u32 + 4);
    piece.put_slice(&message.body);
}

fn append_bytes(piece: &mut Vec<u8>, bytes: &[u8]) {
    piece.extend_from_slice(bytes);
}

/// How many rows a command changed.
fn rows_of(tag: &str) -> u64 {
    let mut words = tag.split(' ');
    match words.next() {
        Some("INSERT" | "UPDATE" | "DELETE" | "MERGE" | "COPY") => {
            words.next_back().and_then(|word| word.parse().ok()).unwrap_or(0)
        }
        _ => 0,
    }
}

/// What a command tag says about its statement.
fn tag_kind(tag: &str) -> TagKind {
    let first = tag.split(' ').next().unwrap_or_default();
    let ddl = [
        "CREATE", "ALTER", "DROP", "TRUNCATE", "GRANT", "REVOKE", "COMMENT", "REFRESH", "REINDEX", "CLUSTER",
        "SECURITY", "REASSIGN", "IMPORT",
    ];
    match first {
        "SET" | "RESET" | "DISCARD" => TagKind::Settings,
        "LOCK" => TagKind::Lock,
        _ if ddl.contains(&first) => TagKind::Ddl,
        _ => TagKind::Plain,
    }
}
