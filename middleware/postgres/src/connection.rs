//! A raw wire session to one backend over its server's Unix socket.
//!
//! Messages go out as bytes and come in unread, so that operations and results can be relayed verbatim and pipelined.
//! The helpers ([`Backend::simple`], [`Backend::extended`]) are for the agent's own commands; they must not be used
//! while other results are outstanding.

use crate::message::{self, ErrorFields, Malformed, RawMessage, tag};
use bytes::{Buf as _, BytesMut};
use postgres_protocol::message::backend::Header;
use postgres_protocol::message::frontend;
use std::io;
use std::path::{Path, PathBuf};
use steeldb_types::limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// The port in a private server's socket file name. Servers differ by directory, not by port.
pub const PORT: u16 = 5432;

/// A read asks for this much at once, so that many small messages come in one system call.
const READ_BYTES: usize = 64 * 1024;

/// The path of the socket in `socket_dir`.
pub fn socket_path(socket_dir: &Path) -> PathBuf {
    socket_dir.join(format!(".s.PGSQL.{PORT}"))
}

/// Why a session failed.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The socket failed.
    #[error("the connection to PostgreSQL failed: {0}")]
    Io(#[from] io::Error),
    /// The server closed the connection.
    #[error("PostgreSQL closed the connection")]
    Closed,
    /// The server sent what the protocol does not allow here.
    #[error("PostgreSQL broke the protocol: {0}")]
    Protocol(String),
    /// A message above the bound. It is passed over: what follows it can still be read.
    #[error("a {tag:?} message of {len} bytes from PostgreSQL is above the bound of {max}")]
    TooLarge {
        /// Its type.
        tag: char,
        /// Its length.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// The server refused or failed a command.
    #[error("PostgreSQL: {0}")]
    Server(Box<ErrorFields>),
}

impl BackendError {
    /// The SQLSTATE, when the server answered with one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            BackendError::Server(fields) => Some(&fields.sqlstate),
            _ => None,
        }
    }

    /// Whether the session may go on: the server answered with an ERROR, not FATAL.
    pub fn is_recoverable(&self) -> bool {
        matches!(self, BackendError::Server(fields) if fields.severity == "ERROR")
    }
}

impl From<Malformed> for BackendError {
    fn from(malformed: Malformed) -> Self {
        BackendError::Protocol(malformed.to_string())
    }
}

/// The transaction status of the last ReadyForQuery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransactionStatus {
    /// `I`: not in a transaction block.
    Idle,
    /// `T`: in a transaction block.
    InTransaction,
    /// `E`: in a failed transaction block.
    Failed,
}

/// What an agent's own command answered.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answer {
    /// Column names of the last result with rows.
    pub columns: Vec<String>,
    /// All rows, in text form.
    pub rows: Vec<Vec<Option<String>>>,
    /// The command tag of every statement.
    pub tags: Vec<String>,
}

impl Answer {
    /// The last command tag; empty when there was none.
    pub fn tag(&self) -> &str {
        self.tags.last().map_or("", String::as_str)
    }

    /// The first column of the first row, if there is one and it is not null.
    pub fn value(&self) -> Option<&str> {
        self.rows.first()?.first()?.as_deref()
    }
}

/// A session with one backend.
pub struct Backend {
    reader: BackendReader,
    writer: BackendWriter,
    cancel: CancelHandle,
    parameters: Vec<(String, String)>,
}

/// The half that reads messages.
pub struct BackendReader {
    stream: OwnedReadHalf,
    buffer: BytesMut,
    status: TransactionStatus,
    message_bytes_max: usize,
    /// Bytes still to come of a message past the bound.
    passing_over: usize,
}

/// The half that writes messages. Dropping it ends the session.
pub struct BackendWriter {
    stream: OwnedWriteHalf,
}

/// Cancels what a backend is running. Cheap to clone and usable while the session is busy.
#[derive(Clone, Debug)]
pub struct CancelHandle {
    socket: PathBuf,
    process_id: i32,
    secret_key: i32,
}

impl Backend {
    /// Opens a session as `role` in `database`. `params` are further startup parameters, such as
    /// `("application_name", "steeldb")`; `client_encoding` is UTF8 unless given.
    ///
    /// # Errors
    /// [`BackendError::Io`] when no server listens there, [`BackendError::Server`] when it refuses.
    pub async fn connect(
        socket_dir: &Path,
        database: &str,
        role: &str,
        params: &[(String, String)],
    ) -> Result<Backend, BackendError> {
        let socket = socket_path(socket_dir);
        let stream = UnixStream::connect(&socket).await?;
        let (read, write) = stream.into_split();
        let mut backend = Backend {
            reader: BackendReader {
                stream: read,
                buffer: BytesMut::with_capacity(READ_BYTES),
                status: TransactionStatus::Idle,
                message_bytes_max: limits::MESSAGE_BYTES_MAX,
                passing_over: 0,
            },
            writer: BackendWriter { stream: write },
            cancel: CancelHandle { socket, process_id: 0, secret_key: 0 },
            parameters: Vec::new(),
        };
        let mut startup = BytesMut::new();
        let encoding = match params.iter().any(|(name, _)| name.eq_ignore_ascii_case("client_encoding")) {
            true => None,
            false => Some(("client_encoding", "UTF8")),
        };
        let given = params.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let all = [("user", role), ("database", database)].into_iter().chain(encoding).chain(given);
        frontend::startup_message(all, &mut startup)?;
        backend.writer.send(&startup).await?;
        backend.finish_startup().await?;
        Ok(backend)
    }

    async fn finish_startup(&mut self) -> Result<(), BackendError> {
        loop {
            let message = self.reader.next_message().await?;
            let mut reader = message::Reader::new(&message.body, "startup");
            match message.tag {
                tag::AUTHENTICATION => match reader.u32()? {
                    0 => {}
                    method => {
                        return Err(BackendError::Protocol(format!(
                            "authentication method {method} asked for; a private server trusts its socket directory"
                        )));
                    }
                },
                tag::PARAMETER_STATUS => {
                    let name = reader.text()?.to_string();
                    self.parameters.push((name, reader.text()?.to_string()));
                }
                tag::BACKEND_KEY_DATA => {
                    self.cancel.process_id = reader.i32()?;
                    self.cancel.secret_key = reader.i32()?;
                }
                tag::NOTICE_RESPONSE => {}
                tag::READY_FOR_QUERY => return Ok(()),
                tag::ERROR_RESPONSE => return Err(server_error(&message)?),
                other => {
                    return Err(BackendError::Protocol(format!(
                        "{:?} message while starting a session",
                        char::from(other)
                    )));
                }
            }
        }
    }

    /// What the server reported at startup (`server_version`, `TimeZone`, ...), in its order.
    pub fn parameters(&self) -> &[(String, String)] {
        &self.parameters
    }

    /// The backend's process id.
    pub fn process_id(&self) -> i32 {
        self.cancel.process_id
    }

    /// A handle that cancels what this session runs.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    /// The status of the last ReadyForQuery read.
    pub fn transaction_status(&self) -> TransactionStatus {
        self.reader.status
    }

    /// Sends frontend messages.
    ///
    /// # Errors
    /// [`BackendError::Io`].
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), BackendError> {
        self.writer.send(bytes).await
    }

    /// The next message. Cancel safe.
    ///
    /// # Errors
    /// [`BackendError`], never `Server`: an ErrorResponse is a message like others.
    pub async fn next_message(&mut self) -> Result<RawMessage, BackendError> {
        self.reader.next_message().await
    }

    /// The next message if it has been received already.
    ///
    /// # Errors
    /// As [`Backend::next_message`].
    pub fn buffered_message(&mut self) -> Result<Option<RawMessage>, BackendError> {
        self.reader.buffered_message()
    }

    /// Splits the session, so that one task can write while another reads.
    pub fn into_split(self) -> (BackendReader, BackendWriter) {
        (self.reader, self.writer)
    }

    /// Runs `sql`, one or several statements, by the simple protocol.
    ///
    /// # Errors
    /// [`BackendError::Server`] with the first error; the session is then ready for the next command.
    pub async fn simple(&mut self, sql: &str) -> Result<Answer, BackendError> {
        let mut out = BytesMut::new();
        message::query(sql, &mut out)?;
        self.send(&out).await?;
        self.answer().await
    }

    /// Runs one statement with text parameters by the extended protocol, with a Sync.
    ///
    /// # Errors
    /// As [`Backend::simple`].
    pub async fn extended(&mut self, sql: &str, values: &[Option<&str>]) -> Result<Answer, BackendError> {
        let mut out = BytesMut::new();
        message::extended(sql, values, &mut out)?;
        message::sync(&mut out);
        self.send(&out).await?;
        self.answer().await
    }

    /// Reads messages up to ReadyForQuery and gathers what they say; notices are dropped.
    ///
    /// # Errors
    /// The first server error, after ReadyForQuery was read; or what broke the session.
    pub async fn answer(&mut self) -> Result<Answer, BackendError> {
        let mut answer = Answer::default();
        let mut failed = None;
        loop {
            let message = self.reader.next_message().await?;
            match message.tag {
                tag::ROW_DESCRIPTION => answer.columns = message::column_names(&message.body)?,
                tag::DATA_ROW => answer.rows.push(message::data_row(&message.body)?),
                tag::COMMAND_COMPLETE => answer.tags.push(message::command_tag(&message.body)?.to_string()),
                tag::ERROR_RESPONSE if failed.is_none() => {
                    let error = server_error(&message)?;
                    if !error.is_recoverable() {
                        return Err(error);
                    }
                    failed = Some(error);
                }
                tag::COPY_IN_RESPONSE => {
                    return Err(BackendError::Protocol("an agent's command copies nothing".to_string()));
                }
                tag::READY_FOR_QUERY => return failed.map_or(Ok(answer), Err),
                _ => {}
            }
        }
    }
}

impl BackendReader {
    /// The next message. Cancel safe: a message is either returned whole or still in the buffer.
    ///
    /// # Errors
    /// As [`Backend::next_message`].
    pub async fn next_message(&mut self) -> Result<RawMessage, BackendError> {
        loop {
            if let Some(message) = self.buffered_message()? {
                return Ok(message);
            }
            // Grows with what arrives, not with what a length claims.
            self.buffer.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(BackendError::Closed);
            }
        }
    }

    /// The next message if it has been received already.
    ///
    /// # Errors
    /// As [`Backend::next_message`].
    pub fn buffered_message(&mut self) -> Result<Option<RawMessage>, BackendError> {
        let over = self.passing_over.min(self.buffer.len());
        self.buffer.advance(over);
        self.passing_over -= over;
        let Some((tag, len)) = frame(&self.buffer)? else { return Ok(None) };
        if len > self.message_bytes_max {
            self.passing_over = len + 1;
            return Err(BackendError::TooLarge { tag: char::from(tag), len, max: self.message_bytes_max });
        }
        if self.buffer.len() < len + 1 {
            return Ok(None);
        }
        let body = self.buffer.split_to(len + 1).freeze().slice(5..);
        if tag == tag::READY_FOR_QUERY {
            self.status = match body.first() {
                Some(b'I') => TransactionStatus::Idle,
                Some(b'T') => TransactionStatus::InTransaction,
                Some(b'E') => TransactionStatus::Failed,
                _ => return Err(Malformed("ReadyForQuery").into()),
            };
        }
        Ok(Some(RawMessage { tag, body }))
    }

    /// The status of the last ReadyForQuery read.
    pub fn transaction_status(&self) -> TransactionStatus {
        self.status
    }

    /// Takes messages of at most `bytes` from now on, instead of [`limits::MESSAGE_BYTES_MAX`].
    pub fn set_message_bytes_max(&mut self, bytes: usize) {
        self.message_bytes_max = bytes;
    }
}

/// The tag and the length (which counts itself, not the tag) of the message at the start of `buffer`.
fn frame(buffer: &[u8]) -> Result<Option<(u8, usize)>, BackendError> {
    let header = Header::parse(buffer).map_err(|error| BackendError::Protocol(error.to_string()))?;
    let Some(header) = header else { return Ok(None) };
    let len = usize::try_from(header.len()).map_err(|_| Malformed("header"))?;
    Ok(Some((header.tag(), len)))
}

impl BackendWriter {
    /// Sends frontend messages. Not cancel safe: a message may be left half written.
    ///
    /// # Errors
    /// [`BackendError::Io`].
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), BackendError> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// Sends all of `out` and empties it. Cancel safe: what was not sent stays in `out`.
    ///
    /// # Errors
    /// [`BackendError::Io`].
    pub async fn send_all(&mut self, out: &mut BytesMut) -> Result<(), BackendError> {
        while !out.is_empty() {
            self.stream.write_buf(out).await?;
        }
        Ok(())
    }
}

impl CancelHandle {
    /// Asks the server to cancel what the session runs; returns once the server has taken the request in.
    ///
    /// # Errors
    /// [`BackendError::Io`].
    pub async fn cancel(&self) -> Result<(), BackendError> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        let mut out = BytesMut::new();
        frontend::cancel_request(self.process_id, self.secret_key, &mut out);
        stream.write_all(&out).await?;
        // The server closes the connection after it has signalled the backend.
        let mut rest = [0u8; 1];
        match stream.read(&mut rest).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The error that an ErrorResponse reports.
///
/// # Errors
/// When the message itself is malformed.
pub fn server_error(message: &RawMessage) -> Result<BackendError, BackendError> {
    Ok(BackendError::Server(Box::new(ErrorFields::parse(&message.body)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_checked() {
        let header = |len: u32| [&[b'D'][..], &len.to_be_bytes()].concat();
        assert!(matches!(frame(&header(4)), Ok(Some((b'D', 4)))));
        assert!(matches!(frame(&header(3)), Err(BackendError::Protocol(_))));
        assert!(matches!(frame(&header(u32::MAX)), Err(BackendError::Protocol(_))));
        assert!(matches!(frame(b"D\0\0"), Ok(None)));
    }

    #[tokio::test]
    async fn a_message_past_the_bound_is_told_of_and_passed_over_without_keeping_it() {
        let (mut server, client) = UnixStream::pair().unwrap();
        let mut reader = BackendReader {
            stream: client.into_split().0,
            buffer: BytesMut::new(),
            status: TransactionStatus::Idle,
            message_bytes_max: 1000,
            passing_over: 0,
        };
        let message = |len: usize| {
            let head = [&b"D"[..], &u32::try_from(len).unwrap().to_be_bytes()].concat();
            [head, vec![7; len - 4]].concat()
        };
        let sent = [message(1000), message(300_000), message(1001), message(5)].concat();
        let writing = async { server.write_all(&sent).await.unwrap() };
        let reading = async {
            assert_eq!(reader.next_message().await.unwrap().body.len(), 996);
            for expected in [300_000, 1001] {
                match reader.next_message().await {
                    Err(BackendError::TooLarge { tag: 'D', len, max: 1000 }) => assert_eq!(len, expected),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(reader.next_message().await.unwrap().body.len(), 1);
            assert!(reader.buffer.capacity() < 300_000);
        };
        tokio::join!(writing, reading);
    }
}
