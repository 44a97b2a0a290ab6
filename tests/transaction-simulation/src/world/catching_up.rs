//! Catching up by write sets (A11): peers are asked in turn, and what the certificate names is applied.

use super::{PeerMessage, Within, World};
use crate::node::Fetch;
use crate::scenario::Step;
use crate::store::{ApplyError, WriteSet};
use steeldb_replica::scheduler::{CatchUpError, Event};
use steeldb_types::{Digest, Position, Slot, TxId};

/// How long a peer may take to answer.
const FETCH_PATIENCE_US: u64 = 500_000;
/// Peers are asked so many times in all: for as long as faults may last.
const FETCH_TRIES: usize = 200;
/// How often an apply looks for its locks before it says that it waits for them.
const LOCK_TRIES: u32 = 4;
const LOCK_PAUSE_US: u64 = 50_000;

impl World<'_> {
    pub(super) fn catch_up(
        &mut self,
        at: usize,
        position: Position,
        tx: TxId,
        slot: Slot,
        write_set: Digest,
    ) {
        let id = self.nodes[at].id;
        self.note(&format!("{id} catches up with {tx}"));
        let fetch = Fetch { position, slot, write_set, asked: 0, asked_at_us: self.now_us };
        if let Some(running) = &mut self.nodes[at].running {
            running.rows.insert(position, None);
            running.fetching.insert(tx, fetch);
        }
        self.fetch_again(at);
    }

    /// Asks the next peer for each write set that has not come.
    pub(super) fn fetch_again(&mut self, at: usize) {
        let now_us = self.now_us;
        let peers: Vec<usize> = (0..self.nodes.len()).filter(|peer| *peer != at).collect();
        let Some(running) = &mut self.nodes[at].running else { return };
        let (mut ask, mut given_up) = (Vec::new(), Vec::new());
        for (tx, fetch) in &mut running.fetching {
            if fetch.asked > 0 && now_us - fetch.asked_at_us < FETCH_PATIENCE_US {
                continue;
            }
            if fetch.asked >= FETCH_TRIES {
                given_up.push(*tx);
                continue;
            }
            ask.push((peers[fetch.asked % peers.len()], *tx, fetch.slot));
            fetch.asked += 1;
            fetch.asked_at_us = now_us;
        }
        for tx in &given_up {
            running.fetching.remove(tx);
        }
        for (peer, tx, slot) in ask {
            self.say(at, peer, PeerMessage::FetchWriteSet { tx, slot });
        }
        for tx in given_up {
            let error = CatchUpError::Failed("no peer keeps its write set any more".into());
            self.event(at, Event::CaughtUp { tx, result: Err(error) });
        }
    }

    /// A peer answered; a write set that is not the certificate's is asked for elsewhere.
    pub(super) fn write_set(&mut self, at: usize, tx: TxId, write_set: Option<WriteSet>) {
        let Some(running) = &mut self.nodes[at].running else { return };
        let wanted = running.fetching.get(&tx).map(|fetch| (fetch.write_set, fetch.position));
        let Some((digest, position)) = wanted else { return };
        let Some(write_set) = write_set.filter(|set| set.digest() == digest) else { return };
        running.fetching.remove(&tx);
        running.rows.insert(position, Some(write_set));
        self.make_rows(at);
    }

    /// Sets the next rows, unless some are being made, or those before them are missing.
    fn make_rows(&mut self, at: usize) {
        let Some(running) = &mut self.nodes[at].running else { return };
        let first = running.rows.first_key_value().is_some_and(|(_, rows)| rows.is_some());
        if first && !std::mem::replace(&mut running.makes_rows, true) {
            let after_us = self.takes(at, 3_000);
            self.later(at, after_us, Within::Apply { tries: 0 });
        }
    }

    /// Applies the first write set and commits it.
    pub(super) fn apply(&mut self, at: usize, tries: u32) {
        let id = self.nodes[at].id;
        let Some(running) = &mut self.nodes[at].running else { return };
        running.makes_rows = false;
        let first = running.rows.first_key_value();
        let Some((position, write_set)) = first.and_then(|(at, rows)| Some((*at, rows.clone()?))) else {
            return;
        };
        let tx = write_set.tx;
        let result = match self.nodes[at].store_down {
            true => Err(CatchUpError::Failed("the store is down".into())),
            false => match self.nodes[at].store.apply(&write_set) {
                Ok(applied) => {
                    if applied && !self.nodes[at].faulty {
                        let commits = self.nodes[at].store.rows.commits();
                        self.history.committed(id, &write_set, commits);
                    }
                    Ok(())
                }
                Err(ApplyError::Locked) if tries < LOCK_TRIES => {
                    if let Some(running) = &mut self.nodes[at].running {
                        running.makes_rows = true;
                    }
                    return self.later(at, LOCK_PAUSE_US, Within::Apply { tries: tries + 1 });
                }
                Err(ApplyError::Locked) => Err(CatchUpError::Blocked),
                Err(ApplyError::DoesNotFit(reason)) => Err(CatchUpError::Failed(reason)),
            },
        };
        self.note(&format!("{id} applies the write set of {tx}: {result:?}"));
        if result.is_ok() && self.reaches(at, Step::CaughtUp) {
            return;
        }
        if let Some(running) = &mut self.nodes[at].running {
            match &result {
                Ok(()) => drop(running.rows.remove(&position)),
                // It is asked for again, and those behind it wait.
                Err(_) => drop(running.rows.insert(position, None)),
            }
        }
        self.make_rows(at);
        self.event(at, Event::CaughtUp { tx, result });
    }
}
