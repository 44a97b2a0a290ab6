//! Batches of the ideal order, and what replicas are bound to before they are decided. Real ordering cores do this by
//! themselves; here every batch is decided, and some replicas have seen another one bound before, too few to decide it.

use super::{Happening, Within, World};
use crate::sequencer::Batch;
use rand::Rng;
use rand::seq::SliceRandom;
use std::collections::BTreeSet;
use steeldb_replica::scheduler::Event;
use steeldb_types::{Digest, Position, ViewNumber};
use steeldb_wire::codec;
use steeldb_wire::transaction::Ordered;

/// Of how many batches another sequence was bound first somewhere.
const MISLED: f64 = 0.4;

impl World<'_> {
    /// What is ordered gathers for a while.
    pub(super) fn gather(&mut self) {
        if !std::mem::replace(&mut self.sequencer.gathers, true) {
            let most_us = if self.healed { 2_000 } else { self.scenario.network.delay_max_us };
            let after_us = self.rng.random_range(100..=most_us);
            self.at(self.now_us + after_us, Happening::CloseBatch);
        }
    }

    /// What has gathered is decided together.
    pub(super) fn close_batch(&mut self) {
        self.sequencer.gathers = false;
        let from = self.sequencer.batches.last().map_or(0, |batch| batch.upto);
        let upto = self.sequencer.log.len();
        let mut misled = BTreeSet::new();
        if self.rng.random_bool(MISLED) {
            // Any number of liars may have helped, and f correct replicas at most have seen it.
            let (liars, mut correct): (Vec<usize>, Vec<usize>) =
                (0..self.nodes.len()).partition(|at| self.nodes[*at].faulty);
            correct.shuffle(&mut self.rng);
            correct.truncate(usize::from(self.scenario.f()));
            misled.extend(liars.into_iter().chain(correct));
        }
        self.sequencer.batches.push(Batch { from, upto, misled });
        for at in 0..self.nodes.len() {
            self.learn_order(at);
        }
    }

    /// A replica is bound to a batch, and that is durable.
    pub(super) fn batch_bound(&mut self, at: usize, index: usize) {
        let Some(batch) = self.next_batch(at, index) else { return };
        let regency = if batch.misled.is_empty() { 0 } else { 1 };
        if !batch.misled.contains(&at) {
            return self.bound(at, index, regency, false);
        }
        self.bound(at, index, 0, true);
        let most_us = if self.healed { 2_000 } else { self.scenario.network.delay_max_us };
        let after_us = self.rng.random_range(100..=most_us);
        self.later(at, after_us, Within::BoundAgain(index));
    }

    /// Another regency has proposed what is decided in the end.
    pub(super) fn batch_bound_again(&mut self, at: usize, index: usize) {
        if self.next_batch(at, index).is_some() {
            self.event(at, Event::Unbound);
            self.bound(at, index, 1, false);
        }
    }

    /// A batch, if it is the next one that the replica is delivered.
    fn next_batch(&self, at: usize, index: usize) -> Option<&Batch> {
        let running = self.nodes[at].running.as_ref()?;
        self.sequencer.batches.get(index).filter(|batch| batch.from == running.delivered)
    }

    fn bound(&mut self, at: usize, index: usize, regency: u64, backwards: bool) {
        let Some(batch) = self.sequencer.batches.get(index) else { return };
        let mut payloads: Vec<Ordered> =
            self.sequencer.log[batch.from..batch.upto].iter().map(|entry| entry.payload.clone()).collect();
        if backwards {
            payloads.reverse();
        }
        let first = batch.from as u64 + 1;
        let requests = payloads.into_iter().zip(first..);
        let requests = requests.map(|(payload, position)| (Position(position), Some(payload))).collect();
        let name = (index as u64, regency, backwards);
        self.note(&format!("r{at} is bound to batch {index} in regency {regency}, backwards: {backwards}"));
        self.event(
            at,
            Event::Bound { view: ViewNumber(0), claim: claim_of(&codec::encode(&name)), requests },
        );
    }
}

/// The name of what a replica is bound to.
pub(super) fn claim_of(name: &[u8]) -> Digest {
    Digest::of("steeldb/claim", &[name])
}
