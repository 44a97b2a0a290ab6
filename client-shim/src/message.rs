//! Backend messages as they lie in a buffer: type byte, length, body.

/// One backend message, borrowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawMessage<'a> {
    /// The type byte.
    pub tag: u8,
    /// Without type and length.
    pub body: &'a [u8],
    /// All of it: type, length and body.
    pub whole: &'a [u8],
}

/// The bytes are not whole backend messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a sequence of whole backend messages")]
pub struct Malformed;

/// Iterates over the whole messages in `bytes`; ends after the first malformed one.
pub fn messages(bytes: &[u8]) -> impl Iterator<Item = Result<RawMessage<'_>, Malformed>> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let bytes = rest?;
        if bytes.is_empty() {
            return None;
        }
        match split(bytes) {
            Some((message, after)) => {
                rest = Some(after);
                Some(Ok(message))
            }
            None => {
                rest = None;
                Some(Err(Malformed))
            }
        }
    })
}

fn split(bytes: &[u8]) -> Option<(RawMessage<'_>, &[u8])> {
    let (&tag, after_tag) = bytes.split_first()?;
    let length = u32::from_be_bytes(*after_tag.first_chunk()?) as usize;
    let body = after_tag.get(4..length)?;
    let (whole, rest) = bytes.split_at_checked(length + 1)?;
    Some((RawMessage { tag, body, whole }, rest))
}

/// A field of an ErrorResponse's or NoticeResponse's body: `C` is the SQLSTATE, `M` the message.
pub fn error_field(mut body: &[u8], wanted: u8) -> Option<&[u8]> {
    while let Some((&kind, rest)) = body.split_first() {
        if kind == 0 {
            return None;
        }
        let end = rest.iter().position(|byte| *byte == 0)?;
        if kind == wanted {
            return rest.get(..end);
        }
        body = rest.get(end + 1..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_messages_are_split_and_halves_are_refused() {
        let bytes = b"C\0\0\0\x08ok\0\0Z\0\0\0\x05I";
        let all: Vec<_> = messages(bytes).collect::<Result<_, _>>().unwrap();
        assert_eq!((all[0].tag, all[0].body), (b'C', &b"ok\0\0"[..]));
        assert_eq!(all[1].whole, b"Z\0\0\0\x05I");
        for cut in 1..bytes.len() {
            let parts: Vec<_> = messages(&bytes[..cut]).collect();
            assert!(parts.len() <= 2, "{cut}");
            assert!(cut == 9 || parts.last().is_some_and(|part| part.is_err()), "{cut}");
        }
        assert!(messages(b"C\0\0\0\x03").any(|part| part.is_err()), "a length below four");
        assert!(messages(b"C\xff\xff\xff\xffabc").any(|part| part.is_err()), "a length past the end");
    }

    #[test]
    fn error_fields_are_found() {
        let body = b"SERROR\0C23505\0Mduplicate\0\0";
        assert_eq!(error_field(body, b'C'), Some(&b"23505"[..]));
        assert_eq!(error_field(body, b'D'), None);
        assert_eq!(error_field(b"Cabc", b'C'), None);
    }
}
