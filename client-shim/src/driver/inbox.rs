//! What waits for a session: messages of replicas, changes of links, a user's wish to cancel.
//!
//! Invariant: a replica occupies at most [`REPLICA_BYTES_MAX`] of an inbox. One that sends more loses the session; the
//! others are not held up.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use steeldb_types::{ReplicaId, Term, View, limits};
use steeldb_wire::transaction::ReplicaMessage;
use tokio::sync::Notify;

/// What a correct master may have under way: the window, and the frame that passed it, with room for small messages.
const REPLICA_BYTES_MAX: usize = 2 * (limits::RESULT_WINDOW_BYTES + limits::FRAME_BYTES_MAX);

/// Counted for each message besides its bytes.
const MESSAGE_OVERHEAD_BYTES: usize = 128;

/// Something for a session.
#[derive(Debug)]
pub(super) enum Input {
    Message(ReplicaId, ReplicaMessage, usize),
    LinkUp(ReplicaId),
    LinkDown(ReplicaId),
    ViewChanged(View),
    TermBegan(Term),
    Cancel,
}

pub(super) struct Inbox {
    state: Mutex<State>,
    filled: Notify,
}

struct State {
    inputs: VecDeque<Input>,
    bytes: Vec<usize>,
    overrun: Vec<bool>,
}

impl Inbox {
    pub(super) fn new(replicas: usize) -> Inbox {
        let state =
            State { inputs: VecDeque::new(), bytes: vec![0; replicas], overrun: vec![false; replicas] };
        Inbox { state: Mutex::new(state), filled: Notify::new() }
    }

    /// Adds a message that took `bytes` on its link.
    pub(super) fn message(&self, from: ReplicaId, message: ReplicaMessage, bytes: usize) {
        let bytes = bytes + MESSAGE_OVERHEAD_BYTES;
        let index = usize::from(from.0);
        let mut state = self.lock();
        let (Some(used), Some(overrun)) =
            (state.bytes.get(index).copied(), state.overrun.get(index).copied())
        else {
            return;
        };
        if overrun {
            return;
        }
        if used + bytes > REPLICA_BYTES_MAX {
            state.overrun[index] = true;
            state.inputs.push_back(Input::LinkDown(from));
            tracing::warn!(replica = %from, "a replica overran a session's inbox: the session goes on without it");
        } else {
            state.bytes[index] += bytes;
            state.inputs.push_back(Input::Message(from, message, bytes));
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Adds a change of a link. Few: one link changes at most once per connection made.
    pub(super) fn push(&self, input: Input) {
        let mut state = self.lock();
        match &input {
            // One wish is enough.
            Input::Cancel if state.inputs.iter().any(|waiting| matches!(waiting, Input::Cancel)) => return,
            // Opposite changes that nobody has seen yet: only the loss matters, then the return.
            Input::LinkDown(replica) if matches!(state.inputs.back(), Some(Input::LinkDown(last)) if last == replica) =>
            {
                return;
            }
            Input::LinkUp(replica) => {
                if let Some(overrun) = state.overrun.get_mut(usize::from(replica.0)) {
                    *overrun = false;
                }
            }
            _ => {}
        }
        state.inputs.push_back(input);
        drop(state);
        self.filled.notify_one();
    }

    /// Takes the next input, if there is one.
    pub(super) fn try_take(&self) -> Option<Input> {
        let mut state = self.lock();
        let input = state.inputs.pop_front()?;
        if let Input::Message(from, _, bytes) = &input
            && let Some(used) = state.bytes.get_mut(usize::from(from.0))
        {
            *used = used.saturating_sub(*bytes);
        }
        Some(input)
    }

    /// Waits for the next input. Nothing is lost if the wait is given up.
    pub(super) async fn take(&self) -> Input {
        loop {
            if let Some(input) = self.try_take() {
                return input;
            }
            self.filled.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every state is whole between statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeldb_types::SessionId;

    #[test]
    fn a_replica_that_floods_an_inbox_loses_the_session_and_the_others_do_not() {
        let inbox = Inbox::new(4);
        let message = || ReplicaMessage::SessionOpened { session: SessionId(1), parameters: vec![] };
        for _ in 0..4 {
            inbox.message(ReplicaId(0), message(), REPLICA_BYTES_MAX / 2);
        }
        inbox.message(ReplicaId(1), message(), 10);
        inbox.message(ReplicaId(9), message(), 10);
        assert!(matches!(inbox.try_take(), Some(Input::Message(ReplicaId(0), ..))));
        assert!(matches!(inbox.try_take(), Some(Input::LinkDown(ReplicaId(0)))));
        assert!(matches!(inbox.try_take(), Some(Input::Message(ReplicaId(1), ..))));
        assert!(inbox.try_take().is_none());
    }

    #[test]
    fn wishes_to_cancel_do_not_pile_up() {
        let inbox = Inbox::new(4);
        inbox.push(Input::Cancel);
        inbox.push(Input::Cancel);
        assert!(matches!(inbox.try_take(), Some(Input::Cancel)));
        assert!(inbox.try_take().is_none());
    }
}
