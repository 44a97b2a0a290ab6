//! The last reply of each session, for requests that come again. A function of the decided order alone, and part of
//! every checkpoint.
//!
//! Invariants: `by_use` holds one entry per session; sessions and bytes are within their bounds.

use crate::message::Reply;
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
    reply: Reply,
}

impl Cached {
    fn bytes(&self) -> usize {
        const OVERHEAD_BYTES: usize = 32;
        self.reply.result.len() + OVERHEAD_BYTES
    }
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
    pub(crate) fn get(&self, id: RequestId) -> Option<&Reply> {
        let cached = self.sessions.get(&id.session).filter(|cached| cached.sequence == id.sequence);
        cached.map(|cached| &cached.reply)
    }

    /// All of them, the one that was given longest ago first: put again in this order, they make the same cache.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (RequestId, &Reply)> {
        self.by_use.values().filter_map(|session| {
            let cached = self.sessions.get(session)?;
            Some((RequestId { session: *session, sequence: cached.sequence }, &cached.reply))
        })
    }

    pub(crate) fn put(&mut self, id: RequestId, reply: Reply) {
        self.uses += 1;
        let cached = Cached { sequence: id.sequence, used: self.uses, reply };
        self.bytes += cached.bytes();
        self.by_use.insert(self.uses, id.session);
        if let Some(older) = self.sessions.insert(id.session, cached) {
            self.by_use.remove(&older.used);
            self.bytes -= older.bytes();
        }
        while self.sessions.len() > self.sessions_max || self.bytes > self.bytes_max {
            let Some((_, session)) = self.by_use.pop_first() else { return };
            if let Some(forgotten) = self.sessions.remove(&session) {
                self.bytes -= forgotten.bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeldb_types::{ClientId, Position, SessionId};

    fn id(session: u64, sequence: u64) -> RequestId {
        RequestId { session: SessionKey { client: ClientId(1), session: SessionId(session) }, sequence }
    }

    fn reply(result: &str) -> Reply {
        Reply { position: Position(1), result: result.into() }
    }

    #[test]
    fn the_last_reply_of_a_session_is_kept_and_the_longest_unused_session_is_forgotten() {
        let mut replies = Replies::new(2, 1000);
        replies.put(id(1, 1), reply("a"));
        replies.put(id(2, 1), reply("b"));
        replies.put(id(1, 2), reply("c"));
        assert_eq!(replies.get(id(1, 2)), Some(&reply("c")));
        assert_eq!(replies.get(id(1, 1)), None);
        let order: Vec<RequestId> = replies.iter().map(|(id, _)| id).collect();
        assert_eq!(order, [id(2, 1), id(1, 2)]);
        replies.put(id(3, 1), reply("d"));
        assert_eq!(replies.get(id(2, 1)), None);
        assert!(replies.get(id(1, 2)).is_some());
    }

    #[test]
    fn bytes_are_bounded() {
        let mut replies = Replies::new(100, 80);
        for session in 0..20 {
            replies.put(id(session, 1), reply("four"));
        }
        assert_eq!((replies.sessions.len(), replies.by_use.len(), replies.bytes), (2, 2, 72));
    }
}
