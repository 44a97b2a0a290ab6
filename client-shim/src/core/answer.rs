//! The master's answer to one operation, as it comes: checked for what a backend may say there, and digested for the
//! transcript.
//!
//! Invariant: what passes here cannot confuse the application's protocol state: nothing follows the end of an answer,
//! and messages that belong to the proxy alone (ReadyForQuery, authentication, keys) never pass.

use crate::message::messages;
use steeldb_types::Digest;
use steeldb_wire::transaction::ResultDigest;

/// Why the master's answer cannot be shown. The master is at fault.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("its answer is not a sequence of whole messages")]
    Malformed,
    #[error("its answer holds the message {0:?}, which has no place there")]
    Unexpected(char),
    #[error("{0}")]
    Result(#[from] steeldb_wire::transaction::ResultError),
}

/// What ends an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// Parse and Describe: ends with RowDescription or NoData.
    Description,
    /// Execute: ends with CommandComplete or EmptyQueryResponse.
    Execution,
    /// As `Execution`, and CopyInResponse asks for data on the way.
    CopyIn,
}

/// An answer in progress.
pub(super) struct Answer {
    shape: Shape,
    digest: ResultDigest,
    ended: bool,
    failed: bool,
    described: bool,
    copying: bool,
    /// The first word of its command tag.
    command: Option<String>,
}

impl Answer {
    pub(super) fn new(shape: Shape, row_order: bool) -> Answer {
        Answer {
            shape,
            digest: ResultDigest::new(row_order),
            ended: false,
            failed: false,
            described: false,
            copying: false,
            command: None,
        }
    }

    /// Takes a piece of the answer: whole messages.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), AnswerError> {
        for message in messages(bytes) {
            let message = message.map_err(|_| AnswerError::Malformed)?;
            self.check(message.tag)?;
            if message.tag == b'C' {
                let word = message.body.split(|byte| matches!(byte, 0 | b' ')).next().unwrap_or_default();
                self.command = Some(String::from_utf8_lossy(word).into_owned());
            }
            self.digest.message(message.tag, message.body)?;
        }
        Ok(())
    }

    /// It has come to its end.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// It is an error.
    pub(super) fn failed(&self) -> bool {
        self.failed
    }

    /// COPY data are wanted.
    pub(super) fn copying(&self) -> bool {
        self.copying
    }

    /// It describes a statement and executes nothing.
    pub(super) fn is_description(&self) -> bool {
        self.shape == Shape::Description
    }

    /// The first word of its command tag, once it has one.
    pub(super) fn command(&self) -> Option<&str> {
        self.command.as_deref()
    }

    /// What ends it.
    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// The canonical result.
    pub(super) fn digest(self) -> Digest {
        self.digest.finish()
    }

    fn check(&mut self, tag: u8) -> Result<(), AnswerError> {
        let unexpected = Err(AnswerError::Unexpected(char::from(tag)));
        // Notices, parameter status and notifications may come at any time.
        if matches!(tag, b'N' | b'S' | b'A') {
            return Ok(());
        }
        if self.ended {
            return unexpected;
        }
        match (tag, self.shape) {
            (b'1' | b'2', _) => {}
            (b'E', _) => {
                self.ended = true;
                self.failed = true;
            }
            (b't', Shape::Description) if !self.described => self.described = true,
            (b'T' | b'n', Shape::Description) if self.described => self.ended = true,
            (b'T' | b'n', Shape::Execution | Shape::CopyIn) if !self.described => self.described = true,
            (b'D', Shape::Execution) => {}
            (b'H' | b'd' | b'c', Shape::Execution) => {}
            (b'G', Shape::CopyIn) if !self.copying => self.copying = true,
            (b'C' | b'I', Shape::Execution | Shape::CopyIn) => self.ended = true,
            _ => return unexpected,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend((body.len() as u32 + 4).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn nothing_follows_the_end_but_notices_and_parameters() {
        let mut answer = Answer::new(Shape::Execution, false);
        answer.take(&message(b'C', b"SELECT 0\0")).unwrap();
        assert!(answer.ended() && !answer.failed());
        answer.take(&message(b'S', b"TimeZone\0UTC\0")).unwrap();
        assert_eq!(answer.take(&message(b'D', b"\0\0")), Err(AnswerError::Unexpected('D')));
    }

    #[test]
    fn messages_that_would_confuse_the_application_do_not_pass() {
        for tag in [b'Z', b'R', b'K', b'3', b'V', b'v', b'W', b's', b'G', b'?'] {
            let mut answer = Answer::new(Shape::Execution, false);
            assert!(answer.take(&message(tag, b"I")).is_err(), "{}", char::from(tag));
        }
        assert_eq!(Answer::new(Shape::Execution, false).take(b"C\0\0"), Err(AnswerError::Malformed));
    }

    #[test]
    fn a_description_ends_with_its_columns_and_a_copy_asks_for_data() {
        let mut answer = Answer::new(Shape::Description, false);
        answer.take(&message(b't', &[0, 0])).unwrap();
        assert!(!answer.ended());
        answer.take(&message(b'n', b"")).unwrap();
        assert!(answer.ended());
        let mut answer = Answer::new(Shape::CopyIn, false);
        answer.take(&[message(b'n', b""), message(b'G', &[0, 0, 0])].concat()).unwrap();
        assert!(answer.copying() && !answer.ended());
    }
}
