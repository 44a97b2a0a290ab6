//! The network: links that keep order and lose nothing, until they break; then what was under way is lost, and both ends
//! notice.

use super::{Happening, PeerMessage, World};
use rand::Rng;
use std::collections::BTreeMap;
use steeldb_replica::scheduler::Event;
use steeldb_types::ReplicaId;
use steeldb_wire::transaction::{ClientMessage, ReplicaMessage};

/// The longest way once the faults are over, microseconds.
const HEALED_DELAY_MAX_US: u64 = 2_000;

/// An end of a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum End {
    Replica(usize),
    Client(usize),
    /// Whoever orders, where the order is an ideal one.
    Order,
}

/// What travels.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all are messages")]
pub(super) enum Frame {
    Peer(PeerMessage),
    ToReplica(ClientMessage),
    ToClient(ReplicaMessage),
}

#[derive(Default)]
struct Link {
    up: bool,
    /// It cannot come up.
    cut: bool,
    /// Which connection this is; void messages name an earlier one.
    epoch: u64,
    /// When the last message arrives, in each direction.
    last: [u64; 2],
    /// Its return is set.
    dialling: bool,
}

/// All links, by their ends in order.
#[derive(Default)]
pub(super) struct Links {
    links: BTreeMap<(End, End), Link>,
    epochs: u64,
}

impl Links {
    fn link(&mut self, a: End, b: End) -> &mut Link {
        self.links.entry((a.min(b), a.max(b))).or_default()
    }

    pub(super) fn is_up(&self, a: End, b: End) -> bool {
        self.links.get(&(a.min(b), a.max(b))).is_some_and(|link| link.up)
    }

    fn epoch(&self, a: End, b: End) -> u64 {
        self.links.get(&(a.min(b), a.max(b))).map_or(0, |link| link.epoch)
    }

    fn of(&self, end: End) -> Vec<(End, End)> {
        self.links.keys().copied().filter(|(a, b)| *a == end || *b == end).collect()
    }
}

impl World<'_> {
    /// Links everybody with everybody, a little later.
    pub(super) fn connect(&mut self) {
        let replicas = self.nodes.len();
        for a in 0..replicas {
            for b in a + 1..replicas {
                self.dial(End::Replica(a), End::Replica(b), 1_000);
            }
            for client in 0..self.clients.len() {
                self.dial(End::Replica(a), End::Client(client), 3_000);
            }
            if !self.scenario.cores {
                self.dial(End::Replica(a), End::Order, 1_000);
            }
        }
    }

    /// Sets a link's return.
    fn dial(&mut self, a: End, b: End, most_us: u64) {
        let after_us = self.rng.random_range(100..=most_us);
        let link = self.links.link(a, b);
        if !link.up && !link.dialling {
            link.dialling = true;
            self.at(self.now_us + after_us, Happening::LinkUp(a, b));
        }
    }

    fn is_there(&self, end: End) -> bool {
        match end {
            End::Replica(at) => self.nodes[at].is_up(),
            End::Client(client) => !self.clients[client].is_away(),
            End::Order => true,
        }
    }

    pub(super) fn link_up(&mut self, a: End, b: End) {
        let there = self.is_there(a) && self.is_there(b);
        self.links.epochs += 1;
        let epoch = self.links.epochs;
        let link = self.links.link(a, b);
        link.dialling = false;
        if link.up {
            return;
        }
        if link.cut || !there {
            return self.dial(a, b, 300_000);
        }
        (link.up, link.epoch, link.last) = (true, epoch, [0; 2]);
        self.note(&format!("{a:?} and {b:?} are linked"));
        self.notice(a, b, true, epoch);
        self.notice(b, a, true, epoch);
    }

    /// One end learns of a change.
    fn notice(&mut self, end: End, other: End, up: bool, epoch: u64) {
        match (end, other, up) {
            (End::Replica(at), End::Replica(peer), true) => self.peer_up(at, ReplicaId(peer as u16)),
            (End::Replica(_), End::Replica(_), false) => {}
            (End::Replica(at), End::Client(client), true) => {
                if let Some(running) = &mut self.nodes[at].running {
                    running.connections.insert(epoch, client);
                    let term = running.scheduler.term();
                    self.answer(at, epoch, ReplicaMessage::Term(term));
                }
            }
            (End::Replica(at), End::Client(_), false) => {
                if let Some(running) = &mut self.nodes[at].running {
                    running.connections.remove(&epoch);
                    running.origins.retain(|_, origin| *origin != epoch);
                    self.event(at, Event::ConnectionLost(steeldb_replica::scheduler::Connection(epoch)));
                }
            }
            (End::Replica(at), End::Order, true) => self.learn_order(at),
            (End::Client(client), End::Replica(at), up) => {
                self.client_link(client, ReplicaId(at as u16), up);
            }
            _ => {}
        }
    }

    /// A link breaks, and comes back later.
    pub(super) fn break_link(&mut self, a: End, b: End) {
        let link = self.links.link(a, b);
        if !link.up {
            return;
        }
        link.up = false;
        let epoch = link.epoch;
        self.note(&format!("the link between {a:?} and {b:?} breaks"));
        self.notice(a, b, false, epoch);
        self.notice(b, a, false, epoch);
        let most_us = if self.healed { 50_000 } else { 1_500_000 };
        self.dial(a, b, most_us);
    }

    /// A replica crashes: all its links go with it.
    pub(super) fn break_links_of(&mut self, at: usize) {
        for (a, b) in self.links.of(End::Replica(at)) {
            self.break_link(a, b);
        }
    }

    pub(super) fn break_links_of_client(&mut self, client: usize) {
        for (a, b) in self.links.of(End::Client(client)) {
            self.break_link(a, b);
        }
    }

    /// Cuts a group of replicas off from the others, from clients and from the order.
    pub(super) fn cut(&mut self, group: &[usize]) {
        self.note(&format!("{group:?} are cut off"));
        let inside = |end: End| matches!(end, End::Replica(at) if group.contains(&at));
        let parted: Vec<(End, End)> =
            self.links.links.keys().copied().filter(|(a, b)| inside(*a) != inside(*b)).collect();
        for (a, b) in parted {
            self.links.link(a, b).cut = true;
            self.break_link(a, b);
        }
    }

    pub(super) fn mend(&mut self) {
        self.note("links mended");
        for link in self.links.links.values_mut() {
            link.cut = false;
        }
    }

    /// Sends a frame; one over a link that is down is lost.
    pub(super) fn carry(&mut self, from: End, to: End, frame: Frame, after_us: u64) {
        if !self.links.is_up(from, to) {
            return;
        }
        let most_us = if self.healed { HEALED_DELAY_MAX_US } else { self.scenario.network.delay_max_us };
        let slowness = |end: End| match end {
            End::Replica(at) if !self.healed => self.nodes[at].slowness,
            _ => 1,
        };
        let slowness = slowness(from).max(slowness(to));
        let delay_us = self.rng.random_range(50..=most_us.max(50)) * slowness.min(20) + after_us;
        let at_us = self.now_us + delay_us;
        let link = self.links.link(from, to);
        let last = &mut link.last[usize::from(from > to)];
        let at_us = at_us.max(*last);
        *last = at_us;
        let epoch = link.epoch;
        self.at(at_us, Happening::Arrive { from, to, epoch, frame });
    }

    pub(super) fn arrive(&mut self, from: End, to: End, epoch: u64, frame: Frame) {
        if !self.links.is_up(from, to) || self.links.epoch(from, to) != epoch {
            return;
        }
        match (from, to, frame) {
            (End::Replica(from), End::Replica(to), Frame::Peer(message)) => {
                self.peer_frame(to, from, message)
            }
            (End::Client(client), End::Replica(to), Frame::ToReplica(message)) => {
                self.client_frame(to, client, epoch, message);
            }
            (End::Replica(from), End::Client(client), Frame::ToClient(message)) => {
                self.answer_frame(client, ReplicaId(from as u16), message);
            }
            _ => {}
        }
    }

    /// A replica says something to another. Faulty ones twist it.
    pub(super) fn say(&mut self, from: usize, to: usize, message: PeerMessage) {
        let mut messages = vec![message];
        let peer = ReplicaId(to as u16);
        self.each_adversary(from, |adversary, stage| {
            let said = std::mem::take(&mut messages).into_iter();
            messages = said.flat_map(|message| adversary.to_peer(stage, peer, message)).collect();
        });
        for message in messages {
            self.carry(End::Replica(from), End::Replica(to), Frame::Peer(message), 0);
        }
    }

    pub(super) fn say_to_all(&mut self, from: usize, message: &PeerMessage) {
        for to in (0..self.nodes.len()).filter(|to| *to != from) {
            self.say(from, to, message.clone());
        }
    }

    /// A replica answers a client. Faulty ones twist it.
    pub(super) fn answer(&mut self, from: usize, connection: u64, message: ReplicaMessage) {
        let node = &self.nodes[from];
        let client = node.running.as_ref().and_then(|running| running.connections.get(&connection).copied());
        let Some(client) = client else { return };
        let mut messages = vec![message];
        self.each_adversary(from, |adversary, stage| {
            let said = std::mem::take(&mut messages).into_iter();
            messages = said.flat_map(|message| adversary.to_client(stage, client, message)).collect();
        });
        for message in messages {
            self.carry(End::Replica(from), End::Client(client), Frame::ToClient(message), 0);
        }
    }
}
