//! Fetching from peers what they keep of a transaction, part by part, from one after the other until one has what the
//! certificate names. What turns out to be a bulk transaction's has a task of its own from then on.

use super::bulk_fetch::{Answer, BulkFetch, Spooling};
use super::catchup::{Found, Wanted};
use super::peer::PeerMessage;
use super::reactor::Reactor;
use crate::effects::{Effects, Kind, Part};
use crate::scheduler::{CatchUpError, Event};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use steeldb_transport::ReplicaLinks;
use steeldb_types::{Position, ReplicaId, Slot, TxId, limits};
use tokio::sync::{Semaphore, mpsc};

/// How long a peer may take for a part.
const PATIENCE: Duration = Duration::from_secs(1);

/// Silent peers are waited for through so many questions in all before the others' word counts.
const SILENT_TRIES: u32 = 60;

/// How often a lack is logged.
const LOG_EVERY: u32 = 20;

/// Transactions that are fetched at the same time; others wait. Each may hold [`limits::KEPT_RECORD_BYTES_MAX`].
const AT_ONCE: usize = 8;

/// Reads from the disk for peers at the same time; past it questions are dropped, and asked again.
const SERVED_AT_ONCE: usize = 32;

/// What is being fetched, in the order of the commits, which is that in which rows are made.
pub(super) struct Fetching {
    wanted: BTreeMap<Position, Fetch>,
    positions: BTreeMap<TxId, Position>,
    /// Among the peers, who is asked first. Not one that was silent last: commits come one after the other, and with each
    /// of them it would be waited for again.
    first: usize,
    served: Arc<Semaphore>,
    /// Where bulk transactions' rows wait.
    pub(super) spooling: Spooling,
}

struct Fetch {
    wanted: Wanted,
    /// Whose turn it is, among the peers.
    turn: usize,
    asked: Option<(ReplicaId, Instant)>,
    questions: u32,
    /// Peers that do not have it.
    without: BTreeSet<ReplicaId>,
    kind: Kind,
    received: Vec<u8>,
    /// The task that fetches it, if it is a bulk transaction's.
    bulk: Option<mpsc::UnboundedSender<Answer>>,
}

/// What has come.
pub(super) enum Come {
    /// All of a transaction.
    Whole(Wanted, Found),
    /// The first part of a bulk transaction; the others go where this hears of them.
    Bulk {
        wanted: Wanted,
        without: BTreeSet<ReplicaId>,
        first: Answer,
        answers: mpsc::UnboundedReceiver<Answer>,
    },
}

impl Fetching {
    /// Nothing yet.
    pub(super) fn new(spooling: Spooling) -> Fetching {
        Fetching {
            wanted: BTreeMap::new(),
            positions: BTreeMap::new(),
            first: 0,
            served: Arc::new(Semaphore::new(SERVED_AT_ONCE)),
            spooling,
        }
    }

    /// Wants a transaction; again, after a failure, from another peer first.
    pub(super) fn want(&mut self, wanted: Wanted, attempt: u32) {
        let fetch = Fetch {
            wanted: wanted.clone(),
            turn: self.first + attempt as usize,
            asked: None,
            questions: 0,
            without: BTreeSet::new(),
            kind: Kind::WriteSet,
            received: Vec::new(),
            bulk: None,
        };
        self.positions.insert(wanted.tx, wanted.position);
        self.wanted.insert(wanted.position, fetch);
    }

    /// Asks for what has not come; gives what nobody has. `faults`: so many peers may be silent for ever. `room`: there
    /// is room for more than what is needed next.
    pub(super) fn ask(
        &mut self,
        links: &ReplicaLinks,
        peers: &[ReplicaId],
        faults: usize,
        room: bool,
    ) -> Vec<TxId> {
        if peers.is_empty() {
            return Vec::new();
        }
        self.forget_ended();
        self.pass_over_silent(peers.len());
        let mut given_up = Vec::new();
        for fetch in self.wanted.values_mut().take(if room { AT_ONCE } else { 1 }) {
            if fetch.bulk.is_some() {
                break; // one at a time: what is behind it waits for it in any case
            }
            if fetch.asked.is_some() {
                continue;
            }
            let lacking = peers.iter().filter(|peer| fetch.without.contains(peer)).count();
            let silent_long = fetch.questions >= SILENT_TRIES;
            if lacking == peers.len() || silent_long && lacking + faults >= peers.len() {
                given_up.push(fetch.wanted.tx);
                continue;
            }
            fetch.questions += 1;
            if fetch.questions.is_multiple_of(LOG_EVERY) {
                tracing::warn!(tx = %fetch.wanted.tx, lacking, "no peer has sent what this replica misses; it waits");
            }
            // Those that do not have it are passed over.
            while fetch.without.contains(&peers[fetch.turn % peers.len()]) {
                fetch.turn += 1;
            }
            fetch.send(links, peers[fetch.turn % peers.len()]);
        }
        for tx in &given_up {
            self.remove(*tx);
        }
        given_up
    }

    /// Forgets bulk transactions whose tasks have ended.
    fn forget_ended(&mut self) {
        let ended = |fetch: &Fetch| fetch.bulk.as_ref().is_some_and(mpsc::UnboundedSender::is_closed);
        let ended: Vec<TxId> =
            self.wanted.values().filter(|fetch| ended(fetch)).map(|fetch| fetch.wanted.tx).collect();
        for tx in ended {
            self.remove(tx);
        }
    }

    fn remove(&mut self, tx: TxId) -> Option<Fetch> {
        self.wanted.remove(&self.positions.remove(&tx)?)
    }

    /// Who has been silent for too long has had its turn, and is not the first to be asked for others.
    fn pass_over_silent(&mut self, peers: usize) {
        for fetch in self.wanted.values_mut().take(AT_ONCE) {
            if fetch.bulk.is_none()
                && let Some((peer, at)) = fetch.asked
                && at.elapsed() >= PATIENCE
            {
                tracing::debug!(%peer, tx = %fetch.wanted.tx, "no answer from a peer");
                if fetch.turn % peers == self.first % peers {
                    self.first = (self.first + 1) % peers;
                }
                fetch.next_peer();
            }
        }
    }

    /// A part came from a peer. Gives the whole once it is there and what the certificate names.
    pub(super) fn received(
        &mut self,
        links: &ReplicaLinks,
        peer: ReplicaId,
        tx: TxId,
        from: u64,
        part: Option<Part>,
    ) -> Option<Come> {
        let position = *self.positions.get(&tx)?;
        let others_bulk = self.wanted.range(..position).any(|(_, fetch)| fetch.bulk.is_some());
        let fetch = self.wanted.get_mut(&position)?;
        if let Some(bulk) = &fetch.bulk {
            // One that has ended wants it no more.
            let _ = bulk.send((peer, from, part));
            return None;
        }
        if fetch.asked.is_none_or(|(asked, _)| asked != peer) || from != fetch.received.len() as u64 {
            return None; // an answer of before
        }
        let checked = match part {
            None => Err("nothing is kept".to_string()),
            Some(part) if part.kind == Kind::Bulk && fetch.received.is_empty() => {
                match self.spooling.distrusts(peer) || !fetch.wanted.takes_rows() {
                    true => Err("rows that are not taken from it".to_string()),
                    false if others_bulk => {
                        fetch.asked = None; // later
                        return None;
                    }
                    false => {
                        let (bulk, answers) = mpsc::unbounded_channel();
                        fetch.bulk = Some(bulk);
                        let (wanted, without) = (fetch.wanted.clone(), fetch.without.clone());
                        return Some(Come::Bulk {
                            wanted,
                            without,
                            first: (peer, from, Some(part)),
                            answers,
                        });
                    }
                }
            }
            Some(part) => fetch.add(part),
        };
        match checked {
            Ok(None) => {
                fetch.send(links, peer);
                None
            }
            Ok(Some(found)) => self.remove(tx).map(|fetch| Come::Whole(fetch.wanted, found)),
            Err(reason) => {
                tracing::info!(%peer, %tx, reason, "a peer does not have what this replica misses");
                fetch.without.insert(peer);
                fetch.next_peer();
                None
            }
        }
    }

    /// Answers a peer, beside the reactor.
    pub(super) fn serve(
        &self,
        links: &ReplicaLinks,
        effects: &Effects,
        peer: ReplicaId,
        tx: TxId,
        slot: Slot,
        from: u64,
    ) {
        let Ok(permit) = Arc::clone(&self.served).try_acquire_owned() else { return };
        let (links, effects) = (links.clone(), effects.clone());
        tokio::task::spawn_blocking(move || {
            let gid = steeldb_postgres::transaction::gid(tx, slot);
            let part = effects.part(&gid, from, limits::KEPT_PART_BYTES);
            links.send_peer(peer, PeerMessage::Effects { tx, from, part }.encode());
            drop(permit);
        });
    }
}

impl Fetch {
    fn send(&mut self, links: &ReplicaLinks, peer: ReplicaId) {
        self.asked = Some((peer, Instant::now()));
        let (tx, slot, from) = (self.wanted.tx, self.wanted.slot, self.received.len() as u64);
        links.send_peer(peer, PeerMessage::FetchEffects { tx, slot, from }.encode());
    }

    fn next_peer(&mut self) {
        self.turn += 1;
        self.asked = None;
        self.received = Vec::new();
    }

    /// Adds a part; the whole, once it is there.
    fn add(&mut self, part: Part) -> Result<Option<Found>, String> {
        if self.received.is_empty() {
            self.kind = part.kind;
        }
        let rest = part.total.checked_sub(self.received.len() as u64);
        // As much as there is, so that nobody keeps this replica busy for long.
        let expected = rest.map(|rest| rest.min(limits::KEPT_PART_BYTES as u64));
        let too_large = part.total > limits::KEPT_RECORD_BYTES_MAX as u64;
        if part.kind != self.kind || too_large || expected != Some(part.bytes.len() as u64) {
            return Err("a part that is none".to_string());
        }
        self.received.extend_from_slice(&part.bytes);
        if (self.received.len() as u64) < part.total {
            return Ok(None);
        }
        self.wanted.check(self.kind, &self.received).map(Some)
    }
}

impl Reactor {
    /// Asks for each transaction that has not come; the scheduler is told of those that nobody has.
    pub(super) fn fetch_again(&mut self) {
        let peers: Vec<ReplicaId> = self.peers().collect();
        let faults = usize::from(self.core.roster().view().f());
        for tx in self.fetching.ask(&self.links, &peers, faults, self.rows.have_room()) {
            let reason = "no peer keeps its effects any more".to_string();
            self.schedule(Event::CaughtUp { tx, result: Err(CatchUpError::Failed(reason)) });
        }
    }

    /// A part of a transaction came from a peer.
    pub(super) fn effects_received(&mut self, peer: ReplicaId, tx: TxId, from: u64, part: Option<Part>) {
        match self.fetching.received(&self.links, peer, tx, from, part) {
            Some(Come::Whole(wanted, Found::WriteSet(write_set, bytes))) => {
                self.rows.found(&wanted, write_set, bytes);
            }
            Some(Come::Whole(wanted, Found::Script(script))) => {
                tokio::spawn(self.catch_up.clone().make(wanted, *script));
            }
            Some(Come::Bulk { wanted, without, first, answers }) => {
                let links = self.links.clone();
                let destination = self.rows.destination(&wanted);
                tracing::info!(%peer, %tx, "fetching a bulk transaction's rows");
                let fetch = BulkFetch {
                    wanted,
                    spooling: self.fetching.spooling.clone(),
                    bytes_max: self.catch_up.effects.bulk_bytes_max(),
                    send: move |peer, message: PeerMessage| {
                        links.send_peer(peer, message.encode());
                    },
                    peers: self.peers().collect(),
                    faults: usize::from(self.core.roster().view().f()),
                    without,
                    patience: PATIENCE,
                };
                tokio::spawn(fetch.run(first, answers, destination, self.internal.clone()));
            }
            None => {}
        }
        self.fetch_again();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeldb_types::{ClientId, Digest, SessionId, SessionKey};

    fn wanted(counter: u64) -> Wanted {
        let session = SessionKey { client: ClientId(1), session: SessionId(1) };
        let (tx, database) = (TxId { session, counter }, "app".to_string());
        let (position, slot, write_set) = (Position(counter), Slot::default(), Digest::default());
        Wanted { position, tx, slot, database, write_set, reexecution: None }
    }

    #[test]
    fn a_peer_that_was_silent_is_not_the_first_to_be_asked_for_the_next_transaction() {
        let (mut fetching, peers) = (Fetching::new(Spooling::new(Default::default())), 3);
        let turn = |fetching: &mut Fetching, counter: u64, attempt: u32| {
            let wanted = wanted(counter);
            let at = wanted.position;
            fetching.want(wanted, attempt);
            let Some(long_ago) = Instant::now().checked_sub(PATIENCE) else { panic!("a young clock") };
            let fetch = fetching.wanted.get_mut(&at).unwrap();
            fetch.asked = Some((ReplicaId(9), long_ago));
            fetch.turn % peers
        };
        assert_eq!(turn(&mut fetching, 1, 0), 0);
        // Two that wait for the same peer tell of it once.
        assert_eq!(turn(&mut fetching, 2, 0), 0);
        fetching.pass_over_silent(peers);
        assert_eq!(turn(&mut fetching, 3, 0), 1);
        assert_eq!(turn(&mut fetching, 4, 1), 2);
        fetching.wanted.retain(|_, fetch| fetch.wanted.tx.counter == 4);
        // That one was asked second, after a failure.
        fetching.pass_over_silent(peers);
        assert_eq!(turn(&mut fetching, 5, 0), 1);
    }
}
