//! What happens at replicas: starts and crashes, events into cores, effects out of them.

use super::{Happening, World};
use crate::adversaries::Stage;
use crate::clock::EPOCH_US;
use crate::history::{Batch, Observed};
use crate::world::describe::describe;
use rand::Rng;
use std::sync::Arc;
use steeldb_ordering::{Delivery, Effect, Event, Message, Record, Refusal, Request};
use steeldb_types::ReplicaId;

/// Decisions read from disk for one answer.
const DECISIONS_READ_MAX: usize = 2;

impl World<'_> {
    pub(super) fn start(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if node.core.is_some() {
            return;
        }
        let started = node.start();
        let (id, faulty) = (node.id, node.faulty);
        self.note(&format!("{id} starts (node {at})"));
        self.show_applied(at);
        if let Err(reason) = started {
            // What a rotten disk says may make no sense: that replica stays down.
            if !faulty {
                self.failure.get_or_insert(("restart", format!("{id}: {reason}")));
            }
            return;
        }
        self.run_effects(at);
        if self.now_us == 0 {
            return;
        }
        for peer in 0..self.nodes.len() {
            let other = self.nodes[peer].id;
            if other != id {
                self.handle(at, Event::LinkUp(other));
                self.handle(peer, Event::LinkUp(id));
            }
        }
    }

    pub(super) fn crash(&mut self, at: usize) {
        let id = self.nodes[at].id;
        self.note(&format!("{id} crashes"));
        if self.nodes[at].core.is_some() {
            self.power_off(at);
        }
        self.show_applied(at);
    }

    pub(super) fn wipe(&mut self, at: usize) {
        let id = self.nodes[at].id;
        self.note(&format!("{id} loses everything"));
        self.power_off(at);
        self.nodes[at].wipe();
    }

    pub(super) fn rot(&mut self, at: usize) {
        let id = self.nodes[at].id;
        self.note(&format!("{id} crashes, and its disk rots"));
        self.power_off(at);
        self.nodes[at].disk.rot(&mut self.rng);
    }

    fn power_off(&mut self, at: usize) {
        if let Err(reason) = self.nodes[at].crash(&mut self.rng) {
            self.failure.get_or_insert(("codec", format!("a state does not decode: {reason}")));
        }
    }

    pub(super) fn show_applied(&mut self, at: usize) {
        let node = &self.nodes[at];
        if !node.faulty {
            self.history.applied.insert(node.id, node.application.applied().to_vec());
        }
    }

    pub(super) fn flush(&mut self, at: usize, life: u32, upto: u64) {
        let node = &mut self.nodes[at];
        if node.life == life && node.core.is_some() {
            node.disk.flush(upto);
            self.handle(at, Event::Persisted { upto });
        }
    }

    pub(super) fn tick(&mut self, at: usize, life: u32) {
        let node = &mut self.nodes[at];
        if node.life == life && node.core.is_some() && node.tick_at == Some(self.now_us) {
            node.tick_at = None;
            self.handle(at, Event::Tick);
        }
    }

    pub(super) fn arrive(&mut self, at: usize, from: ReplicaId, message: Message) {
        if self.nodes[at].core.is_none() || self.is_stopped(&message) {
            return;
        }
        let id = self.nodes[at].id;
        self.note(&format!("{id} <- {from}: {}", describe(&message)));
        let message = if self.nodes[at].faulty { self.overhear(at, from, message) } else { message };
        self.handle(at, Event::Message { from, message });
    }

    /// A faulty replica hears a message: takes what it can use, says what it likes, and hides from its core what it
    /// does not want to know.
    fn overhear(&mut self, at: usize, from: ReplicaId, message: Message) -> Message {
        self.loot.hear(from, &message);
        let mut said = Vec::new();
        let node = &mut self.nodes[at];
        for adversary in &mut node.adversaries {
            let mut stage = Stage {
                me: node.id,
                n: self.scenario.nodes(),
                key: &node.config.key,
                loot: &self.loot,
                rng: &mut self.adversary_rng,
            };
            said.extend(adversary.hear(&mut stage, from, &message));
        }
        for (to, message) in said {
            self.carry(at, to, message, 0);
        }
        let heeded = |requests: Vec<Arc<Request>>| -> Vec<Arc<Request>> {
            requests.into_iter().filter(|request| !self.ignores(at, request)).collect()
        };
        match message {
            Message::Forward { requests } => Message::Forward { requests: heeded(requests) },
            Message::Stop { regency, requests } => Message::Stop { regency, requests: heeded(requests) },
            other => other,
        }
    }

    pub(super) fn handle(&mut self, at: usize, event: Event) {
        self.nodes[at].handle(self.now_us, event);
        self.run_effects(at);
    }

    fn run_effects(&mut self, at: usize) {
        let node = &self.nodes[at];
        if let Some(core) = node.core.as_ref().filter(|_| !node.faulty) {
            self.history.queues = self.history.queues.max(core.queue_sizes());
        }
        while let Some(effect) = self.nodes[at].poll_effect() {
            self.run_effect(at, effect);
        }
        let node = &mut self.nodes[at];
        let Some(due) = node.due_us() else { return };
        let due = due.max(self.now_us + 1);
        if node.tick_at.is_none_or(|at| due < at) {
            node.tick_at = Some(due);
            let life = node.life;
            self.at(due, Happening::Tick { at, life });
        }
    }

    fn run_effect(&mut self, at: usize, effect: Effect) {
        let id = self.nodes[at].id;
        match effect {
            Effect::Persist { sequence, record } => self.persist(at, sequence, &record),
            Effect::Send { to, message } => self.say(at, to, message),
            Effect::Broadcast { message } => {
                self.ambush_sync(at, &message);
                for to in self.scenario.replicas().filter(|to| *to != id) {
                    self.say(at, to, message.clone());
                }
            }
            Effect::Deliver(delivery) => self.deliver(at, delivery),
            Effect::Tentative(tentative) => {
                self.note(&format!("{id} vouches for {} {:?}", tentative.instance, tentative.claim));
                if !self.nodes[at].faulty {
                    let (instance, claim) = (tentative.instance, tentative.claim);
                    self.history.vouched.push((id, tentative));
                    self.ambush_belief(at, instance, claim);
                }
            }
            Effect::Revoke { instance } => self.note(&format!("{id} takes {instance} back")),
            Effect::Refused { request, reason } => {
                self.note(&format!("{id} refuses {request:?}: {reason}"));
                if matches!(reason, Refusal::Executed | Refusal::Stale) {
                    self.reply(at, request);
                }
            }
            Effect::ReadDecisions { peer, from, .. } => {
                let of = |record| match record {
                    Record::Decision(decision) if decision.instance() >= from => Some(decision),
                    _ => None,
                };
                let records = self.nodes[at].disk.records().into_iter();
                let kept = records.filter_map(of).zip(from.0..);
                // Those before may have been let go of.
                let consecutive = kept.take_while(|(decision, number)| decision.instance().0 == *number);
                let decisions = consecutive.map(|(decision, _)| decision).take(DECISIONS_READ_MAX).collect();
                self.handle(at, Event::DecisionsRead { peer, decisions });
            }
            Effect::RegencyInstalled { regency, leader } => {
                self.note(&format!("{id} installs {regency} of {leader}"));
            }
            Effect::ViewInstalled { roster, first } => {
                self.note(&format!("{id} installs view {} at {first}", roster.view().number().0));
            }
            Effect::Misbehaved { replica, reason } => self.misbehaved(at, replica, &reason),
            Effect::StateDiffers { instance } => {
                self.failure.get_or_insert(("checkpoints", format!("{id} differs at {instance}")));
            }
            Effect::TakeCheckpoint { instance } => self.take_checkpoint(at, instance),
            Effect::ReadChunk { peer, instance, chunk } => {
                let bytes = self.nodes[at].checkpoints.chunk(instance, chunk);
                self.handle(at, Event::ChunkRead { peer, instance, chunk, bytes });
            }
            Effect::StoreChunk { instance, chunk, bytes } => {
                self.nodes[at].checkpoints.store(instance, chunk, bytes);
            }
            Effect::InstallCheckpoint { instance, chunks } => self.install_checkpoint(at, instance, chunks),
            Effect::DropCheckpoints { before } => self.nodes[at].checkpoints.drop_before(before),
            Effect::Truncate { before } => self.nodes[at].disk.drop_before(before),
        }
    }

    fn persist(&mut self, at: usize, sequence: u64, record: &Record) {
        let node = &mut self.nodes[at];
        if let Record::Checkpoint(stable) = record
            && node.faulty
        {
            self.loot.note_checkpoint(stable);
        }
        node.disk.write(sequence, record);
        let life = node.life;
        let slow = if self.scenario.power.slow_disk == Some(node.id) { 20 } else { 1 };
        let flush_us = slow * self.rng.random_range(50..self.scenario.power.disk_max_us);
        self.at(self.now_us + flush_us, Happening::Flush { at, life, upto: sequence });
    }

    /// A correct replica is never accused by another; except that a leader which lost power before its own WRITE was
    /// durable may propose again, and differently.
    fn misbehaved(&mut self, at: usize, replica: ReplicaId, reason: &str) {
        let id = self.nodes[at].id;
        self.note(&format!("{id} accuses {replica}: {reason}"));
        let accused = &self.nodes[usize::from(replica.0)];
        let differently = reason.starts_with("proposed two batches")
            || reason.ends_with(" again")
            || reason.ends_with("timestamp is not after the last");
        let forgot = accused.life > 1 && differently;
        let correct = !self.nodes[at].faulty && !accused.faulty;
        if correct && !forgot && !self.scenario.has_planted_bug() {
            self.history.accusations.push(format!("{id} accuses {replica}: {reason}"));
        }
    }

    fn deliver(&mut self, at: usize, delivery: Delivery) {
        let node = &mut self.nodes[at];
        let (id, faulty) = (node.id, node.faulty);
        node.application.apply(&delivery);
        let keys: Vec<_> = delivery.requests.iter().map(|(_, request)| request.key()).collect();
        self.note(&format!("{id} delivers {} {keys:?}", delivery.instance));
        if !faulty {
            self.history.applied.entry(id).or_default().push(Batch::of(&delivery));
            self.ambush_decision(at, &delivery);
            let wall_us = EPOCH_US + self.now_us as i64;
            self.history.observed.push(Observed { replica: id, at_us: self.now_us, wall_us, delivery });
        }
        for key in keys {
            self.reply(at, key);
        }
    }
}
