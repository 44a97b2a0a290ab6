//! Clients: each session asks for one thing after the other, and asks again until enough replicas answered.

use crate::scenario::Scenario;
use std::collections::BTreeMap;
use std::sync::Arc;
use steeldb_ordering::{Request, RequestId, RequestKey, Roster, Validator};
use steeldb_types::{ClientId, Digest, SessionId, SessionKey};
use steeldb_wire::auth::{PublicKey, SecretKey};

/// The client whose requests the application refuses.
const REFUSED_CLIENT: ClientId = ClientId(9);

/// What the application accepts.
pub(crate) struct Application;

impl Validator for Application {
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

/// Requests of which one is asked for at a time.
pub(crate) struct Lane {
    pub(crate) requests: Vec<Arc<Request>>,
    pub(crate) next: usize,
}

impl Workload {
    pub(crate) fn new(scenario: &Scenario) -> Workload {
        let clients = [ClientId(1), ClientId(2), REFUSED_CLIENT];
        let key = |client: ClientId| SecretKey::from_seed(&[100 + client.0 as u8; 32]);
        let sessions = (0..scenario.sessions).map(|index| {
            let client = clients[index as usize % 2];
            let session = SessionKey { client, session: SessionId(u64::from(index) + 1) };
            let requests = (1..=scenario.requests_per_session).map(|sequence| {
                let payload = format!("{session} {sequence}").into_bytes();
                Arc::new(Request::signed(RequestId { session, sequence }, payload, &key(client)))
            });
            Lane { requests: requests.collect(), next: 0 }
        });
        let certified = (0..scenario.certified).map(|index| {
            let payload = format!("certified {index}").into_bytes();
            let key = Digest::of("simulation", &[&payload]);
            Lane { requests: vec![Arc::new(Request::Certified { key, payload })], next: 0 }
        });
        let session = SessionKey { client: REFUSED_CLIENT, session: SessionId(1) };
        let id = RequestId { session, sequence: 1 };
        Workload {
            lanes: sessions.chain(certified).collect(),
            client_keys: clients.iter().map(|client| (*client, key(*client).public())).collect(),
            refused: Arc::new(Request::signed(id, b"refuse me".to_vec(), &key(REFUSED_CLIENT))),
        }
    }

    pub(crate) fn all(&self) -> BTreeMap<RequestKey, Request> {
        let requests = self.lanes.iter().flat_map(|lane| &lane.requests).chain([&self.refused]);
        requests.map(|request| (request.key(), (**request).clone())).collect()
    }
}

impl Lane {
    pub(crate) fn current(&self) -> Option<&Arc<Request>> {
        self.requests.get(self.next)
    }
}
