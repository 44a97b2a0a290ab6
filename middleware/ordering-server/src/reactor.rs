//! The one task of a server: feeds the core, runs the application, answers clients.

use crate::application::{Application, Judge};
use crate::followers::{Followers, Read};
use crate::guests::{Guests, Visitor};
use crate::limits;
use crate::message::{ClientMessage, Refused, ServerMessage};
use crate::server::ServerError;
use crate::service::{Done, Service};
use crate::shell::{ReadBack, Report, Shell};
use crate::storage::Storage;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use steeldb_ordering::{Event, Message, Refusal, RegistrationOutcome, Request, RequestId, RequestKey};
use steeldb_transport::{ConnectionId, LinkEvent};
use steeldb_types::{ClientId, ReplicaId};
use tokio::sync::mpsc;

/// How often followers that were too slow are looked at.
const REFILL: Duration = Duration::from_millis(50);

/// Requests whose clients wait here for a reply.
const WAITING_MAX: usize = 2 * steeldb_types::limits::PENDING_REQUESTS_MAX;

pub(crate) struct Reactor<A, S> {
    pub(crate) me: ReplicaId,
    pub(crate) service: Service<A>,
    pub(crate) shell: Shell<S>,
    pub(crate) followers: Followers,
    pub(crate) connections: BTreeMap<ConnectionId, Visitor>,
    pub(crate) guests: Guests,
    /// Over which connection a request came that has no final reply yet.
    pub(crate) waiting: BTreeMap<RequestId, ConnectionId>,
}

/// What a reactor listens to.
pub(crate) struct Inputs {
    pub(crate) links: mpsc::Receiver<LinkEvent>,
    pub(crate) persisted: mpsc::UnboundedReceiver<Result<u64, String>>,
    pub(crate) reads: mpsc::UnboundedReceiver<ReadBack>,
    pub(crate) follower_reads: mpsc::UnboundedReceiver<Read>,
}

impl<A: Application, S: Storage> Reactor<A, S> {
    /// Runs until the links end.
    ///
    /// # Errors
    /// [`ServerError::Log`]: the log failed; nothing may be promised any more.
    /// Other [`ServerError`]s: the state is of no use.
    pub(crate) async fn run(mut self, mut inputs: Inputs) -> Result<(), ServerError> {
        let mut refill = tokio::time::interval(REFILL);
        refill.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut events = Vec::with_capacity(limits::EVENTS_AT_ONCE);
        self.settle()?;
        loop {
            let due = self.shell.next_timeout();
            tokio::select! {
                biased;
                Some(done) = inputs.persisted.recv() => self.persisted(done)?,
                Some(read) = inputs.reads.recv() => {
                    self.shell.read_back(read, &Judge(self.service.application()));
                }
                Some(read) = inputs.follower_reads.recv() => {
                    self.followers.read(read, self.shell.links());
                    self.refill();
                }
                count = inputs.links.recv_many(&mut events, limits::EVENTS_AT_ONCE) => {
                    if count == 0 {
                        return Ok(());
                    }
                    for event in events.drain(..) {
                        self.link_event(event);
                    }
                }
                _ = refill.tick() => self.refill(),
                () = tokio::time::sleep(due.unwrap_or(Duration::from_secs(3600))) => {
                    self.shell.tick(&Judge(self.service.application()));
                }
            }
            while let Ok(done) = inputs.persisted.try_recv() {
                self.persisted(done)?;
            }
            self.settle()?;
        }
    }

    fn refill(&mut self) {
        let links = self.shell.links().clone();
        self.followers.refill(self.shell.storage(), &links);
    }

    pub(crate) fn order(&mut self, event: Event) {
        self.shell.handle(event, &Judge(self.service.application()));
    }

    fn persisted(&mut self, done: Result<u64, String>) -> Result<(), ServerError> {
        let upto = done.map_err(ServerError::Log)?;
        self.order(Event::Persisted { upto });
        Ok(())
    }

    /// Runs effects until there are none.
    fn settle(&mut self) -> Result<(), ServerError> {
        while let Some(report) = self.shell.poll(&Judge(self.service.application())) {
            match report {
                Report::Deliver { delivery, decision } => {
                    for done in self.service.deliver(&delivery) {
                        self.done(done);
                    }
                    for outcome in &delivery.registrations {
                        self.registered(outcome);
                    }
                    self.followers.delivered(delivery.instance, decision, self.shell.links());
                }
                Report::Tentative(tentative) => {
                    for (id, frame) in self.service.deliver_tentatively(&tentative) {
                        if let Some(connection) = self.waiting.get(&id) {
                            self.send(*connection, frame);
                        }
                    }
                }
                Report::Revoke(instance) => {
                    tracing::info!(replica = %self.me, "{instance} was executed ahead and is taken back");
                    self.service.revoke(instance);
                }
                Report::TakeCheckpoint { instance } => {
                    if let Some(state) = self.service.snapshot() {
                        self.shell.save(instance, state);
                    }
                }
                Report::StateFetched { instance } => {
                    tracing::info!(replica = %self.me, "the state after {instance} was fetched");
                    self.service.begin_restore();
                }
                Report::Install { instance, state } => {
                    let restored = state.and_then(|state| self.service.restore(instance, &state));
                    restored.map_err(ServerError::Checkpoint)?;
                    self.followers.delivered(instance, None, self.shell.links());
                    self.shell.installed(instance, &Judge(self.service.application()));
                    self.receive(Guests::new(self.shell.core().joined_clients()));
                }
                Report::StateDiffers { instance } => return Err(ServerError::StateDiffers(instance)),
                Report::Refused { request, reason } => self.refused(request, reason),
                Report::ViewInstalled(roster) => self.view_installed(&roster),
                Report::RegencyInstalled { regency, leader } => {
                    tracing::info!(replica = %self.me, %leader, "{regency} installed");
                }
                Report::Misbehaved { replica, reason } => {
                    tracing::warn!(replica = %self.me, peer = %replica, "misbehaved: {reason}");
                }
            }
        }
        Ok(())
    }

    fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::PeerUp(peer) => self.order(Event::LinkUp(peer)),
            LinkEvent::PeerDown(_) => {}
            LinkEvent::PeerFrame(peer, frame) => match Message::decode(&frame) {
                Ok(message) => self.order(Event::Message { from: peer, message }),
                Err(error) => {
                    tracing::warn!(replica = %self.me, %peer, %error, "a peer sent nonsense");
                }
            },
            LinkEvent::ClientUp(connection, client) => {
                self.connections.insert(connection, Visitor::Listed(client));
                self.announce(connection);
            }
            LinkEvent::GuestUp(connection, key) => {
                self.connections.insert(connection, Visitor::Guest(key));
                self.announce(connection);
            }
            LinkEvent::ClientDown(connection) => {
                self.connections.remove(&connection);
                self.followers.remove(connection);
                self.guests.closed(connection);
                self.waiting.retain(|_, waiting| *waiting != connection);
            }
            LinkEvent::ClientFrame(connection, frame) => self.client_frame(connection, &frame),
        }
    }

    fn client_frame(&mut self, connection: ConnectionId, frame: &[u8]) {
        let Some(visitor) = self.connections.get(&connection).copied() else { return };
        let message = match ClientMessage::decode(frame) {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(replica = %self.me, ?visitor, %error, "a client sent nonsense");
                return self.shell.links().close_client(connection);
            }
        };
        let Some(client) = self.guests.client(visitor) else {
            return self.guest_frame(connection, visitor, message);
        };
        match message {
            ClientMessage::Order(request) => self.request(connection, client, request),
            ClientMessage::Query { number, payload } => {
                let core = self.shell.core();
                let answer = match core.is_changing_view() {
                    true => None,
                    false => self.service.query(&payload, core.said_upto()),
                };
                let view = self.service.view();
                self.send(connection, ServerMessage::Answer { number, view, answer }.encode());
            }
            ClientMessage::Views { known } => self.show_views(connection, known),
            ClientMessage::Register(request) => self.register(connection, visitor, request),
            ClientMessage::Follow { from } => {
                if self.followers.add(connection, from, self.shell.links()) {
                    self.refill();
                } else {
                    tracing::warn!(replica = %self.me, %client, "too many follow the ledger here");
                    self.shell.links().close_client(connection);
                }
            }
        }
    }

    /// Of who is no client: it may join, and is told when it is one no more.
    fn guest_frame(&mut self, connection: ConnectionId, visitor: Visitor, message: ClientMessage) {
        match message {
            ClientMessage::Register(request) => self.register(connection, visitor, request),
            ClientMessage::Order(request) => {
                if let RequestKey::Client(id) = request.key() {
                    self.refuse(connection, id, Refused::NotJoined);
                }
            }
            // Whom to ask may have changed.
            ClientMessage::Views { known } => self.show_views(connection, known),
            ClientMessage::Query { .. } | ClientMessage::Follow { .. } => {
                self.shell.links().close_client(connection);
            }
        }
    }

    fn register(&mut self, connection: ConnectionId, visitor: Visitor, request: Arc<Request>) {
        match (request.key(), visitor) {
            (RequestKey::Registration(key, _), Visitor::Guest(own)) if key == own => {}
            _ => {
                let reason = Refused::Invalid(
                    "a registration is of the key of its link, and of no listed client".into(),
                );
                let refusal = ServerMessage::NotRegistered { request: request.digest(), reason };
                return self.send(connection, refusal.encode());
            }
        }
        match self.guests.asked(connection, &request) {
            Some(answer) => self.send(connection, answer),
            None => self.order(Event::Request(request)),
        }
    }

    /// Who is joined is what a checkpoint says.
    fn receive(&mut self, guests: Guests) {
        let known = std::mem::replace(&mut self.guests, guests);
        for key in known.keys() {
            self.shell.links().welcome(key, false);
        }
        for key in self.guests.keys() {
            self.shell.links().welcome(key, true);
        }
    }

    fn registered(&mut self, outcome: &RegistrationOutcome) {
        tracing::info!(replica = %self.me, client = ?outcome.request.key(), "{:?}", outcome.registered);
        let (answer, changed) = self.guests.delivered(outcome);
        for guest in changed {
            self.shell.links().welcome(guest.key, guest.joined);
        }
        if let Some((connection, frame)) = answer {
            self.send(connection, frame);
        }
    }

    fn request(&mut self, connection: ConnectionId, client: ClientId, request: Arc<Request>) {
        let id = match request.key() {
            RequestKey::Client(id) => id,
            RequestKey::Membership(_) => return self.change(connection, request),
            _ => return,
        };
        if id.session.client != client {
            let reason = Refused::Invalid(format!("{client} may not speak for {}", id.session.client));
            return self.refuse(connection, id, reason);
        }
        if let Some(reply) = self.service.reply(id) {
            return self.send(connection, reply);
        }
        if self.waiting.len() >= WAITING_MAX {
            return self.refuse(connection, id, Refused::Busy);
        }
        if let Some(reply) = self.service.tentative_reply(id) {
            self.send(connection, reply);
        }
        self.waiting.insert(id, connection);
        self.order(Event::Request(request));
    }

    fn refused(&mut self, request: RequestKey, reason: Refusal) {
        let RequestKey::Client(id) = request else {
            if let Some((connection, frame)) = self.guests.refused(&request, reason.into()) {
                self.send(connection, frame);
            }
            return;
        };
        // What is decided but not yet delivered is stale to the core; its reply is about to come.
        let executed = matches!(reason, Refusal::Executed | Refusal::Stale);
        if executed && self.service.delivered() < self.shell.core().last_decided() {
            return;
        }
        if let Some(connection) = self.waiting.remove(&id) {
            match self.service.reply(id) {
                Some(reply) => self.send(connection, reply),
                None => self.refuse(connection, id, reason.into()),
            }
        }
    }

    /// Replies to whoever waits; what the same session sent before can no longer be executed.
    fn done(&mut self, Done { id, frame }: Done) {
        if let Some(connection) = self.waiting.remove(&id)
            && let Some(frame) = frame
        {
            self.send(connection, frame);
        }
        let first = RequestId { sequence: 0, ..id };
        while let Some((passed, connection)) = self.waiting.range(first..id).next() {
            let (passed, connection) = (*passed, *connection);
            self.waiting.remove(&passed);
            self.refuse(connection, passed, Refused::Stale);
        }
    }

    fn refuse(&self, connection: ConnectionId, id: RequestId, reason: Refused) {
        self.send(connection, ServerMessage::Refused { id, reason }.encode());
    }

    pub(crate) fn send(&self, connection: ConnectionId, frame: Bytes) {
        self.shell.links().send_client(connection, frame);
    }
}
