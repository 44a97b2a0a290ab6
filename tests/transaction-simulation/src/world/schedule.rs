//! Draws everything that will go wrong in a run, and when.

use super::links::End;
use super::{Happening, INSPECTION_US, World};
use rand::Rng;
use steeldb_types::ReplicaId;

impl World<'_> {
    pub(super) fn schedule(&mut self) {
        for at in 0..self.nodes.len() {
            self.at(0, Happening::Start { at });
        }
        self.connect();
        self.schedule_clients();
        self.schedule_power();
        self.schedule_links();
        self.schedule_tampering();
        self.schedule_moves();
        self.at(self.scenario.faults_us, Happening::Heal);
        self.at(INSPECTION_US, Happening::Inspect);
    }

    /// Some time while faults happen.
    fn moment(&mut self) -> u64 {
        self.rng.random_range(10_000..self.scenario.faults_us)
    }

    fn any_replica(&mut self) -> usize {
        self.rng.random_range(0..self.nodes.len())
    }

    fn schedule_power(&mut self) {
        let power = self.scenario.power.clone();
        for _ in 0..power.crashes {
            let (at_us, at) = (self.moment(), self.any_replica());
            let store_first = self.rng.random_bool(0.3);
            self.at(at_us, Happening::Crash { at, store_first });
        }
        for _ in 0..power.blackouts {
            let at_us = self.moment();
            for at in 0..self.nodes.len() {
                self.at(at_us, Happening::Crash { at, store_first: false });
            }
        }
        for _ in 0..power.backends {
            let (at_us, at) = (self.moment(), self.any_replica());
            self.at(at_us, Happening::KillBackend { at });
        }
    }

    fn schedule_moves(&mut self) {
        for _ in 0..self.scenario.moves {
            let (at_us, to) = (self.moment(), self.any_replica());
            self.at(at_us, Happening::Move { to: ReplicaId(to as u16) });
        }
    }

    fn schedule_links(&mut self) {
        for _ in 0..self.scenario.network.breaks {
            let (at_us, at) = (self.moment(), self.any_replica());
            let other = self.rng.random_range(0..self.nodes.len() + self.clients.len());
            let other = match other.checked_sub(self.nodes.len()) {
                Some(client) => End::Client(client),
                None if other != at => End::Replica(other),
                None => continue,
            };
            self.at(at_us, Happening::Break(End::Replica(at), other));
        }
        for _ in 0..self.scenario.network.partitions {
            let from = self.moment();
            let until = self.rng.random_range(from..=self.scenario.faults_us);
            let group: Vec<usize> = (0..self.nodes.len()).filter(|_| self.rng.random_bool(0.3)).collect();
            self.at(from, Happening::Cut(group));
            self.at(until, Happening::Mend);
        }
    }
}
