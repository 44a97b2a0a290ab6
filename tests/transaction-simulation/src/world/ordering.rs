//! The order: of real ordering cores, or an ideal one.

use super::ahead::claim_of;
use super::links::End;
use super::{EPOCH_US, Happening, PeerMessage, Within, World};
use crate::node::Lane;
use crate::sequencer::Entry;
use rand::Rng;
use std::time::Duration;
use steeldb_ordering::{
    self as ordering, Core, Delivery, Effect, InstanceNumber, Now, Record, Request, RequestKey, Restored,
    Roster,
};
use steeldb_replica::scheduler::Event;
use steeldb_replica::validity;
use steeldb_types::{ReplicaId, Timestamp};
use steeldb_wire::codec;
use steeldb_wire::transaction::{MasterMove, Ordered};

/// The base time-out of the cores.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(400);
/// The slowest disk write, microseconds.
const DISK_MAX_US: u64 = 3_000;
/// Decisions read from disk for one answer.
const DECISIONS_READ_MAX: usize = 16;

/// Judges requests as the agent does.
struct Judge<'a> {
    rights: &'a std::collections::BTreeMap<steeldb_types::ClientId, steeldb_replica::scheduler::ClientRights>,
    memo: &'a std::cell::RefCell<steeldb_wire::transaction::SignatureMemo>,
    administrator: steeldb_wire::auth::PublicKey,
}

impl ordering::Validator for Judge<'_> {
    fn check(&self, request: &Request, roster: &Roster) -> Result<(), String> {
        match request {
            Request::Client { id, payload, .. } => {
                validity::check_client(id.session, payload, self.rights).map(|_| ())
            }
            Request::Certified { key, payload } => {
                let by = validity::By {
                    view: roster.view(),
                    roster: roster.digest(),
                    keys: &roster.key_table(),
                    administrators: &[self.administrator],
                };
                validity::check_certified(*key, payload, &by, &mut self.memo.borrow_mut()).map(|_| ())
            }
            _ => Err("none of a database's".into()),
        }
    }
}

impl World<'_> {
    fn wall(&self) -> Timestamp {
        Timestamp(EPOCH_US + self.now_us as i64)
    }

    /// A replica hands a request in.
    pub(super) fn request(&mut self, at: usize, request: Request) {
        if self.scenario.cores {
            return self.ordering_event(at, ordering::Event::Request(request.into()));
        }
        if self.links.is_up(End::Replica(at), End::Order) && self.sequencer.is_new(&request) {
            let most_us = if self.healed { 2_000 } else { self.scenario.network.delay_max_us };
            let after_us = self.rng.random_range(100..=2 * most_us);
            self.at(self.now_us + after_us, Happening::Sequence(request));
        }
    }

    /// The administrator has the master moved: the one of the newest term that any correct replica knows of.
    pub(super) fn move_master(&mut self, to: ReplicaId) {
        let up = self.nodes.iter().filter(|node| !node.faulty && node.is_up());
        let newest = up.map(|node| (node.term(), usize::from(node.id.0))).max_by_key(|(term, _)| term.epoch);
        let Some((term, at)) = newest.filter(|(term, _)| term.master != to) else { return };
        let wish = MasterMove::new(term, self.roster.digest(), to, &self.administrator);
        self.note(&format!("the administrator moves the master from {} to {to}", term.master));
        self.history.wishes.push(wish.clone());
        let ordered = Ordered::Move(wish);
        if let Some(key) = ordered.certified_key() {
            self.request(at, Request::Certified { key, payload: codec::encode(&ordered) });
        }
    }

    /// A request reaches whoever orders.
    pub(super) fn sequence(&mut self, request: &Request) {
        let wall = self.wall();
        let Some(entry) = self.sequencer.order(request, wall).cloned() else { return };
        self.note(&format!("{} is {}", entry.position, describe(&entry)));
        self.history.ordered(&entry);
        if self.scenario.tentative {
            return self.gather();
        }
        for at in 0..self.nodes.len() {
            self.learn_order(at);
        }
    }

    /// A replica is to learn all that is ordered.
    pub(super) fn learn_order(&mut self, at: usize) {
        if self.nodes[at].is_up() && self.links.is_up(End::Replica(at), End::Order) {
            let most_us = if self.healed { 2_000 } else { self.scenario.network.delay_max_us };
            let (mut upto, mut late) = (self.sequencer.log.len(), 1);
            if self.scenario.tentative {
                // The answers of those that are bound mostly come first. Who is slow is late anyway.
                late = if self.nodes[at].slowness == 1 { 4 } else { 1 };
                let Some(last) = self.sequencer.batches.last() else { return };
                upto = last.upto;
                let last = self.sequencer.batches.len() - 1;
                self.on_lane(at, Lane::Order, most_us, Within::Bind(last));
            }
            self.on_lane(at, Lane::Order, late * most_us, Within::Deliver(upto));
        }
    }

    /// The ideal order's requests up to here come to a replica.
    pub(super) fn deliver_upto(&mut self, at: usize, upto: usize) {
        let life = self.nodes[at].life;
        loop {
            let node = &mut self.nodes[at];
            let Some(running) = node.running.as_mut().filter(|_| node.life == life) else { return };
            if running.delivered >= upto {
                return;
            }
            let Some(entry) = self.sequencer.log.get(running.delivered).cloned() else { return };
            running.delivered += 1;
            running.promises.appended(running.delivered as u64);
            let delivered = running.delivered as u64;
            self.on_lane(at, Lane::Disk, DISK_MAX_US, Within::Persisted(delivered));
            self.deliver(at, entry);
        }
    }

    /// What was written up to here is durable.
    pub(super) fn persisted(&mut self, at: usize, upto: u64) {
        let node = &mut self.nodes[at];
        let Some(running) = &mut node.running else { return };
        running.promises.persisted(upto);
        if running.core.is_some() {
            node.disk.flush(upto);
            return self.ordering_event(at, ordering::Event::Persisted { upto });
        }
        node.journal = node.journal.max(upto as usize);
        self.settle(at);
    }

    /// What a replica's log holds of the order when it starts: its core, the requests that its log holds, and what its core
    /// wants done at once.
    pub(super) fn restore_order(&mut self, at: usize) -> (Option<Core>, Vec<Entry>, Vec<Effect>) {
        if !self.scenario.cores {
            let entries = self.sequencer.log.iter().take(self.nodes[at].journal).cloned().collect();
            return (None, entries, Vec::new());
        }
        let node = &self.nodes[at];
        let keys = self.rights.iter().map(|(client, rights)| (*client, rights.key)).collect();
        let mut config = ordering::Config::new(node.id, self.roster.clone(), node.key.clone(), keys);
        config.request_timeout = REQUEST_TIMEOUT;
        config.resend_interval = REQUEST_TIMEOUT / 4;
        config.tentative = self.scenario.tentative;
        let restored = Restored::new(InstanceNumber(0), node.disk.records());
        let mut core = match Core::new(config, restored) {
            Ok(core) => core,
            Err(error) => {
                self.fail("restart", format!("r{at}: {error}"));
                return (None, Vec::new(), Vec::new());
            }
        };
        let (mut entries, mut early) = (Vec::new(), Vec::new());
        while let Some(effect) = core.poll_effect() {
            match effect {
                Effect::Deliver(delivery) => entries.extend(entries_of(&delivery)),
                other => early.push(other),
            }
        }
        (Some(core), entries, early)
    }

    /// A replica's own log tells it of decisions; it may have been the first to know of them when it crashed.
    pub(super) fn note_restored(&mut self, at: usize, entries: &[Entry]) {
        if self.nodes[at].faulty {
            return;
        }
        let id = self.nodes[at].id;
        for entry in entries {
            if let Err(what) = self.history.ordered_by_core(entry) {
                self.fail("order", format!("r{at}: {what}"));
            }
            self.history.delivered(id, entry.position);
        }
    }

    pub(super) fn ordering_event(&mut self, at: usize, event: ordering::Event) {
        let now = Now { monotonic_us: self.now_us, wall: self.wall() };
        let Some(running) = &mut self.nodes[at].running else { return };
        let Some(core) = &mut running.core else { return };
        let administrator = self.administrator.public();
        core.handle(now, event, &Judge { rights: &self.rights, memo: &running.memo, administrator });
        self.settle(at);
    }

    pub(super) fn core_tick(&mut self, at: usize) {
        if let Some(running) = &mut self.nodes[at].running
            && running.core_tick_at == Some(self.now_us)
        {
            running.core_tick_at = None;
            self.ordering_event(at, ordering::Event::Tick);
        }
    }

    pub(super) fn set_core_timer(&mut self, at: usize) {
        let now_us = self.now_us;
        let Some(running) = &mut self.nodes[at].running else { return };
        let due = running.core.as_ref().and_then(Core::next_timeout).map(|due| due.max(now_us + 1));
        if let Some(due) = due
            && running.core_tick_at.is_none_or(|set| due < set)
        {
            running.core_tick_at = Some(due);
            self.later(at, due - now_us, Within::CoreTick);
        }
    }

    pub(super) fn next_ordering_effect(&mut self, at: usize, life: u32) -> Option<Effect> {
        let node = &mut self.nodes[at];
        if node.life != life {
            return None;
        }
        node.running.as_mut()?.core.as_mut()?.poll_effect()
    }

    pub(super) fn ordering_effect(&mut self, at: usize, effect: Effect) {
        match effect {
            Effect::Persist { sequence, record } => {
                let node = &mut self.nodes[at];
                node.disk.write(sequence, record);
                if let Some(running) = &mut node.running {
                    running.promises.appended(sequence);
                }
                self.on_lane(at, Lane::Disk, DISK_MAX_US, Within::Persisted(sequence));
            }
            Effect::Send { to, message } => self.say(at, usize::from(to.0), PeerMessage::Ordering(message)),
            Effect::Broadcast { message } => self.say_to_all(at, &PeerMessage::Ordering(message)),
            Effect::Deliver(delivery) => {
                for entry in entries_of(&delivery) {
                    self.core_delivers(at, entry);
                }
            }
            Effect::Tentative(tentative) => {
                self.note(&format!("r{at} is bound to {} by {:?}", tentative.instance, tentative.claim));
                let requests = tentative.requests.iter();
                let requests = requests.map(|(at, request)| (*at, validity::decode(request.payload()).ok()));
                let event = Event::Bound {
                    view: tentative.claim.regency.view,
                    claim: claim_of(&codec::encode(&(tentative.instance, tentative.claim))),
                    requests: requests.collect(),
                };
                self.event(at, event);
            }
            Effect::Revoke { instance } => {
                self.note(&format!("r{at} is not bound to what it was in {instance}"));
                self.event(at, Event::Unbound);
            }
            Effect::Refused { request: RequestKey::Client(_), .. } | Effect::Refused { .. } => {}
            Effect::ReadDecisions { peer, from, .. } => {
                let of = |record| match record {
                    Record::Decision(decision) if decision.instance() >= from => Some(decision),
                    _ => None,
                };
                let records = self.nodes[at].disk.records().into_iter();
                let decisions = records.filter_map(of).take(DECISIONS_READ_MAX).collect();
                self.ordering_event(at, ordering::Event::DecisionsRead { peer, decisions });
            }
            Effect::StateDiffers { instance } => {
                self.fail("order", format!("r{at} differs at {instance}"));
            }
            Effect::RegencyInstalled { regency, leader } => {
                self.note(&format!("r{at} installs {regency:?} of {leader}"));
            }
            // For logs; and what is not asked for.
            _ => {}
        }
    }

    fn core_delivers(&mut self, at: usize, entry: Entry) {
        let life = self.nodes[at].life;
        let Some(running) = self.nodes[at].running.as_mut().filter(|running| running.core.is_some()) else {
            return;
        };
        running.delivered += 1;
        // A liar's scheduler is fed by a core of its own: what it delivers binds nobody.
        if !self.nodes[at].faulty {
            let known = self.history.order.len() as u64;
            if entry.position.0 > known {
                self.note(&format!("{} is {}", entry.position, describe(&entry)));
            }
            if let Err(what) = self.history.ordered_by_core(&entry) {
                self.fail("order", format!("r{at}: {what}"));
            }
        }
        if self.nodes[at].life == life {
            self.deliver(at, entry);
        }
    }
}

fn entries_of(delivery: &Delivery) -> Vec<Entry> {
    let timestamp = delivery.timestamp;
    let entry = |(position, request): &(steeldb_types::Position, std::sync::Arc<Request>)| {
        let payload = validity::decode(request.payload()).ok()?;
        let request = match request.key() {
            RequestKey::Client(id) => Some((id.session, id.sequence)),
            _ => None,
        };
        Some(Entry { position: *position, timestamp, request, payload })
    };
    delivery.requests.iter().filter_map(entry).collect()
}

fn describe(entry: &Entry) -> String {
    match &entry.payload {
        Ordered::Begin { tx, .. } => format!("BEGIN of {tx}"),
        Ordered::Rollback { tx, slot } => format!("ROLLBACK of {tx} at {slot}"),
        Ordered::Commit(certificate) => format!("Commit of {} at {}", certificate.tx, certificate.slot),
        Ordered::Abort(certificate) => format!("Abort of {} at {}", certificate.tx, certificate.slot),
        Ordered::Depose(certificate) => format!("the end of {:?}", certificate.term),
        Ordered::Move(wish) => format!("the move of the master to {}", wish.to),
        Ordered::Maintain { .. }
        | Ordered::Outcome { .. }
        | Ordered::SessionOver(_)
        | Ordered::Verify { .. } => "something else".into(),
    }
}
