//! What clients and servers say to each other, over links that have authenticated both.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use std::sync::Arc;
use steeldb_ordering::{Claim, Decision, InstanceNumber, Refusal, Registered, Request, RequestId};
use steeldb_types::{Digest, Position, ViewNumber, limits};
use steeldb_wire::codec::{self, DecodeError};

/// From a client to a server.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum ClientMessage {
    /// Order this and execute it.
    Order(Arc<Request>),
    /// Answer from the state as it is here and now.
    Query {
        /// Returned with the answer.
        number: u64,
        /// The application's bytes.
        payload: Vec<u8>,
    },
    /// Have this guest join, or leave: a [`Request::Registration`] signed with the key of the link.
    Register(Arc<Request>),
    /// Show the decisions that made the views after one.
    Views {
        /// The newest view known.
        known: ViewNumber,
    },
    /// Send every decision from here on, as they are made.
    Follow {
        /// The first one wanted.
        from: InstanceNumber,
    },
}

/// From a server to a client.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum ServerMessage {
    /// A request was executed, and its place in the order is decided.
    Executed {
        /// Which.
        id: RequestId,
        /// The view that this server is in.
        view: ViewNumber,
        /// What came of it.
        reply: Reply,
    },
    /// A request was executed ahead: its place in the order is decided if a quorum says so of the same claim.
    Tentative {
        /// Which.
        id: RequestId,
        /// The instance that its batch is about to be decided in.
        instance: InstanceNumber,
        /// The regency and the batch of the WRITE quorum that this server has durably seen.
        claim: Claim,
        /// What came of it.
        reply: Reply,
    },
    /// A request will not be executed on this server's behalf.
    Refused {
        /// Which.
        id: RequestId,
        /// Why.
        reason: Refused,
    },
    /// A registration was ordered.
    Registered {
        /// The digest of the request.
        request: Digest,
        /// What was made of it.
        registered: Registered,
    },
    /// A registration will not be ordered on this server's behalf.
    NotRegistered {
        /// The digest of the request.
        request: Digest,
        /// Why.
        reason: Refused,
    },
    /// Answers a query.
    Answer {
        /// As in the query.
        number: u64,
        /// The view that this server is in.
        view: ViewNumber,
        /// The answer; nothing while this server's state may lack what it said before a restart.
        answer: Option<Answer>,
    },
    /// The view that this server is in: said at once, and whenever it changes.
    View {
        /// Its number.
        view: ViewNumber,
    },
    /// The decisions that made views, in their order. Each is proved by the view before.
    Views {
        /// At most [`limits::VIEWS_AT_ONCE`](crate::limits); none when this server does not have them.
        decisions: Vec<Arc<Decision>>,
    },
    /// A change of the membership will not be ordered on this server's behalf.
    NotChanged {
        /// The digest of the request.
        request: Digest,
        /// Why.
        reason: Refused,
    },
    /// For a follower.
    Decisions {
        /// Consecutive and ascending, each with its proof; none at first, when the server has none yet.
        decisions: Vec<Arc<Decision>>,
        /// The last instance that the server has executed.
        last: InstanceNumber,
    },
    /// For a follower: decisions from here on are not kept any more. It is not followed any longer.
    NotKept {
        /// The first one that was wanted.
        from: InstanceNumber,
    },
}

/// What came of a request: the same on every replica.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Reply {
    /// Where in the order it was executed.
    pub position: Position,
    /// What the application says.
    pub result: Vec<u8>,
}

/// What a server's state says now.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Answer {
    /// What the application says.
    pub result: Vec<u8>,
    /// The position of the last command that this depends on.
    pub since: Position,
    /// The batch executed ahead that this depends on, if it does.
    pub ahead: Option<(InstanceNumber, Claim)>,
}

/// Why a request was turned away.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize, thiserror::Error)]
pub enum Refused {
    /// Executed before, and the reply is no longer kept.
    #[error("executed before, and its reply is no longer kept")]
    Stale,
    /// Try again later.
    #[error("too many requests are waiting")]
    Busy,
    /// The client is not joined, as far as this server has got.
    #[error("the client is not joined: it left, was idle for too long, or never joined")]
    NotJoined,
    /// It can never be ordered.
    #[error("{0}")]
    Invalid(String),
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        match refusal {
            Refusal::Executed | Refusal::Stale => Refused::Stale,
            // Of one that was removed, clients learn who took its place.
            Refusal::Busy | Refusal::NotAMember => Refused::Busy,
            Refusal::NotJoined => Refused::NotJoined,
            other => Refused::Invalid(other.to_string()),
        }
    }
}

macro_rules! framed {
    ($($message:ident),*) => {$(
        impl $message {
            /// The canonical encoding, one frame.
            pub fn encode(&self) -> Bytes {
                Bytes::from(codec::encode(self))
            }

            /// Decodes exactly one frame.
            ///
            /// # Errors
            /// [`DecodeError`]: the sender misbehaved.
            pub fn decode(frame: &[u8]) -> Result<$message, DecodeError> {
                codec::decode(frame, limits::FRAME_BYTES_MAX)
            }
        }
    )*};
}

framed!(ClientMessage, ServerMessage);
