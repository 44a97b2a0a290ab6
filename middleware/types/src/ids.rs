//! Identifiers. Each is its own type, so that no two kinds can be mixed up.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default,
            BorshSerialize, BorshDeserialize, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

number!(
    /// A replica: its number, stable and never used again once the replica was removed.
    ReplicaId(u16), "r"
);
number!(
    /// A client of the ordering core: a proxy or a tool, with a key of its own.
    ClientId(u32), "c"
);
number!(
    /// One session of a client, numbered by the client; never used twice, not even after the client restarts.
    SessionId(u64), "s"
);
number!(
    /// A place in the total order: the number of requests delivered up to and including this one. 0 is before all.
    Position(u64), "#"
);
number!(
    /// Microseconds since 1970-01-01 00:00:00 UTC, agreed through the order.
    Timestamp(i64), "t"
);

/// The order position of a transaction's BEGIN. It fixes the snapshot, the timestamp and the random seed (rule 3).
pub type Slot = Position;

impl Position {
    /// The place after this one.
    pub fn next(self) -> Position {
        Position(self.0 + 1)
    }
}

/// A session of a client, unique in the cluster's whole life.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    BorshSerialize,
    BorshDeserialize,
    Serialize,
    Deserialize,
)]
pub struct SessionKey {
    /// Whose session.
    pub client: ClientId,
    /// Which of the client's sessions.
    pub session: SessionId,
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.client, self.session)
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A transaction: chosen by the client shim, so that its outcome can be asked for whatever was lost on the way.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    BorshSerialize,
    BorshDeserialize,
    Serialize,
    Deserialize,
)]
pub struct TxId {
    /// The session it runs in.
    pub session: SessionKey,
    /// Counts the session's transactions from 1.
    pub counter: u64,
}

impl fmt::Display for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.session, self.counter)
    }
}

impl fmt::Debug for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is no transaction's text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidTxId;

impl fmt::Display for InvalidTxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the number of a transaction, such as c1.s7331.4")
    }
}

impl std::error::Error for InvalidTxId {}

/// Reads what [`fmt::Display`] writes, and nothing else: every transaction has one text.
impl FromStr for TxId {
    type Err = InvalidTxId;

    fn from_str(text: &str) -> Result<TxId, InvalidTxId> {
        let mut parts = text.split('.');
        let mut part =
            |prefix: &str| parts.next().and_then(|part| part.strip_prefix(prefix)).ok_or(InvalidTxId);
        let client = ClientId(part("c")?.parse().map_err(|_| InvalidTxId)?);
        let session = SessionId(part("s")?.parse().map_err(|_| InvalidTxId)?);
        let counter = part("")?.parse().map_err(|_| InvalidTxId)?;
        let tx = TxId { session: SessionKey { client, session }, counter };
        // Signs and leading zeros are parsed, too.
        if tx.to_string() == text { Ok(tx) } else { Err(InvalidTxId) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_has_one_text() {
        for (client, session, counter) in [(0, 0, 0), (1, 17, 3), (u32::MAX, u64::MAX, u64::MAX)] {
            let session = SessionKey { client: ClientId(client), session: SessionId(session) };
            let tx = TxId { session, counter };
            assert_eq!(tx.to_string().parse(), Ok(tx));
        }
        for text in [
            "",
            "c1.s2",
            "c1.s2.3.4",
            "c1.s2.3 ",
            "c1.s2.+3",
            "c01.s2.3",
            "C1.s2.3",
            "c1.2.3",
            "c4294967296.s1.1",
            "c1.s18446744073709551616.1",
            "c1.s1.-1",
            "c-1.s1.1",
        ] {
            assert_eq!(text.parse::<TxId>(), Err(InvalidTxId), "{text}");
        }
    }
}
