//! A client's connection: bytes in and out, bounded, and nothing lost when a wait is given up.

use crate::frontend::{Message, Packet, ProtocolError, cut, long};
use bytes::{Buf, BytesMut};
use std::io;
use steeldb_types::limits::MESSAGE_BYTES_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes read ahead of the message that is worked on.
const READ_AHEAD_BYTES_MAX: usize = 64 * 1024;

/// Bytes written together at most before they leave.
pub(crate) const FLUSH_BYTES: usize = 32 * 1024;

/// A client's connection.
pub(crate) struct Client {
    stream: TcpStream,
    input: BytesMut,
    /// What is to be sent with the next flush.
    pub out: BytesMut,
    /// How often something was sent.
    flushes: u64,
    /// A message that is too long to be kept whole: its type byte, and how much of it is still to come.
    long: Option<(u8, usize)>,
}

/// What reading gave.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The connection is gone.
    Gone,
    /// The client broke the protocol.
    Protocol(ProtocolError),
}

impl From<io::Error> for ReadError {
    fn from(_: io::Error) -> ReadError {
        ReadError::Gone
    }
}

impl From<ReadError> for crate::error::Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Gone => crate::error::Failure::Gone,
            ReadError::Protocol(error) => error.into(),
        }
    }
}

impl Client {
    pub(crate) fn new(stream: TcpStream) -> Client {
        Client {
            stream,
            input: BytesMut::with_capacity(8 * 1024),
            out: BytesMut::with_capacity(8 * 1024),
            flushes: 0,
            long: None,
        }
    }

    /// The next message. Nothing is lost if the wait is given up.
    pub(crate) async fn message(&mut self) -> Result<Message, ReadError> {
        loop {
            if let Some(message) = self.try_message()? {
                return Ok(message);
            }
            self.fill().await?;
        }
    }

    /// The next message, if all of it is here. A CopyData that is too long to be kept comes in several: where their
    /// bounds are means nothing.
    pub(crate) fn try_message(&mut self) -> Result<Option<Message>, ReadError> {
        if self.long.is_none()
            && let Some((tag, bytes)) = long(&self.input)
        {
            self.input.advance(5);
            self.long = Some((tag, bytes));
            if tag != b'd' {
                return Ok(Some(Message::TooLong { tag, bytes }));
            }
        }
        if let Some((tag, left)) = self.long {
            let part = self.input.split_to(left.min(self.input.len()));
            self.long = Some((tag, left - part.len())).filter(|(_, left)| *left > 0);
            if tag == b'd' && !part.is_empty() {
                return Ok(Some(Message::CopyData { data: part.freeze() }));
            }
            if self.long.is_some() {
                return Ok(None);
            }
        }
        let packet = cut(&mut self.input, MESSAGE_BYTES_MAX).map_err(ReadError::Protocol)?;
        packet.map(Packet::parse).transpose().map_err(ReadError::Protocol)
    }

    /// The next packet of the start-up phase.
    pub(crate) async fn packet(&mut self, bytes_max: usize) -> Result<Packet, ReadError> {
        loop {
            if let Some(packet) = cut(&mut self.input, bytes_max).map_err(ReadError::Protocol)? {
                return Ok(packet);
            }
            self.fill().await?;
        }
    }

    /// A start-up packet's body: no type byte before its length.
    pub(crate) async fn startup_packet(&mut self, bytes_max: usize) -> Result<BytesMut, ReadError> {
        loop {
            if let Some(length) = self.input.first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                if length < 8 || length > bytes_max {
                    return Err(ReadError::Protocol(ProtocolError(
                        "invalid length of startup packet".into(),
                    )));
                }
                if self.input.len() >= length {
                    let mut packet = self.input.split_to(length);
                    packet.advance(4);
                    return Ok(packet);
                }
            }
            self.fill().await?;
        }
    }

    /// Whether bytes have come that are not worked on.
    pub(crate) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    async fn fill(&mut self) -> Result<(), ReadError> {
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(ReadError::Gone),
            _ => Ok(()),
        }
    }

    /// Waits for the client to vanish, reading ahead as far as the bound allows. Never returns while it is there.
    pub(crate) async fn gone(&mut self) {
        while self.input.len() < READ_AHEAD_BYTES_MAX {
            if self.fill().await.is_err() {
                return;
            }
        }
        std::future::pending().await
    }

    /// How often something was sent.
    pub(crate) fn flushes(&self) -> u64 {
        self.flushes
    }

    /// Sends what is to be sent.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.flushes += 1;
            self.stream.write_all(&self.out).await?;
            self.out.clear();
            if self.out.capacity() > 4 * FLUSH_BYTES {
                self.out = BytesMut::with_capacity(8 * 1024);
            }
        }
        Ok(())
    }

    /// Sends when enough is waiting.
    pub(crate) async fn flush_if_full(&mut self) -> io::Result<()> {
        if self.out.len() >= FLUSH_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Sends a single byte: the answer to SSLRequest and GSSENCRequest.
    pub(crate) async fn send_byte(&mut self, byte: u8) -> io::Result<()> {
        self.stream.write_all(&[byte]).await
    }
}
