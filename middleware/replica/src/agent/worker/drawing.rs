//! Sequences at a session's backend: the functions of schema `steeldb` draw from them, or take what they are handed. They
//! know the agent by a token that nobody else is told, and say it with what they report.

use bytes::BytesMut;
use std::io;
use steeldb_postgres::BackendError;
use steeldb_postgres::connection::Backend;
use steeldb_postgres::message::{self, ErrorFields};
use steeldb_postgres::transaction::RecordSecret;
use steeldb_types::limits;
use steeldb_wire::transaction::{DrawKind, Draws};

/// The SQLSTATE of a report.
const REPORT: &str = "SDSEQ";

/// Values go as parameters: other sessions of the role can read a statement's text.
const ARM_SQL: &str =
    "SELECT steeldb.arm_draws($1::pg_catalog.int8, $2::pg_catalog.bool, $3::pg_catalog.bytea)";
const HAND_SQL: &str = "SELECT steeldb.hand_draws($1::pg_catalog.int8, $2::pg_catalog.text)";

/// How a session's backend draws.
#[derive(Clone)]
pub(super) struct Drawing {
    token: i64,
    /// It draws by itself: this is the master.
    anew: bool,
    mac: String,
}

impl Drawing {
    /// Lets a new backend's functions know the agent.
    ///
    /// # Errors
    /// [`BackendError`].
    pub(super) async fn arm(
        backend: &mut Backend,
        secret: &RecordSecret,
        anew: bool,
    ) -> Result<Drawing, BackendError> {
        // The client may have asked for transactions that are READ ONLY.
        let answer = backend.simple("BEGIN READ WRITE; SELECT pg_catalog.gen_random_uuid()").await?;
        let digits: String =
            answer.value().unwrap_or_default().chars().filter(|c| *c != '-').take(15).collect();
        let token = i64::from_str_radix(&digits, 16)
            .map_err(|_| BackendError::Protocol("gen_random_uuid() gave no UUID".to_string()))?;
        let mac = format!("\\x{}", hex::encode(secret.session_mac(backend.process_id(), token)));
        let drawing = Drawing { token, anew, mac };
        backend.extended(ARM_SQL, &drawing.values().each_ref().map(|value| Some(value.as_str()))).await?;
        backend.simple("COMMIT").await?;
        Ok(drawing)
    }

    fn values(&self) -> [String; 3] {
        [self.token.to_string(), self.anew.to_string(), self.mac.clone()]
    }

    /// The client has thrown away what its session knew of sequences: writes the group that starts over.
    pub(super) fn arm_again(&self, out: &mut BytesMut) -> io::Result<()> {
        message::extended(ARM_SQL, &self.values().each_ref().map(|value| Some(value.as_str())), out)?;
        message::sync(out);
        Ok(())
    }

    /// What the next operation draws; none: it draws by itself. Writes the group that says so, if one is needed; whether
    /// it is.
    pub(super) fn hand_over(&mut self, draws: Option<&Draws>, out: &mut BytesMut) -> io::Result<bool> {
        let lines = match draws {
            // What was handed over before has been taken.
            Some(draws) if draws.is_empty() && !self.anew => return Ok(false),
            None if self.anew => return Ok(false),
            Some(draws) => Some(draws.to_lines()),
            None => None,
        };
        self.anew = lines.is_none();
        message::extended(HAND_SQL, &[Some(&self.token.to_string()), lines.as_deref()], out)?;
        message::sync(out);
        Ok(true)
    }

    /// Adds what a notice of the backend reports; false if it is no report.
    pub(super) fn note(&self, notice: &ErrorFields, draws: &mut Draws) -> bool {
        if notice.sqlstate != REPORT {
            return false;
        }
        let Some((kind, value, step, name)) = self.read(&notice.message) else { return false };
        if name.len() <= limits::SEQUENCE_NAME_BYTES_MAX {
            draws.push(kind, value, step, name);
        }
        true
    }

    /// "token kind value step name"; the name may have spaces in it.
    fn read<'a>(&self, report: &'a str) -> Option<(DrawKind, i64, i64, &'a str)> {
        let mut words = report.splitn(5, ' ');
        if words.next()?.parse() != Ok(self.token) {
            return None;
        }
        let kind = match words.next()? {
            "n" => DrawKind::Value,
            "s" => DrawKind::Set,
            "x" => DrawKind::Exhausted,
            _ => return None,
        };
        Some((kind, words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a9_only_who_knows_the_token_reports_draws() {
        let drawing = Drawing { token: 77, anew: true, mac: String::new() };
        assert_eq!(
            drawing.read("77 n -5 0 public.\"a b\""),
            Some((DrawKind::Value, -5, 0, "public.\"a b\""))
        );
        for report in ["78 n 5 0 public.s", "77 n 5 public.s", "77 q 5 0 public.s", "n 5 0 public.s", ""] {
            assert_eq!(drawing.read(report), None, "{report}");
        }
    }
}
