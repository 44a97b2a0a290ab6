//! Received frames that the node has not done with, bounded in bytes over all links: a link that has no room stops reading
//! its socket. Room is given in the order in which it was asked for, so no link keeps the others out.
//!
//! Invariant: a frame takes its room from before it is handed over until the last clone of its bytes is dropped.

use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Counted for each frame besides its bytes.
const FRAME_OVERHEAD_BYTES: usize = 64;

/// The room for received frames.
#[derive(Clone)]
pub(crate) struct Arrivals {
    room: Arc<Semaphore>,
    bytes_max: usize,
}

/// A frame's bytes with their room.
struct Held {
    frame: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.frame
    }
}

impl Arrivals {
    /// Room for `bytes_max`. A larger frame waits for all of it.
    pub(crate) fn new(bytes_max: usize) -> Arrivals {
        let bytes_max = bytes_max.clamp(1, u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        Arrivals { room: Arc::new(Semaphore::new(bytes_max)), bytes_max }
    }

    /// Waits until there is room for `frame`; nothing if there will never be any.
    pub(crate) async fn hold(&self, frame: Bytes) -> Option<Bytes> {
        let bytes = (frame.len() + FRAME_OVERHEAD_BYTES).min(self.bytes_max);
        let room = Arc::clone(&self.room).acquire_many_owned(u32::try_from(bytes).ok()?).await.ok()?;
        Some(Bytes::from_owner(Held { frame, _room: room }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[test]
    fn room_is_taken_until_the_last_clone_is_gone_and_given_in_turn() {
        let arrivals = Arrivals::new(1000);
        let frame = |bytes: usize| Bytes::from(vec![7; bytes - FRAME_OVERHEAD_BYTES]);
        let first = arrivals.hold(frame(600)).now_or_never().flatten().unwrap();
        let clone = first.slice(3..5);
        let mut large = Box::pin(arrivals.hold(frame(600)));
        assert!((&mut large).now_or_never().is_none());
        let mut small = Box::pin(arrivals.hold(frame(100)));
        assert!((&mut small).now_or_never().is_none(), "there is room for it, but it is not its turn");
        drop(first);
        assert!((&mut large).now_or_never().is_none());
        drop(clone);
        let large = large.now_or_never().flatten().unwrap();
        assert_eq!(large.len(), 600 - FRAME_OVERHEAD_BYTES);
        assert!(small.now_or_never().flatten().is_some());
        assert_eq!(arrivals.room.available_permits(), 400);
    }

    #[test]
    fn a_frame_larger_than_all_room_waits_for_all_of_it() {
        let arrivals = Arrivals::new(100);
        let held = arrivals.hold(Bytes::from(vec![0; 5000])).now_or_never().flatten().unwrap();
        assert!(arrivals.hold(Bytes::new()).now_or_never().is_none());
        drop(held);
        assert!(arrivals.hold(Bytes::new()).now_or_never().is_some());
    }
}
