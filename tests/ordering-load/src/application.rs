//! The replicated state machine under test: it counts what each session had executed, and echoes.

use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::BTreeMap;
use steeldb_ordering_server::{Application, Command};
use steeldb_types::{Digest, Hasher, Position, SessionKey};
use steeldb_wire::codec;

/// Replies with what it is sent; its state tells what was executed, in which order.
#[derive(Default)]
pub struct Echo {
    state: State,
}

/// What a replica executed.
#[derive(Clone, PartialEq, Eq, Debug, Default, BorshSerialize, BorshDeserialize)]
pub struct State {
    /// How far it is.
    pub position: Position,
    /// Over all commands in their order.
    pub history: Digest,
    /// By session: how many requests were executed, and the last one's sequence.
    pub sessions: BTreeMap<SessionKey, (u64, u64)>,
}

impl State {
    /// Reads what a query gave.
    ///
    /// # Errors
    /// When a replica answered something else.
    pub fn decode(bytes: &[u8]) -> Result<State, codec::DecodeError> {
        codec::decode(bytes, steeldb_types::limits::FRAME_BYTES_MAX)
    }
}

impl Application for Echo {
    fn execute(&mut self, command: &Command<'_>) -> Vec<u8> {
        let state = &mut self.state;
        state.position = command.position;
        let mut hasher = Hasher::new("steeldb/test/history");
        hasher.part(&state.history.0).number(command.position.0).part(&codec::encode(&command.id));
        hasher.part(command.payload);
        state.history = hasher.finish();
        let (executed, last) = state.sessions.entry(command.id.session).or_default();
        *executed += 1;
        *last = command.id.sequence;
        command.payload.to_vec()
    }

    fn query(&self, _payload: &[u8]) -> Vec<u8> {
        codec::encode(&self.state)
    }
}
