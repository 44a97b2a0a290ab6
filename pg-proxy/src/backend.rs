//! What the proxy itself says to a client. Results of statements are not built here: they are relayed.

use crate::error::PgError;
use bytes::{BufMut, BytesMut};

/// Appends a message: `body` writes what follows the length.
pub(crate) fn message(out: &mut BytesMut, tag: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    let at = out.len();
    out.put_u32(0);
    body(out);
    let length = (out.len() - at) as u32;
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

/// Appends a string and its end. A zero byte inside would end it early: it is left out.
pub(crate) fn string(out: &mut BytesMut, text: &str) {
    out.extend(text.bytes().filter(|byte| *byte != 0));
    out.put_u8(0);
}

pub(crate) fn authentication_ok(out: &mut BytesMut) {
    message(out, b'R', |out| out.put_u32(0));
}

pub(crate) fn authentication_sasl(out: &mut BytesMut, mechanism: &str) {
    message(out, b'R', |out| {
        out.put_u32(10);
        string(out, mechanism);
        out.put_u8(0);
    });
}

pub(crate) fn authentication_sasl_continue(out: &mut BytesMut, data: &[u8]) {
    message(out, b'R', |out| {
        out.put_u32(11);
        out.put_slice(data);
    });
}

pub(crate) fn authentication_sasl_final(out: &mut BytesMut, data: &[u8]) {
    message(out, b'R', |out| {
        out.put_u32(12);
        out.put_slice(data);
    });
}

pub(crate) fn parameter_status(out: &mut BytesMut, name: &str, value: &str) {
    message(out, b'S', |out| {
        string(out, name);
        string(out, value);
    });
}

pub(crate) fn backend_key_data(out: &mut BytesMut, process: u32, secret: u32) {
    message(out, b'K', |out| {
        out.put_u32(process);
        out.put_u32(secret);
    });
}

/// Says that of protocol 3 only minor version 0 is spoken, and which `_pq_.` options are unknown.
pub(crate) fn negotiate_protocol_version(out: &mut BytesMut, unknown: &[String]) {
    message(out, b'v', |out| {
        out.put_u32(3 << 16);
        out.put_u32(unknown.len() as u32);
        for name in unknown {
            string(out, name);
        }
    });
}

pub(crate) fn ready_for_query(out: &mut BytesMut, status: u8) {
    message(out, b'Z', |out| out.put_u8(status));
}

pub(crate) fn command_complete(out: &mut BytesMut, tag: &str) {
    message(out, b'C', |out| string(out, tag));
}

/// A message without a body: ParseComplete `1`, BindComplete `2`, CloseComplete `3`, NoData `n`, PortalSuspended `s`,
/// EmptyQueryResponse `I`.
pub(crate) fn bare(out: &mut BytesMut, tag: u8) {
    message(out, tag, |_| {});
}

pub(crate) fn no_parameters(out: &mut BytesMut) {
    message(out, b't', |out| out.put_u16(0));
}

pub(crate) fn parameter_description(out: &mut BytesMut, types: &[u32]) {
    message(out, b't', |out| {
        out.put_u16(types.len() as u16);
        for oid in types {
            out.put_u32(*oid);
        }
    });
}

/// RowDescription of one column in text format, of a type of any length, from no table.
pub(crate) fn text_column(out: &mut BytesMut, name: &str, oid: u32) {
    message(out, b'T', |out| {
        out.put_u16(1);
        string(out, name);
        out.put_u32(0);
        out.put_u16(0);
        out.put_u32(oid);
        out.put_i16(-1);
        out.put_i32(-1);
        out.put_u16(0);
    });
}

/// DataRow of one column; none for NULL.
pub(crate) fn data_row(out: &mut BytesMut, value: Option<&str>) {
    message(out, b'D', |out| {
        out.put_u16(1);
        match value {
            Some(text) => {
                out.put_u32(text.len() as u32);
                out.put_slice(text.as_bytes());
            }
            None => out.put_i32(-1),
        }
    });
}

/// A field of an ErrorResponse or NoticeResponse, given as a whole message.
pub(crate) fn error_field(whole: &[u8], wanted: u8) -> Option<&str> {
    let mut body = whole.get(5..)?;
    loop {
        let (&kind, rest) = body.split_first().filter(|(kind, _)| **kind != 0)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        let (text, after) = rest.split_at(end);
        if kind == wanted {
            return std::str::from_utf8(text).ok();
        }
        body = after.get(1..)?;
    }
}

pub(crate) fn error(out: &mut BytesMut, error: &PgError) {
    message(out, b'E', |out| fields(out, error));
}

pub(crate) fn notice(out: &mut BytesMut, notice: &PgError) {
    message(out, b'N', |out| fields(out, notice));
}

fn fields(out: &mut BytesMut, error: &PgError) {
    let mut field = |kind: u8, text: &str| {
        out.put_u8(kind);
        string(out, text);
    };
    field(b'S', error.severity);
    field(b'V', error.severity);
    field(b'C', error.sqlstate.as_str());
    field(b'M', &error.message);
    if let Some(detail) = &error.detail {
        field(b'D', detail);
    }
    if let Some(hint) = &error.hint {
        field(b'H', hint);
    }
    if let Some(position) = error.position {
        field(b'P', &position.to_string());
    }
    out.put_u8(0);
}

/// Rewrites field `P` of an ErrorResponse or NoticeResponse, given as a whole message, with `map`.
pub(crate) fn with_position(whole: &[u8], map: impl Fn(usize) -> usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(whole.len() + 8);
    let Some((&tag, body)) = whole.split_first().and_then(|(tag, rest)| Some((tag, rest.get(4..)?))) else {
        return out;
    };
    message(&mut out, tag, |out| {
        let mut body = body;
        while let Some((&kind, rest)) = body.split_first() {
            let Some(end) = rest.iter().position(|byte| *byte == 0).filter(|_| kind != 0) else { break };
            let (text, after) = rest.split_at(end);
            let position = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            out.put_u8(kind);
            match position.filter(|_| kind == b'P') {
                Some(position) => string(out, &map(position).to_string()),
                None => {
                    out.put_slice(text);
                    out.put_u8(0);
                }
            }
            body = after.get(1..).unwrap_or_default();
        }
        out.put_u8(0);
    });
    out
}

/// The RowDescription `whole` with the result formats of a Bind message: none means text, one holds for all columns.
pub(crate) fn with_formats(whole: &[u8], formats: &[u16]) -> Option<BytesMut> {
    let mut out = BytesMut::from(whole);
    let count = u16::from_be_bytes(*whole.get(5..7)?.first_chunk()?);
    let mut at = 7;
    for column in 0..usize::from(count) {
        let name_end = at + whole.get(at..)?.iter().position(|byte| *byte == 0)?;
        let format = match formats {
            [] => 0,
            [one] => *one,
            many => many.get(column).copied().unwrap_or(0),
        };
        out.get_mut(name_end + 17..name_end + 19)?.copy_from_slice(&format.to_be_bytes());
        at = name_end + 19;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_mapped_and_all_else_stays() {
        let mut error = BytesMut::new();
        message(&mut error, b'E', |out| out.put_slice(b"SERROR\0C42703\0Mcolumn\0P9\0Fx.c\0\0"));
        let mapped = with_position(&error, |position| position + 100);
        assert_eq!(&mapped[5..], b"SERROR\0C42703\0Mcolumn\0P109\0Fx.c\0\0");
        assert_eq!(
            mapped.len(),
            u32::from_be_bytes([mapped[1], mapped[2], mapped[3], mapped[4]]) as usize + 1
        );
        assert_eq!((error_field(&error, b'C'), error_field(&error, b'X')), (Some("42703"), None));
        for cut in 0..error.len() {
            error_field(&error[..cut], b'F');
            with_position(&error[..cut], |position| position);
        }
    }

    #[test]
    fn formats_of_a_bind_are_put_into_a_description() {
        let mut description = BytesMut::new();
        message(&mut description, b'T', |out| {
            out.put_u16(2);
            for name in ["a", "bc"] {
                string(out, name);
                out.put_slice(&[0; 18]);
            }
        });
        let formats = |formats: &[u16]| {
            let out = with_formats(&description, formats).unwrap();
            (out[7 + 2 + 17], out[out.len() - 1])
        };
        assert_eq!(formats(&[]), (0, 0));
        assert_eq!(formats(&[1]), (1, 1));
        assert_eq!(formats(&[0, 1]), (0, 1));
        for cut in 0..description.len() {
            assert_eq!(with_formats(&description[..cut], &[1]), None);
        }
    }
}
