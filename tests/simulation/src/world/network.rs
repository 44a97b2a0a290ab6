//! The network: who hears whom, what is lost, and how long the rest takes.

use super::{Happening, World};
use crate::adversaries::{Said, Stage};
use rand::Rng;
use std::collections::BTreeMap;
use steeldb_ordering::Message;
use steeldb_types::ReplicaId;

/// The way of a message when a script says who can talk to whom, microseconds.
const SCRIPTED_DELAY_US: u64 = 1_000;
/// The longest way once the faults are over, microseconds.
const HEALED_DELAY_MAX_US: u64 = 5_000;

/// Links that stop working. Bit i is node i.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    /// Two groups that do not hear each other.
    Groups(u32),
    /// `to` do not hear `from`.
    OneWay { from: u32, to: u32 },
    /// Which nodes talk to the second of two twins; the others talk to the first.
    Sides(u32),
}

/// Which links work.
pub(super) struct Links {
    /// By node, those that do not hear it.
    deaf: Vec<u32>,
    sides: u32,
    /// By link, when its last message arrives: where links keep order.
    last: BTreeMap<(usize, usize), u64>,
}

impl Links {
    pub(super) fn new(nodes: usize) -> Links {
        Links { deaf: vec![0; nodes], sides: 0b0101_0101, last: BTreeMap::new() }
    }

    pub(super) fn cut(&mut self, cut: &Cut) {
        match *cut {
            Cut::Groups(group) => {
                for (node, deaf) in self.deaf.iter_mut().enumerate() {
                    *deaf |= if group >> node & 1 == 1 { !group } else { group };
                }
            }
            Cut::OneWay { from, to } => {
                for (node, deaf) in self.deaf.iter_mut().enumerate() {
                    *deaf |= if from >> node & 1 == 1 { to } else { 0 };
                }
            }
            Cut::Sides(sides) => self.sides = sides,
        }
    }

    pub(super) fn mend(&mut self) {
        self.deaf.fill(0);
    }

    fn hears(&self, from: usize, to: usize) -> bool {
        self.deaf[from] >> to & 1 == 0
    }
}

impl World<'_> {
    /// A core wants something said. Faulty replicas twist it.
    pub(super) fn say(&mut self, from: usize, to: ReplicaId, message: Message) {
        let mut messages: Vec<Said> = vec![message.into()];
        let (id, n) = (self.nodes[from].id, self.scenario.nodes());
        for index in 0..self.nodes[from].adversaries.len() {
            let node = &mut self.nodes[from];
            let mut stage =
                Stage { me: id, n, key: &node.config.key, loot: &self.loot, rng: &mut self.adversary_rng };
            let adversary = &mut node.adversaries[index];
            messages = messages
                .into_iter()
                .flat_map(|said| {
                    let before_us = said.after_us;
                    let twisted = adversary.twist(&mut stage, to, said.message).into_iter();
                    twisted.map(move |said| Said { after_us: said.after_us + before_us, ..said })
                })
                .collect();
        }
        for said in messages {
            self.carry(from, to, said.message, said.after_us);
        }
    }

    /// Carries a message to whoever has the identity `to`.
    pub(super) fn carry(&mut self, from: usize, to: ReplicaId, message: Message, after_us: u64) {
        let holders: Vec<usize> = (0..self.nodes.len()).filter(|node| self.nodes[*node].id == to).collect();
        let scripted = self.scenario.script.is_some();
        for (index, node) in holders.iter().enumerate() {
            // Of twins each hears its side; in a script the script says who hears whom.
            let side = usize::from(self.links.sides >> from & 1 == 1);
            if holders.len() > 1 && !scripted && index != side {
                continue;
            }
            self.carry_to(from, *node, message.clone(), after_us);
        }
    }

    fn carry_to(&mut self, from: usize, to: usize, message: Message, after_us: u64) {
        if let Some(script) = &self.scenario.script {
            if self.healed || script.passes(from, to, &message) {
                self.arrives(from, to, message, after_us + SCRIPTED_DELAY_US);
            }
            return;
        }
        let network = &self.scenario.network;
        let (loss, duplication, delay_max_us) = match self.healed {
            true => (0.0, 0.0, HEALED_DELAY_MAX_US),
            false => (network.loss, network.duplication, network.delay_max_us),
        };
        let loss = match message {
            Message::Accept { .. } if !self.healed => loss.max(network.accepts_lost),
            _ => loss,
        };
        if !self.links.hears(from, to) || self.rng.random_bool(loss) {
            return;
        }
        let Some(message) = self.pass_ambush(from, to, message) else { return };
        if self.rng.random_bool(duplication) {
            let delay_us = self.rng.random_range(100..=delay_max_us);
            self.arrives(from, to, message.clone(), after_us + delay_us);
        }
        let delay_us = self.rng.random_range(100..=delay_max_us);
        self.arrives(from, to, message, after_us + delay_us);
    }

    pub(super) fn arrives(&mut self, from: usize, to: usize, message: Message, after_us: u64) {
        let mut at_us = self.now_us + after_us;
        if self.scenario.network.in_order {
            let last = self.links.last.entry((from, to)).or_default();
            at_us = at_us.max(*last);
            *last = at_us;
        }
        let message = match self.scenario.network.encoded {
            false => message,
            true => match Message::decode(&message.encode()) {
                Ok(message) => message,
                Err(error) => {
                    let name = message.name();
                    self.failure.get_or_insert(("codec", format!("{name} does not decode: {error}")));
                    return;
                }
            },
        };
        let from = self.nodes[from].id;
        self.at(at_us, Happening::Arrive { at: to, from, message });
    }
}
