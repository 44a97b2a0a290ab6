//! Who the replicas are, as a server sees it: links that follow the views, clients that ask about them and change them.

use crate::application::{Application, Judge};
use crate::limits;
use crate::message::{Refused, ServerMessage};
use crate::reactor::Reactor;
use crate::storage::Storage;
use std::sync::Arc;
use steeldb_ordering::{Core, Event, Member, Request, Roster};
use steeldb_transport::{ConnectionId, ReplicaAddress};
use steeldb_types::ViewNumber;

/// Whom a replica has links with: the members of its view and of the one before. Who was removed last may still have to
/// hear of it, and may still have decisions that others lack.
fn linked(core: &Core) -> Vec<ReplicaAddress> {
    let current = core.roster();
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

/// Where a member is found.
pub(crate) fn address(member: &Member) -> ReplicaAddress {
    ReplicaAddress { id: member.id, address: member.address.clone(), key: member.key }
}

impl<A: Application, S: Storage> Reactor<A, S> {
    /// A view begins: links follow it, and clients hear of it.
    pub(crate) fn view_installed(&mut self, roster: &Roster) {
        let (me, view) = (self.me, roster.view());
        let (number, members) = (view.number(), view.members());
        tracing::info!(replica = %me, view = number.0, ?members, f = view.f(), "view installed");
        if !view.contains(me) {
            tracing::warn!(replica = %me, "not a member of the view: it serves decisions and takes part in nothing");
        }
        self.service.begin_view(number);
        if let Err(error) = self.shell.links().set_peers(linked(self.shell.core())) {
            // Keys of replicas are distinct in a view; a client's may have been given to a replica.
            tracing::error!(replica = %me, %error, "links cannot follow the new view");
        }
        for connection in self.connections.keys() {
            self.announce(*connection);
        }
    }

    /// Tells a client which view is current.
    pub(crate) fn announce(&self, connection: ConnectionId) {
        self.send(connection, ServerMessage::View { view: self.service.view() }.encode());
    }

    /// Shows how the views after one were made.
    pub(crate) fn show_views(&self, connection: ConnectionId, known: ViewNumber) {
        let decisions = self.shell.core().views().certificates(known, limits::VIEWS_AT_ONCE);
        self.send(connection, ServerMessage::Views { decisions }.encode());
    }

    /// A client, whoever it is, hands in a change that an administrator signed.
    pub(crate) fn change(&mut self, connection: ConnectionId, change: Arc<Request>) {
        let core = self.shell.core();
        match core.judge_request(&change, &Judge(self.service.application())) {
            Ok(()) => self.order(Event::Request(change)),
            // It comes again.
            Err(_) if core.views().made_by(&change).is_some() => self.announce(connection),
            Err(reason) => {
                let (request, reason) = (change.digest(), Refused::Invalid(reason));
                self.send(connection, ServerMessage::NotChanged { request, reason }.encode());
            }
        }
    }
}
