//! Clients that follow the ledger live: each gets every decision from where it asked on, as fast as it takes them. What
//! it is sent carries its own proof, so it need not trust this replica.

use crate::limits;
use crate::message::ServerMessage;
use crate::storage::Storage;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use steeldb_ordering::{Decision, InstanceNumber};
use steeldb_transport::{ConnectionId, ReplicaLinks};
use tokio::sync::mpsc;

/// Decisions read from the log for a follower.
pub(crate) type Read = (ConnectionId, Vec<Arc<Decision>>);

pub(crate) struct Followers {
    by_connection: BTreeMap<ConnectionId, Follower>,
    /// The last instance delivered here: what is after it is not shown.
    delivered: InstanceNumber,
    reads: mpsc::UnboundedSender<Read>,
}

struct Follower {
    next: InstanceNumber,
    /// Whether the log is being read for it: one piece at a time.
    reading: bool,
}

impl Followers {
    /// No followers yet, at a replica that has delivered so far.
    pub(crate) fn new(delivered: InstanceNumber) -> (Followers, mpsc::UnboundedReceiver<Read>) {
        let (reads, receiver) = mpsc::unbounded_channel();
        (Followers { by_connection: BTreeMap::new(), delivered, reads }, receiver)
    }

    /// Adds a follower and tells it how far this replica is; false when there are too many.
    pub(crate) fn add(
        &mut self,
        connection: ConnectionId,
        from: InstanceNumber,
        links: &ReplicaLinks,
    ) -> bool {
        if self.by_connection.len() >= limits::FOLLOWERS_MAX && !self.by_connection.contains_key(&connection)
        {
            return false;
        }
        let next = from.max(InstanceNumber(1));
        let reading = self.by_connection.get(&connection).is_some_and(|known| known.reading);
        self.by_connection.insert(connection, Follower { next, reading });
        links.send_client(connection, blocks(Vec::new(), self.delivered));
        true
    }

    pub(crate) fn remove(&mut self, connection: ConnectionId) {
        self.by_connection.remove(&connection);
    }

    /// A decision was delivered here.
    pub(crate) fn delivered(
        &mut self,
        instance: InstanceNumber,
        decision: Option<Arc<Decision>>,
        links: &ReplicaLinks,
    ) {
        self.delivered = instance;
        let Some(decision) = decision else { return };
        let mut frame: Option<Bytes> = None;
        for (connection, follower) in &mut self.by_connection {
            if follower.next == instance && !follower.reading && has_room(links, *connection) {
                let frame = frame.get_or_insert_with(|| blocks(vec![Arc::clone(&decision)], instance));
                links.send_client(*connection, frame.clone());
                follower.next = instance.next();
            }
        }
    }

    /// Reads from the log for those that are behind and have room.
    pub(crate) fn refill(&mut self, storage: &mut impl Storage, links: &ReplicaLinks) {
        for (connection, follower) in &mut self.by_connection {
            if follower.reading || follower.next > self.delivered || !has_room(links, *connection) {
                continue;
            }
            follower.reading = true;
            let (reads, connection) = (self.reads.clone(), *connection);
            let answer = move |decisions| {
                // A server that is gone needs no answer.
                let _ = reads.send((connection, decisions));
            };
            storage.read_decisions(follower.next, limits::FOLLOWER_READ_BYTES, Box::new(answer));
        }
    }

    /// Sends what was read.
    pub(crate) fn read(&mut self, (connection, decisions): Read, links: &ReplicaLinks) {
        let Some(follower) = self.by_connection.get_mut(&connection) else { return };
        follower.reading = false;
        let (delivered, wanted) = (self.delivered, follower.next);
        if decisions.is_empty() && wanted <= delivered {
            // Let go of behind a checkpoint: the follower asks another server.
            self.by_connection.remove(&connection);
            links.send_client(connection, ServerMessage::NotKept { from: wanted }.encode());
            return;
        }
        // It may have asked anew meanwhile.
        if decisions.first().is_none_or(|first| first.instance() != follower.next) {
            return;
        }
        let shown: Vec<_> =
            decisions.into_iter().take_while(|decision| decision.instance() <= delivered).collect();
        let Some(last) = shown.last() else { return };
        follower.next = last.instance().next();
        links.send_client(connection, blocks(shown, delivered));
    }
}

fn blocks(decisions: Vec<Arc<Decision>>, last: InstanceNumber) -> Bytes {
    ServerMessage::Decisions { decisions, last }.encode()
}

fn has_room(links: &ReplicaLinks, connection: ConnectionId) -> bool {
    links.client_backlog(connection).is_some_and(|bytes| bytes < limits::FOLLOWER_BACKLOG_BYTES_MAX)
}
