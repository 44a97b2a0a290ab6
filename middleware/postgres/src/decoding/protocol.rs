//! pgoutput's messages, protocol version 3 (two-phase commit, without streaming of transactions in progress), and the
//! frames of the streaming replication protocol around them.
//!
//! postgres-protocol has no logical replication messages, so they are read here. Nothing is allocated for a length that
//! the message does not fill.

use super::Lsn;
use crate::message::{Malformed, Reader};
use bytes::{BufMut as _, BytesMut};

/// Why a message is not valid.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The fields do not fit the message.
    #[error("malformed {0} message")]
    Malformed(&'static str),
    /// Bytes follow the message.
    #[error("{extra} bytes after a {what} message")]
    Trailing {
        /// Which message.
        what: &'static str,
        /// How many bytes.
        extra: usize,
    },
    /// A message type that protocol version 3 does not have.
    #[error("unknown message type {0:?}")]
    UnknownType(char),
    /// A value in binary form, which was not asked for.
    #[error("a binary value, which was not asked for")]
    BinaryValue,
    /// A change of a relation that was not described.
    #[error("a change of relation {0}, which was not described")]
    UnknownRelation(u32),
    /// A row with another number of columns than its relation.
    #[error("a row of {got} columns for {relation}, which has {expected}")]
    ColumnCount {
        /// Which relation.
        relation: String,
        /// Its columns.
        expected: usize,
        /// The row's.
        got: usize,
    },
    /// A message that cannot come here, such as a change outside a transaction.
    #[error("a {0} message out of place")]
    OutOfPlace(&'static str),
}

impl From<Malformed> for ProtocolError {
    fn from(malformed: Malformed) -> Self {
        ProtocolError::Malformed(malformed.0)
    }
}

/// A frame of the replication stream: the content of one CopyData from the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// `w`: a piece of the log, here one pgoutput message.
    Data(&'a [u8]),
    /// `k`: the server is alive.
    Keepalive {
        /// How far the server's log goes.
        end: Lsn,
        /// Whether it wants an answer now.
        reply: bool,
    },
}

impl Frame<'_> {
    /// Reads one frame.
    ///
    /// # Errors
    /// [`ProtocolError`].
    pub fn parse(bytes: &[u8]) -> Result<Frame<'_>, ProtocolError> {
        let mut reader = Reader::new(bytes, "replication frame");
        match reader.u8()? {
            b'w' => {
                // Start of the data, end of the log, the server's clock.
                reader.bytes(24)?;
                Ok(Frame::Data(reader.rest()))
            }
            b'k' => {
                let end = Lsn(reader.u64()?);
                reader.u64()?;
                let reply = reader.u8()? != 0;
                finish(&reader, "keepalive")?;
                Ok(Frame::Keepalive { end, reply })
            }
            other => Err(ProtocolError::UnknownType(char::from(other))),
        }
    }
}

/// Appends a Standby Status Update that confirms everything up to `confirmed`; the content of a CopyData.
pub fn status_update(confirmed: Lsn, out: &mut BytesMut) {
    out.put_u8(b'r');
    // Written, flushed and applied alike: the slot must keep what was not confirmed.
    for _ in 0..3 {
        out.put_u64(confirmed.0);
    }
    // The clock is only shown in pg_stat_replication.
    out.put_u64(0);
    out.put_u8(0);
}

/// How a relation tells its rows apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplicaIdentity {
    /// `d`: its primary key.
    Default,
    /// `n`: not at all.
    Nothing,
    /// `f`: all columns.
    Full,
    /// `i`: a unique index.
    Index,
}

/// A column of a relation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Column {
    /// Whether it is part of the replica identity.
    pub key: bool,
    /// Its name.
    pub name: String,
}

/// A relation as the server describes it before its first change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RelationMessage {
    /// The server's number for it; local.
    pub id: u32,
    /// Its schema; never empty here (pgoutput leaves `pg_catalog` empty).
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its replica identity.
    pub identity: ReplicaIdentity,
    /// Its columns in physical order, without generated ones.
    pub columns: Vec<Column>,
}

/// A value in a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value<'a> {
    /// Null; or, in a key, a column that is not of the key.
    Null,
    /// A TOASTed value that did not change, and is not sent.
    Unchanged,
    /// Text form.
    Text(&'a str),
}

/// What identifies the old row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OldRow<'a> {
    /// `K`: its key columns.
    Key(Vec<Value<'a>>),
    /// `O`: all its columns.
    Full(Vec<Value<'a>>),
}

/// A message of pgoutput.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PgOutput<'a> {
    /// `B`: a transaction that committed without PREPARE begins.
    Begin,
    /// `C`: and ends.
    Commit {
        /// The end of its record.
        end: Lsn,
    },
    /// `b`: a prepared transaction begins.
    BeginPrepare {
        /// Its name.
        gid: &'a str,
    },
    /// `P`: and ends.
    Prepare {
        /// The end of its record.
        end: Lsn,
        /// Its name.
        gid: &'a str,
    },
    /// `K`: a prepared transaction was committed.
    CommitPrepared {
        /// The end of the record.
        end: Lsn,
        /// Its name.
        gid: &'a str,
    },
    /// `r`: a prepared transaction was rolled back.
    RollbackPrepared {
        /// The end of the record.
        end: Lsn,
        /// Its name.
        gid: &'a str,
    },
    /// `R`: a relation is described.
    Relation(RelationMessage),
    /// `I`: a row was inserted.
    Insert {
        /// Into which relation.
        relation: u32,
        /// The row.
        new: Vec<Value<'a>>,
    },
    /// `U`: a row was updated.
    Update {
        /// Of which relation.
        relation: u32,
        /// The old row, if the key changed or the replica identity is full.
        old: Option<OldRow<'a>>,
        /// The new row.
        new: Vec<Value<'a>>,
    },
    /// `D`: a row was deleted.
    Delete {
        /// From which relation.
        relation: u32,
        /// The row.
        old: OldRow<'a>,
    },
    /// `T`: relations were truncated.
    Truncate {
        /// Which.
        relations: Vec<u32>,
        /// Whether with RESTART IDENTITY.
        restart_identity: bool,
    },
    /// `Y`, `O`, `M`: a type, an origin or a logical message, none of which a write set needs.
    Other,
}

impl PgOutput<'_> {
    /// Reads one message.
    ///
    /// # Errors
    /// [`ProtocolError`].
    pub fn parse(bytes: &[u8]) -> Result<PgOutput<'_>, ProtocolError> {
        let mut kind = Reader::new(bytes, "empty pgoutput");
        let tag = kind.u8()?;
        let mut reader = Reader::new(kind.rest(), name(tag)?);
        let message = match tag {
            b'B' => {
                // Final LSN, time, transaction id.
                reader.bytes(20)?;
                PgOutput::Begin
            }
            b'C' => {
                // Flags, LSN of the record; then its end and the time.
                reader.bytes(9)?;
                let end = Lsn(reader.u64()?);
                reader.bytes(8)?;
                PgOutput::Commit { end }
            }
            b'b' => {
                // LSN of the record, its end, time, transaction id.
                reader.bytes(28)?;
                PgOutput::BeginPrepare { gid: reader.text()? }
            }
            b'P' => {
                // Flags, LSN of the record; its end; time, transaction id.
                reader.bytes(9)?;
                let end = Lsn(reader.u64()?);
                reader.bytes(12)?;
                PgOutput::Prepare { end, gid: reader.text()? }
            }
            b'K' => {
                reader.bytes(9)?;
                let end = Lsn(reader.u64()?);
                reader.bytes(12)?;
                PgOutput::CommitPrepared { end, gid: reader.text()? }
            }
            b'r' => {
                // Flags, end of the PREPARE record; end of the rollback's; two times, transaction id.
                reader.bytes(9)?;
                let end = Lsn(reader.u64()?);
                reader.bytes(20)?;
                PgOutput::RollbackPrepared { end, gid: reader.text()? }
            }
            b'R' => PgOutput::Relation(relation(&mut reader)?),
            b'I' => {
                let relation = reader.u32()?;
                expect(&mut reader, b'N')?;
                PgOutput::Insert { relation, new: row(&mut reader)? }
            }
            b'U' => {
                let relation = reader.u32()?;
                let old = match reader.u8()? {
                    b'N' => None,
                    kind => {
                        let old = old_row(kind, &mut reader)?;
                        expect(&mut reader, b'N')?;
                        Some(old)
                    }
                };
                PgOutput::Update { relation, old, new: row(&mut reader)? }
            }
            b'D' => {
                let relation = reader.u32()?;
                let kind = reader.u8()?;
                PgOutput::Delete { relation, old: old_row(kind, &mut reader)? }
            }
            b'T' => truncate(&mut reader)?,
            // Y, O, M: not read further.
            _ => return Ok(PgOutput::Other),
        };
        finish(&reader, name(tag)?)?;
        Ok(message)
    }
}

fn name(tag: u8) -> Result<&'static str, ProtocolError> {
    Ok(match tag {
        b'B' => "Begin",
        b'C' => "Commit",
        b'b' => "Begin Prepare",
        b'P' => "Prepare",
        b'K' => "Commit Prepared",
        b'r' => "Rollback Prepared",
        b'R' => "Relation",
        b'I' => "Insert",
        b'U' => "Update",
        b'D' => "Delete",
        b'T' => "Truncate",
        b'Y' => "Type",
        b'O' => "Origin",
        b'M' => "Message",
        other => return Err(ProtocolError::UnknownType(char::from(other))),
    })
}

fn finish(reader: &Reader<'_>, what: &'static str) -> Result<(), ProtocolError> {
    match reader.rest().len() {
        0 => Ok(()),
        extra => Err(ProtocolError::Trailing { what, extra }),
    }
}

fn expect(reader: &mut Reader<'_>, byte: u8) -> Result<(), ProtocolError> {
    if reader.u8()? != byte {
        return Err(reader.malformed().into());
    }
    Ok(())
}

fn relation(reader: &mut Reader<'_>) -> Result<RelationMessage, ProtocolError> {
    let id = reader.u32()?;
    let schema = match reader.text()? {
        "" => "pg_catalog",
        schema => schema,
    };
    let name = reader.text()?;
    let identity = match reader.u8()? {
        b'd' => ReplicaIdentity::Default,
        b'n' => ReplicaIdentity::Nothing,
        b'f' => ReplicaIdentity::Full,
        b'i' => ReplicaIdentity::Index,
        _ => return Err(reader.malformed().into()),
    };
    let len = reader.u16()?;
    let mut columns = Vec::new();
    for _ in 0..len {
        let key = reader.u8()? & 1 != 0;
        let name = reader.text()?.to_string();
        // Type and type modifier: types go by name elsewhere, OIDs differ between servers.
        reader.bytes(8)?;
        columns.push(Column { key, name });
    }
    Ok(RelationMessage { id, schema: schema.to_string(), name: name.to_string(), identity, columns })
}

fn old_row<'a>(kind: u8, reader: &mut Reader<'a>) -> Result<OldRow<'a>, ProtocolError> {
    match kind {
        b'K' => Ok(OldRow::Key(row(reader)?)),
        b'O' => Ok(OldRow::Full(row(reader)?)),
        _ => Err(reader.malformed().into()),
    }
}

fn row<'a>(reader: &mut Reader<'a>) -> Result<Vec<Value<'a>>, ProtocolError> {
    let len = usize::from(reader.u16()?);
    // Each value takes a byte at least.
    let mut values = Vec::with_capacity(len.min(reader.rest().len()));
    for _ in 0..len {
        values.push(match reader.u8()? {
            b'n' => Value::Null,
            b'u' => Value::Unchanged,
            b't' => {
                let len = usize::try_from(reader.u32()?).map_err(|_| reader.malformed())?;
                let bytes = reader.bytes(len)?;
                Value::Text(std::str::from_utf8(bytes).map_err(|_| reader.malformed())?)
            }
            b'b' => return Err(ProtocolError::BinaryValue),
            _ => return Err(reader.malformed().into()),
        });
    }
    Ok(values)
}

fn truncate<'a>(reader: &mut Reader<'a>) -> Result<PgOutput<'a>, ProtocolError> {
    let len = reader.u32()?;
    let restart_identity = reader.u8()? & 2 != 0;
    let mut relations = Vec::new();
    for _ in 0..len {
        relations.push(reader.u32()?);
    }
    Ok(PgOutput::Truncate { relations, restart_identity })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn relation_bytes() -> Vec<u8> {
        let mut bytes = b"R\0\0\0\x07public\0t\0d\0\x02".to_vec();
        bytes.extend(b"\x01id\0\0\0\0\x17\xff\xff\xff\xff");
        bytes.extend(b"\0v\0\0\0\0\x19\xff\xff\xff\xff");
        bytes
    }

    #[test]
    fn a_relation_is_read() {
        let bytes = relation_bytes();
        let PgOutput::Relation(relation) = PgOutput::parse(&bytes).unwrap() else { panic!("not a relation") };
        assert_eq!((relation.id, relation.schema.as_str(), relation.name.as_str()), (7, "public", "t"));
        assert_eq!(relation.identity, ReplicaIdentity::Default);
        assert_eq!(relation.columns.iter().map(|c| c.key).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn trailing_bytes_binary_values_and_unknown_types_have_their_errors() {
        let mut bytes = relation_bytes();
        bytes.push(0);
        assert!(matches!(PgOutput::parse(&bytes), Err(ProtocolError::Trailing { extra: 1, .. })));
        assert_eq!(PgOutput::parse(b"I\0\0\0\x07N\0\x01b\0\0\0\0"), Err(ProtocolError::BinaryValue));
        assert_eq!(PgOutput::parse(b"?"), Err(ProtocolError::UnknownType('?')));
        assert_eq!(
            PgOutput::parse(b"I\0\0\0\x07N\0\x01t\0\0\0\x05ab"),
            Err(ProtocolError::Malformed("Insert"))
        );
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Frame::parse(&bytes);
            let _ = PgOutput::parse(&bytes);
        }

        #[test]
        fn garbage_after_a_real_tag_never_panics(
            tag in proptest::sample::select(b"BCbPKrRIUDTYOM".to_vec()),
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let _ = PgOutput::parse(&[vec![tag], bytes].concat());
        }

        #[test]
        fn a_truncated_message_is_an_error(cut in 0usize..40) {
            let bytes = relation_bytes();
            let cut = cut.min(bytes.len() - 1);
            prop_assert!(PgOutput::parse(&bytes[..cut]).is_err());
        }
    }
}
