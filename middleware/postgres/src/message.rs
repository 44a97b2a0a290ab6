//! Messages of the PostgreSQL protocol: building a frontend's, reading a backend's fields.
//!
//! Framing and encodings are postgres-protocol's where it has them; what it keeps private (a raw body) is read here.

use bytes::{BufMut as _, Bytes, BytesMut};
use postgres_protocol::message::frontend;
use std::fmt;
use std::io;

/// One message of a backend, unread: its tag and its body without the length.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawMessage {
    /// The message type, such as `b'D'` for DataRow.
    pub tag: u8,
    /// What follows the length.
    pub body: Bytes,
}

/// Tags of the backend messages that callers tell apart.
pub mod tag {
    pub use postgres_protocol::message::backend::{
        AUTHENTICATION_TAG as AUTHENTICATION, BACKEND_KEY_DATA_TAG as BACKEND_KEY_DATA,
        BIND_COMPLETE_TAG as BIND_COMPLETE, CLOSE_COMPLETE_TAG as CLOSE_COMPLETE,
        COMMAND_COMPLETE_TAG as COMMAND_COMPLETE, COPY_DATA_TAG as COPY_DATA, COPY_DONE_TAG as COPY_DONE,
        COPY_IN_RESPONSE_TAG as COPY_IN_RESPONSE, COPY_OUT_RESPONSE_TAG as COPY_OUT_RESPONSE,
        DATA_ROW_TAG as DATA_ROW, EMPTY_QUERY_RESPONSE_TAG as EMPTY_QUERY_RESPONSE,
        ERROR_RESPONSE_TAG as ERROR_RESPONSE, NO_DATA_TAG as NO_DATA, NOTICE_RESPONSE_TAG as NOTICE_RESPONSE,
        NOTIFICATION_RESPONSE_TAG as NOTIFICATION_RESPONSE,
        PARAMETER_DESCRIPTION_TAG as PARAMETER_DESCRIPTION, PARAMETER_STATUS_TAG as PARAMETER_STATUS,
        PARSE_COMPLETE_TAG as PARSE_COMPLETE, PORTAL_SUSPENDED_TAG as PORTAL_SUSPENDED,
        READY_FOR_QUERY_TAG as READY_FOR_QUERY, ROW_DESCRIPTION_TAG as ROW_DESCRIPTION,
    };

    /// CopyBothResponse, of the streaming replication protocol.
    pub const COPY_BOTH_RESPONSE: u8 = b'W';
}

/// A body that does not have the fields its tag promises.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed {0} message")]
pub struct Malformed(pub &'static str);

/// The fields of an ErrorResponse or NoticeResponse, with the body as it came, so that it can be relayed verbatim.
#[derive(Clone, PartialEq, Eq)]
pub struct ErrorFields {
    /// ERROR, FATAL or PANIC; not localised.
    pub severity: String,
    /// Five characters; `XX000` when the server left it out.
    pub sqlstate: String,
    /// The primary message.
    pub message: String,
    /// Detail, if given.
    pub detail: Option<String>,
    /// Hint, if given.
    pub hint: Option<String>,
    /// Schema, table, column, type and constraint names, if given, by field code (`s`, `t`, `c`, `d`, `n`).
    pub names: Vec<(char, String)>,
    /// The whole body.
    pub raw: Bytes,
}

impl ErrorFields {
    /// Reads the body of an ErrorResponse or NoticeResponse.
    ///
    /// # Errors
    /// [`Malformed`] when it is not a list of zero-terminated fields.
    pub fn parse(body: &Bytes) -> Result<ErrorFields, Malformed> {
        let mut fields = ErrorFields {
            severity: String::new(),
            sqlstate: "XX000".to_string(),
            message: String::new(),
            detail: None,
            hint: None,
            names: Vec::new(),
            raw: body.clone(),
        };
        let mut reader = Reader::new(body, "ErrorResponse");
        loop {
            let code = reader.u8()?;
            if code == 0 {
                return Ok(fields);
            }
            let value = String::from_utf8_lossy(reader.cstr()?).into_owned();
            match code {
                // 'S' may be localised; 'V', which follows it since 9.6, never is.
                b'S' if fields.severity.is_empty() => fields.severity = value,
                b'V' => fields.severity = value,
                b'C' => fields.sqlstate = value,
                b'M' => fields.message = value,
                b'D' => fields.detail = Some(value),
                b'H' => fields.hint = Some(value),
                b's' | b't' | b'c' | b'd' | b'n' => fields.names.push((char::from(code), value)),
                _ => {}
            }
        }
    }
}

impl fmt::Display for ErrorFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.severity, self.message, self.sqlstate)?;
        if let Some(detail) = &self.detail {
            write!(f, "; {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; hint: {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ErrorFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A bounds-checked cursor over one message.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Reader<'a> {
        Reader { rest: bytes, what }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn malformed(&self) -> Malformed {
        Malformed(self.what)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(Malformed(self.what))?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(Malformed(self.what))?;
        self.rest = tail;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// The bytes up to a zero byte, which is consumed.
    pub(crate) fn cstr(&mut self) -> Result<&'a [u8], Malformed> {
        let end = self.rest.iter().position(|byte| *byte == 0).ok_or(Malformed(self.what))?;
        let text = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(text)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.cstr()?).map_err(|_| Malformed(self.what))
    }
}

/// The values of a DataRow body, in text form.
///
/// # Errors
/// [`Malformed`] when lengths do not fit or a value is not UTF-8.
pub fn data_row(body: &[u8]) -> Result<Vec<Option<String>>, Malformed> {
    let mut reader = Reader::new(body, "DataRow");
    let columns = reader.u16()?;
    let mut values = Vec::with_capacity(usize::from(columns));
    for _ in 0..columns {
        values.push(match usize::try_from(reader.i32()?) {
            Err(_) => None,
            Ok(len) => {
                let bytes = reader.bytes(len)?;
                Some(std::str::from_utf8(bytes).map_err(|_| Malformed("DataRow"))?.to_string())
            }
        });
    }
    Ok(values)
}

/// The column names of a RowDescription body.
///
/// # Errors
/// [`Malformed`].
pub fn column_names(body: &[u8]) -> Result<Vec<String>, Malformed> {
    let mut reader = Reader::new(body, "RowDescription");
    let columns = reader.u16()?;
    let mut names = Vec::with_capacity(usize::from(columns));
    for _ in 0..columns {
        names.push(String::from_utf8_lossy(reader.cstr()?).into_owned());
        // Table OID, attribute number, type OID, type size, type modifier, format.
        reader.bytes(18)?;
    }
    Ok(names)
}

/// The tag of a CommandComplete body, such as `UPDATE 1`.
///
/// # Errors
/// [`Malformed`].
pub fn command_tag(body: &[u8]) -> Result<&str, Malformed> {
    Reader::new(body, "CommandComplete").text()
}

/// Appends a simple Query.
///
/// # Errors
/// `InvalidInput` when the text has a NUL byte; so do the others here that take text.
pub fn query(sql: &str, out: &mut BytesMut) -> io::Result<()> {
    frontend::query(sql, out)
}

/// Appends a Parse; parameter types left to the server where `types` is short.
///
/// # Errors
/// See [`query`].
pub fn parse(name: &str, sql: &str, types: &[u32], out: &mut BytesMut) -> io::Result<()> {
    frontend::parse(name, sql, types.iter().copied(), out)
}

/// Appends a Bind with parameters and results in text form.
///
/// # Errors
/// See [`query`]; also when there are more than 32,767 parameters.
pub fn bind(portal: &str, statement: &str, values: &[Option<&str>], out: &mut BytesMut) -> io::Result<()> {
    frontend::bind(
        portal,
        statement,
        [],
        values,
        |value, buffer| {
            Ok(match value {
                None => postgres_protocol::IsNull::Yes,
                Some(text) => {
                    buffer.put_slice(text.as_bytes());
                    postgres_protocol::IsNull::No
                }
            })
        },
        [],
        out,
    )
    .map_err(|error| match error {
        frontend::BindError::Conversion(error) => io::Error::new(io::ErrorKind::InvalidInput, error),
        frontend::BindError::Serialization(error) => error,
    })
}

/// Appends a Describe of a statement (`b'S'`) or portal (`b'P'`).
///
/// # Errors
/// See [`query`].
pub fn describe(variant: u8, name: &str, out: &mut BytesMut) -> io::Result<()> {
    frontend::describe(variant, name, out)
}

/// Appends an Execute; `rows_max` 0 means all.
///
/// # Errors
/// See [`query`].
pub fn execute(portal: &str, rows_max: i32, out: &mut BytesMut) -> io::Result<()> {
    frontend::execute(portal, rows_max, out)
}

/// Appends a Close of a statement (`b'S'`) or portal (`b'P'`).
///
/// # Errors
/// See [`query`].
pub fn close(variant: u8, name: &str, out: &mut BytesMut) -> io::Result<()> {
    frontend::close(variant, name, out)
}

/// Appends a Sync.
pub fn sync(out: &mut BytesMut) {
    frontend::sync(out);
}

/// Appends a Flush.
pub fn flush(out: &mut BytesMut) {
    frontend::flush(out);
}

/// Appends a Terminate.
pub fn terminate(out: &mut BytesMut) {
    frontend::terminate(out);
}

/// Appends one CopyData.
///
/// # Errors
/// `InvalidInput` when `data` is longer than a message can be.
pub fn copy_data(data: &[u8], out: &mut BytesMut) -> io::Result<()> {
    frontend::CopyData::new(data)?.write(out);
    Ok(())
}

/// Appends a CopyDone.
pub fn copy_done(out: &mut BytesMut) {
    frontend::copy_done(out);
}

/// Appends a CopyFail.
///
/// # Errors
/// See [`query`].
pub fn copy_fail(reason: &str, out: &mut BytesMut) -> io::Result<()> {
    frontend::copy_fail(reason, out)
}

/// Appends Parse, Bind, Execute of one statement with text parameters, all unnamed, without a Sync.
///
/// # Errors
/// See [`query`].
pub fn extended(sql: &str, values: &[Option<&str>], out: &mut BytesMut) -> io::Result<()> {
    parse("", sql, &[], out)?;
    bind("", "", values, out)?;
    describe(b'P', "", out)?;
    execute("", 0, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_error_keeps_its_fields_and_its_body() {
        let body = Bytes::from_static(b"SFEHLER\0VERROR\0C42P01\0Mno table\0Hlook\0tt1\0\0");
        let fields = ErrorFields::parse(&body).unwrap();
        assert_eq!((fields.severity.as_str(), fields.sqlstate.as_str()), ("ERROR", "42P01"));
        assert_eq!(fields.hint.as_deref(), Some("look"));
        assert_eq!(fields.names, vec![('t', "t1".to_string())]);
        assert_eq!(fields.raw, body);
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ErrorFields::parse(&Bytes::from(bytes.clone()));
            let _ = data_row(&bytes);
            let _ = column_names(&bytes);
            let _ = command_tag(&bytes);
        }
    }
}
