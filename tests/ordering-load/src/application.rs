//! The replicated state machine under test: it counts what each session had executed, and echoes.

use crate::identity;
use crate::liar::Lie;
use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::BTreeMap;
use steeldb_ordering::{Account, Join};
use steeldb_ordering_server::{Application, Command};
use steeldb_types::{Digest, Hasher, Position, SessionKey};
use steeldb_wire::auth::PublicKey;
use steeldb_wire::codec;

/// Replies with what it is sent; its state tells what was executed, in which order.
#[derive(Default)]
pub struct Echo {
    state: State,
    undo: Option<Undo>,
    lie: Option<Lie>,
}

/// What a replica executed.
#[derive(Clone, PartialEq, Eq, Debug, Default, BorshSerialize, BorshDeserialize)]
pub struct State {
    /// How far it is.
    pub position: Position,
    /// Over all commands in their order.
    pub history: Digest,
    /// What each session had executed.
    pub sessions: BTreeMap<SessionKey, Progress>,
}

/// What a session had executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, BorshSerialize, BorshDeserialize)]
pub struct Progress {
    /// How many requests.
    pub executed: u64,
    /// The last one's sequence.
    pub last: u64,
    /// The last one's position.
    pub position: Position,
}

impl Progress {
    /// The query for a session's progress.
    pub fn query(session: SessionKey) -> Vec<u8> {
        codec::encode(&session)
    }

    /// Reads what that query gave.
    ///
    /// # Errors
    /// When it is something else.
    pub fn decode(bytes: &[u8]) -> Result<Progress, codec::DecodeError> {
        codec::decode(bytes, bytes.len())
    }
}

/// What was before the savepoint: the sessions that have changed since, last one first.
struct Undo {
    position: Position,
    history: Digest,
    sessions: Vec<(SessionKey, Option<Progress>)>,
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

impl Echo {
    /// One that lies to clients; its state is right.
    pub fn lying(lie: Option<Lie>) -> Echo {
        Echo { lie, ..Echo::default() }
    }

    fn progress(&self, query: &[u8]) -> Option<Progress> {
        let session: SessionKey = codec::decode(query, query.len()).ok()?;
        match self.lie {
            Some(Lie::Queries) => Some(Progress::default()),
            _ => Some(self.state.sessions.get(&session).copied().unwrap_or_default()),
        }
    }
}

impl Application for Echo {
    fn execute(&mut self, command: &Command<'_>) -> Vec<u8> {
        let (state, session) = (&mut self.state, command.id.session);
        if let Some(undo) = &mut self.undo {
            undo.sessions.push((session, state.sessions.get(&session).copied()));
        }
        state.position = command.position;
        let mut hasher = Hasher::new("steeldb/test/history");
        hasher.part(&state.history.0).number(command.position.0).part(&codec::encode(&command.id));
        hasher.part(command.payload);
        state.history = hasher.finish();
        let progress = state.sessions.entry(session).or_default();
        progress.executed += 1;
        (progress.last, progress.position) = (command.id.sequence, command.position);
        match self.lie {
            Some(Lie::Replies) => b"a lie".to_vec(),
            _ => command.payload.to_vec(),
        }
    }

    /// Without a payload the whole state; else a session's progress.
    fn query(&self, payload: &[u8]) -> Vec<u8> {
        match self.progress(payload) {
            Some(progress) => codec::encode(&progress),
            None => codec::encode(&self.state),
        }
    }

    fn authorize(&self, join: &Join, key: &PublicKey) -> Result<Account, String> {
        identity::authorized(&join.credential, key)
    }

    fn last_change(&self, payload: &[u8]) -> Option<Position> {
        self.progress(payload).map(|progress| progress.position)
    }

    fn snapshot(&self) -> Vec<u8> {
        codec::encode(&self.state)
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        self.state = State::decode(snapshot).map_err(|error| error.to_string())?;
        Ok(())
    }

    fn savepoint(&mut self) {
        let State { position, history, .. } = self.state;
        self.undo = Some(Undo { position, history, sessions: Vec::new() });
    }

    fn rollback(&mut self) {
        let Some(undo) = self.undo.take() else { return };
        (self.state.position, self.state.history) = (undo.position, undo.history);
        for (session, before) in undo.sessions.into_iter().rev() {
            match before {
                Some(before) => self.state.sessions.insert(session, before),
                None => self.state.sessions.remove(&session),
            };
        }
    }

    fn release(&mut self) {
        self.undo = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeldb_ordering::RequestId;
    use steeldb_types::{ClientId, SessionId, Timestamp};

    #[test]
    fn what_is_rolled_back_leaves_no_trace() {
        let mut echo = Echo::default();
        let execute = |echo: &mut Echo, session: u64, sequence: u64| {
            let session = SessionKey { client: ClientId(1), session: SessionId(session) };
            let (id, position) = (RequestId { session, sequence }, echo.state.position.next());
            echo.execute(&Command { position, timestamp: Timestamp(0), id, payload: b"x" });
        };
        execute(&mut echo, 1, 1);
        let before = echo.state.clone();
        echo.savepoint();
        for (session, sequence) in [(1, 2), (2, 1), (2, 2)] {
            execute(&mut echo, session, sequence);
        }
        echo.rollback();
        assert_eq!(echo.state, before);
    }
}
