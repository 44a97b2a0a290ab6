//! Fetching the rows of one bulk transaction: from one peer, part by part, to the disk. One that sends what the certificate
//! does not cover is told with that part, and another one is asked.
//!
//! A task of its own: neither the disk nor the digests hold the reactor up.

use super::catchup::Wanted;
use super::peer::PeerMessage;
use super::rows::Destination;
use crate::effects::{Kind, Part};
use crate::receipt::{Receipt, Received, Refused};
use crate::scheduler::{CatchUpError, Event};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use steeldb_types::{ReplicaId, limits};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// An answer: who gave it, from which byte on, and the part, if the peer has any.
pub(super) type Answer = (ReplicaId, u64, Option<Part>);

/// How often in a row a peer may be silent before another one is asked: its link may come back, and it goes on where it was.
const SILENT_MAX: u32 = 15;

/// Silent peers are waited for through so many questions in all before the others' word counts.
const SILENT_TRIES: u32 = 60;

/// What all of them share.
#[derive(Clone)]
pub(super) struct Spooling {
    /// Where rows wait.
    pub directory: PathBuf,
    /// Bytes that are there.
    pub on_disk: Arc<AtomicU64>,
    /// Peers that sent what no correct one does. Their words on bulk transactions count for nothing any more.
    liars: Arc<Mutex<BTreeSet<ReplicaId>>>,
}

impl Spooling {
    pub(super) fn new(directory: PathBuf) -> Spooling {
        Spooling { directory, on_disk: Arc::default(), liars: Arc::default() }
    }

    pub(super) fn distrusts(&self, peer: ReplicaId) -> bool {
        self.liars.lock().unwrap_or_else(PoisonError::into_inner).contains(&peer)
    }

    fn distrust(&self, peer: ReplicaId) {
        self.liars.lock().unwrap_or_else(PoisonError::into_inner).insert(peer);
    }
}

/// One fetch. `send` sends a peer a frame.
pub(super) struct BulkFetch<S> {
    pub wanted: Wanted,
    pub spooling: Spooling,
    pub bytes_max: u64,
    pub send: S,
    pub peers: Vec<ReplicaId>,
    /// So many of them may be silent for ever.
    pub faults: usize,
    /// Peers that do not have it.
    pub without: BTreeSet<ReplicaId>,
    /// How long a peer may take for a part.
    pub patience: Duration,
}

impl<S: Fn(ReplicaId, PeerMessage)> BulkFetch<S> {
    /// Fetches, beginning with the part that said what it is. Ends when nobody listens any more.
    pub(super) async fn run(
        mut self,
        first: Answer,
        mut answers: mpsc::UnboundedReceiver<Answer>,
        destination: Destination,
        events: mpsc::UnboundedSender<Event>,
    ) {
        match self.fetch(first, &mut answers).await {
            Ok(Some(received)) => destination.found(received),
            Ok(None) => {}
            Err(reason) => {
                let result = Err(CatchUpError::Failed(reason));
                let _ = events.send(Event::CaughtUp { tx: self.wanted.tx, result });
            }
        }
    }

    /// The whole; nothing when it is not wanted any more.
    ///
    /// # Errors
    /// Nobody has it, or this replica's disk failed.
    async fn fetch(
        &mut self,
        first: Answer,
        answers: &mut mpsc::UnboundedReceiver<Answer>,
    ) -> Result<Option<Received>, String> {
        let disk =
            |error: &dyn std::fmt::Display| format!("a bulk transaction's rows cannot be received: {error}");
        let (directory, w) = (self.spooling.directory.clone(), self.wanted.write_set);
        let (bytes_max, on_disk) = (self.bytes_max, Arc::clone(&self.spooling.on_disk));
        let made = tokio::task::spawn_blocking(move || Receipt::new(&directory, w, bytes_max, on_disk)).await;
        let mut receipt = made.map_err(|error| disk(&error))?.map_err(|error| disk(&error))?;
        let (mut peer, mut silent, mut questions) = (first.0, 0, 0);
        let mut next = Some(first);
        loop {
            let answer = match next.take() {
                Some(first) => Some(first),
                None => {
                    questions += 1;
                    let (tx, slot, from) = (self.wanted.tx, self.wanted.slot, receipt.at());
                    (self.send)(peer, PeerMessage::FetchEffects { tx, slot, from });
                    match self.answer(peer, from, answers).await {
                        Some(answer) => answer,
                        None => return Ok(None),
                    }
                }
            };
            let Some((_, _, part)) = answer else {
                silent += 1;
                if silent >= SILENT_MAX {
                    silent = 0;
                    tracing::info!(%peer, tx = %self.wanted.tx, at = receipt.at(), "no answer from a peer; another one is asked");
                    peer = self.another(peer, questions)?;
                    receipt.begin_again();
                }
                continue;
            };
            silent = 0;
            let at = receipt.at();
            let refused = match part {
                Some(part) if is_due(&part, at) => {
                    let taken = tokio::task::spawn_blocking(move || {
                        let taken = receipt.add(part.total, &part.bytes);
                        (receipt, taken)
                    });
                    let taken = taken.await.map_err(|error| disk(&error))?;
                    receipt = taken.0;
                    match taken.1 {
                        Ok(false) => continue,
                        Ok(true) => return Ok(receipt.finish()),
                        Err(Refused::Disk(error)) => return Err(disk(&error)),
                        Err(Refused::Wrong(reason)) => {
                            self.spooling.distrust(peer);
                            reason
                        }
                    }
                }
                Some(_) => "a part that is none",
                None => "nothing is kept",
            };
            tracing::warn!(%peer, tx = %self.wanted.tx, at, reason = refused, "a peer does not have the rows of a bulk transaction");
            self.without.insert(peer);
            peer = self.another(peer, questions)?;
            receipt.begin_again();
        }
    }

    /// What a peer answers to the last question; `Some(None)`: nothing for a while. None: nobody wants to know any more.
    async fn answer(
        &self,
        peer: ReplicaId,
        from: u64,
        answers: &mut mpsc::UnboundedReceiver<Answer>,
    ) -> Option<Option<Answer>> {
        let until = Instant::now() + self.patience;
        loop {
            match tokio::time::timeout_at(until, answers.recv()).await {
                Ok(Some(answer)) if (answer.0, answer.1) == (peer, from) => return Some(Some(answer)),
                Ok(Some(_)) => {} // to a question of before
                Ok(None) => return None,
                Err(_) => return Some(None),
            }
        }
    }

    /// Who is asked after `peer`.
    fn another(&self, peer: ReplicaId, questions: u32) -> Result<ReplicaId, String> {
        let at = self.peers.iter().position(|other| *other == peer).unwrap_or_default();
        let others = (1..=self.peers.len()).map(|after| self.peers[(at + after) % self.peers.len()]);
        let out = |peer: &ReplicaId| self.without.contains(peer) || self.spooling.distrusts(*peer);
        let lacking = self.peers.iter().filter(|peer| out(peer)).count();
        let silent_long = questions >= SILENT_TRIES && lacking + self.faults >= self.peers.len();
        let next = others.into_iter().find(|peer| !out(peer));
        next.filter(|_| !silent_long)
            .ok_or_else(|| "no peer keeps the rows of this bulk transaction any more".to_string())
    }
}

/// Whether a part is what was asked for, as much of it as there is.
fn is_due(part: &Part, at: u64) -> bool {
    let left = part.total.checked_sub(at).filter(|left| *left > 0);
    let expected = left.map(|left| left.min(limits::KEPT_PART_BYTES as u64));
    part.kind == Kind::Bulk && expected == Some(part.bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::{Effects, Options, Writing};
    use steeldb_postgres::write_set::{self, Order};
    use steeldb_postgres::{Change, Identity, Operation, Row, WriteSet};
    use steeldb_types::{ClientId, Digest, Position, SessionId, SessionKey, Slot, TxId};

    const PEERS: [ReplicaId; 3] = [ReplicaId(0), ReplicaId(1), ReplicaId(2)];

    /// What correct peers keep: rows of two megabytes, so three parts or more.
    struct World {
        dir: tempfile::TempDir,
        effects: Effects,
        changes: Vec<Change>,
        _writing: Writing,
    }

    impl World {
        fn new() -> World {
            let dir = tempfile::tempdir().unwrap();
            let kept = dir.path().join("effects");
            let (effects, writing) =
                Effects::open(&kept, Options { sync: false, ..Options::default() }).unwrap();
            let row = |number: usize| {
                let value = format!("{number} {}", "x".repeat(1000));
                let new = Row::new(vec![("a".to_string(), Some(value))]).unwrap();
                let (identity, operation) = (Identity::Row, Operation::Insert { new });
                Change { schema: "s".into(), table: "t".into(), identity, operation }
            };
            let changes: Vec<Change> = (0..2500).map(row).collect();
            let mut spill = effects.spill();
            let (mut part, mut order) = (write_set::Part::default(), Order::default());
            changes.iter().for_each(|change| part.push(change.clone(), &mut order));
            spill.add(part);
            effects.keep_bulk(spill.finish(&gid()).unwrap().rows.unwrap());
            World { dir, effects, changes, _writing: writing }
        }

        fn part(&self, from: u64) -> Option<Part> {
            self.effects.part(&gid(), from, limits::KEPT_PART_BYTES)
        }

        /// Fetches, beginning with peer 0; `answer` says what a peer answers to the n-th question, `None`: it is silent.
        async fn fetch(
            &self,
            spooling: &Spooling,
            mut answer: impl FnMut(usize, ReplicaId, u64) -> Option<Option<Part>>,
        ) -> (Result<Option<Received>, String>, Vec<(ReplicaId, u64)>) {
            let (asked, mut questions) = mpsc::unbounded_channel();
            let (answers, mut received) = mpsc::unbounded_channel();
            let write_set = WriteSet::new(self.changes.clone()).digest().unwrap();
            let (position, database) = (Position(7), "app".to_string());
            let wanted =
                Wanted { position, tx: tx(), slot: Slot::default(), database, write_set, reexecution: None };
            let mut fetch = BulkFetch {
                wanted,
                spooling: spooling.clone(),
                bytes_max: 1 << 30,
                send: move |peer, message| {
                    let PeerMessage::FetchEffects { from, .. } = message else { panic!("no question") };
                    asked.send((peer, from)).unwrap();
                },
                peers: PEERS.to_vec(),
                faults: 1,
                without: BTreeSet::new(),
                patience: Duration::from_millis(20),
            };
            let mut log = Vec::new();
            let first = (PEERS[0], 0, answer(0, PEERS[0], 0).unwrap());
            let fetching = async {
                let fetched = fetch.fetch(first, &mut received).await;
                drop(fetch); // no more questions
                fetched
            };
            let answering = async {
                while let Some((peer, from)) = questions.recv().await {
                    log.push((peer, from));
                    if let Some(part) = answer(log.len(), peer, from) {
                        // Whoever is done listens no more.
                        let _ = answers.send((peer, from, part));
                    }
                }
            };
            let (fetched, ()) = tokio::join!(fetching, answering);
            (fetched, log)
        }

        fn assert_whole(&self, fetched: Result<Option<Received>, String>) {
            let received = Arc::new(fetched.unwrap().expect("it is wanted"));
            assert_eq!(received.reader().next(usize::MAX).unwrap(), self.changes);
        }

        fn spooling(&self) -> Spooling {
            Spooling::new(self.dir.path().to_path_buf())
        }
    }

    fn tx() -> TxId {
        TxId { session: SessionKey { client: ClientId(1), session: SessionId(1) }, counter: 1 }
    }

    fn gid() -> String {
        Digest::of("test", &[]).to_string()
    }

    #[tokio::test]
    async fn b13_a_peer_with_a_wrong_piece_is_told_at_once_and_another_one_asked() {
        let (world, part_bytes) = (World::new(), limits::KEPT_PART_BYTES as u64);
        let spooling = world.spooling();
        let lie = |_: usize, peer: ReplicaId, from: u64| {
            let mut part = world.part(from)?;
            if peer == PEERS[0] && from == part_bytes {
                part.bytes[5000] ^= 1;
            }
            Some(Some(part))
        };
        let (fetched, log) = world.fetch(&spooling, lie).await;
        world.assert_whole(fetched);
        let digests_end = 8 + 2500 * 32;
        assert_eq!(log[0], (PEERS[0], part_bytes));
        assert_eq!(log[1], (PEERS[1], digests_end), "the next question goes to another, behind the digests");
        assert!(log[1..].iter().all(|(peer, _)| *peer == PEERS[1]), "{log:?}");
        assert!(spooling.distrusts(PEERS[0]) && !spooling.distrusts(PEERS[1]));
        assert_eq!(std::fs::read_dir(world.dir.path()).unwrap().count(), 1, "only what is kept has a name");
    }

    #[tokio::test]
    async fn b13_after_a_broken_link_it_goes_on_where_it_was() {
        let world = World::new();
        // Four questions after the first part nobody answers.
        let broken = |n: usize, _: ReplicaId, from: u64| (!(1..5).contains(&n)).then(|| world.part(from));
        let (fetched, log) = world.fetch(&world.spooling(), broken).await;
        world.assert_whole(fetched);
        assert!(log.iter().all(|(peer, from)| *peer == PEERS[0] && *from > 0), "{log:?}");
    }

    #[tokio::test]
    async fn b13_a_peer_that_stays_silent_is_left_and_what_nobody_has_is_given_up() {
        let world = World::new();
        let silent = |n: usize, peer: ReplicaId, from: u64| match peer {
            ReplicaId(0) if n > 0 => None,
            ReplicaId(1) => Some(None),
            _ => Some(world.part(from)),
        };
        let (fetched, log) = world.fetch(&world.spooling(), silent).await;
        world.assert_whole(fetched);
        assert_eq!(log.last().map(|(peer, _)| *peer), Some(PEERS[2]));
        let nobody = |n: usize, _: ReplicaId, from: u64| Some(if n == 0 { world.part(from) } else { None });
        let (fetched, log) = world.fetch(&world.spooling(), nobody).await;
        assert!(fetched.is_err_and(|reason| reason.contains("no peer keeps")), "{log:?}");
        assert_eq!(log.len(), 3, "each was asked");
    }
}
