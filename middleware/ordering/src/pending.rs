//! Requests waiting to be ordered: clients are served in turn, and each client's sessions; each request has its timer.
//!
//! Every request in here was found valid when it came in, so the set doubles as the memory of what was verified.
//! Invariants: `timers` holds one entry per request; `turns` one per queue; no queue is empty;
//! `lines` counts each party's requests, `overdue` those that timed out twice.

use crate::clients::{Clients, Step};
use crate::window::InFlight;
use crate::{Request, RequestKey};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use steeldb_types::{ClientId, Digest, SessionId, SessionKey};
use steeldb_wire::auth::PublicKey;

/// Time-outs after which a request is overdue.
const OVERDUE: u32 = 2;

/// A queue's owner. Each certified request is a queue of its own: it stands for one transaction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Session(SessionKey),
    Certified(Digest),
    Membership(Digest),
    Registration(PublicKey, Step),
}

/// Whose turns and bounds an owner shares.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Party {
    Client(ClientId),
    /// All who join and leave: together they take no more turns than one client.
    Registrants,
}

impl Owner {
    fn party(self) -> Option<Party> {
        match self {
            Owner::Session(session) => Some(Party::Client(session.client)),
            Owner::Registration(..) => Some(Party::Registrants),
            Owner::Certified(_) | Owner::Membership(_) => None,
        }
    }
}

#[derive(Default)]
pub(crate) struct Pending {
    queues: BTreeMap<Owner, Queue>,
    turns: BTreeMap<u64, Owner>,
    lines: BTreeMap<Party, Line>,
    timers: BTreeSet<(u64, RequestKey)>,
    next_turn: u64,
    all: Load,
    /// Those that timed out twice.
    overdue: usize,
}

/// How much waits.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Load {
    pub(crate) requests: usize,
    /// As [`Request::size_bytes`] counts them.
    pub(crate) bytes: usize,
}

impl Load {
    fn add(&mut self, bytes: usize) {
        self.requests += 1;
        self.bytes += bytes;
    }

    fn take(&mut self, bytes: usize) {
        self.requests -= 1;
        self.bytes -= bytes;
    }
}

/// A party, with all its queues.
struct Line {
    turn: u64,
    waiting: Load,
}

struct Queue {
    turn: u64,
    /// By sequence; a certified request has sequence 0.
    waiting: BTreeMap<u64, Waiting>,
}

struct Waiting {
    request: Arc<Request>,
    digest: Digest,
    /// When it came.
    since: u64,
    deadline: u64,
    /// Time-outs so far.
    timeouts: u32,
}

/// Requests whose timers ran out.
#[derive(Default)]
pub(crate) struct Expired {
    /// For the first time: to be forwarded.
    pub(crate) first: Vec<Arc<Request>>,
    /// Whether any did again: the leader is to be suspected.
    pub(crate) again: bool,
}

fn address(key: &RequestKey) -> (Owner, u64) {
    match key {
        RequestKey::Client(id) => (Owner::Session(id.session), id.sequence),
        RequestKey::Certified(digest) => (Owner::Certified(*digest), 0),
        RequestKey::Membership(digest) => (Owner::Membership(*digest), 0),
        RequestKey::Registration(key, step) => (Owner::Registration(*key, *step), 0),
    }
}

impl Pending {
    pub(crate) fn len(&self) -> usize {
        self.all.requests
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.requests == 0
    }

    pub(crate) fn load(&self) -> Load {
        self.all
    }

    pub(crate) fn load_of(&self, client: ClientId) -> Load {
        self.load_of_party(Party::Client(client))
    }

    /// Of all who join and leave.
    pub(crate) fn load_of_registrants(&self) -> Load {
        self.load_of_party(Party::Registrants)
    }

    fn load_of_party(&self, party: Party) -> Load {
        self.lines.get(&party).map(|line| line.waiting).unwrap_or_default()
    }

    /// Whether any timed out twice: its leader is to be suspected, as long as that lasts.
    pub(crate) fn has_overdue(&self) -> bool {
        self.overdue > 0
    }

    /// The digest of the request waiting under `key`.
    pub(crate) fn digest(&self, key: &RequestKey) -> Option<Digest> {
        let (owner, sequence) = address(key);
        Some(self.queues.get(&owner)?.waiting.get(&sequence)?.digest)
    }

    /// Adds a valid request unless one with its key waits already.
    pub(crate) fn insert(&mut self, request: Arc<Request>, digest: Digest, since: u64, deadline: u64) {
        let key = request.key();
        let (owner, sequence) = address(&key);
        let next_turn = &mut self.next_turn;
        let turns = &mut self.turns;
        let queue = self.queues.entry(owner).or_insert_with(|| {
            *next_turn += 1;
            turns.insert(*next_turn, owner);
            Queue { turn: *next_turn, waiting: BTreeMap::new() }
        });
        if queue.waiting.contains_key(&sequence) {
            return;
        }
        let bytes = request.size_bytes();
        queue.waiting.insert(sequence, Waiting { request, digest, since, deadline, timeouts: 0 });
        self.timers.insert((deadline, key));
        self.all.add(bytes);
        if let Some(party) = owner.party() {
            let next_turn = &mut self.next_turn;
            let line = self.lines.entry(party).or_insert_with(|| {
                *next_turn += 1;
                Line { turn: *next_turn, waiting: Load::default() }
            });
            line.waiting.add(bytes);
        }
    }

    /// Forgets what a decided request makes superfluous: itself, and all that its session sent before it. Says since when
    /// it waited, if it did.
    pub(crate) fn settle(&mut self, key: &RequestKey) -> Option<u64> {
        let (owner, sequence) = address(key);
        let queue = self.queues.get_mut(&owner)?;
        let kept = queue.waiting.split_off(&sequence.saturating_add(1));
        let settled = std::mem::replace(&mut queue.waiting, kept);
        // A queue that was served goes to the back.
        self.turns.remove(&queue.turn);
        if queue.waiting.is_empty() {
            self.queues.remove(&owner);
        } else {
            self.next_turn += 1;
            queue.turn = self.next_turn;
            self.turns.insert(queue.turn, owner);
        }
        let since = settled.get(&sequence).map(|waiting| waiting.since);
        for waiting in settled.into_values() {
            self.drop_waiting(owner, &waiting);
        }
        // So does a party.
        if let Some(line) = owner.party().and_then(|party| self.lines.get_mut(&party)) {
            self.next_turn += 1;
            line.turn = self.next_turn;
        }
        since
    }

    /// Forgets one request.
    fn forget(&mut self, key: &RequestKey) {
        let (owner, sequence) = address(key);
        let Some(queue) = self.queues.get_mut(&owner) else { return };
        let Some(waiting) = queue.waiting.remove(&sequence) else { return };
        if queue.waiting.is_empty() {
            self.turns.remove(&queue.turn);
            self.queues.remove(&owner);
        }
        self.drop_waiting(owner, &waiting);
    }

    /// Takes what left its queue out of the counts.
    fn drop_waiting(&mut self, owner: Owner, waiting: &Waiting) {
        self.timers.remove(&(waiting.deadline, waiting.request.key()));
        let bytes = waiting.request.size_bytes();
        self.all.take(bytes);
        self.overdue -= usize::from(waiting.timeouts >= OVERDUE);
        if let Some(party) = owner.party()
            && let Some(line) = self.lines.get_mut(&party)
        {
            line.waiting.take(bytes);
            if line.waiting.requests == 0 {
                self.lines.remove(&party);
            }
        }
    }

    /// A batch: one request of each client in turn, then the second of each, and so on; a client's are of its sessions in
    /// turn. Certified requests have turns of their own. Nothing is taken out before it is decided.
    pub(crate) fn batch(
        &mut self,
        clients: &Clients,
        in_flight: &InFlight,
        requests_max: usize,
        bytes_max: usize,
    ) -> Vec<Arc<Request>> {
        loop {
            let (batch, stale) = self.pick(clients, in_flight, requests_max, bytes_max);
            let again = batch.is_empty() && !stale.is_empty();
            for key in stale {
                self.settle(&key);
            }
            if !again {
                return batch;
            }
        }
    }

    fn pick(
        &self,
        clients: &Clients,
        in_flight: &InFlight,
        requests_max: usize,
        bytes_max: usize,
    ) -> (Vec<Arc<Request>>, Vec<RequestKey>) {
        let (mut batch, mut stale, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut parties: BTreeMap<u64, VecDeque<_>> = BTreeMap::new();
        for owner in self.turns.values() {
            let Some(queue) = self.queues.get(owner) else { continue };
            let line = owner.party().and_then(|party| self.lines.get(&party));
            let turn = line.map_or(queue.turn, |line| line.turn);
            parties.entry(turn).or_default().push_back(queue.waiting.values());
        }
        let mut parties: VecDeque<_> = parties.into_values().collect();
        while let Some(mut party) = parties.pop_front() {
            let Some(mut queue) = party.pop_front() else { continue };
            let Some(waiting) = queue.next() else {
                parties.push_front(party);
                continue;
            };
            party.push_back(queue);
            let key = waiting.request.key();
            let stale_now = clients.is_void(&key);
            if stale_now || in_flight.supersedes(&key) {
                // It costs its client no turn.
                stale.extend(stale_now.then_some(key));
                parties.push_front(party);
                continue;
            }
            bytes += waiting.request.size_bytes();
            if batch.len() == requests_max || bytes > bytes_max {
                break;
            }
            batch.push(Arc::clone(&waiting.request));
            parties.push_back(party);
        }
        (batch, stale)
    }

    /// When the next timer runs out.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.timers.first().map(|(deadline, _)| *deadline)
    }

    /// Takes the timers that ran out and starts them anew.
    pub(crate) fn expire(&mut self, now: u64, timeout: u64, clients: &Clients) -> Expired {
        let mut expired = Expired::default();
        while let Some((deadline, key)) = self.timers.first().copied() {
            if deadline > now {
                break;
            }
            self.timers.pop_first();
            if clients.is_void(&key) {
                // Its session was forgotten, or its client is none any more.
                self.settle(&key);
                continue;
            }
            let (owner, sequence) = address(&key);
            let Some(waiting) =
                self.queues.get_mut(&owner).and_then(|queue| queue.waiting.get_mut(&sequence))
            else {
                continue;
            };
            match waiting.timeouts {
                0 => expired.first.push(Arc::clone(&waiting.request)),
                _ => expired.again = true,
            }
            waiting.timeouts = waiting.timeouts.saturating_add(1);
            self.overdue += usize::from(waiting.timeouts == OVERDUE);
            waiting.deadline = now.saturating_add(timeout.max(1));
            self.timers.insert((waiting.deadline, key));
        }
        expired
    }

    /// Forgets the requests of a client that is none any more, and says which.
    pub(crate) fn drop_client(&mut self, client: ClientId) -> Vec<RequestKey> {
        let session = |session| Owner::Session(SessionKey { client, session: SessionId(session) });
        let queues = self.queues.range(session(0)..=session(u64::MAX));
        let waiting = queues.flat_map(|(_, queue)| queue.waiting.values());
        let gone: Vec<RequestKey> = waiting.map(|waiting| waiting.request.key()).collect();
        for key in &gone {
            self.forget(key);
        }
        gone
    }

    /// Forgets the requests that `keep` does not want: the view they were found valid in is over.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Request) -> bool) {
        let waiting = self.queues.values().flat_map(|queue| queue.waiting.values());
        let gone: Vec<RequestKey> =
            waiting.filter(|waiting| !keep(&waiting.request)).map(|waiting| waiting.request.key()).collect();
        for key in gone {
            self.forget(&key);
        }
    }

    /// Starts every timer anew, under a new leader.
    pub(crate) fn restart_timers(&mut self, deadline: u64) {
        self.timers.clear();
        self.overdue = 0;
        for queue in self.queues.values_mut() {
            for waiting in queue.waiting.values_mut() {
                waiting.deadline = deadline;
                waiting.timeouts = 0;
                self.timers.insert((deadline, waiting.request.key()));
            }
        }
    }

    /// Requests that wait the longest, at most so many and so large.
    pub(crate) fn oldest(&self, requests_max: usize, bytes_max: usize) -> Vec<Arc<Request>> {
        let mut bytes = 0;
        self.timers
            .iter()
            .filter_map(|(_, key)| {
                let (owner, sequence) = address(key);
                self.queues.get(&owner)?.waiting.get(&sequence)
            })
            .filter(|waiting| waiting.timeouts > 0)
            .map(|waiting| Arc::clone(&waiting.request))
            .take(requests_max)
            .take_while(|request| {
                bytes += request.size_bytes();
                bytes <= bytes_max
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RequestId;
    use steeldb_wire::auth::{SecretKey, Signature};

    fn request(client: u32, session: u64, sequence: u64) -> Arc<Request> {
        let session = SessionKey { client: ClientId(client), session: SessionId(session) };
        let id = RequestId { session, sequence };
        Arc::new(Request::Client { id, payload: vec![0; 100], signature: Signature([0; 64]) })
    }

    fn insert(pending: &mut Pending, request: &Arc<Request>) {
        pending.insert(Arc::clone(request), request.digest(), 0, 10);
    }

    #[test]
    fn a_greedy_session_does_not_keep_others_out_of_a_batch() {
        let mut pending = Pending::default();
        for sequence in 1..=100 {
            insert(&mut pending, &request(1, 1, sequence));
        }
        insert(&mut pending, &request(2, 1, 1));
        let batch = pending.batch(&Clients::new(8, None), &InFlight::default(), 4, 1 << 20);
        let expected = [request(1, 1, 1), request(2, 1, 1), request(1, 1, 2), request(1, 1, 3)];
        assert_eq!(batch, expected);
    }

    #[test]
    fn a_served_session_goes_to_the_back() {
        let mut pending = Pending::default();
        for session in 1..=3 {
            for sequence in 1..=2 {
                insert(&mut pending, &request(1, session, sequence));
            }
        }
        let sessions = Clients::new(8, None);
        assert_eq!(pending.batch(&sessions, &InFlight::default(), 1, 1 << 20), [request(1, 1, 1)]);
        pending.settle(&request(1, 1, 1).key());
        assert_eq!(
            pending.batch(&sessions, &InFlight::default(), 3, 1 << 20),
            [request(1, 2, 1), request(1, 3, 1), request(1, 1, 2)]
        );
    }

    #[test]
    fn a_batch_ends_at_its_bytes() {
        let mut pending = Pending::default();
        for sequence in 1..=10 {
            insert(&mut pending, &request(1, 1, sequence));
        }
        let size = request(1, 1, 1).size_bytes();
        assert_eq!(pending.batch(&Clients::new(8, None), &InFlight::default(), 100, 3 * size).len(), 3);
    }

    #[test]
    fn settling_takes_along_what_came_before_and_leaves_nothing_behind() {
        let mut pending = Pending::default();
        for sequence in 1..=5 {
            insert(&mut pending, &request(1, 1, sequence));
        }
        pending.settle(&request(1, 1, 3).key());
        let load = Load { requests: 2, bytes: 2 * request(1, 1, 4).size_bytes() };
        assert_eq!((pending.load(), pending.load_of(ClientId(1))), (load, load));
        pending.settle(&request(1, 1, 5).key());
        assert!(pending.is_empty() && pending.queues.is_empty() && pending.turns.is_empty());
        assert!(pending.timers.is_empty() && pending.lines.is_empty());
        assert_eq!(pending.load(), Load::default());
    }

    #[test]
    fn a_client_with_many_sessions_has_no_more_turns_than_one_with_one() {
        let mut pending = Pending::default();
        for session in 1..=50 {
            insert(&mut pending, &request(1, session, 1));
        }
        for sequence in 1..=3 {
            insert(&mut pending, &request(2, 1, sequence));
        }
        let batch = pending.batch(&Clients::new(64, None), &InFlight::default(), 6, 1 << 20);
        let clients: Vec<ClientId> = batch.iter().filter_map(|r| Some(r.key().session()?.client)).collect();
        assert_eq!(clients, [1, 2, 1, 2, 1, 2].map(ClientId));
        // Where there is room for one only, whoever was served waits for the other.
        let first = pending.batch(&Clients::new(64, None), &InFlight::default(), 1, 1 << 20);
        assert_eq!(first, [request(1, 1, 1)]);
        pending.settle(&first[0].key());
        let second = pending.batch(&Clients::new(64, None), &InFlight::default(), 1, 1 << 20);
        assert_eq!(second, [request(2, 1, 1)]);
    }

    #[test]
    fn all_who_join_have_no_more_turns_than_one_client() {
        let mut pending = Pending::default();
        for seed in 0..20 {
            let leave = crate::Registration::Leave { client: ClientId(seed.into()) };
            insert(&mut pending, &Arc::new(leave.signed(&SecretKey::from_seed(&[seed; 32]))));
        }
        for sequence in 1..=3 {
            insert(&mut pending, &request(2, 1, sequence));
        }
        assert_eq!(pending.load_of_registrants().requests, 20);
        let batch = pending.batch(&Clients::new(8, None), &InFlight::default(), 6, 1 << 20);
        assert_eq!(batch.iter().filter(|request| request.is_registration()).count(), 3);
        for request in &batch {
            pending.settle(&request.key());
        }
        assert_eq!(pending.load_of_registrants().requests, 17);
    }

    #[test]
    fn what_is_in_flight_is_in_no_other_batch_nor_what_came_before_it() {
        let mut pending = Pending::default();
        for sequence in 1..=3 {
            insert(&mut pending, &request(1, 1, sequence));
        }
        let requests = vec![request(1, 1, 2)];
        let instance = crate::InstanceNumber(1);
        let proposal =
            Arc::new(crate::Proposal { instance, timestamp: steeldb_types::Timestamp(1), requests });
        let batch = pending.batch(&Clients::new(8, None), &InFlight::new([&proposal]), 10, 1 << 20);
        assert_eq!(batch, [request(1, 1, 3)]);
    }

    #[test]
    fn a_timer_forwards_first_and_suspects_then() {
        let mut pending = Pending::default();
        let sessions = Clients::new(8, None);
        insert(&mut pending, &request(1, 1, 1));
        assert!(pending.expire(9, 10, &sessions).first.is_empty());
        assert_eq!(pending.expire(10, 10, &sessions).first.len(), 1);
        assert_eq!(pending.next_deadline(), Some(20));
        assert!(!pending.has_overdue());
        assert!(pending.expire(20, 10, &sessions).again && pending.has_overdue());
        pending.settle(&request(1, 1, 1).key());
        assert!(!pending.has_overdue());
    }
}
