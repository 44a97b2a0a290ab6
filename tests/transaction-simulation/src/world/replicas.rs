//! What happens at replicas: starts and crashes, events into schedulers, effects out of them.

use super::links::{End, Frame};
use super::{EPOCH_US, Happening, IDLE_TIMEOUT_US, PeerMessage, VOTE_TIMEOUT_US, Within, World};
use crate::adversaries;
use crate::node::{Lane, Running};
use crate::scenario::{MASTER, Step};
use crate::sequencer::Entry;
use rand::Rng;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use steeldb_ordering::{self as ordering, Request, RequestId};
use steeldb_replica::promises::Promises;
use steeldb_replica::scheduler::{
    self, Command, Connection, Effect, Event, Missing, OpenTransactions, Scheduler,
};
use steeldb_types::{ClientId, ReplicaId, SessionKey, Slot, TxId};
use steeldb_wire::transaction::{ClientMessage, Ordered, ReplicaMessage, SignatureMemo, SignedFinish};

/// How often schedulers look at their clocks.
const TICK_US: u64 = 100_000;
/// What was ordered this long ago is late.
const LATE_US: i64 = 2_000_000;
/// What is prepared here and not resolved.
type InDoubt = Vec<(TxId, Slot, String)>;

/// How long a master may be silent.
const MASTER_SILENCE_US: u64 = 1_500_000;
/// T_soft.
const SOFT_BARRIER_US: u64 = 20_000;

impl World<'_> {
    pub(super) fn start(&mut self, at: usize) {
        if self.nodes[at].is_up() {
            return;
        }
        let node = &mut self.nodes[at];
        node.life += 1;
        node.store_down = false;
        let id = node.id;
        self.note(&format!("{id} starts"));
        let (core, entries, early) = self.restore_order(at);
        self.note_restored(at, &entries);
        let recovered = self.recover(at, &entries);
        let config = self.scheduler_config(at);
        // An ideal order's log is counted in entries, a core's in records since the start.
        let durable = if core.is_some() { 0 } else { entries.len() as u64 };
        let promises = Promises::new(&config, durable);
        let mut scheduler = Scheduler::new(config);
        let (open, in_doubt, missing) = recovered;
        // The store loses nothing that it prepared.
        scheduler.restore(open, in_doubt, missing, Vec::new());
        self.nodes[at].running = Some(Running {
            scheduler,
            core,
            memo: RefCell::new(SignatureMemo::new(4096)),
            promises,
            delivered: entries.len(),
            connections: BTreeMap::new(),
            origins: BTreeMap::new(),
            workers: BTreeMap::new(),
            stepping: BTreeSet::new(),
            fetching: BTreeMap::new(),
            led: BTreeSet::new(),
            rows: BTreeMap::new(),
            makes_rows: false,
            lanes: BTreeMap::new(),
            wake_at: None,
            core_tick_at: None,
        });
        for effect in early {
            self.ordering_effect(at, effect);
        }
        // Decoding shows again what is prepared.
        let prepared: Vec<(String, crate::store::WriteSet)> =
            self.nodes[at].store.prepared().map(|(gid, set)| (gid.clone(), set.clone())).collect();
        for (gid, write_set) in prepared {
            self.on_lane(at, Lane::Decoder, 20_000, Within::Decoded { gid, write_set });
        }
        self.later(at, TICK_US, Within::Tick);
        self.settle(at);
    }

    fn scheduler_config(&self, at: usize) -> scheduler::Config {
        let node = &self.nodes[at];
        scheduler::Config {
            me: node.id,
            master: MASTER,
            view: self.view.clone(),
            key: node.key.clone(),
            replica_keys: self.nodes.iter().map(|node| node.key.public()).collect(),
            clients: self.rights.clone(),
            cluster_key: [9; 32],
            permits: self.scenario.permits,
            vote_timeout_us: VOTE_TIMEOUT_US,
            idle_timeout_us: IDLE_TIMEOUT_US,
            drain_timeout_us: 200_000,
            execution: self.scenario.execution,
            soft_barrier_us: SOFT_BARRIER_US,
            bulk_bytes_max: steeldb_types::limits::BULK_BYTES_MAX,
            master_silence_us: MASTER_SILENCE_US,
            #[cfg(feature = "planted-bugs")]
            planted_bug: self.scenario.replica_bug,
        }
    }

    /// The log's decisions against what the store holds (A5), as the agent does it: a name that is present is prepared and
    /// not applied; a record that is visible is applied; neither: the transaction's effects are not here.
    fn recover(&mut self, at: usize, entries: &[Entry]) -> (OpenTransactions, InDoubt, Vec<Missing>) {
        let mut open = OpenTransactions::new(MASTER, self.view.clone());
        let replayed =
            entries.iter().map(|entry| open.replay(entry.position, entry.timestamp, &entry.payload));
        let commits: Vec<Missing> = replayed.flatten().collect();
        let name = |tx, slot| crate::gid(tx, slot);
        let database = super::DATABASE.to_string();
        let store = &self.nodes[at].store;
        let mut prepared: BTreeSet<String> = store.prepared().map(|(gid, _)| gid.clone()).collect();
        let (mut in_doubt, mut missing) = (Vec::new(), Vec::new());
        for commit in commits {
            let (tx, slot) = (commit.certificate.tx, commit.certificate.slot);
            if prepared.remove(&name(tx, slot)) {
                in_doubt.push((tx, slot, database.clone()));
                missing.push(commit);
            } else if !store.is_recorded(tx) {
                missing.push(commit);
            }
        }
        let ahead = open.iter().find(|(tx, _)| store.is_recorded(*tx)).filter(|_| !self.nodes[at].faulty);
        for (tx, slot) in open.iter() {
            if prepared.remove(&name(tx, slot)) {
                in_doubt.push((tx, slot, database.clone()));
            }
        }
        let (id, known) = (self.nodes[at].id, open.delivered());
        if let Some((tx, _)) = ahead {
            self.fail("restart", format!("{id} holds {tx}, whose commit its log, up to {known}, does not"));
        }
        for gid in prepared {
            let Some(write_set) = self.nodes[at].store.rollback_prepared(&gid) else { continue };
            self.note(&format!("{id} rolls {} back", write_set.tx));
            if !self.nodes[at].faulty {
                self.history.unprepared_in_restart(id, &write_set, known);
            }
        }
        (open, in_doubt, missing)
    }

    /// The agent and its store stop at once; or the store does, and its agent notices later.
    pub(super) fn crash(&mut self, at: usize, store_first: bool) {
        if !self.nodes[at].is_up() {
            return;
        }
        let id = self.nodes[at].id;
        if store_first && !self.nodes[at].store_down {
            self.note(&format!("the store of {id} crashes"));
            self.nodes[at].store_down = true;
            self.nodes[at].store.crash();
            let after_us = self.rng.random_range(1_000..500_000);
            self.later(at, after_us, Within::Stop);
            return self.lose_backends(at);
        }
        self.note(&format!("{id} crashes"));
        let Some(running) = self.nodes[at].running.take() else { return };
        self.break_links_of(at);
        self.finish_what_runs(at, &running);
        let node = &mut self.nodes[at];
        node.store.crash();
        node.journal = self.rng.random_range(node.journal.min(running.delivered)..=running.delivered);
        node.disk.cut(&mut self.rng);
        let down_us = self.rng.random_range(5_000..1_500_000);
        self.at(self.now_us + down_us, Happening::Start { at });
    }

    /// A replica has reached a step at which it may have to crash; whether it does.
    pub(super) fn reaches(&mut self, at: usize, step: Step) -> bool {
        if self.healed || !self.nodes[at].is_up() {
            return false;
        }
        let id = self.nodes[at].id;
        let times = self.reached.entry((at, step)).or_default();
        *times += 1;
        let times = *times;
        let planned = self.scenario.power.at_steps.iter();
        let due = planned.copied().find(|plan| plan.replica == id && plan.step == step && plan.nth == times);
        let Some(plan) = due else { return false };
        self.note(&format!("{id} is to crash at {step:?}"));
        self.crash(at, plan.store_first);
        true
    }

    pub(super) fn tick(&mut self, at: usize) {
        self.later(at, TICK_US, Within::Tick);
        self.fetch_again(at);
        self.event(at, Event::Tick);
    }

    pub(super) fn wake(&mut self, at: usize) {
        if let Some(running) = &mut self.nodes[at].running
            && running.wake_at == Some(self.now_us)
        {
            running.wake_at = None;
            self.event(at, Event::Wake);
        }
    }

    /// Hands an event to a replica's scheduler, and does what comes of it.
    pub(super) fn event(&mut self, at: usize, event: Event) {
        let now_us = self.now_us;
        let node = &mut self.nodes[at];
        let Some(running) = &mut node.running else { return };
        running.scheduler.handle(now_us, event);
        if !node.faulty {
            let prepared = node.store.prepared().count();
            self.history.holds(node.id, running.scheduler.sizes(), prepared);
        }
        self.settle(at);
    }

    /// Runs effects until both machines are quiet.
    pub(super) fn settle(&mut self, at: usize) {
        let life = self.nodes[at].life;
        loop {
            let mut quiet = true;
            if let Some(running) = &mut self.nodes[at].running {
                running.scheduler.flush();
            }
            while let Some(effect) = self.next_effect(at, life) {
                quiet = false;
                self.effect(at, effect);
            }
            while let Some(effect) = self.next_ordering_effect(at, life) {
                quiet = false;
                self.ordering_effect(at, effect);
            }
            if quiet {
                break;
            }
        }
        self.set_timers(at);
    }

    fn next_effect(&mut self, at: usize, life: u32) -> Option<Effect> {
        let node = &mut self.nodes[at];
        if node.life != life {
            return None;
        }
        let running = node.running.as_mut()?;
        while let Some(effect) = running.scheduler.poll_effect() {
            if let Some(effect) = running.promises.take(effect) {
                return Some(effect);
            }
        }
        running.promises.poll()
    }

    fn set_timers(&mut self, at: usize) {
        let now_us = self.now_us;
        let Some(running) = &mut self.nodes[at].running else { return };
        if let Some(wake) = running.scheduler.next_wake().map(|wake| wake.max(now_us + 1))
            && running.wake_at.is_none_or(|set| wake < set)
        {
            running.wake_at = Some(wake);
            self.later(at, wake - now_us, Within::Wake);
        }
        self.set_core_timer(at);
    }

    fn effect(&mut self, at: usize, effect: Effect) {
        match effect {
            Effect::OpenBackend { session, .. } => self.open_backend(at, session),
            Effect::Backend { session, command } => self.command(at, session, command),
            Effect::TakeAnchor { anchor, .. } => {
                self.on_lane(at, Lane::Anchors, 2_000, Within::TakeAnchor(anchor));
            }
            Effect::ReleaseAnchor(anchor) => self.nodes[at].store.release(anchor),
            Effect::CommitPrepared { tx, gid, .. } => {
                let after_us = self.takes(at, 3_000);
                self.later(at, after_us, Within::Commit { tx, gid });
            }
            Effect::RollbackPrepared { gid, .. } => {
                let after_us = self.takes(at, 3_000);
                self.later(at, after_us, Within::Rollback { gid });
            }
            Effect::CatchUp { position, tx, slot, write_set, .. } => {
                self.catch_up(at, position, tx, slot, write_set);
            }
            Effect::FindBlockers { tx, process, .. } => {
                let after_us = self.takes(at, 2_000);
                self.later(at, after_us, Within::Blockers { tx, pid: process });
            }
            Effect::Submit(ordered) => self.submit(at, *ordered),
            Effect::SendVotes(bundle) => {
                if let Some(running) = &self.nodes[at].running {
                    bundle.remember_own(self.nodes[at].id, &mut running.memo.borrow_mut());
                }
                for (vote, _) in &bundle.votes {
                    let id = self.nodes[at].id;
                    self.note(&format!("{id} votes on {} at {}: {:?}", vote.tx, vote.slot, vote.kind));
                    if !self.nodes[at].faulty {
                        self.history.voted(id, vote);
                    }
                }
                self.say_to_all(at, &PeerMessage::Votes(bundle));
                self.reaches(at, Step::Voted);
            }
            Effect::ResendVotes { to, bundle } => {
                self.say(at, usize::from(to.0), PeerMessage::Votes(bundle));
            }
            Effect::SendAccusation(signed) => {
                if !self.nodes[at].faulty {
                    self.history.accused.push((signed.replica, signed.accusation));
                }
                self.say_to_all(at, &PeerMessage::Accusation(signed));
            }
            // Asked after a server alone was started again, which the simulation does not do.
            Effect::LookForPrepared { .. } => {}
            // Nobody looks statements up here: what differs is not certified.
            Effect::Certify { .. } => {}
            Effect::TermBegan(term) => {
                let id = self.nodes[at].id;
                self.note(&format!("{id} says that {term:?} begins"));
                if !self.nodes[at].faulty {
                    self.history.terms.insert((id, term.epoch));
                }
                let connections = self.nodes[at].running.as_ref().map(|running| running.connections.clone());
                for connection in connections.unwrap_or_default().into_keys() {
                    self.answer(at, connection, ReplicaMessage::Term(term));
                }
            }
            Effect::SkipSequences { database } => {
                let after_us = self.takes(at, 2_000);
                self.later(at, after_us, Within::Event(Event::SequencesSkipped { database }));
            }
            Effect::SendStream(stream) => self.say_to_all(at, &PeerMessage::Stream(stream)),
            Effect::Reply { connection, message } => self.answer(at, connection.0, message),
            Effect::Answer { session, message } => {
                let origin = self.nodes[at]
                    .running
                    .as_ref()
                    .and_then(|running| running.origins.get(&session).copied());
                if let Some(origin) = origin {
                    self.answer(at, origin, message);
                }
            }
            // No client here asks for these, defines temporary relations or copies anything.
            Effect::Maintain { .. }
            | Effect::Verify { .. }
            | Effect::ClearTemporary { .. }
            | Effect::KeepCopy { .. }
            | Effect::EndCopy { .. }
            | Effect::DropCopies { .. } => {}
            Effect::Diverged { position, tx, reason } => self.diverged(at, position, tx, reason),
        }
    }

    fn diverged(
        &mut self,
        at: usize,
        position: steeldb_types::Position,
        tx: steeldb_types::TxId,
        reason: String,
    ) {
        let node = &self.nodes[at];
        let (id, expected) = (node.id, node.faulty || node.store_down);
        self.note(&format!("{id} says that it has diverged at {position}, {tx}: {reason}"));
        if !expected {
            self.history.diverged.push(format!("{id} at {position}, {tx}: {reason}"));
        }
    }

    /// A replica has what its votes prove ordered; a faulty one perhaps something else.
    fn submit(&mut self, at: usize, ordered: Ordered) {
        let mut submitted = vec![ordered];
        self.each_adversary(at, |adversary, stage| {
            let requests = std::mem::take(&mut submitted).into_iter();
            submitted = requests.flat_map(|ordered| adversary.to_order(stage, ordered)).collect();
        });
        for request in submitted.iter().filter_map(adversaries::request) {
            self.request(at, request);
        }
    }

    pub(super) fn peer_up(&mut self, at: usize, peer: ReplicaId) {
        self.ordering_event(at, ordering::Event::LinkUp(peer));
        self.event(at, Event::PeerUp(peer));
    }

    pub(super) fn peer_frame(&mut self, at: usize, from: usize, message: PeerMessage) {
        self.overhear(at, from, &message);
        let peer = self.nodes[from].id;
        let key = self.nodes[from].key.public();
        let Some(running) = &self.nodes[at].running else { return };
        match message {
            PeerMessage::Ordering(message) => {
                self.ordering_event(at, ordering::Event::Message { from: peer, message });
            }
            PeerMessage::Votes(bundle) => {
                if !running.scheduler.wants(&bundle) {
                    return;
                }
                let opened = bundle.open(peer, &key, &mut running.memo.borrow_mut());
                if let Ok(votes) = opened {
                    self.event(at, Event::Votes(votes));
                }
            }
            PeerMessage::Stream(stream) => {
                let (epoch, entries) = (stream.epoch, stream.entries);
                if !self.nodes[at].faulty {
                    self.history.streamed(self.nodes[at].id, &entries);
                }
                self.event(at, Event::Stream { from: peer, epoch, entries });
            }
            PeerMessage::Accusation(signed) => {
                if signed.replica == peer && signed.verify(&key).is_ok() {
                    self.event(at, Event::Accused(signed));
                }
            }
            PeerMessage::FetchWriteSet { tx, slot } => {
                let write_set = self.nodes[at].write_sets.get(&crate::gid(tx, slot)).cloned();
                self.say(at, from, PeerMessage::WriteSet { tx, write_set });
            }
            PeerMessage::WriteSet { tx, write_set } => self.write_set(at, tx, write_set),
        }
    }

    /// A faulty replica hears a message, and has something ordered that it makes of it.
    fn overhear(&mut self, at: usize, from: usize, message: &PeerMessage) {
        let from = self.nodes[from].id;
        let mut requests = Vec::new();
        self.each_adversary(at, |adversary, stage| requests.extend(adversary.hear(stage, from, message)));
        for request in requests {
            self.request(at, request);
        }
    }

    pub(super) fn client_frame(&mut self, at: usize, client: usize, connection: u64, message: ClientMessage) {
        let id: ClientId = self.clients[client].id();
        let Some(running) = &mut self.nodes[at].running else { return };
        match message {
            ClientMessage::Request { session, sequence, payload, signature } => {
                let session = SessionKey { client: id, session };
                running.origins.insert(session, connection);
                let request = Request::Client { id: RequestId { session, sequence }, payload, signature };
                self.request(at, request);
            }
            message => {
                if let ClientMessage::Finish(finish) = &message {
                    self.answer_finish(at, connection, finish);
                }
                let Some(running) = &mut self.nodes[at].running else { return };
                if let ClientMessage::CloseSession { session } = &message {
                    running.origins.remove(&SessionKey { client: id, session: *session });
                }
                let connection = Connection(connection);
                self.event(at, Event::Client { connection, client: id, message });
            }
        }
    }

    /// A faulty replica hears the end of a transaction, and answers before its scheduler does.
    fn answer_finish(&mut self, at: usize, connection: u64, finish: &SignedFinish) {
        let mut messages = Vec::new();
        self.each_adversary(at, |adversary, stage| messages.extend(adversary.finish(stage, finish)));
        for message in messages {
            self.answer(at, connection, message);
        }
    }

    /// Hands a delivered request to the scheduler.
    pub(super) fn deliver(&mut self, at: usize, entry: Entry) {
        let age_us = EPOCH_US + self.now_us as i64 - entry.timestamp.0;
        let Entry { position, timestamp, request, payload } = entry;
        let outcome = matches!(payload, Ordered::Commit(_) | Ordered::Abort(_));
        let id = self.nodes[at].id;
        self.note(&format!("{id} is delivered {position}"));
        self.history.delivered(id, position);
        self.event(at, Event::Delivered { position, timestamp, late: age_us > LATE_US, request, payload });
        if outcome {
            self.reaches(at, Step::Delivered);
        }
    }

    /// Sets something on a lane: it happens after what is on it already.
    pub(super) fn on_lane(&mut self, at: usize, lane: Lane, most_us: u64, what: Within) {
        let after_us = self.takes(at, most_us);
        let now_us = self.now_us;
        let Some(running) = &mut self.nodes[at].running else { return };
        let last = running.lanes.entry(lane).or_default();
        let at_us = (now_us + after_us).max(*last);
        *last = at_us;
        self.later(at, at_us - now_us, what);
    }

    /// A client's messages leave.
    pub(super) fn client_says(
        &mut self,
        client: usize,
        to: ReplicaId,
        message: ClientMessage,
        relaxed: bool,
    ) {
        let gather_us = self.scenario.execution.gather().as_micros() as u64;
        let after_us = if relaxed { self.rng.random_range(0..=gather_us) } else { 0 };
        let (from, to) = (End::Client(client), End::Replica(usize::from(to.0)));
        self.carry(from, to, Frame::ToReplica(message), after_us);
    }

    pub(super) fn rolled_back(&mut self, at: usize, gid: &str) {
        let id = self.nodes[at].id;
        if let Some(write_set) = self.nodes[at].store.rollback_prepared(gid) {
            self.note(&format!("{id} rolls {} back", write_set.tx));
            if !self.nodes[at].faulty {
                self.history.unprepared(id, &write_set, false);
            }
        }
        self.wake_backends(at);
    }

    /// Backends die with their store, or one by itself.
    pub(super) fn lose_backends(&mut self, at: usize) {
        let Some(running) = &mut self.nodes[at].running else { return };
        running.stepping.clear();
        let workers: Vec<(SessionKey, u32)> =
            running.workers.iter().map(|(session, pid)| (*session, *pid)).collect();
        for (session, pid) in workers {
            self.backend_lost(at, session, pid);
        }
    }

    /// A command for a session's backend.
    fn command(&mut self, at: usize, session: SessionKey, command: Command) {
        let Some(running) = &mut self.nodes[at].running else { return };
        let Some(pid) = running.workers.get(&session).copied() else { return };
        if command == Command::Close {
            running.workers.remove(&session);
            running.origins.remove(&session);
        }
        if let Command::Execute { tx, number, .. } = &command {
            match running.scheduler.is_master() {
                true => running.led.insert((*tx, *number)),
                false => running.led.remove(&(*tx, *number)),
            };
        }
        self.nodes[at].store.submit(pid, command);
        self.wake_backends(at);
        self.set_step(at, pid);
    }
}
