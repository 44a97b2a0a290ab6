//! Answers in PostgreSQL's own messages: the shim parses them, and canonical results are made of them.

use crate::sql::{Key, Value};

/// The OIDs of int4 and text.
const INT4: u32 = 23;
const TEXT: u32 = 25;

/// Builds an answer, message by message.
#[derive(Default)]
pub(crate) struct Answer {
    bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// A message of any kind.
    pub(crate) fn message(&mut self, tag: u8, body: &[u8]) -> &mut Answer {
        self.bytes.push(tag);
        self.bytes.extend((body.len() as u32 + 4).to_be_bytes());
        self.bytes.extend(body);
        self
    }

    /// RowDescription of the table.
    pub(crate) fn row_columns(&mut self) -> &mut Answer {
        self.columns(&[("k", INT4), ("v", TEXT)])
    }

    /// RowDescription.
    pub(crate) fn columns(&mut self, columns: &[(&str, u32)]) -> &mut Answer {
        let mut body = (columns.len() as u16).to_be_bytes().to_vec();
        for (name, oid) in columns {
            body.extend(name.as_bytes());
            // No table, no attribute number.
            body.extend([0; 7]);
            body.extend(oid.to_be_bytes());
            // Size and modifier unknown, text format.
            body.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
        }
        self.message(b'T', &body)
    }

    /// NoData.
    pub(crate) fn no_columns(&mut self) -> &mut Answer {
        self.message(b'n', &[])
    }

    /// DataRow of the table.
    pub(crate) fn row(&mut self, key: Key, value: &Value) -> &mut Answer {
        let value: Vec<String> = value.iter().map(u32::to_string).collect();
        self.data(&[key.to_string(), value.join(",")])
    }

    /// DataRow.
    pub(crate) fn data(&mut self, fields: &[String]) -> &mut Answer {
        let mut body = (fields.len() as u16).to_be_bytes().to_vec();
        for field in fields {
            body.extend((field.len() as u32).to_be_bytes());
            body.extend(field.as_bytes());
        }
        self.message(b'D', &body)
    }

    /// CommandComplete.
    pub(crate) fn tag(&mut self, tag: &str) -> &mut Answer {
        self.message(b'C', &[tag.as_bytes(), &[0]].concat())
    }

    /// ErrorResponse.
    pub(crate) fn error(&mut self, sqlstate: &str) -> &mut Answer {
        let body = format!("SERROR\0VERROR\0C{sqlstate}\0Msimulated\0\0");
        self.message(b'E', body.as_bytes())
    }
}

/// Splits an answer into its messages: tag and body.
pub(crate) fn split(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    steeldb_client_shim::message::messages(bytes)
        .filter_map(Result::ok)
        .map(|message| (message.tag, message.body.to_vec()))
        .collect()
}

/// Puts messages together.
pub(crate) fn join(messages: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut answer = Answer::default();
    for (tag, body) in messages {
        answer.message(*tag, body);
    }
    answer.bytes()
}
