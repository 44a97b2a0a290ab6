//! An ideal total order in the ordering cores' place: what is valid is ordered once, and everybody learns it in the same
//! order. Most seeds use it: the ordering core has a simulator of its own, and this one is faster.

use std::collections::{BTreeMap, BTreeSet};
use steeldb_ordering::{Request, RequestId, Roster};
use steeldb_replica::scheduler::ClientRights;
use steeldb_replica::validity;
use steeldb_types::{ClientId, Digest, Position, SessionKey, Timestamp, View};
use steeldb_wire::auth::PublicKey;
use steeldb_wire::transaction::{Ordered, SignatureMemo};

/// What certified requests are judged by.
macro_rules! by {
    ($of:expr) => {
        validity::By {
            view: &$of.view,
            roster: $of.roster,
            keys: &$of.replica_keys,
            administrators: &$of.administrators,
        }
    };
}

/// An ordered request.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) position: Position,
    pub(crate) timestamp: Timestamp,
    pub(crate) request: Option<(SessionKey, u64)>,
    pub(crate) payload: Ordered,
}

/// Entries that are decided together, where replicas tell of commits before their decision.
pub(crate) struct Batch {
    /// They are behind so many of the log, and end with this one.
    pub(crate) from: usize,
    pub(crate) upto: usize,
    /// Replicas that see another one bound before: a leader that was replaced had proposed the same requests in another
    /// sequence. Too few of them for that to be decided.
    pub(crate) misled: BTreeSet<usize>,
}

/// The order.
pub(crate) struct Sequencer {
    pub(crate) log: Vec<Entry>,
    pub(crate) batches: Vec<Batch>,
    /// The last batch is still open.
    pub(crate) gathers: bool,
    clients: BTreeMap<ClientId, ClientRights>,
    keys: BTreeMap<ClientId, PublicKey>,
    view: View,
    roster: Digest,
    replica_keys: Vec<PublicKey>,
    administrators: [PublicKey; 1],
    memo: SignatureMemo,
    sequences: BTreeMap<SessionKey, u64>,
    certified: BTreeSet<Digest>,
    /// A bug is planted: certificates need not have enough votes.
    #[cfg(feature = "planted-bugs")]
    pub(crate) any_number: bool,
}

impl Sequencer {
    pub(crate) fn new(
        clients: BTreeMap<ClientId, ClientRights>,
        roster: &Roster,
        administrator: PublicKey,
    ) -> Sequencer {
        let keys = clients.iter().map(|(client, rights)| (*client, rights.key)).collect();
        Sequencer {
            log: Vec::new(),
            batches: Vec::new(),
            gathers: false,
            clients,
            keys,
            view: roster.view().clone(),
            roster: roster.digest(),
            replica_keys: roster.key_table(),
            administrators: [administrator],
            memo: SignatureMemo::new(4096),
            sequences: BTreeMap::new(),
            certified: BTreeSet::new(),
            #[cfg(feature = "planted-bugs")]
            any_number: false,
        }
    }

    /// Whether a request would be ordered: it is new, as far as can be told without judging it.
    pub(crate) fn is_new(&self, request: &Request) -> bool {
        match request {
            Request::Client { id: RequestId { session, sequence }, .. } => {
                self.sequences.get(session).is_none_or(|last| last < sequence)
            }
            Request::Certified { key, .. } => !self.certified.contains(key),
            _ => false,
        }
    }

    #[cfg(not(feature = "planted-bugs"))]
    fn check(&mut self, key: Digest, payload: &[u8]) -> Result<Ordered, String> {
        validity::check_certified(key, payload, &by!(self), &mut self.memo)
    }

    #[cfg(feature = "planted-bugs")]
    fn check(&mut self, key: Digest, payload: &[u8]) -> Result<Ordered, String> {
        let judge =
            if self.any_number { validity::check_certified_by_any } else { validity::check_certified };
        judge(key, payload, &by!(self), &mut self.memo)
    }

    /// Orders a request, if it is valid and new.
    pub(crate) fn order(&mut self, request: &Request, timestamp: Timestamp) -> Option<&Entry> {
        if !self.is_new(request) {
            return None;
        }
        let (request, payload) = match request {
            Request::Client { id, payload, .. } => {
                request.verify_signature(&self.keys).ok()?;
                let payload = validity::check_client(id.session, payload, &self.clients).ok()?;
                self.sequences.insert(id.session, id.sequence);
                (Some((id.session, id.sequence)), payload)
            }
            Request::Certified { key, payload } => {
                let checked = self.check(*key, payload);
                let payload = checked.ok()?;
                self.certified.insert(*key);
                (None, payload)
            }
            _ => return None,
        };
        let timestamp =
            self.log.last().map_or(timestamp, |last| timestamp.max(Timestamp(last.timestamp.0 + 1)));
        let position = Position(self.log.len() as u64 + 1);
        self.log.push(Entry { position, timestamp, request, payload });
        self.log.last()
    }
}
