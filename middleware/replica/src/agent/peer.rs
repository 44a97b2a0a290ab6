//! What replicas say to each other over their links.

use crate::effects::Part;
use bytes::Bytes;
use steeldb_ordering::Message;
use steeldb_types::{Position, Slot, TxId, limits};
use steeldb_wire::codec::{self, DecodeError};
use steeldb_wire::transaction::{SignedAccusation, Stream, VoteBundle};

/// A frame between replicas.
pub enum PeerMessage {
    /// Of the ordering core.
    Ordering(Message),
    /// Votes.
    Votes(VoteBundle),
    /// A piece of the master's stream.
    Stream(Stream),
    /// An accusation of the master.
    Accusation(SignedAccusation),
    /// Up to where the order is delivered at the sender: nothing rests on it but what this replica says of its own lag.
    Standing(Position),
    /// Asks for what is kept of a committed transaction.
    FetchEffects {
        /// The transaction.
        tx: TxId,
        /// Its slot.
        slot: Slot,
        /// From which byte on.
        from: u64,
    },
    /// A part of it.
    Effects {
        /// The transaction.
        tx: TxId,
        /// From which byte on.
        from: u64,
        /// The part; none when nothing is kept.
        part: Option<Part>,
    },
    /// Asks for an answer, to measure the round trip.
    Ping {
        /// Comes back with the answer.
        number: u64,
    },
    /// The answer.
    Pong {
        /// Of the question.
        number: u64,
    },
}

const ORDERING: u8 = 1;
const VOTES: u8 = 2;
const STREAM: u8 = 3;
const FETCH: u8 = 4;
const EFFECTS: u8 = 5;
const ACCUSATION: u8 = 6;
const PING: u8 = 8;
const PONG: u8 = 9;
const STANDING: u8 = 7;

impl PeerMessage {
    /// The bytes of a frame.
    pub fn encode(&self) -> Bytes {
        let (kind, body) = match self {
            PeerMessage::Ordering(message) => (ORDERING, message.encode()),
            PeerMessage::Votes(bundle) => (VOTES, codec::encode(bundle)),
            PeerMessage::Stream(stream) => (STREAM, codec::encode(stream)),
            PeerMessage::Accusation(signed) => (ACCUSATION, codec::encode(signed)),
            PeerMessage::Standing(delivered) => (STANDING, codec::encode(delivered)),
            PeerMessage::FetchEffects { tx, slot, from } => (FETCH, codec::encode(&(*tx, *slot, *from))),
            PeerMessage::Effects { tx, from, part } => (EFFECTS, codec::encode(&(*tx, *from, part))),
            PeerMessage::Ping { number } => (PING, codec::encode(number)),
            PeerMessage::Pong { number } => (PONG, codec::encode(number)),
        };
        let mut frame = Vec::with_capacity(body.len() + 1);
        frame.push(kind);
        frame.extend(body);
        frame.into()
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`DecodeError`]: it is no canonical encoding.
    pub fn decode(frame: &[u8]) -> Result<PeerMessage, DecodeError> {
        match frame.split_first() {
            Some((&ORDERING, body)) => Message::decode(body).map(PeerMessage::Ordering),
            Some((&VOTES, body)) => codec::decode(body, limits::FRAME_BYTES_MAX).map(PeerMessage::Votes),
            Some((&STREAM, body)) => codec::decode(body, limits::FRAME_BYTES_MAX).map(PeerMessage::Stream),
            Some((&ACCUSATION, body)) => {
                codec::decode(body, limits::FRAME_BYTES_MAX).map(PeerMessage::Accusation)
            }
            Some((&STANDING, body)) => {
                codec::decode(body, limits::FRAME_BYTES_MAX).map(PeerMessage::Standing)
            }
            Some((&FETCH, body)) => codec::decode(body, limits::FRAME_BYTES_MAX)
                .map(|(tx, slot, from)| PeerMessage::FetchEffects { tx, slot, from }),
            Some((&EFFECTS, body)) => codec::decode(body, limits::FRAME_BYTES_MAX)
                .map(|(tx, from, part)| PeerMessage::Effects { tx, from, part }),
            Some((&PING, body)) => {
                codec::decode(body, limits::FRAME_BYTES_MAX).map(|number| PeerMessage::Ping { number })
            }
            Some((&PONG, body)) => {
                codec::decode(body, limits::FRAME_BYTES_MAX).map(|number| PeerMessage::Pong { number })
            }
            _ => Err(DecodeError::Malformed { type_name: "PeerMessage", reason: "unknown kind".into() }),
        }
    }
}
