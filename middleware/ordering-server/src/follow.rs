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
    /// Those that do not keep what comes next.
    without: BTreeSet<ReplicaId>,
}

/// Why nothing more comes.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FollowError {
    /// The links were stopped.
    #[error("the follower was stopped")]
    Stopped,
    /// All servers that can be reached have let go of what comes next.
    #[error("no server keeps decision {0} any more; the history up to there has to come from an archive")]
    NotKept(InstanceNumber),
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
        let (up, without) = (BTreeSet::new(), BTreeSet::new());
        Ok(Follower { links, events, next: from.max(InstanceNumber(1)), up, source: None, without })
    }

    /// What comes next.
    ///
    /// # Errors
    /// [`FollowError`].
    pub async fn next(&mut self) -> Result<Blocks, FollowError> {
        loop {
            match self.events.recv().await.ok_or(FollowError::Stopped)? {
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
                    match ServerMessage::decode(&frame) {
                        Ok(ServerMessage::NotKept { from }) if from == self.next => {
                            self.without.insert(replica);
                            if self.up.is_subset(&self.without) {
                                return Err(FollowError::NotKept(from));
                            }
                            self.ask_another(replica);
                            continue;
                        }
                        Ok(ServerMessage::Decisions { decisions, last }) if self.comes_next(&decisions) => {
                            if !decisions.is_empty() {
                                self.without.clear();
                            }
                            return Ok(Blocks { decisions, last });
                        }
                        _ => {}
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
        let keeps = |replica: &&ReplicaId| !self.without.contains(replica);
        let after = self.up.range((Bound::Excluded(than), Bound::Unbounded)).find(keeps);
        match after.or_else(|| self.up.iter().find(keeps)).copied() {
            Some(replica) => self.ask(replica),
            None => self.source = None,
        }
    }

    /// Takes note of what comes next, if these are that.
    fn comes_next(&mut self, decisions: &[Arc<Decision>]) -> bool {
        let mut next = self.next;
        for decision in decisions {
            if decision.instance() != next {
                return false;
            }
            next = next.next();
        }
        self.next = next;
        true
    }
}
