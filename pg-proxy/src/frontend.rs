//! What a client says: messages cut from its byte stream and taken apart.
//!
//! Total functions over slices: whatever the bytes, the answer is a message or a [`ProtocolError`]; nothing is allocated
//! that the input does not fill.

use bytes::{Buf, Bytes, BytesMut};
use steeldb_types::limits::MESSAGE_BYTES_MAX;

/// The largest message before authentication is done, as in PostgreSQL.
pub(crate) const STARTUP_BYTES_MAX: usize = 10_000;

/// The client broke the protocol: 08P01, and the connection ends.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ProtocolError(pub String);

/// A message with its type byte, not yet taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Packet {
    pub tag: u8,
    pub body: Bytes,
}

/// What a name in Describe or Close means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    Statement,
    Portal,
}

/// A message of the client after start-up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Message {
    Query {
        sql: String,
    },
    Parse {
        name: String,
        sql: String,
        types: Vec<u32>,
    },
    /// `rest` is everything after the two names, verbatim.
    Bind {
        portal: String,
        statement: String,
        rest: Bytes,
    },
    Describe {
        target: Target,
        name: String,
    },
    Execute {
        portal: String,
        max_rows: u32,
    },
    Close {
        target: Target,
        name: String,
    },
    Flush,
    Sync,
    CopyData {
        data: Bytes,
    },
    CopyDone,
    CopyFail {
        reason: String,
    },
    FunctionCall,
    Terminate,
    /// One whose body is past [`MESSAGE_BYTES_MAX`]: it is passed over, and the session goes on.
    TooLong {
        tag: u8,
        bytes: usize,
    },
}

/// A message with its type byte whose body is past [`MESSAGE_BYTES_MAX`] and within PostgreSQL's own bound: what is
/// taken in parts, or passed over.
pub(crate) fn long(input: &[u8]) -> Option<(u8, usize)> {
    /// PostgreSQL's PQ_LARGE_MESSAGE_LIMIT.
    const LONGEST: usize = 0x3fff_ffff;
    let (&tag, rest) = input.split_first()?;
    let length = u32::from_be_bytes(*rest.first_chunk()?) as usize;
    let is_long = (MESSAGE_BYTES_MAX + 1..=LONGEST).contains(&length);
    (is_long && b"QPBDECFdf".contains(&tag)).then(|| (tag, length - 4))
}

/// Cuts the next packet from `input`; nothing while it is not whole.
pub(crate) fn cut(input: &mut BytesMut, bytes_max: usize) -> Result<Option<Packet>, ProtocolError> {
    let Some(&tag) = input.first() else { return Ok(None) };
    let Some(length) = input.get(1..5).and_then(|bytes| bytes.first_chunk()).map(|b| u32::from_be_bytes(*b))
    else {
        return Ok(None);
    };
    // An unknown type is found out at once: its length means nothing.
    if !b"QPBDECHSdcfFXp".contains(&tag) {
        return Err(ProtocolError(format!("invalid frontend message type {tag}")));
    }
    let length = length as usize;
    if length < 4 {
        return Err(ProtocolError("invalid message length".into()));
    }
    if length > bytes_max {
        return Err(ProtocolError(format!(
            "a message of {length} bytes is too long: at most {bytes_max} are taken"
        )));
    }
    if input.len() < length + 1 {
        input.reserve((length + 1 - input.len()).min(256 * 1024));
        return Ok(None);
    }
    let mut whole = input.split_to(length + 1);
    whole.advance(5);
    Ok(Some(Packet { tag, body: whole.freeze() }))
}

impl Packet {
    /// Takes the packet apart.
    pub(crate) fn parse(self) -> Result<Message, ProtocolError> {
        let mut body = Body(self.body);
        let message = match self.tag {
            b'Q' => Message::Query { sql: body.string()? },
            b'P' => {
                let (name, sql) = (body.string()?, body.string()?);
                let count = body.number16()?;
                let types = (0..count).map(|_| body.number32()).collect::<Result<_, _>>()?;
                Message::Parse { name, sql, types }
            }
            b'B' => {
                let (portal, statement) = (body.string()?, body.string()?);
                let rest = body.rest();
                check_bind(&rest)?;
                Message::Bind { portal, statement, rest }
            }
            b'D' => Message::Describe { target: body.target()?, name: body.string()? },
            b'E' => {
                let portal = body.string()?;
                // A negative limit means none, as in PostgreSQL.
                let max_rows = u32::try_from(body.number32()? as i32).unwrap_or(0);
                Message::Execute { portal, max_rows }
            }
            b'C' => Message::Close { target: body.target()?, name: body.string()? },
            b'H' => Message::Flush,
            b'S' => Message::Sync,
            b'd' => return Ok(Message::CopyData { data: body.rest() }),
            b'c' => Message::CopyDone,
            b'f' => Message::CopyFail { reason: body.string()? },
            b'F' => return Ok(Message::FunctionCall),
            b'X' => return Ok(Message::Terminate),
            tag => return Err(ProtocolError(format!("invalid frontend message type {tag}"))),
        };
        if !body.0.is_empty() {
            return Err(ProtocolError("invalid message format".into()));
        }
        Ok(message)
    }
}

struct Body(Bytes);

impl Body {
    fn string(&mut self) -> Result<String, ProtocolError> {
        let end = self.0.iter().position(|byte| *byte == 0);
        let end = end.ok_or_else(|| ProtocolError("invalid string in message".into()))?;
        let text = self.0.split_to(end);
        self.0.advance(1);
        String::from_utf8(text.into())
            .map_err(|_| ProtocolError("invalid byte sequence for encoding \"UTF8\"".into()))
    }

    fn number16(&mut self) -> Result<u16, ProtocolError> {
        self.0.try_get_u16().map_err(|_| short())
    }

    fn number32(&mut self) -> Result<u32, ProtocolError> {
        self.0.try_get_u32().map_err(|_| short())
    }

    fn target(&mut self) -> Result<Target, ProtocolError> {
        match self.0.try_get_u8() {
            Ok(b'S') => Ok(Target::Statement),
            Ok(b'P') => Ok(Target::Portal),
            _ => Err(ProtocolError("invalid message subtype".into())),
        }
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }
}

fn short() -> ProtocolError {
    ProtocolError("insufficient data left in message".into())
}

/// What of a Bind message the proxy needs to know; replicas get the bytes as they came.
fn check_bind(rest: &Bytes) -> Result<(), ProtocolError> {
    result_formats(rest).map(|_| ())
}

/// The result formats of a Bind message's rest; fails if any part of it is malformed.
pub(crate) fn result_formats(rest: &Bytes) -> Result<Vec<u16>, ProtocolError> {
    let mut body = Body(rest.clone());
    for _ in 0..body.number16()? {
        format(&mut body)?;
    }
    for _ in 0..body.number16()? {
        let length = body.number32()?;
        if length != u32::MAX {
            let length = length as usize;
            if body.0.len() < length {
                return Err(short());
            }
            body.0.advance(length);
        }
    }
    let count = body.number16()?;
    let formats = (0..count).map(|_| format(&mut body)).collect::<Result<_, _>>()?;
    if !body.0.is_empty() {
        return Err(ProtocolError("invalid message format".into()));
    }
    Ok(formats)
}

/// The first parameter of a Bind message's rest, if there is one; none inside for NULL.
pub(crate) fn first_parameter(rest: &Bytes) -> Result<Option<Option<Bytes>>, ProtocolError> {
    let mut body = Body(rest.clone());
    for _ in 0..body.number16()? {
        format(&mut body)?;
    }
    if body.number16()? == 0 {
        return Ok(None);
    }
    match body.number32()? {
        u32::MAX => Ok(Some(None)),
        length if body.0.len() < length as usize => Err(short()),
        length => Ok(Some(Some(body.0.split_to(length as usize)))),
    }
}

fn format(body: &mut Body) -> Result<u16, ProtocolError> {
    match body.number16()? {
        code @ (0 | 1) => Ok(code),
        code => Err(ProtocolError(format!("unsupported format code: {code}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(tag: u8, body: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::from(&[tag][..]);
        bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    fn parse(tag: u8, body: &[u8]) -> Result<Message, ProtocolError> {
        cut(&mut packet(tag, body), MESSAGE_BYTES_MAX)?.unwrap().parse()
    }

    #[test]
    fn messages_are_taken_apart() {
        assert_eq!(parse(b'Q', b"SELECT 1\0"), Ok(Message::Query { sql: "SELECT 1".into() }));
        assert_eq!(
            parse(b'P', b"s\0SELECT $1\0\0\x01\0\0\0\x17"),
            Ok(Message::Parse { name: "s".into(), sql: "SELECT $1".into(), types: vec![23] })
        );
        let rest = b"\0\x01\0\x01\0\x01\0\0\0\x02hi\0\x01\0\x01";
        let bind = [&b"p\0s\0"[..], rest].concat();
        let expected =
            Message::Bind { portal: "p".into(), statement: "s".into(), rest: Bytes::from_static(rest) };
        assert_eq!(parse(b'B', &bind), Ok(expected));
        assert_eq!(result_formats(&Bytes::from_static(rest)), Ok(vec![1]));
        assert_eq!(first_parameter(&Bytes::from_static(rest)), Ok(Some(Some(Bytes::from_static(b"hi")))));
        let null = Bytes::from_static(b"\0\0\0\x01\xff\xff\xff\xff\0\0");
        assert_eq!(first_parameter(&null), Ok(Some(None)));
        assert_eq!(first_parameter(&Bytes::from_static(&[0; 6])), Ok(None));
        assert_eq!(parse(b'E', b"\0\0\0\0\x05"), Ok(Message::Execute { portal: String::new(), max_rows: 5 }));
        assert_eq!(parse(b'S', b""), Ok(Message::Sync));
    }

    #[test]
    fn half_messages_wait_and_bad_lengths_do_not() {
        let whole = packet(b'Q', b"SELECT 1\0");
        for length in 0..whole.len() {
            assert_eq!(cut(&mut BytesMut::from(&whole[..length]), MESSAGE_BYTES_MAX), Ok(None), "{length}");
        }
        for length in [0u32, 3, MESSAGE_BYTES_MAX as u32 + 1, u32::MAX] {
            let mut bytes = BytesMut::from(&b"Q"[..]);
            bytes.extend_from_slice(&length.to_be_bytes());
            assert!(cut(&mut bytes, MESSAGE_BYTES_MAX).is_err(), "{length}");
        }
        assert!(cut(&mut BytesMut::from(&b"GET / HTTP"[..]), MESSAGE_BYTES_MAX).is_err());
    }

    #[test]
    fn what_is_too_long_to_be_kept_is_seen_from_its_header() {
        let header = |tag: u8, length: usize| [&[tag][..], &(length as u32).to_be_bytes()].concat();
        assert_eq!(long(&header(b'Q', MESSAGE_BYTES_MAX)), None);
        assert_eq!(long(&header(b'Q', MESSAGE_BYTES_MAX + 1)), Some((b'Q', MESSAGE_BYTES_MAX - 3)));
        assert_eq!(long(&header(b'd', 0x3fff_ffff)), Some((b'd', 0x3fff_fffb)));
        assert_eq!(long(&header(b'd', 0x4000_0000)), None, "PostgreSQL takes no longer one either");
        assert_eq!(long(&header(b'S', MESSAGE_BYTES_MAX + 1)), None, "a Sync has no body");
        assert_eq!(long(b"Q\0\xff\xff"), None);
    }

    #[test]
    fn truncated_bodies_are_refused() {
        let bodies: [(u8, &[u8]); 5] = [
            (b'P', b"s\0SELECT $1\0\0\x01\0\0\0\x17"),
            (b'B', b"p\0s\0\0\x01\0\x01\0\x01\0\0\0\x02hi\0\x01\0\x01"),
            (b'D', b"Ss\0"),
            (b'E', b"p\0\0\0\0\0"),
            (b'f', b"no\0"),
        ];
        for (tag, body) in bodies {
            assert!(parse(tag, body).is_ok());
            for length in 0..body.len() {
                assert!(parse(tag, &body[..length]).is_err(), "{} {length}", char::from(tag));
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(packet)) = cut(&mut input, 100) {
                let _ = packet.parse();
            }
        }

        #[test]
        fn no_body_makes_it_panic(tag in prop::sample::select(b"QPBDECHSdcfFXp".to_vec()), body: Vec<u8>) {
            let _ = parse(tag, &body);
        }
    }
}
