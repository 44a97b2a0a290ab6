//! What replicas say to each other over their links.

use bytes::Bytes;
use steeldb_ordering::Message;
use steeldb_types::{Slot, TxId, limits};
use steeldb_wire::codec::{self, DecodeError};
use steeldb_wire::transaction::{Stream, VoteBundle};

/// A frame between replicas.
pub(super) enum PeerMessage {
    /// Of the ordering core.
    Ordering(Message),
    /// Votes.
    Votes(VoteBundle),
    /// A piece of the master's stream.
    Stream(Stream),
    /// Asks for a committed transaction's write set.
    FetchWriteSet {
        /// The transaction.
        tx: TxId,
        /// Its slot.
        slot: Slot,
    },
    /// An encoded write set; empty when it is not kept.
    WriteSet {
        /// The transaction.
        tx: TxId,
        /// The write set.
        bytes: Vec<u8>,
    },
}

const ORDERING: u8 = 1;
const VOTES: u8 = 2;
const STREAM: u8 = 3;
const FETCH: u8 = 4;
const WRITE_SET: u8 = 5;

impl PeerMessage {
    pub(super) fn encode(&self) -> Bytes {
        let (kind, body) = match self {
            PeerMessage::Ordering(message) => (ORDERING, message.encode()),
            PeerMessage::Votes(bundle) => (VOTES, codec::encode(bundle)),
            PeerMessage::Stream(stream) => (STREAM, codec::encode(stream)),
            PeerMessage::FetchWriteSet { tx, slot } => (FETCH, codec::encode(&(*tx, *slot))),
            PeerMessage::WriteSet { tx, bytes } => (WRITE_SET, codec::encode(&(*tx, bytes))),
        };
        let mut frame = Vec::with_capacity(body.len() + 1);
        frame.push(kind);
        frame.extend(body);
        frame.into()
    }

    pub(super) fn decode(frame: &[u8]) -> Result<PeerMessage, DecodeError> {
        match frame.split_first() {
            Some((&ORDERING, body)) => Message::decode(body).map(PeerMessage::Ordering),
            Some((&VOTES, body)) => codec::decode(body, limits::FRAME_BYTES_MAX).map(PeerMessage::Votes),
            Some((&STREAM, body)) => codec::decode(body, limits::FRAME_BYTES_MAX).map(PeerMessage::Stream),
            Some((&FETCH, body)) => codec::decode(body, limits::FRAME_BYTES_MAX)
                .map(|(tx, slot)| PeerMessage::FetchWriteSet { tx, slot }),
            Some((&WRITE_SET, body)) => codec::decode(body, limits::FRAME_BYTES_MAX)
                .map(|(tx, bytes)| PeerMessage::WriteSet { tx, bytes }),
            _ => Err(DecodeError::Malformed { type_name: "PeerMessage", reason: "unknown kind".into() }),
        }
    }
}
