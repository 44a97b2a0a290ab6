//! Clients. A correct one asks for one thing after the other in each session, and asks again until it has enough equal
//! answers. Faulty ones ask as they like.

use crate::application::Reply;
use crate::scenario::{ClientFault, Scenario};
use std::collections::BTreeMap;
use std::sync::Arc;
use steeldb_ordering::{Request, RequestId, RequestKey, Roster, Validator};
use steeldb_types::{ClientId, Digest, ReplicaId, SessionId, SessionKey};
use steeldb_wire::auth::{PublicKey, SecretKey};

/// The clients that do what they should.
const CORRECT_CLIENTS: [ClientId; 2] = [ClientId(1), ClientId(2)];
/// The first of those that do not.
const FAULTY_CLIENT: u32 = 3;
/// The client whose requests the application refuses.
const REFUSED_CLIENT: ClientId = ClientId(9);
/// How many requests a flooding client signs: more than may wait.
const FLOOD: u64 = 64;

/// What the application accepts.
pub(crate) struct Judge;

impl Validator for Judge {
    fn check(&self, request: &Request, _roster: &Roster) -> Result<(), String> {
        if request.payload().starts_with(b"refuse") { Err("refused".into()) } else { Ok(()) }
    }
}

/// All requests of a run, and how far each session is.
pub(crate) struct Workload {
    pub(crate) lanes: Vec<Lane>,
    pub(crate) client_keys: BTreeMap<ClientId, PublicKey>,
    /// Properly signed, and refused by the application: for a faulty leader to propose.
    pub(crate) refused: Arc<Request>,
}

/// Requests of one session.
pub(crate) struct Lane {
    /// What is wrong with its client.
    pub(crate) fault: Option<ClientFault>,
    pub(crate) requests: Vec<Arc<Request>>,
    /// The one a correct client asks for now.
    pub(crate) next: usize,
    /// The answers to it, by replica.
    pub(crate) replies: BTreeMap<ReplicaId, Reply>,
}

impl Workload {
    pub(crate) fn new(scenario: &Scenario) -> Workload {
        let clients = &scenario.clients;
        let correct = (0..clients.sessions).map(|index| {
            let client = CORRECT_CLIENTS[index as usize % CORRECT_CLIENTS.len()];
            let session = SessionKey { client, session: SessionId(u64::from(index) + 1) };
            let requests = (1..=clients.requests_per_session)
                .map(|sequence| signed(session, sequence, &format!("{session} {sequence}")));
            Lane::new(None, requests.collect())
        });
        let certified = (0..clients.certified).map(|index| {
            let payload = format!("certified {index}").into_bytes();
            let key = Digest::of("simulation", &[&payload]);
            Lane::new(None, vec![Arc::new(Request::Certified { key, payload })])
        });
        let faulty = clients.faulty.iter().zip(FAULTY_CLIENT..).map(|(fault, client)| {
            let session = SessionKey { client: ClientId(client), session: SessionId(1) };
            Lane::new(Some(*fault), faulty_requests(*fault, session))
        });
        let refused = SessionKey { client: REFUSED_CLIENT, session: SessionId(1) };
        let faulty_clients = (FAULTY_CLIENT..).take(clients.faulty.len()).map(ClientId);
        let known = CORRECT_CLIENTS.into_iter().chain(faulty_clients).chain([REFUSED_CLIENT]);
        Workload {
            lanes: correct.chain(certified).chain(faulty).collect(),
            client_keys: known.map(|client| (client, key(client).public())).collect(),
            refused: signed(refused, 1, "refuse me"),
        }
    }

    /// Everything that clients signed, and what the application asks for.
    pub(crate) fn signed(&self) -> BTreeMap<RequestKey, Vec<Request>> {
        let mut signed: BTreeMap<RequestKey, Vec<Request>> = BTreeMap::new();
        let lanes = self.lanes.iter().filter(|lane| lane.fault != Some(ClientFault::WrongSignature));
        for request in lanes.flat_map(|lane| &lane.requests).chain([&self.refused]) {
            signed.entry(request.key()).or_default().push((**request).clone());
        }
        signed
    }

    /// What correct clients ask for.
    pub(crate) fn wanted(&self) -> Vec<RequestKey> {
        let lanes = self.lanes.iter().filter(|lane| lane.fault.is_none());
        lanes.flat_map(|lane| &lane.requests).map(|request| request.key()).collect()
    }

    /// Whether every correct client has all its answers.
    pub(crate) fn is_done(&self) -> bool {
        self.lanes.iter().all(|lane| lane.fault.is_some() || lane.current().is_none())
    }
}

fn key(client: ClientId) -> SecretKey {
    SecretKey::from_seed(&[100 + client.0 as u8; 32])
}

fn signed(session: SessionKey, sequence: u64, payload: &str) -> Arc<Request> {
    let id = RequestId { session, sequence };
    Arc::new(Request::signed(id, payload.as_bytes().to_vec(), &key(session.client)))
}

fn faulty_requests(fault: ClientFault, session: SessionKey) -> Vec<Arc<Request>> {
    match fault {
        ClientFault::SomeReplicasOnly => (1..=3).map(|i| signed(session, i, &format!("shy {i}"))).collect(),
        // Both under one sequence, then both under the next.
        ClientFault::TwoFaced => (2..=5u64).map(|i| signed(session, i / 2, &format!("face {i}"))).collect(),
        ClientFault::Flood => (1..=FLOOD).map(|i| signed(session, i, &format!("flood {i}"))).collect(),
        ClientFault::WrongSignature => {
            let wrong = |sequence| {
                let id = RequestId { session, sequence };
                // Signed, but by another client.
                Arc::new(Request::signed(id, b"wrong".to_vec(), &key(REFUSED_CLIENT)))
            };
            (1..=3).map(wrong).collect()
        }
    }
}

impl Lane {
    fn new(fault: Option<ClientFault>, requests: Vec<Arc<Request>>) -> Lane {
        Lane { fault, requests, next: 0, replies: BTreeMap::new() }
    }

    pub(crate) fn current(&self) -> Option<&Arc<Request>> {
        self.requests.get(self.next)
    }

    /// Takes in an answer; what `needed` replicas say alike is acknowledged.
    pub(crate) fn reply(&mut self, from: ReplicaId, reply: Reply, needed: usize) -> Option<Reply> {
        self.replies.insert(from, reply);
        if self.replies.values().filter(|other| **other == reply).count() < needed {
            return None;
        }
        self.next += 1;
        self.replies.clear();
        Some(reply)
    }
}
