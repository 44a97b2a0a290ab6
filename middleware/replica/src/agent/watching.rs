//! Counting what the reactor sees go by: the two machines know nothing of it.

use super::monitor::{Monitor, Standing};
use super::peer::PeerMessage;
use super::reactor::Reactor;
use crate::scheduler::{Effect, Event};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use steeldb_metrics::mirror;
use steeldb_ordering::{self as ordering, Delivery, Refusal, RequestKey};
use steeldb_transport::Traffic;
use steeldb_types::{Position, ReplicaId, TxId};
use steeldb_wire::transaction::{Cause, ClientMessage, Decision, Ordered, VoteKind};

/// How often everything is looked at and peers are told where this replica stands; whether it is ready is known sooner.
const LOOK: Duration = Duration::from_secs(1);

/// Transactions whose times are kept at once. Past it those of the lowest number are not measured.
const TIMED_MAX: usize = 16_384;

/// What is remembered to be counted.
pub(super) struct Watching {
    pub monitor: Monitor,
    timed: BTreeMap<TxId, Times>,
    /// Where peers say that they stand.
    standings: BTreeMap<ReplicaId, Position>,
    /// Accusations of the term that runs.
    accused: BTreeSet<(ReplicaId, Cause)>,
    looked: Option<Instant>,
}

/// When what happened to a COMMIT here.
#[derive(Default)]
struct Times {
    finished: Option<Instant>,
    voted: Option<Instant>,
    certified: Option<Instant>,
    ordered: Option<Instant>,
}

impl Watching {
    pub(super) fn new(monitor: Monitor) -> Watching {
        Watching {
            monitor,
            timed: BTreeMap::new(),
            standings: BTreeMap::new(),
            accused: BTreeSet::new(),
            looked: None,
        }
    }

    fn observe(&self, part: &str, since: Option<Instant>, until: Instant) {
        if let Some(since) = since {
            let took = until.saturating_duration_since(since);
            self.monitor.metrics().commit_parts.with(&[part]).observe(took.as_secs_f64());
        }
    }

    fn finished(&mut self, tx: TxId) {
        if self.timed.len() >= TIMED_MAX {
            self.timed.pop_first();
        }
        self.timed.entry(tx).or_default().finished.get_or_insert_with(Instant::now);
    }

    fn voted(&mut self, tx: TxId) {
        let now = Instant::now();
        let Some(times) = self.timed.get_mut(&tx).filter(|times| times.voted.is_none()) else { return };
        times.voted = Some(now);
        let since = times.finished;
        self.observe("execute", since, now);
    }

    fn certified(&mut self, tx: TxId) {
        let now = Instant::now();
        let Some(times) = self.timed.get_mut(&tx).filter(|times| times.certified.is_none()) else { return };
        times.certified = Some(now);
        let since = times.voted;
        self.observe("votes", since, now);
    }

    fn ordered(&mut self, tx: TxId) {
        let now = Instant::now();
        let Some(times) = self.timed.get_mut(&tx).filter(|times| times.ordered.is_none()) else { return };
        times.ordered = Some(now);
        let since = times.certified;
        self.observe("ordering", since, now);
    }

    fn applied(&mut self, tx: TxId) {
        let Some(times) = self.timed.remove(&tx) else { return };
        let now = Instant::now();
        self.observe("apply", times.ordered, now);
        self.observe("all", times.finished, now);
    }

    fn accused(&mut self, by: ReplicaId, of: ReplicaId, cause: Cause) {
        if self.accused.insert((by, cause)) {
            let labels = [&by.to_string()[..], &of.to_string(), cause_name(cause)];
            self.monitor.metrics().accusations.with(&labels).inc();
        }
    }

    /// A peer says where it stands.
    pub(super) fn peer_stands(&mut self, peer: ReplicaId, delivered: Position) {
        self.standings.insert(peer, delivered);
    }
}

fn cause_name(cause: Cause) -> &'static str {
    match cause {
        Cause::Silent => "silent",
        Cause::NoVotes => "no_votes",
        Cause::Disproved => "disproved",
        Cause::Doubted => "doubted",
    }
}

fn vote_name(kind: &VoteKind) -> &'static str {
    match kind {
        VoteKind::Prepared { .. } => "prepared",
        VoteKind::Mismatch { .. } => "mismatch",
        VoteKind::Failed { .. } => "failed",
        VoteKind::Blocked => "blocked",
        VoteKind::Expired => "expired",
        VoteKind::Walled => "walled",
        VoteKind::Gone => "gone",
    }
}

fn request_name(ordered: &Ordered) -> &'static str {
    match ordered {
        Ordered::Begin { .. } => "begin",
        Ordered::Rollback { .. } => "rollback",
        Ordered::Maintain { .. } => "maintain",
        Ordered::Verify { .. } => "verify",
        Ordered::Commit(_) => "commit",
        Ordered::Abort(_) => "abort",
        Ordered::Depose(_) => "depose",
        Ordered::SessionOver(_) => "session_over",
        Ordered::Move(_) => "move",
        Ordered::Outcome { .. } => "outcome",
    }
}

impl Reactor {
    /// Something is about to be told to the scheduler.
    pub(super) fn note_event(&mut self, event: &Event) {
        let watching = &mut self.watching;
        match event {
            Event::Client { message: ClientMessage::Finish(signed), .. }
                if signed.finish.decision == Decision::Commit =>
            {
                watching.finished(signed.finish.tx);
            }
            Event::Delivered { payload, .. } => {
                watching.monitor.metrics().requests.with(&[request_name(payload)]).inc();
                match payload {
                    Ordered::Commit(certificate) => watching.ordered(certificate.tx),
                    Ordered::Abort(certificate) => drop(watching.timed.remove(&certificate.tx)),
                    _ => {}
                }
            }
            Event::ViewChanged { .. } => {
                watching.monitor.metrics().requests.with(&["membership"]).inc();
            }
            Event::Applied { tx, result: Ok(()) } => {
                watching.monitor.metrics().commits_applied.with(&["prepared"]).inc();
                watching.applied(*tx);
            }
            Event::CaughtUp { tx, result } => {
                let metrics = watching.monitor.metrics();
                match result {
                    Ok(()) => metrics.commits_applied.with(&["rows"]).inc(),
                    Err(_) => metrics.catch_up_failures.with(&["rows"]).inc(),
                };
                watching.timed.remove(tx);
            }
            Event::Reexecuted { result: Err(_), .. } => {
                watching.monitor.metrics().catch_up_failures.with(&["script"]).inc();
            }
            Event::ServerRestarted => {
                watching.monitor.metrics().server_restarts.inc();
            }
            Event::Accused(signed) => {
                let accusation = signed.accusation;
                if accusation.term == self.scheduler.term() {
                    watching.accused(signed.replica, accusation.term.master, accusation.cause);
                }
            }
            _ => {}
        }
    }

    /// The scheduler's effect is about to be run.
    pub(super) fn note_effect(&mut self, effect: &Effect) {
        let watching = &mut self.watching;
        match effect {
            Effect::SendVotes(bundle) => {
                for (vote, _) in &bundle.votes {
                    let metrics = watching.monitor.metrics();
                    metrics.votes.with(&[vote_name(&vote.kind)]).inc();
                    match vote.kind {
                        VoteKind::Prepared { .. } => watching.voted(vote.tx),
                        VoteKind::Mismatch { operation: 0 } => {
                            metrics.mismatches.with(&["effects"]).inc();
                        }
                        VoteKind::Mismatch { .. } => {
                            metrics.mismatches.with(&["results"]).inc();
                        }
                        _ => {}
                    }
                }
            }
            Effect::Submit(ordered) => {
                if let Ordered::Commit(certificate) = &**ordered {
                    watching.certified(certificate.tx);
                }
            }
            Effect::CatchUp { reexecution, .. } => {
                let how = if reexecution.is_some() { "script" } else { "rows" };
                watching.monitor.metrics().catch_ups.with(&[how]).inc();
            }
            Effect::SendAccusation(signed) => {
                let accusation = signed.accusation;
                watching.accused(signed.replica, accusation.term.master, accusation.cause);
            }
            Effect::TermBegan(_) => {
                watching.accused.clear();
                watching.monitor.metrics().terms.inc();
            }
            _ => {}
        }
    }

    /// The ordering core's effect is about to be run.
    pub(super) fn note_ordering(&mut self, effect: &ordering::Effect) {
        let metrics = self.watching.monitor.metrics();
        match effect {
            ordering::Effect::RegencyInstalled { .. } => {
                metrics.regency_changes.inc();
            }
            ordering::Effect::Misbehaved { replica, .. } => {
                metrics.misbehaved.with(&[&replica.to_string()]).inc();
            }
            ordering::Effect::Refused { request: RequestKey::Client(_), reason } => {
                let reason = match reason {
                    Refusal::Executed | Refusal::Stale => "repeated",
                    Refusal::Busy => "busy",
                    Refusal::Invalid(_) | Refusal::TooLarge => "invalid",
                    _ => "other",
                };
                metrics.refused_requests.with(&[reason]).inc();
            }
            ordering::Effect::Deliver(delivery) => self.note_delivery(delivery),
            _ => {}
        }
    }

    fn note_delivery(&self, delivery: &Delivery) {
        let metrics = self.watching.monitor.metrics();
        metrics.batches.inc();
        metrics.batch_requests.observe(delivery.requests.len() as f64);
        let age_us = self.now().wall.0.saturating_sub(delivery.timestamp.0);
        metrics.delivery_age.set(age_us.max(0) as f64 / 1e6);
    }

    /// Time passed: says where this replica stands, and sometimes looks at everything.
    pub(super) fn watch(&mut self) {
        let now = Instant::now();
        self.watching.monitor.stands(self.standing(now));
        if self.watching.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK) {
            self.watching.looked = Some(now);
            let standing = PeerMessage::Standing(self.scheduler.delivered_upto()).encode();
            self.to_members(&standing);
            let settings = self.controls.settings();
            self.catch_up.effects.set_bounds(settings.kept_bytes, settings.kept_age);
            self.look();
        }
    }

    /// Tells a peer where this replica stands.
    pub(super) fn tell_standing(&self, peer: ReplicaId) {
        let standing = PeerMessage::Standing(self.scheduler.delivered_upto());
        self.links.send_peer(peer, standing.encode());
    }

    fn standing(&self, at: Instant) -> Standing {
        let view = self.core.roster().view();
        let peers: Vec<ReplicaId> = self.peers().filter(|peer| self.links.is_up(*peer)).collect();
        Standing {
            at,
            up: at.saturating_duration_since(self.started),
            votes: view.contains(self.me),
            diverged: self.scheduler.diverged().is_some(),
            vouches: self.scheduler.may_vouch(),
            delivered: self.scheduler.delivered_upto(),
            applied: self.scheduler.applied(),
            behind: self.behind(),
            quorum: view.is_quorum(peers.iter().copied().chain([self.me])),
            peers,
            view: view.number(),
            regency: self.core.regency().number,
            leader: self.core.leader(),
            term: self.scheduler.term(),
        }
    }

    /// How far the order is delivered at f + 1 others, one of them correct, and not here.
    pub(super) fn behind(&self) -> Option<u64> {
        let view = self.core.roster().view();
        let said = self.watching.standings.iter().filter(|(peer, _)| view.contains(**peer));
        let said: Vec<(ReplicaId, Position)> = said.map(|(peer, position)| (*peer, *position)).collect();
        if !view.is_quorum(said.iter().map(|(peer, _)| *peer).chain([self.me])) {
            return None;
        }
        let at_least = |position: &Position| {
            view.has_correct(said.iter().filter(|(_, other)| other >= position).map(|(peer, _)| *peer))
        };
        let furthest = said.iter().map(|(_, position)| *position).filter(at_least).max();
        Some(furthest.unwrap_or_default().0.saturating_sub(self.scheduler.delivered_upto().0))
    }

    fn look(&self) {
        let (metrics, sizes) = (self.watching.monitor.metrics(), self.scheduler.sizes());
        let term = self.scheduler.term();
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        metrics.instance.set(number(self.core.last_decided().0));
        metrics.pending_requests.set(number(self.core.pending_requests() as u64));
        metrics.view.set(number(self.core.roster().view().number().0));
        metrics.regency.set(number(self.core.regency().number));
        metrics.leader.set(self.core.leader().0.into());
        metrics.delivered.set(number(self.scheduler.delivered_upto().0));
        metrics.issued.set(number(self.scheduler.issued().0));
        metrics.applied.set(number(self.scheduler.applied().0));
        metrics.behind.set(number(self.behind().unwrap_or_default()));
        metrics.open.set(number(self.scheduler.open() as u64));
        metrics.active.set(number(sizes.unsettled as u64));
        metrics.given_up.set(number(sizes.given_up as u64));
        metrics.prepared.set(number(sizes.permits as u64));
        metrics.waiting_for_permit.set(number(sizes.queued as u64));
        metrics.sessions.set(number(sizes.sessions as u64));
        metrics.anchors.set(number(sizes.anchors as u64));
        metrics.buffered_bytes.set(number(sizes.bytes as u64));
        metrics.stream_entries.set(number(sizes.entries as u64));
        metrics.kept_bytes.set(number(self.catch_up.effects.bytes()));
        metrics.kept_bulk_bytes.set(number(self.catch_up.effects.bulk_bytes()));
        metrics.spooled_bytes.with(&["copy"]).set(number(self.copies.bytes_on_disk()));
        let rows = self.fetching.spooling.on_disk.load(Ordering::Relaxed);
        metrics.spooled_bytes.with(&["rows"]).set(number(rows));
        mirror(&metrics.undone, self.scheduler.counts().undone);
        mirror(&metrics.redone, self.scheduler.counts().redone);
        metrics.diverged.set(self.scheduler.diverged().is_some().into());
        metrics.vouches.set(self.scheduler.may_vouch().into());
        metrics.epoch.set(number(term.epoch));
        metrics.master.set(term.master.0.into());
        metrics.is_master.set(self.scheduler.is_master().into());
        metrics.accusations_now.clear();
        for (by, cause) in self.scheduler.accusations() {
            let labels = [&by.to_string()[..], &term.master.to_string(), cause_name(cause)];
            metrics.accusations_now.with(&labels).set(1);
        }
        metrics.links_up.clear();
        for (peer, traffic) in self.links.peer_traffic() {
            metrics.links_up.with(&[&peer.to_string()]).set(self.links.is_up(peer).into());
            self.note_traffic(&peer.to_string(), traffic);
        }
        for (client, traffic) in self.links.client_traffic() {
            self.note_traffic(&client.to_string(), traffic);
        }
        mirror(&metrics.refusals, self.links.refusals());
    }

    fn note_traffic(&self, peer: &str, traffic: Traffic) {
        let metrics = self.watching.monitor.metrics();
        mirror(&metrics.link_bytes.with(&[peer, "sent"]), traffic.bytes_sent);
        mirror(&metrics.link_bytes.with(&[peer, "received"]), traffic.bytes_received);
        mirror(&metrics.link_frames.with(&[peer, "sent"]), traffic.frames_sent);
        mirror(&metrics.link_frames.with(&[peer, "received"]), traffic.frames_received);
        mirror(&metrics.links.with(&[peer]), traffic.links);
        mirror(&metrics.link_failures.with(&[peer]), traffic.failures);
    }
}
