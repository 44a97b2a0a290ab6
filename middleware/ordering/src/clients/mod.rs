//! Clients: who may ask, and which of their requests were executed. Functions of the decided order alone, and part of every
//! checkpoint.

mod config;
mod registration;
mod registry;
mod sessions;

pub use config::RegistryConfig;
pub use registration::{Account, FIRST_JOINED_CLIENT, Join, JoinRefusal, Registered, Registration, Step};
pub(crate) use registry::{Registry, Rules};
pub(crate) use sessions::Sessions;

use crate::{Request, RequestKey};
use borsh::{BorshDeserialize, BorshSerialize};
use std::sync::Arc;
use steeldb_types::{ClientId, Digest, Timestamp};
use steeldb_wire::auth::PublicKey;

/// The clients, as the order up to some instance made them.
#[derive(Clone, BorshSerialize, BorshDeserialize)]
pub(crate) struct Clients {
    pub(crate) sessions: Sessions,
    /// Those that joined; nothing where the configuration lists all there are.
    registry: Option<Registry>,
}

/// The place in the order that a request is executed at.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// The agreed time of its batch.
    pub(crate) now: Timestamp,
    /// The chained digest of all decided values, its batch's included.
    pub(crate) history: Digest,
}

/// What became of a decided request.
pub(crate) enum Execution {
    /// The application executes it.
    Executed,
    /// It was executed before, or its client is none.
    Void,
    /// It was a registration; some clients went by it.
    Registered(Registered, Vec<ClientId>),
}

impl Clients {
    pub(crate) fn new(sessions_remembered_max: usize, registry: Option<&RegistryConfig>) -> Clients {
        let joined_max = registry.map_or(1, |registry| registry.sessions_per_client_max);
        Clients {
            sessions: Sessions::new(sessions_remembered_max, joined_max),
            registry: registry.map(Registry::new),
        }
    }

    /// Whether the request must not be executed, whatever comes: it was, or its client is none.
    pub(crate) fn is_void(&self, key: &RequestKey) -> bool {
        self.is_stranger(key) || self.sessions.is_stale(key)
    }

    /// Whether the request is of somebody who is not joined: who is to leave, or for whom no join waits, among them.
    pub(crate) fn is_stranger(&self, key: &RequestKey) -> bool {
        self.registry.as_ref().is_some_and(|registry| registry.is_stranger(key))
    }

    /// Whether the request says that it is of a joined client, and is not.
    pub(crate) fn is_impostor(&self, request: &Request) -> bool {
        let Request::Joined { id, key, .. } = request else { return false };
        self.number_of(key) != Some(id.session.client)
    }

    /// Which of a batch's requests [`execute`](Self::execute) would let pass. Nothing where that is not worth foreseeing.
    pub(crate) fn preview(&self, requests: &[Arc<Request>]) -> Option<Vec<Arc<Request>>> {
        if requests.iter().any(|request| request.is_registration()) {
            return None;
        }
        let of_clients = requests.iter().filter(|request| !self.is_impostor(request)).cloned();
        self.sessions.preview(&of_clients.collect::<Vec<_>>())
    }

    /// Takes note that a decided request is executed now, and says what became of it.
    pub(crate) fn execute(&mut self, request: &Request, place: Place, rules: Rules) -> Execution {
        match request {
            Request::Registration { registration, key, .. } => {
                let Some(registry) = &mut self.registry else { return Execution::Void };
                let registered = registry.execute(registration, key, place, rules);
                let gone = registry.take_gone();
                for client in &gone {
                    self.sessions.forget(*client);
                }
                return Execution::Registered(registered, gone);
            }
            Request::Joined { .. } if self.is_impostor(request) && !rules.rights_last => {
                return Execution::Void;
            }
            _ => {}
        }
        if !self.sessions.execute(request) {
            return Execution::Void;
        }
        if let (Request::Joined { id, .. }, Some(registry)) = (request, &mut self.registry) {
            registry.note_use(id.session.client, place.now);
        }
        Execution::Executed
    }

    /// The number of the client that joined with `key`.
    fn number_of(&self, key: &PublicKey) -> Option<ClientId> {
        self.registry.as_ref()?.number_of(key)
    }

    /// The clients that are joined, ascending.
    pub(crate) fn joined(&self) -> impl Iterator<Item = (ClientId, PublicKey)> + '_ {
        self.registry.iter().flat_map(Registry::joined)
    }
}
