//! Results on their way from the shim to the client: relayed verbatim, but for what the client did not ask for, errors
//! and completions, which others decide about.

use crate::backend;
use crate::error::{ErrorMessage, Failure, PgError};
use crate::session::Session;
use crate::sql::Statement;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use steeldb_client_shim::message::messages;
use steeldb_client_shim::{Event, NewOperation};

/// Rows kept of a portal that is read in portions.
pub(crate) const PORTAL_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What becomes of an answer.
pub(crate) struct Relay {
    /// RowDescription or NoData is wanted.
    pub describe: Describe,
    /// Rows to show; the rest is kept. 0: all.
    pub max_rows: u32,
    /// Rows shown.
    rows: u32,
    /// Rows not shown.
    pub kept: VecDeque<Bytes>,
    kept_bytes: usize,
    /// CommandComplete or EmptyQueryResponse.
    pub completion: Bytes,
    error: Option<BytesMut>,
    copy_in: bool,
    /// Description messages taken instead of shown.
    pub taken: Vec<Bytes>,
}

/// What becomes of descriptions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Describe {
    /// RowDescription is shown, NoData is not: the simple protocol.
    Rows,
    /// Either is shown: the extended protocol's Describe.
    Both,
    /// Neither.
    Hidden,
    /// All are kept for the proxy.
    Taken,
    /// Rows are kept for the proxy, and nothing is shown.
    Rowwise,
}

impl Relay {
    pub(crate) fn new(describe: Describe, max_rows: u32) -> Relay {
        Relay {
            describe,
            max_rows,
            rows: 0,
            kept: VecDeque::new(),
            kept_bytes: 0,
            completion: Bytes::new(),
            error: None,
            copy_in: false,
            taken: Vec::new(),
        }
    }

    /// Rows are left, or may be: as many were shown as were asked for.
    pub(crate) fn is_suspended(&self) -> bool {
        self.max_rows > 0 && self.rows == self.max_rows
    }

    /// Takes a piece of the answer. Runs of messages that pass are copied together.
    fn take(&mut self, piece: &Bytes, statement: &Statement, out: &mut BytesMut) -> Result<(), Failure> {
        let (mut run, mut at) = (0, 0);
        for message in messages(piece) {
            let message = message.map_err(|_| Failure::Fatal(PgError::fatal("08P01", "malformed result")))?;
            let end = at + message.whole.len();
            if !self.passes(message.tag) {
                out.extend_from_slice(&piece[run..at]);
                run = end;
                let whole = || piece.slice(at..end);
                match message.tag {
                    b'T' | b'n' | b't' if self.describe == Describe::Taken => self.taken.push(whole()),
                    b'D' if self.describe == Describe::Rowwise => self.taken.push(whole()),
                    b'D' => self.keep(whole())?,
                    b'C' | b'I' => self.completion = whole(),
                    b'E' => {
                        self.error = Some(backend::with_position(message.whole, |place| {
                            statement.map_position(place)
                        }));
                    }
                    _ => {}
                }
            } else if message.tag == b'D' {
                self.rows += 1;
            } else if message.tag == b'G' {
                self.copy_in = true;
            }
            at = end;
        }
        out.extend_from_slice(&piece[run..at]);
        Ok(())
    }

    fn passes(&self, tag: u8) -> bool {
        match tag {
            b'T' => matches!(self.describe, Describe::Rows | Describe::Both),
            b'n' => self.describe == Describe::Both,
            b'D' => self.describe != Describe::Rowwise && (self.max_rows == 0 || self.rows < self.max_rows),
            b'd' | b'c' | b'H' | b'G' | b'N' | b'S' | b'A' => true,
            _ => false,
        }
    }

    fn keep(&mut self, row: Bytes) -> Result<(), Failure> {
        self.kept_bytes += row.len();
        if self.kept_bytes > PORTAL_BYTES_MAX {
            self.kept.clear();
            self.error.get_or_insert_with(|| {
                let error = PgError::new("54000", "too many rows for a portal that is read in portions")
                    .hint("Use DECLARE CURSOR and FETCH.");
                let mut message = BytesMut::new();
                backend::error(&mut message, &error);
                message
            });
            return Ok(());
        }
        // Copied: a slice would keep the whole piece in memory.
        self.kept.push_back(Bytes::copy_from_slice(&row));
        Ok(())
    }
}

impl Session {
    /// Sends an operation and relays its answer to the end; CommandComplete is left in `relay`.
    pub(crate) async fn operate(
        &mut self,
        operation: NewOperation,
        statement: &Statement,
        relay: &mut Relay,
    ) -> Result<(), Failure> {
        // Another statement follows what is held back, so that was not the last of its transaction.
        self.release();
        self.attempt_operates();
        self.ensure_begun();
        self.transaction.snapshot |= !operation.flags.leading;
        let operation = self.shim.operation(operation);
        loop {
            let event = match relay.copy_in {
                true => {
                    relay.copy_in = false;
                    self.copy_in().await?
                }
                false => self.event().await?,
            };
            match event {
                Event::Result { number, messages } if number == operation => {
                    let taken = relay.take(&messages, statement, &mut self.client.out);
                    self.client.flush_if_full().await?;
                    self.shim.consumed(messages.len());
                    taken?;
                }
                Event::Executed { number, drew, .. } if number == operation => {
                    if drew {
                        self.attempt_lasts();
                    }
                    return match relay.error.take() {
                        Some(error) => Err(Failure::Statement(ErrorMessage::Backend(error))),
                        None => Ok(()),
                    };
                }
                Event::OperationFailed { error, .. } => {
                    // How far the master was with it is not known.
                    self.attempt_lasts();
                    self.disagree(&error);
                    return Err(error.into());
                }
                other => self.stray(other)?,
            }
        }
    }
}
