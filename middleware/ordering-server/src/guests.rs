//! Clients that join and leave, as a server sees them: which keys are clients, and what was made of registrations.
//!
//! Invariants: it follows deliveries alone, so nothing that is answered from here rests on what is not durable; a connection
//! waits for one registration of each kind at most; answers kept are as many as clients can be joined or joining.

use crate::message::{Refused, ServerMessage};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use steeldb_ordering::{Registered, RegistrationOutcome, Request, RequestKey};
use steeldb_transport::ConnectionId;
use steeldb_types::{ClientId, Digest, limits};
use steeldb_wire::auth::PublicKey;

/// Whose connection it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Visitor {
    /// A client of the configuration.
    Listed(ClientId),
    /// Whoever has this key: a client if it joined.
    Guest(PublicKey),
}

#[derive(Default)]
pub(crate) struct Guests {
    joined: BTreeMap<PublicKey, ClientId>,
    keys: BTreeMap<ClientId, PublicKey>,
    /// The last answer to each key, for a registration that comes again.
    answers: BTreeMap<PublicKey, (Digest, Registered)>,
    /// The keys of `answers`, the oldest first.
    answered: VecDeque<PublicKey>,
    /// Over which connections registrations came that have no answer yet.
    waiting: BTreeMap<RequestKey, (ConnectionId, Digest)>,
}

/// A guest whose standing has changed.
pub(crate) struct Changed {
    pub(crate) key: PublicKey,
    pub(crate) joined: bool,
}

/// What to tell whom.
pub(crate) type Answer = (ConnectionId, Bytes);

const ANSWERS_MAX: usize = limits::JOINED_CLIENTS_MAX + limits::JOINS_MAX;

impl Guests {
    /// Who is joined where this server goes on.
    pub(crate) fn new(joined: impl Iterator<Item = (ClientId, PublicKey)>) -> Guests {
        let mut guests = Guests::default();
        for (client, key) in joined {
            guests.joined.insert(key, client);
            guests.keys.insert(client, key);
        }
        guests
    }

    /// The keys of joined clients.
    pub(crate) fn keys(&self) -> impl Iterator<Item = PublicKey> + '_ {
        self.joined.keys().copied()
    }

    /// Which client a visitor is.
    pub(crate) fn client(&self, visitor: Visitor) -> Option<ClientId> {
        match visitor {
            Visitor::Listed(client) => Some(client),
            Visitor::Guest(key) => self.joined.get(&key).copied(),
        }
    }

    /// A registration came over a connection; nothing when it has to be ordered.
    pub(crate) fn asked(&mut self, connection: ConnectionId, request: &Request) -> Option<Bytes> {
        let RequestKey::Registration(key, _) = request.key() else { return None };
        let digest = request.digest();
        if let Some((_, registered)) = self.answers.get(&key).filter(|(answered, _)| *answered == digest) {
            let registered = registered.clone();
            return Some(ServerMessage::Registered { request: digest, registered }.encode());
        }
        self.waiting.insert(request.key(), (connection, digest));
        None
    }

    /// A registration is delivered: who is to be told, and who is welcome now or no more.
    pub(crate) fn delivered(&mut self, outcome: &RegistrationOutcome) -> (Option<Answer>, Vec<Changed>) {
        let mut changed = Vec::new();
        for client in &outcome.gone {
            if let Some(key) = self.keys.remove(client) {
                self.joined.remove(&key);
                changed.push(Changed { key, joined: false });
            }
        }
        let request_key = outcome.request.key();
        let RequestKey::Registration(key, _) = request_key else { return (None, changed) };
        if let Registered::Joined(client) = outcome.registered {
            self.joined.insert(key, client);
            self.keys.insert(client, key);
            changed.push(Changed { key, joined: true });
        }
        let (request, registered) = (outcome.request.digest(), outcome.registered.clone());
        self.remember(key, request, registered.clone());
        let answer = self
            .waiting
            .remove(&request_key)
            .map(|(connection, _)| (connection, ServerMessage::Registered { request, registered }.encode()));
        (answer, changed)
    }

    fn remember(&mut self, key: PublicKey, request: Digest, registered: Registered) {
        if self.answers.insert(key, (request, registered)).is_none() {
            self.answered.push_back(key);
        }
        while self.answered.len() > ANSWERS_MAX {
            let Some(oldest) = self.answered.pop_front() else { return };
            self.answers.remove(&oldest);
        }
    }

    /// A registration will not be ordered on this server's behalf.
    pub(crate) fn refused(&mut self, request: &RequestKey, reason: Refused) -> Option<Answer> {
        let (connection, request) = self.waiting.remove(request)?;
        Some((connection, ServerMessage::NotRegistered { request, reason }.encode()))
    }

    /// A connection is gone.
    pub(crate) fn closed(&mut self, connection: ConnectionId) {
        self.waiting.retain(|_, (waiting, _)| *waiting != connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use steeldb_ordering::{FIRST_JOINED_CLIENT, Registration};
    use steeldb_wire::auth::SecretKey;

    fn key() -> SecretKey {
        SecretKey::from_seed(&[3; 32])
    }

    fn made(registration: Registration, registered: Registered, gone: Vec<ClientId>) -> RegistrationOutcome {
        RegistrationOutcome { request: Arc::new(registration.signed(&key())), registered, gone }
    }

    #[test]
    fn a_key_is_a_client_from_its_delivered_confirmation_until_it_is_gone() {
        let mut guests = Guests::new(std::iter::empty());
        let guest = Visitor::Guest(key().public());
        let joined = made(
            Registration::Confirm { challenge: Digest([1; 32]) },
            Registered::Joined(FIRST_JOINED_CLIENT),
            vec![],
        );
        assert!(guests.asked(ConnectionId(1), &joined.request).is_none());
        assert_eq!(guests.client(guest), None);
        let (answer, changed) = guests.delivered(&joined);
        assert_eq!(answer.map(|(connection, _)| connection), Some(ConnectionId(1)));
        assert!(matches!(changed[..], [Changed { joined: true, .. }]));
        assert_eq!(guests.client(guest), Some(FIRST_JOINED_CLIENT));
        assert!(guests.asked(ConnectionId(2), &joined.request).is_some(), "answered again");
        let left = made(
            Registration::Leave { client: FIRST_JOINED_CLIENT },
            Registered::Left,
            vec![FIRST_JOINED_CLIENT],
        );
        let (answer, changed) = guests.delivered(&left);
        assert!(answer.is_none() && matches!(changed[..], [Changed { joined: false, .. }]));
        assert_eq!(guests.client(guest), None);
    }

    #[test]
    fn a_refusal_goes_to_who_asked_and_to_nobody_whose_connection_is_gone() {
        let mut guests = Guests::new(std::iter::empty());
        let request = Registration::Confirm { challenge: Digest([1; 32]) }.signed(&key());
        guests.asked(ConnectionId(1), &request);
        assert!(guests.refused(&request.key(), Refused::Busy).is_some());
        guests.asked(ConnectionId(1), &request);
        guests.closed(ConnectionId(1));
        assert!(guests.refused(&request.key(), Refused::Busy).is_none());
    }
}
