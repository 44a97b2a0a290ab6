//! What a client's request asks for: its payload, as it is ordered, begins with one byte that says so.

const EXECUTE: u8 = 0;
const QUERY: u8 = 1;

/// What to do at a place in the order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation<'a> {
    /// A command.
    Execute(&'a [u8]),
    /// A query: its answer is that of the state at this place.
    Query(&'a [u8]),
}

impl<'a> Operation<'a> {
    pub(crate) fn encode(self) -> Vec<u8> {
        let (tag, bytes) = match self {
            Operation::Execute(bytes) => (EXECUTE, bytes),
            Operation::Query(bytes) => (QUERY, bytes),
        };
        let mut payload = Vec::with_capacity(1 + bytes.len());
        payload.push(tag);
        payload.extend_from_slice(bytes);
        payload
    }

    /// Nothing for what no client of this service makes.
    pub(crate) fn decode(payload: &'a [u8]) -> Option<Operation<'a>> {
        match payload.split_first()? {
            (&EXECUTE, bytes) => Some(Operation::Execute(bytes)),
            (&QUERY, bytes) => Some(Operation::Query(bytes)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read_and_nothing_else() {
        for operation in [Operation::Execute(b"x"), Operation::Query(b"")] {
            assert_eq!(Operation::decode(&operation.encode()), Some(operation));
        }
        assert_eq!((Operation::decode(b""), Operation::decode(b"\x02x")), (None, None));
    }
}
