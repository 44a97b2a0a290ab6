//! Identifiers. Each is its own type, so that no two kinds can be mixed up.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};
use std::fmt;

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
