//! The last reply of each session, for requests that come again.
//!
//! Invariants: `by_use` holds one entry per session; sessions and bytes are within their bounds.

use bytes::Bytes;
use std::collections::BTreeMap;
use steeldb_ordering::RequestId;
use steeldb_types::SessionKey;

pub(crate) struct Replies {
    sessions: BTreeMap<SessionKey, Cached>,
    by_use: BTreeMap<u64, SessionKey>,
    uses: u64,
    bytes: usize,
    sessions_max: usize,
    bytes_max: usize,
}

struct Cached {
    sequence: u64,
    used: u64,
    frame: Bytes,
}

impl Replies {
    pub(crate) fn new(sessions_max: usize, bytes_max: usize) -> Replies {
        Replies {
            sessions: BTreeMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            bytes: 0,
            sessions_max,
            bytes_max,
        }
    }

    /// The reply to exactly this request, if it is the session's last and still kept.
    pub(crate) fn get(&self, id: RequestId) -> Option<Bytes> {
        self.sessions
            .get(&id.session)
            .filter(|cached| cached.sequence == id.sequence)
            .map(|cached| cached.frame.clone())
    }

    pub(crate) fn put(&mut self, id: RequestId, frame: Bytes) {
        self.uses += 1;
        self.bytes += frame.len();
        let cached = Cached { sequence: id.sequence, used: self.uses, frame };
        self.by_use.insert(self.uses, id.session);
        if let Some(older) = self.sessions.insert(id.session, cached) {
            self.by_use.remove(&older.used);
            self.bytes -= older.frame.len();
        }
        while self.sessions.len() > self.sessions_max || self.bytes > self.bytes_max {
            let Some((_, session)) = self.by_use.pop_first() else { return };
            if let Some(forgotten) = self.sessions.remove(&session) {
                self.bytes -= forgotten.frame.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeldb_types::{ClientId, SessionId};

    fn id(session: u64, sequence: u64) -> RequestId {
        RequestId { session: SessionKey { client: ClientId(1), session: SessionId(session) }, sequence }
    }

    #[test]
    fn the_last_reply_of_a_session_is_kept_and_the_longest_unused_session_is_forgotten() {
        let mut replies = Replies::new(2, 1000);
        replies.put(id(1, 1), Bytes::from_static(b"a"));
        replies.put(id(2, 1), Bytes::from_static(b"b"));
        replies.put(id(1, 2), Bytes::from_static(b"c"));
        assert_eq!(replies.get(id(1, 2)).as_deref(), Some(b"c".as_slice()));
        assert_eq!(replies.get(id(1, 1)), None);
        replies.put(id(3, 1), Bytes::from_static(b"d"));
        assert_eq!(replies.get(id(2, 1)), None);
        assert!(replies.get(id(1, 2)).is_some());
    }

    #[test]
    fn bytes_are_bounded() {
        let mut replies = Replies::new(100, 10);
        for session in 0..20 {
            replies.put(id(session, 1), Bytes::from_static(b"four"));
        }
        assert_eq!((replies.sessions.len(), replies.by_use.len(), replies.bytes), (2, 2, 8));
    }
}
