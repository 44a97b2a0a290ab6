//! Following the ledger of a running server.

use crate::message::{ClientMessage, ServerMessage};
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use steeldb_ordering::{Decision, InstanceNumber};
use steeldb_transport::{ClientConfig, ClientEvent, ClientLinks, ClientTransport, StartError};
use steeldb_types::ReplicaId;
use tokio::sync::mpsc;

/// Follows decisions as servers make them. What it gives is in order and without gaps, but the servers' word: check the
/// proofs.
pub struct Follower {
    links: ClientLinks,
    events: mpsc::Receiver<ClientEvent>,
    next: InstanceNumber,
    up: BTreeSet<ReplicaId>,
    /// The server that is listened to.
    source: Option<ReplicaId>,
}

/// Decisions in order.
#[derive(Clone, Debug)]
pub struct Blocks {
    /// Consecutive; may be none.
    pub decisions: Vec<Arc<Decision>>,
    /// The last instance the server has executed.
    pub last: InstanceNumber,
}

impl Follower {
    /// Dials the servers of `config`, one or several, and follows one of them from `from` on; another one when it is lost.
    /// Call it inside a tokio runtime.
    ///
    /// # Errors
    /// As [`ClientTransport::start`].
    pub fn start(config: ClientConfig, from: InstanceNumber) -> Result<Follower, StartError> {
        let (links, events) = ClientTransport::start(config)?;
        Ok(Follower { links, events, next: from.max(InstanceNumber(1)), up: BTreeSet::new(), source: None })
    }

    /// What comes next; nothing after the links were stopped.
    pub async fn next(&mut self) -> Option<Blocks> {
        loop {
            match self.events.recv().await? {
                ClientEvent::ReplicaUp(replica) => {
                    self.up.insert(replica);
                    if self.source.is_none() {
                        self.ask(replica);
                    }
                }
                ClientEvent::ReplicaDown(replica) => {
                    self.up.remove(&replica);
                    if self.source == Some(replica) {
                        self.ask_another(replica);
                    }
                }
                ClientEvent::Frame(replica, frame) if self.source == Some(replica) => {
                    if let Some(blocks) = self.blocks(&frame) {
                        return Some(blocks);
                    }
                    tracing::warn!(peer = %replica, "a server sent something else than what comes next");
                    self.ask_another(replica);
                }
                ClientEvent::Frame(..) => {}
            }
        }
    }

    fn ask(&mut self, replica: ReplicaId) {
        self.source = Some(replica);
        self.links.send(replica, ClientMessage::Follow { from: self.next }.encode());
    }

    /// The next one in turn; the same only when there is no other.
    fn ask_another(&mut self, than: ReplicaId) {
        let after = self.up.range((Bound::Excluded(than), Bound::Unbounded)).next();
        match after.or_else(|| self.up.first()).copied() {
            Some(replica) => self.ask(replica),
            None => self.source = None,
        }
    }

    fn blocks(&mut self, frame: &[u8]) -> Option<Blocks> {
        let Ok(ServerMessage::Decisions { decisions, last }) = ServerMessage::decode(frame) else {
            return None;
        };
        let mut next = self.next;
        for decision in &decisions {
            if decision.instance() != next {
                return None;
            }
            next = next.next();
        }
        self.next = next;
        Some(Blocks { decisions, last })
    }
}
