//! Draws everything that will go wrong in a run, and when.

use super::network::Cut;
use super::{Happening, World};
use crate::scenario::Fault;
use rand::Rng;
use rand::seq::IndexedRandom;

impl World<'_> {
    pub(super) fn schedule(&mut self) {
        for node in 0..self.nodes.len() {
            self.at(0, Happening::Start { at: node });
        }
        self.schedule_clients();
        self.schedule_power();
        self.schedule_faults();
        self.schedule_cuts();
        for _ in 0..self.scenario.membership.map_or(0, |membership| membership.changes) {
            let at = self.moment();
            self.at(at, Happening::Change);
        }
        self.at(self.scenario.faults_us, Happening::Heal);
    }

    /// Some time while faults happen.
    fn moment(&mut self) -> u64 {
        self.rng.random_range(0..self.scenario.faults_us)
    }

    fn schedule_clients(&mut self) {
        for lane in 0..self.workload.lanes.len() {
            // A script plays from the start.
            let at = if self.scenario.script.is_some() { 1_000 } else { self.moment() };
            self.at(at, Happening::Ask { lane, request: 0 });
        }
    }

    fn schedule_power(&mut self) {
        let correct: Vec<usize> = (0..self.nodes.len()).filter(|node| !self.nodes[*node].faulty).collect();
        for _ in 0..self.scenario.power.crashes {
            let at = self.moment();
            if let Some(node) = correct.choose(&mut self.rng).copied() {
                self.power_fails(at, vec![node]);
            }
        }
        for _ in 0..self.scenario.power.blackouts {
            let at = self.moment();
            let spared = correct.choose(&mut self.rng).copied();
            self.power_fails(at, correct.iter().copied().filter(|node| Some(*node) != spared).collect());
        }
        if let Some(away) = self.scenario.power.away.map(|away| usize::from(away.0))
            && correct.contains(&away)
        {
            let at = self.rng.random_range(0..self.scenario.faults_us / 4);
            self.at(at, Happening::Crash { at: vec![away] });
        }
        for _ in 0..self.scenario.power.restarts_of_all {
            let at = self.moment();
            self.power_fails(at, correct.clone());
        }
    }

    /// Power fails at `nodes`, and comes back at each of them after a while.
    pub(super) fn power_fails(&mut self, at: u64, nodes: Vec<usize>) {
        for node in &nodes {
            let down_us = self.rng.random_range(1_000..400_000);
            self.at(at + down_us, Happening::Start { at: *node });
        }
        self.at(at, Happening::Crash { at: nodes });
    }

    /// What happens to faulty replicas, other than what they say.
    fn schedule_faults(&mut self) {
        for (replica, faults) in &self.scenario.faulty {
            let node = usize::from(replica.0);
            for fault in faults {
                let at = self.moment();
                let back = at + self.rng.random_range(1_000..200_000);
                match fault {
                    Fault::Crash => self.at(at, Happening::Crash { at: vec![node] }),
                    Fault::BitRot => {
                        self.at(at, Happening::Rot { at: node });
                        self.at(back, Happening::Start { at: node });
                    }
                    Fault::Amnesia => {
                        self.at(at, Happening::Wipe { at: node });
                        self.at(back, Happening::Start { at: node });
                    }
                    _ => {}
                }
            }
        }
    }

    fn schedule_cuts(&mut self) {
        let n = self.nodes.len() as u32;
        let group = |rng: &mut rand_chacha::ChaCha8Rng| rng.random_range(1..(1u32 << n) - 1);
        for _ in 0..self.scenario.network.partitions {
            let at = self.moment();
            let cut = Cut::Groups(group(&mut self.rng));
            self.cut(at, cut);
        }
        for _ in 0..self.scenario.network.one_way_partitions {
            let at = self.moment();
            let (from, to) = (group(&mut self.rng), group(&mut self.rng));
            self.cut(at, Cut::OneWay { from, to });
        }
        if self.nodes.len() > usize::from(self.scenario.nodes()) {
            // Twins change sides now and then.
            for _ in 0..4 {
                let at = self.moment();
                let sides = self.rng.random();
                self.at(at, Happening::Cut(Cut::Sides(sides)));
            }
        }
    }

    fn cut(&mut self, at: u64, cut: Cut) {
        let until = self.rng.random_range(at..=self.scenario.faults_us);
        self.at(at, Happening::Cut(cut));
        self.at(until, Happening::Mend);
    }
}
