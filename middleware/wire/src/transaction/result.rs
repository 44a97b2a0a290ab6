//! Canonical results (rule 4): what of a backend's answer must be equal on every replica.
//!
//! In: column names, types, modifiers and formats; the rows, in sequence or as a multiset; the command tag; COPY data.
//! Left out: OIDs of user objects, notices, parameter status. Of a result that ends in an error only the SQLSTATE
//! counts: how many rows came before it depends on physical order, and its text may name OIDs.

use sha2::{Digest as _, Sha256};
use steeldb_types::{Digest, Hasher};

/// The first OID that PostgreSQL gives to user objects; those below are the same in every installation of a version.
pub const FIRST_USER_OID: u32 = 16384;

/// Rows of one result compared as a multiset, at most: 128 MiB of digests.
const MULTISET_ROWS_MAX: usize = 4_000_000;

/// What binary COPY data begin with, then two 32-bit numbers; sent in one message with the first row.
const BINARY_COPY_SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
const BINARY_COPY_HEADER_BYTES: usize = BINARY_COPY_SIGNATURE.len() + 8;

/// Why an answer has no canonical form.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ResultError {
    /// The message is not what PostgreSQL sends.
    #[error("malformed backend message {0:?}")]
    Malformed(char),
    /// Too many rows to compare as a multiset.
    #[error("more than {MULTISET_ROWS_MAX} rows without ORDER BY cannot be compared; add an ORDER BY")]
    TooManyRows,
}

/// Takes an operation's backend messages in turn and gives the canonical digest.
pub struct ResultDigest {
    hasher: Hasher,
    /// Rows in sequence: one running digest. As a multiset: a digest per row, sorted at the end.
    in_order: bool,
    sequence: Sha256,
    multiset: Vec<Digest>,
    rows: u64,
    sqlstate: Option<[u8; 5]>,
}

impl ResultDigest {
    /// Starts a result; `in_order` as [`super::Operation::row_order`].
    pub fn new(in_order: bool) -> ResultDigest {
        ResultDigest {
            hasher: Hasher::new("steeldb/result"),
            in_order,
            sequence: Sha256::new(),
            multiset: Vec::new(),
            rows: 0,
            sqlstate: None,
        }
    }

    /// Takes one backend message: its type byte and its body.
    ///
    /// # Errors
    /// [`ResultError`] when the message is malformed or the rows are too many.
    pub fn message(&mut self, tag: u8, body: &[u8]) -> Result<(), ResultError> {
        let malformed = || ResultError::Malformed(char::from(tag));
        match tag {
            b'D' => self.row(body),
            b'd' => {
                let body = match body.strip_prefix(BINARY_COPY_SIGNATURE) {
                    Some(_) if self.rows == 0 => {
                        body.get(BINARY_COPY_HEADER_BYTES..).ok_or_else(malformed)?
                    }
                    _ => body,
                };
                if body.is_empty() { Ok(()) } else { self.row(body) }
            }
            b'T' => {
                self.hasher.part(b"columns");
                self.columns(body).ok_or_else(malformed)
            }
            b't' => {
                self.hasher.part(b"parameters");
                self.parameters(body).ok_or_else(malformed)
            }
            b'n' => self.mark(b"no data"),
            b'C' => {
                self.hasher.part(b"tag").part(body);
                Ok(())
            }
            b'I' => self.mark(b"empty"),
            b'c' => self.mark(b"copy done"),
            b'G' | b'H' | b'W' => {
                self.hasher.part(b"copy").part(&[tag]).part(body);
                Ok(())
            }
            b's' => self.mark(b"suspended"),
            b'E' => {
                let code = error_field(body, b'C').and_then(|code| <[u8; 5]>::try_from(code).ok());
                let code = code.ok_or_else(malformed)?;
                self.sqlstate = Some(code);
                Ok(())
            }
            // Completions of Parse, Bind and Close, ReadyForQuery, notices, notifications, parameter status.
            _ => Ok(()),
        }
    }

    /// The SQLSTATE, if the answer is an error.
    pub fn sqlstate(&self) -> Option<&str> {
        self.sqlstate.as_ref().and_then(|code| std::str::from_utf8(code).ok())
    }

    /// The canonical digest.
    pub fn finish(mut self) -> Digest {
        if let Some(code) = self.sqlstate {
            return ResultDigest::error(code);
        }
        self.hasher.number(self.rows);
        if self.in_order {
            let rows: [u8; 32] = self.sequence.finalize().into();
            self.hasher.part(&rows);
        } else {
            // Sorted, not added or xored: sums of digests can be forged.
            self.multiset.sort_unstable();
            for row in &self.multiset {
                self.sequence.update(row.0);
            }
            let rows: [u8; 32] = self.sequence.finalize().into();
            self.hasher.part(&rows);
        }
        self.hasher.finish()
    }

    /// The canonical digest of a result that is the error `code`.
    pub fn error(code: [u8; 5]) -> Digest {
        Digest::of("steeldb/result/error", &[&code])
    }

    fn mark(&mut self, name: &[u8]) -> Result<(), ResultError> {
        self.hasher.part(name);
        Ok(())
    }

    fn row(&mut self, body: &[u8]) -> Result<(), ResultError> {
        self.rows += 1;
        if self.in_order {
            self.sequence.update((body.len() as u64).to_le_bytes());
            self.sequence.update(body);
        } else {
            if self.multiset.len() >= MULTISET_ROWS_MAX {
                return Err(ResultError::TooManyRows);
            }
            self.multiset.push(Digest(Sha256::digest(body).into()));
        }
        Ok(())
    }

    /// RowDescription: count, then for each column name, table OID, attribute, type OID, size, modifier, format.
    fn columns(&mut self, body: &[u8]) -> Option<()> {
        let (count, mut rest) = take_u16(body)?;
        self.hasher.number(u64::from(count));
        for _ in 0..count {
            let end = rest.iter().position(|byte| *byte == 0)?;
            let (name, after) = rest.split_at(end);
            let fixed = after.get(1..19)?;
            rest = after.get(19..)?;
            let oid = u32::from_be_bytes(fixed.get(6..10)?.try_into().ok()?);
            let modifier_and_format = fixed.get(12..18)?;
            self.hasher.part(name).number(u64::from(builtin(oid))).part(modifier_and_format);
        }
        rest.is_empty().then_some(())
    }

    /// ParameterDescription: count, then type OIDs.
    fn parameters(&mut self, body: &[u8]) -> Option<()> {
        let (count, rest) = take_u16(body)?;
        if rest.len() != usize::from(count) * 4 {
            return None;
        }
        self.hasher.number(u64::from(count));
        for oid in rest.chunks_exact(4) {
            let oid = u32::from_be_bytes(oid.try_into().ok()?);
            self.hasher.number(u64::from(builtin(oid)));
        }
        Some(())
    }
}

/// A built-in type's OID, or 0 for a user-defined type, whose OID differs between replicas.
fn builtin(oid: u32) -> u32 {
    if oid < FIRST_USER_OID { oid } else { 0 }
}

fn take_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (head, rest) = bytes.split_at_checked(2)?;
    Some((u16::from_be_bytes(head.try_into().ok()?), rest))
}

/// A field of an ErrorResponse or NoticeResponse body.
fn error_field(mut body: &[u8], wanted: u8) -> Option<&[u8]> {
    while let Some((kind, rest)) = body.split_first() {
        if *kind == 0 {
            return None;
        }
        let end = rest.iter().position(|byte| *byte == 0)?;
        if *kind == wanted {
            return rest.get(..end);
        }
        body = rest.get(end + 1..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(in_order: bool, messages: &[(u8, &[u8])]) -> Digest {
        let mut result = ResultDigest::new(in_order);
        for (tag, body) in messages {
            result.message(*tag, body).unwrap();
        }
        result.finish()
    }

    fn column(name: &str, table: u32, oid: u32) -> Vec<u8> {
        let mut body = vec![0, 1];
        body.extend(name.as_bytes());
        body.push(0);
        body.extend(table.to_be_bytes());
        body.extend([0, 1]);
        body.extend(oid.to_be_bytes());
        body.extend([0, 4, 0xff, 0xff, 0xff, 0xff, 0, 0]);
        body
    }

    #[test]
    fn a8_rows_count_in_sequence_under_order_by_and_as_a_multiset_otherwise() {
        let one: &[(u8, &[u8])] = &[(b'D', b"a"), (b'D', b"b"), (b'C', b"SELECT 2\0")];
        let two: &[(u8, &[u8])] = &[(b'D', b"b"), (b'D', b"a"), (b'C', b"SELECT 2\0")];
        let twice: &[(u8, &[u8])] = &[(b'D', b"a"), (b'D', b"a"), (b'C', b"SELECT 2\0")];
        assert_ne!(digest(true, one), digest(true, two));
        assert_eq!(digest(false, one), digest(false, two));
        assert_ne!(digest(false, one), digest(false, twice));
    }

    #[test]
    fn a8_column_names_and_types_count_and_oids_of_user_objects_do_not() {
        assert_ne!(
            digest(false, &[(b'T', &column("a", 0, 23))]),
            digest(false, &[(b'T', &column("b", 0, 23))])
        );
        assert_ne!(
            digest(false, &[(b'T', &column("a", 0, 23))]),
            digest(false, &[(b'T', &column("a", 0, 25))])
        );
        assert_eq!(
            digest(false, &[(b'T', &column("a", 16400, 17000))]),
            digest(false, &[(b'T', &column("a", 16500, 17001))])
        );
    }

    #[test]
    fn of_an_error_only_the_sqlstate_counts() {
        let error = |text: &str| format!("SERROR\0C{text}\0\0").into_bytes();
        assert_eq!(
            digest(false, &[(b'E', &error("23505\0Mone"))]),
            digest(false, &[(b'E', &error("23505\0Mtwo"))])
        );
        assert_ne!(digest(false, &[(b'E', &error("23505"))]), digest(false, &[(b'E', &error("23503"))]));
        let mut result = ResultDigest::new(false);
        result.message(b'E', &error("23505")).unwrap();
        assert_eq!(result.sqlstate(), Some("23505"));
    }

    #[test]
    fn binary_copy_rows_compare_without_the_header_of_the_first_message() {
        let header = [BINARY_COPY_SIGNATURE, &[0; 8]].concat();
        let first = [&header[..], b"one"].concat();
        let other = [&header[..], b"two"].concat();
        assert_eq!(
            digest(false, &[(b'd', &first), (b'd', b"two")]),
            digest(false, &[(b'd', &other), (b'd', b"one")])
        );
    }

    proptest! {
        #[test]
        fn no_message_makes_it_panic(tag: u8, body: Vec<u8>) {
            let _ = ResultDigest::new(false).message(tag, &body);
        }
    }
}
