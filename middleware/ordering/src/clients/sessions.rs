//! Exactly once: which of each client's requests were executed. A function of the decided order alone.
//!
//! Invariants: at most `remembered_max` sessions per client are remembered, of one that joined `joined_max`; a session forgotten is never executed
//! again, because everything unknown up to the highest forgotten one is refused.

use super::FIRST_JOINED_CLIENT;
use crate::{Request, RequestId, RequestKey};
use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use steeldb_types::{ClientId, SessionId, SessionKey};

/// Part of every checkpoint.
#[derive(Clone, BorshSerialize, BorshDeserialize)]
pub(crate) struct Sessions {
    clients: BTreeMap<ClientId, Client>,
    remembered_max: usize,
    joined_max: usize,
    /// Counts executions, to know which session was used longest ago.
    executions: u64,
}

#[derive(Clone, Default, BorshSerialize, BorshDeserialize)]
struct Client {
    /// By session: the last executed sequence, and when (in executions).
    sessions: BTreeMap<SessionId, (u64, u64)>,
    by_use: BTreeMap<u64, SessionId>,
    /// The highest session forgotten.
    floor: Option<SessionId>,
}

impl Sessions {
    pub(crate) fn new(remembered_max: usize, joined_max: usize) -> Sessions {
        Sessions {
            clients: BTreeMap::new(),
            remembered_max: remembered_max.max(1),
            joined_max: joined_max.max(1),
            executions: 0,
        }
    }

    fn remembered_max(&self, client: ClientId) -> usize {
        if client >= FIRST_JOINED_CLIENT { self.joined_max } else { self.remembered_max }
    }

    /// Forgets a client whose number is never used again.
    pub(crate) fn forget(&mut self, client: ClientId) {
        self.clients.remove(&client);
    }

    /// Whether the request must never be executed (again).
    pub(crate) fn is_stale(&self, key: &RequestKey) -> bool {
        let RequestKey::Client(id) = key else { return false };
        let Some(client) = self.clients.get(&id.session.client) else { return id.sequence == 0 };
        match client.sessions.get(&id.session.session) {
            Some((last, _)) => id.sequence <= *last,
            None => id.sequence == 0 || client.floor.is_some_and(|floor| id.session.session <= floor),
        }
    }

    /// Whether the request, or a later one of its session, is known to have been executed. Unlike
    /// [`is_stale`](Self::is_stale), this never becomes true by forgetting.
    pub(crate) fn is_executed(&self, key: &RequestKey) -> bool {
        let RequestKey::Client(id) = key else { return false };
        let session = self.clients.get(&id.session.client).and_then(|c| c.sessions.get(&id.session.session));
        id.sequence == 0 || session.is_some_and(|(last, _)| id.sequence <= *last)
    }

    /// Whether the request is the last one executed of its session.
    pub(crate) fn is_last(&self, key: &RequestKey) -> bool {
        let RequestKey::Client(id) = key else { return false };
        let session = self.clients.get(&id.session.client).and_then(|c| c.sessions.get(&id.session.session));
        session.is_some_and(|(last, _)| id.sequence == *last)
    }

    /// Which of a batch's requests [`execute`](Self::execute) would let pass. Nothing when sessions would be forgotten on
    /// the way: that is not worth foreseeing. Nothing, too, for a change of the membership.
    pub(crate) fn preview(&self, requests: &[Arc<Request>]) -> Option<Vec<Arc<Request>>> {
        let mut last: BTreeMap<SessionKey, u64> = BTreeMap::new();
        let mut new: BTreeMap<ClientId, usize> = BTreeMap::new();
        let mut executed = Vec::with_capacity(requests.len());
        for request in requests {
            if let RequestKey::Client(id) = request.key() {
                if self.is_stale(&request.key())
                    || last.get(&id.session).is_some_and(|last| id.sequence <= *last)
                {
                    continue;
                }
                let client = self.clients.get(&id.session.client);
                let known = client.is_some_and(|client| client.sessions.contains_key(&id.session.session));
                if last.insert(id.session, id.sequence).is_none() && !known {
                    let new = new.entry(id.session.client).or_default();
                    *new += 1;
                    if client.map_or(0, |client| client.sessions.len()) + *new
                        > self.remembered_max(id.session.client)
                    {
                        return None;
                    }
                }
            } else if request.is_membership() {
                return None;
            }
            executed.push(Arc::clone(request));
        }
        Some(executed)
    }

    /// Takes note that a decided request is executed now; false when it must not be.
    pub(crate) fn execute(&mut self, request: &Request) -> bool {
        let key = request.key();
        if self.is_stale(&key) {
            return false;
        }
        if let RequestKey::Client(id) = key {
            self.remember(id);
        }
        true
    }

    fn remember(&mut self, id: RequestId) {
        self.executions += 1;
        let remembered_max = self.remembered_max(id.session.client);
        let client = self.clients.entry(id.session.client).or_default();
        let session = id.session.session;
        if let Some((_, used)) = client.sessions.insert(session, (id.sequence, self.executions)) {
            client.by_use.remove(&used);
        }
        client.by_use.insert(self.executions, session);
        while client.sessions.len() > remembered_max {
            let Some((_, forgotten)) = client.by_use.pop_first() else { break };
            client.sessions.remove(&forgotten);
            client.floor = client.floor.max(Some(forgotten));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeldb_wire::auth::Signature;

    fn request(session: u64, sequence: u64) -> Request {
        let session = SessionKey { client: ClientId(1), session: SessionId(session) };
        Request::Client {
            id: RequestId { session, sequence },
            payload: vec![],
            signature: Signature([0; 64]),
        }
    }

    #[test]
    fn each_sequence_is_executed_once_and_never_after_a_higher_one() {
        let mut sessions = Sessions::new(8, 8);
        assert!(sessions.execute(&request(1, 1)));
        assert!(!sessions.execute(&request(1, 1)));
        assert!(sessions.execute(&request(1, 5)));
        assert!(!sessions.execute(&request(1, 3)));
        assert!(sessions.execute(&request(2, 1)));
    }

    #[test]
    fn the_longest_unused_session_is_forgotten_and_its_requests_do_not_come_back() {
        let mut sessions = Sessions::new(2, 2);
        for session in [1, 2] {
            assert!(sessions.execute(&request(session, 1)));
        }
        assert!(sessions.execute(&request(1, 2)), "session 1 is now the one used last");
        assert!(sessions.execute(&request(3, 1)), "forgets session 2");
        assert!(!sessions.execute(&request(2, 1)), "a replay");
        assert!(!sessions.execute(&request(2, 9)), "whatever its sequence");
        assert!(sessions.execute(&request(1, 3)), "remembered though below the floor");
        assert!(sessions.execute(&request(4, 1)));
        assert_eq!(sessions.clients[&ClientId(1)].sessions.len(), 2);
    }

    #[test]
    fn certified_requests_are_the_applications_to_tell_apart() {
        let mut sessions = Sessions::new(2, 2);
        let request = Request::Certified { key: Default::default(), payload: vec![] };
        assert!(sessions.execute(&request) && sessions.execute(&request));
    }
}
