//! The outgoing queue of one link, bounded in bytes. Pushing never waits: whoever takes less than it is sent loses
//! the link, not the node its memory.

use crate::LinkError;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Relaxed frames leave once they and what waits before them have this size, whatever their patience.
const RELAXED_BYTES: usize = 32 * 1024;

/// Counted for each frame besides its bytes, so that empty frames are bounded, too.
const FRAME_OVERHEAD_BYTES: usize = 64;

/// Why a link is to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Nothing more is pushed; what is queued is still sent.
    Closing,
    /// The bound was passed.
    Full,
    /// A newer link took its place.
    Replaced,
}

/// Frames waiting to be written to one link.
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Notify,
    ended: CancellationToken,
    bytes_max: usize,
}

struct State {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// Something in `frames` is not to wait for company.
    urgent: bool,
    /// When what waits for company is to leave without.
    due: Option<Instant>,
    end: Option<End>,
}

/// Locks, whatever a thread that panicked left behind: all states guarded here are whole between statements.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    /// An empty queue of at most `bytes_max` bytes.
    pub(crate) fn new(bytes_max: usize) -> Queue {
        let state = State { frames: VecDeque::new(), bytes: 0, urgent: false, due: None, end: None };
        Queue { state: Mutex::new(state), filled: Notify::new(), ended: CancellationToken::new(), bytes_max }
    }

    /// Adds a frame. False when it was dropped: the link is ending, or ends now because the bound is passed.
    pub(crate) fn push(&self, frame: Bytes) -> bool {
        self.add(frame, None)
    }

    /// Adds a frame that nobody waits for yet: it travels, in order, with the next one pushed, or alone once `patience` is
    /// over. Fewer, larger writes cost both ends less.
    pub(crate) fn push_relaxed(&self, frame: Bytes, patience: Duration) -> bool {
        self.add(frame, Some(patience))
    }

    fn add(&self, frame: Bytes, patience: Option<Duration>) -> bool {
        let size = frame.len() + FRAME_OVERHEAD_BYTES;
        let mut state = locked(&self.state);
        if state.end.is_some() {
            return false;
        }
        if state.bytes + size > self.bytes_max {
            drop(state);
            self.end(End::Full);
            return false;
        }
        state.bytes += size;
        state.frames.push_back(frame);
        let due = patience.map(|patience| Instant::now() + patience);
        state.urgent |= due.is_none() || state.bytes >= RELAXED_BYTES;
        // The writer's patience starts, or is shorter now.
        let sooner = due.is_some_and(|due| state.due.is_none_or(|before| due < before));
        if sooner {
            state.due = due;
        }
        let wake = state.urgent || sooner;
        drop(state);
        if wake {
            self.filled.notify_one();
        }
        true
    }

    /// Ends the link; the first reason given stays, but a closing link can still be cut short.
    pub(crate) fn end(&self, end: End) {
        let mut state = locked(&self.state);
        if state.end.is_none() || (state.end == Some(End::Closing) && end != End::Closing) {
            state.end = Some(end);
        }
        if end != End::Closing {
            state.frames.clear();
        }
        drop(state);
        self.filled.notify_one();
        self.ended.cancel();
    }

    /// Bytes waiting, each frame's overhead included.
    pub(crate) fn backlog(&self) -> usize {
        locked(&self.state).bytes
    }

    /// Waits until the link is to end, and says why.
    pub(crate) async fn ended(&self) -> End {
        self.ended.cancelled().await;
        locked(&self.state).end.unwrap_or(End::Closing)
    }

    /// Whether the link is to end, and why.
    pub(crate) fn end_reason(&self) -> Option<End> {
        locked(&self.state).end
    }

    /// What [`LinkError`] stands for `end`.
    pub(crate) fn error(&self, end: End) -> LinkError {
        match end {
            End::Closing => LinkError::ClosedHere,
            End::Full => LinkError::QueueFull { max: self.bytes_max },
            End::Replaced => LinkError::Replaced,
        }
    }

    /// Waits for frames and takes all there are. False when there are none and none will come.
    pub(crate) async fn take(&self, batch: &mut VecDeque<Bytes>) -> bool {
        loop {
            let due = {
                let state = locked(&self.state);
                if state.end.is_some() || state.urgent {
                    break;
                }
                state.due
            };
            match due {
                None => self.filled.notified().await,
                Some(due) => {
                    if tokio::time::timeout_at(due, self.filled.notified()).await.is_err() {
                        break;
                    }
                }
            }
        }
        self.try_take(batch)
    }

    /// Takes all frames there are; false when there are none.
    pub(crate) fn try_take(&self, batch: &mut VecDeque<Bytes>) -> bool {
        let mut state = locked(&self.state);
        std::mem::swap(batch, &mut state.frames);
        state.urgent = false;
        state.due = None;
        !batch.is_empty()
    }

    /// Frames taken count until they are written.
    pub(crate) fn written(&self, frame: &Bytes) {
        let mut state = locked(&self.state);
        state.bytes = state.bytes.saturating_sub(frame.len() + FRAME_OVERHEAD_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: usize) -> Bytes {
        Bytes::from(vec![0; bytes])
    }

    #[tokio::test]
    async fn the_bound_counts_what_is_taken_and_not_yet_written() {
        let queue = Queue::new(2 * (100 + FRAME_OVERHEAD_BYTES));
        assert!(queue.push(frame(100)) && queue.push(frame(100)));
        let mut batch = VecDeque::new();
        assert!(queue.take(&mut batch).await);
        assert_eq!(batch.len(), 2);
        queue.written(&batch[0]);
        assert!(queue.push(frame(100)));
        assert!(!queue.push(frame(0)));
        assert_eq!(queue.ended().await, End::Full);
        assert!(!queue.push(frame(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn relaxed_frames_travel_with_the_next_urgent_one_or_after_a_while() {
        let queue = Queue::new(1 << 20);
        let mut batch = VecDeque::new();
        let started = tokio::time::Instant::now();
        let patience = Duration::from_millis(50);
        let relaxed = |bytes| queue.push_relaxed(frame(bytes), patience);
        assert!(relaxed(1) && relaxed(2) && queue.push(frame(3)));
        assert!(queue.take(&mut batch).await);
        assert_eq!(batch.iter().map(Bytes::len).collect::<Vec<_>>(), [1, 2, 3], "in order, at once");
        assert_eq!(started.elapsed(), Duration::ZERO);
        batch.clear();
        assert!(relaxed(1));
        assert!(queue.take(&mut batch).await);
        assert_eq!(started.elapsed(), patience, "alone, by virtual time");
        batch.clear();
        assert!(relaxed(RELAXED_BYTES));
        assert!(queue.take(&mut batch).await);
        assert_eq!(started.elapsed(), patience, "enough for a write of its own");
        batch.drain(..).for_each(|frame| queue.written(&frame));
        assert!(relaxed(1) && queue.push_relaxed(frame(2), patience / 10));
        assert!(queue.take(&mut batch).await);
        assert_eq!(started.elapsed(), patience + patience / 10, "the least patient takes the others along");
    }

    #[tokio::test]
    async fn closing_hands_out_what_was_queued() {
        let queue = Queue::new(1000);
        assert!(queue.push(frame(1)));
        queue.end(End::Closing);
        assert!(!queue.push(frame(1)));
        let mut batch = VecDeque::new();
        assert!(queue.take(&mut batch).await);
        batch.clear();
        assert!(!queue.take(&mut batch).await);
    }
}
