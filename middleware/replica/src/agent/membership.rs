//! Who the replicas are, as the agent sees it: links that follow the views, and clients that ask about them.

use super::reactor::Reactor;
use crate::scheduler::Event;
use bytes::Bytes;
use std::time::Duration;
use steeldb_ordering::{self as ordering, Change, Core, Member, Request, Roster};
use steeldb_transport::{ConnectionId, ReplicaAddress};
use steeldb_types::{Position, ReplicaId, Term, View, ViewNumber};
use steeldb_wire::codec;
use steeldb_wire::transaction::{
    MembershipReply, MembershipRequest, Ordered, ReplicaMessage, ReplicaStatus, change_digest,
};

/// Changes that clients wait for here. Past it, they are ordered all the same and nobody is told.
const CHANGES_MAX: usize = 64;

/// Decisions that made views in one answer.
const CERTIFICATES_MAX: usize = 64;

/// Whom a replica has links with: the members of its view and of the one before. Who was removed last may still have to
/// hear of it, and may still have decisions that others lack.
pub(super) fn linked(core: &Core) -> Vec<ReplicaAddress> {
    let current = core.roster();
    let address =
        |member: &Member| ReplicaAddress { id: member.id, address: member.address.clone(), key: member.key };
    let mut linked: Vec<ReplicaAddress> = current.members().iter().map(address).collect();
    let before = current.view().number().0.checked_sub(1).map(ViewNumber);
    for member in before.and_then(|view| core.views().roster_of(view)).iter().flat_map(|r| r.members()) {
        // A key that moved to another replica is that one's now.
        if !linked.iter().any(|peer| peer.id == member.id || peer.key == member.key) {
            linked.push(address(member));
        }
    }
    linked
}

/// The view that a delivered change of the membership made, whatever came after it since.
pub(super) fn view_made_by(core: &Core, payload: &[u8]) -> Option<View> {
    let from = Change::decode(payload).map(|change| change.from).unwrap_or_default();
    let made = ViewNumber(from.0.saturating_add(1));
    core.views().roster_of(made).map(|roster| roster.view().clone())
}

impl Reactor {
    /// The other members of the current view.
    pub(super) fn peers(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        let me = self.me;
        self.core.roster().view().replicas().filter(move |replica| *replica != me)
    }

    /// Sends a frame to the other members of the current view.
    pub(super) fn to_members(&self, frame: &Bytes) {
        for peer in self.peers() {
            self.links.send_peer(peer, frame.clone());
        }
    }

    /// A view begins: links follow it, and clients hear of it.
    pub(super) fn view_installed(&mut self, roster: &Roster) {
        let view = roster.view();
        let members: Vec<u16> = view.members().iter().map(|member| member.0).collect();
        tracing::info!(view = view.number().0, ?members, f = view.f(), "view installed");
        if !view.contains(self.me) {
            tracing::warn!("this replica was removed: it serves decisions and takes part in nothing");
        }
        if let Err(error) = self.links.set_peers(linked(&self.core)) {
            // Keys of replicas are distinct in a view; a client's may have been given to a replica.
            tracing::error!(%error, "links cannot follow the new view");
        }
        for connection in self.connections.keys() {
            self.announce(*connection);
        }
    }

    /// Tells a client which view is current, and who the master is.
    pub(super) fn announce(&self, connection: ConnectionId) {
        let view = self.core.roster().view().number();
        self.answer_membership(connection, MembershipReply::Current { view });
        let frame = Bytes::from(codec::encode(&ReplicaMessage::Term(self.scheduler.term())));
        self.links.send_client(connection, frame);
    }

    /// A master's term begins: clients hear of it.
    pub(super) fn term_began(&mut self, term: Term) {
        let frame = Bytes::from(codec::encode(&ReplicaMessage::Term(term)));
        for connection in self.connections.keys() {
            self.links.send_client(*connection, frame.clone());
        }
    }

    /// A change takes its place in the order.
    pub(super) fn change_delivered(&mut self, position: Position, payload: &[u8]) {
        let Some(view) = view_made_by(&self.core, payload) else {
            return tracing::error!(%position, "a change of the membership made no view");
        };
        let made = view.number();
        self.schedule(Event::ViewChanged { position, view });
        if let Some(asker) = self.changes.remove(&change_digest(payload)) {
            let reply = MembershipReply::Changed { change: change_digest(payload), result: Ok(made) };
            self.answer_membership(asker, reply);
        }
    }

    pub(super) fn membership_request(&mut self, connection: ConnectionId, request: MembershipRequest) {
        match request {
            MembershipRequest::Change { payload, administrator, signature } => {
                let change = change_digest(&payload);
                let request = Request::Membership { payload, administrator, signature };
                // Said here, where it was asked; the core says no more than that it refuses.
                if let Err(reason) = self.core.judge_request(&request, &self.judge) {
                    // The others may have had it ordered before it came here.
                    let result = self.core.views().made_by(&request).ok_or(reason);
                    let reply = MembershipReply::Changed { change, result };
                    return self.answer_membership(connection, reply);
                }
                if self.changes.len() < CHANGES_MAX {
                    self.changes.insert(change, connection);
                }
                self.order(ordering::Event::Request(request.into()));
            }
            MembershipRequest::Move(wish) => {
                let ordered = Ordered::Move(wish);
                match self.judge.check_certified(&ordered, self.core.roster()) {
                    Ok(()) => self.submit(&ordered),
                    Err(reason) => {
                        let change = ordered.certified_key().unwrap_or_default();
                        let reply = MembershipReply::Changed { change, result: Err(reason) };
                        self.answer_membership(connection, reply);
                    }
                }
            }
            MembershipRequest::Status => {
                let status = self.status();
                self.answer_membership(connection, MembershipReply::Status(status));
            }
            MembershipRequest::RoundTrips { number } => {
                // Far more than a round trip can take.
                let micros = |took: Duration| u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
                let micros = self.round_trips.measured().map(|(peer, took)| (peer, micros(took))).collect();
                self.answer_membership(connection, MembershipReply::RoundTrips { number, micros });
            }
            MembershipRequest::Views { known } => {
                let certificates = self.core.views().certificates(known, CERTIFICATES_MAX);
                let certificates = certificates.iter().map(|decision| codec::encode(&**decision)).collect();
                self.answer_membership(connection, MembershipReply::Views { certificates });
            }
        }
    }

    fn status(&self) -> ReplicaStatus {
        let (view, sizes) = (self.core.roster().view(), self.scheduler.sizes());
        ReplicaStatus {
            view: view.number(),
            votes: view.contains(self.me),
            regency: self.core.regency().number,
            leader: self.core.leader(),
            instance: self.core.last_decided().0,
            delivered: self.scheduler.delivered_upto(),
            applied: self.scheduler.applied(),
            pending: self.core.pending_requests() as u64,
            diverged: self.scheduler.diverged().map(str::to_string),
            term: self.scheduler.term(),
            accusations: self.scheduler.accusations().collect(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            uptime_s: self.started.elapsed().as_secs(),
            vouches: self.scheduler.may_vouch(),
            behind: self.behind(),
            prepared: sizes.permits as u64,
            sessions: sizes.sessions as u64,
        }
    }

    fn answer_membership(&self, connection: ConnectionId, reply: MembershipReply) {
        let frame = Bytes::from(codec::encode(&ReplicaMessage::Membership(reply)));
        self.links.send_client(connection, frame);
    }
}
