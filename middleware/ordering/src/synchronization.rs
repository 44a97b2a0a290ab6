//! The synchronization phase: leaving a regency and agreeing on where the next one starts (Mod-SMaRt, Algorithm 3).
//!
//! Invariants: the regency never falls; after it is entered nothing is voted for in lower ones; a regency other than 0
//! is installed only by STOPDATAs of weight Q_v, and what its leader proposes first has to be what they allow.

use crate::InstanceNumber;
use crate::Proof;
use crate::Regency;
use crate::catchup::Served;
use crate::config::PlantedBug;
use crate::core::{Context, Core};
use crate::effect::Effect;
use crate::instance::Instance;
use crate::message::Message;
use crate::proposal::Proposal;
use crate::record::Record;
use crate::request::Request;
use crate::stopdata::{Allowed, Selection, SignedStopData, StopData, Votes, select};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use steeldb_types::{ReplicaId, limits};

/// Requests that a STOP carries, and their bytes.
const STOP_REQUESTS_MAX: usize = 32;
const STOP_REQUESTS_BYTES_MAX: usize = 256 * 1024;

/// Where this replica is between regencies.
pub(crate) struct Synchronization {
    regency: Regency,
    /// Whether the regency's SYNC was seen (none is needed for regency 0).
    installed: bool,
    /// What the SYNC allows.
    selection: Option<Selection>,
    /// The STOPDATAs that installed it, for replicas that missed them.
    installed_by: Vec<SignedStopData>,
    /// By replica, the regency it wants, and when it last said so.
    stops: BTreeMap<ReplicaId, (Regency, u64)>,
    /// The highest regency this replica wants.
    own_stop: Regency,
    /// Whether this regency's leader has done what no correct one does.
    blamed: bool,
    /// Until when this replica wants what others wanted.
    joined_until: u64,
    /// When to say again what it wants.
    repeat_at: Option<u64>,
    /// For a leader to be: the latest STOPDATA of each replica, with the values it claims to be bound.
    stop_data: BTreeMap<ReplicaId, (SignedStopData, Vec<Arc<Proposal>>)>,
    /// When to give the new leader up.
    deadline: Option<u64>,
}

impl Default for Synchronization {
    fn default() -> Self {
        Synchronization {
            regency: Regency::default(),
            installed: true,
            selection: None,
            installed_by: Vec::new(),
            stops: BTreeMap::new(),
            own_stop: Regency::default(),
            blamed: false,
            joined_until: 0,
            repeat_at: None,
            stop_data: BTreeMap::new(),
            deadline: None,
        }
    }
}

impl Synchronization {
    pub(crate) fn regency(&self) -> Regency {
        self.regency
    }

    pub(crate) fn is_installed(&self) -> bool {
        self.installed
    }

    /// What the regency's leader may propose in an instance.
    pub(crate) fn allowed(&self, instance: InstanceNumber) -> Allowed {
        self.selection.as_ref().map_or(Allowed::Any, |selection| selection.allowed(instance))
    }

    /// When the new leader is given up; at once while that is still to be set.
    pub(crate) fn deadline(&self) -> Option<u64> {
        Some(self.deadline.unwrap_or(0))
    }

    fn wants_to_leave(&self) -> bool {
        self.own_stop > self.regency
    }

    pub(crate) fn repeat_at(&self) -> Option<u64> {
        self.repeat_at
    }

    /// The lowest regency whose SYNC is of use here.
    pub(crate) fn wanted(&self) -> Regency {
        if self.installed { self.regency.next() } else { self.regency }
    }

    /// A view begins, with the first of its regencies. That one is installed by the decision which made the view: in a
    /// new view nothing was voted for yet, so there is nothing that a leader could overlook.
    fn begin(&mut self, regency: Regency) {
        if self.regency >= regency {
            // Read back from the log, or from a checkpoint: this replica was there before.
            return;
        }
        let later = |of: Regency| of.view >= regency.view;
        self.stop_data.retain(|_, (signed, _)| later(signed.data.regency));
        let stop_data = std::mem::take(&mut self.stop_data);
        *self = Synchronization { regency, own_stop: regency, stop_data, ..Synchronization::default() };
    }

    /// Reads back that a regency was entered. Whether it was installed is not in the log: peers pass its SYNC on, or
    /// time-outs lead on to the next one.
    pub(crate) fn restore(&mut self, regency: Regency) {
        self.regency = self.regency.max(regency);
        self.own_stop = self.regency;
        self.installed = self.regency.number == 0;
    }

    /// The proof of `instance` in the STOPDATAs that installed the regency: verified when they came.
    pub(crate) fn proof_of(&self, instance: InstanceNumber) -> Option<Proof> {
        let proofs = self.installed_by.iter().flat_map(|signed| &signed.data.last);
        proofs.into_iter().find(|proof| proof.instance == instance).cloned()
    }

    /// STOPs and STOPDATAs held.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.stops.len(), self.stop_data.len())
    }

    fn supporters(&self, regency: Regency) -> impl Iterator<Item = ReplicaId> + '_ {
        self.stops.iter().filter(move |(_, (wanted, _))| *wanted >= regency).map(|(replica, _)| *replica)
    }

    /// The highest regency that `enough` replicas want.
    fn highest(&self, enough: impl Fn(Vec<ReplicaId>) -> bool) -> Option<Regency> {
        let wanted: BTreeSet<Regency> = self.stops.values().map(|(regency, _)| *regency).collect();
        wanted.into_iter().rev().find(|regency| enough(self.supporters(*regency).collect()))
    }
}

impl Core {
    /// The decision just taken in made a view: it begins with the next instance, and nothing of the view before counts.
    pub(crate) fn begin_view(&mut self) {
        let first = self.membership.chain().first();
        self.sync.begin(Regency::first(self.membership.number()));
        self.window.begin_view(self.membership.number());
        self.view_is_new = true;
        let roster = Arc::clone(self.membership.roster());
        self.effects.push(Effect::ViewInstalled { roster, first });
    }

    /// What waits was found valid in the view before: it is judged again, and its timers run anew.
    pub(crate) fn try_judge_again(&mut self, cx: &Context<'_>) -> bool {
        if !std::mem::take(&mut self.view_is_new) {
            return false;
        }
        let mut pending = std::mem::take(&mut self.pending);
        let votes = self.membership.votes();
        pending.retain(|request| votes && self.verify(cx, request).is_ok());
        pending.restart_timers(cx.now.monotonic_us.saturating_add(self.timeout_us()));
        self.pending = pending;
        true
    }

    /// Asks to leave the regency: its leader is faulty, or too slow.
    pub(crate) fn suspect(&mut self, cx: &Context<'_>) {
        let next = self.sync.regency.next();
        if self.sync.own_stop < next && self.membership.votes() {
            self.stop(cx, next);
        }
    }

    /// Asks to leave the regency for good: its leader has shown that it is faulty.
    pub(crate) fn blame(&mut self, cx: &Context<'_>) {
        self.sync.blamed = true;
        self.suspect(cx);
    }

    fn stop(&mut self, cx: &Context<'_>, regency: Regency) {
        self.sync.own_stop = regency;
        self.sync.stops.insert(self.config.me, (regency, cx.now.monotonic_us));
        self.say_stop(cx);
    }

    fn say_stop(&mut self, cx: &Context<'_>) {
        let requests = self.overdue_requests();
        self.effects.broadcast(Message::Stop { regency: self.sync.own_stop, requests });
        self.sync.repeat_at = Some(cx.now.monotonic_us.saturating_add(self.resend_us()));
    }

    /// How long a STOP counts after it was last heard. It is repeated eight times as often while its cause lasts, so
    /// however slow the network is, STOPs that are meant count at the same time.
    fn stop_lasts_us(&self) -> u64 {
        self.resend_us().saturating_mul(8)
    }

    /// Lets go of STOPs that are not repeated any more. Otherwise suspicions of replicas that have long been served would
    /// add up, over months, to a change of a leader that nobody has anything against.
    pub(crate) fn forget_old_stops(&mut self, cx: &Context<'_>) {
        let (me, now, lasts) = (self.config.me, cx.now.monotonic_us, self.stop_lasts_us());
        self.sync.stops.retain(|from, (_, heard)| *from == me || now < heard.saturating_add(lasts));
        // Its own it takes back when nothing is overdue any more. Nothing binds it to a STOP before it enters the regency.
        let meant = self.sync.blamed
            || !self.sync.installed
            || self.pending.has_overdue()
            || now < self.sync.joined_until;
        if self.sync.wants_to_leave() && !meant {
            self.sync.own_stop = self.sync.regency;
            self.sync.stops.remove(&me);
        }
    }

    /// Says again what it wants, as long as it does, on a clock of its own: a leader that serves others must not keep
    /// the STOPs of those it does not serve from being repeated.
    pub(crate) fn repeat_stop(&mut self, cx: &Context<'_>) {
        // Who is no member wants nothing, and must not leave a timer behind that is always due.
        if !self.membership.votes() || (!self.sync.wants_to_leave() && self.sync.installed) {
            self.sync.repeat_at = None;
        } else if self.sync.repeat_at.is_none_or(|at| at <= cx.now.monotonic_us) {
            self.say_stop(cx);
        }
    }

    /// What timed out: perhaps nobody else has it.
    fn overdue_requests(&self) -> Vec<Arc<Request>> {
        self.pending.oldest(STOP_REQUESTS_MAX, STOP_REQUESTS_BYTES_MAX)
    }

    pub(crate) fn on_stop(
        &mut self,
        cx: &Context<'_>,
        from: ReplicaId,
        regency: Regency,
        requests: &[Arc<Request>],
    ) {
        if requests.len() > STOP_REQUESTS_MAX {
            self.effects.misbehaved(from, format!("a STOP with {} requests", requests.len()));
            return;
        }
        self.adopt(cx, from, requests);
        if regency.view != self.membership.number() {
            // Of a view that is over here: its sender will hear of that. Of one to come: this replica asks for it.
            self.note_ahead(cx, from, self.window.first(), regency);
            return;
        }
        let heard = cx.now.monotonic_us;
        let known = self.sync.stops.entry(from).or_insert((regency, heard));
        if regency >= known.0 {
            *known = (regency, heard);
        }
    }

    /// Joins f + 1 that want a later regency; enters one that Q_v want, or whose STOPDATAs of weight Q_v came here.
    pub(crate) fn try_enter(&mut self, cx: &Context<'_>) -> bool {
        if !self.membership.votes() {
            return false;
        }
        let view = self.membership.view();
        if let Some(regency) = self.sync.highest(|replicas| view.has_correct(replicas))
            && regency > self.sync.own_stop
        {
            // Until all others must have heard enough to join, too.
            self.sync.joined_until = cx.now.monotonic_us.saturating_add(self.stop_lasts_us());
            self.stop(cx, regency);
        }
        let view = self.membership.view();
        let stopped = self.sync.highest(|replicas| view.is_quorum(replicas));
        let candidates = self.sync.stop_data.values().map(|(signed, _)| signed.data.regency);
        let candidates: BTreeSet<Regency> =
            candidates.filter(|regency| regency.view == view.number()).collect();
        let told = candidates.into_iter().rev().find(|regency| {
            let of = self.sync.stop_data.values().map(|(signed, _)| &signed.data);
            view.is_quorum(of.filter(|data| data.regency == *regency).map(|data| data.replica))
        });
        match stopped.max(told) {
            Some(regency) if regency > self.sync.regency => self.enter(cx, regency),
            _ => return false,
        }
        self.send_stop_data();
        true
    }

    /// Enters a regency: from here on nothing is voted for in lower ones.
    fn enter(&mut self, cx: &Context<'_>, regency: Regency) {
        self.sync.regency = regency;
        self.sync.own_stop = self.sync.own_stop.max(regency);
        self.sync.installed = false;
        self.sync.selection = None;
        self.sync.installed_by.clear();
        self.sync.blamed = false;
        self.timeouts.regency_entered();
        self.sync.deadline = Some(cx.now.monotonic_us.saturating_add(self.timeout_us()));
        self.effects.persist(Record::Regency(regency));
    }

    /// Where this replica stands, with the values of its votes; nothing once it has voted in the regency itself (it was
    /// there before a restart).
    fn own_stop_data(&self) -> Option<(SignedStopData, Vec<Arc<Proposal>>)> {
        let regency = self.sync.regency;
        // What was voted for in an earlier view does not bind in this one.
        let of_view = |instance: &Instance| instance.votes(regency.view);
        let mut votes: Vec<Votes> = self.window.iter().filter_map(of_view).collect();
        if self.config.has(PlantedBug::LockForgotten) {
            votes.clear();
        }
        if self.config.has(PlantedBug::LockOfFirstOnly) {
            votes.retain(|votes| votes.instance == self.window.first());
        }
        let last = self.log.last_proofs();
        let data = StopData { replica: self.config.me, regency, last, votes };
        if !self.may_vote() || data.claims().any(|claim| claim.regency >= regency) {
            return None;
        }
        let bound = data.votes.iter().filter(|votes| votes.bound.is_some());
        let value =
            |votes: &Votes| self.window.get(votes.instance)?.bound.as_ref().map(|(_, v)| Arc::clone(v));
        let values = bound.filter_map(value).collect();
        Some((data.sign(&self.config.key), values))
    }

    fn send_stop_data(&mut self) {
        let leader = self.leader();
        if leader == self.config.me {
            return;
        }
        if let Some((data, values)) = self.own_stop_data() {
            self.effects.send(leader, Message::StopData { data, values });
        }
    }

    pub(crate) fn on_stop_data(
        &mut self,
        cx: &Context<'_>,
        from: ReplicaId,
        signed: SignedStopData,
        values: Vec<Arc<Proposal>>,
    ) {
        let regency = signed.data.regency;
        if regency.view > self.membership.number() {
            self.note_ahead(cx, from, self.window.first(), regency);
            return;
        }
        if signed.data.replica != from || self.membership.leader(regency) != Some(self.config.me) {
            self.effects.misbehaved(from, "a STOPDATA of another, or for another");
            return;
        }
        if regency < self.sync.regency {
            return;
        }
        if regency == self.sync.regency && self.sync.installed {
            // It has not seen the SYNC.
            self.pass_sync_on(from);
            return;
        }
        let known = self.sync.stop_data.get(&from);
        if known.is_some_and(|(known, _)| *known == signed || known.data.regency > regency) {
            return;
        }
        let bound = signed.data.votes.iter().filter_map(|votes| Some((votes.instance, votes.bound?.value)));
        let matches = bound.eq(values.iter().map(|proposal| (proposal.instance, proposal.digest())));
        if !matches {
            self.effects.misbehaved(from, "a STOPDATA without the values it claims");
            return;
        }
        let verified = signed.verify(&self.membership, &mut BTreeSet::new());
        if let Err(reason) = verified {
            self.effects.misbehaved(from, reason);
            return;
        }
        self.sync.stop_data.insert(from, (signed, values));
    }

    /// The new leader sends SYNC as soon as the STOPDATAs it has are sound.
    pub(crate) fn try_synchronize(&mut self, cx: &Context<'_>) -> bool {
        let (me, regency) = (self.config.me, self.sync.regency);
        if self.sync.installed || !self.is_leader() {
            return false;
        }
        let others = self
            .sync
            .stop_data
            .values()
            .filter(|(signed, _)| signed.data.regency == regency && signed.data.replica != me);
        let mut collected: Vec<(SignedStopData, Vec<Arc<Proposal>>)> = others.cloned().collect();
        let present = collected.iter().map(|(signed, _)| signed.data.replica);
        if !self.membership.view().is_quorum(present.chain([me])) {
            return false;
        }
        collected.extend(self.own_stop_data());
        let data: Vec<&StopData> = collected.iter().map(|(signed, _)| &signed.data).collect();
        let Some(selection) = self.select(&data) else { return false };
        let mut proposals: Vec<Arc<Proposal>> = Vec::new();
        for (instance, bound) in &selection.bound {
            let mut values = collected.iter().flat_map(|(_, values)| values);
            let found = values.find(|value| value.instance == *instance && value.digest() == *bound);
            proposals.extend(found.cloned());
        }
        let first = selection.first;
        let stop_data: Vec<SignedStopData> = collected.into_iter().map(|(signed, _)| signed).collect();
        self.install(cx, selection, stop_data.clone());
        if proposals.is_empty() && first == self.window.first() && self.may_vote() {
            proposals.extend(self.new_proposal(cx, first));
        }
        self.effects.broadcast(Message::Sync { regency, stop_data, proposals: proposals.clone() });
        for proposal in proposals {
            self.early.keep_proposal(&self.window, me, regency, proposal);
        }
        true
    }

    /// The regency begins; requests wait anew under its leader.
    fn install(&mut self, cx: &Context<'_>, selection: Selection, stop_data: Vec<SignedStopData>) {
        let regency = self.sync.regency;
        self.sync.installed = true;
        self.sync.selection = Some(selection);
        self.sync.installed_by = stop_data;
        self.sync.stop_data.retain(|_, (signed, _)| signed.data.regency > regency);
        self.pending.restart_timers(cx.now.monotonic_us.saturating_add(self.timeout_us()));
        self.effects.push(Effect::RegencyInstalled { regency, leader: self.leader() });
    }

    pub(crate) fn on_sync(
        &mut self,
        cx: &Context<'_>,
        from: ReplicaId,
        regency: Regency,
        stop_data: Vec<SignedStopData>,
        proposals: Vec<Arc<Proposal>>,
    ) {
        if regency.view > self.membership.number() {
            self.note_ahead(cx, from, self.window.first(), regency);
            return;
        }
        let from_leader = self.membership.leader(regency) == Some(from);
        let installed = regency == self.sync.regency && self.sync.installed;
        if regency < self.sync.regency || (installed && self.sync.installed_by == stop_data) {
            if installed && from_leader {
                self.on_proposals(cx, from, regency, proposals);
            }
            return;
        }
        // Any sound collection is as safe as any other, but it is the leader's own that its proposal fits. Once this
        // replica holds a proposal of the regency, it is too late to take another.
        let holds_some = self.window.iter().any(|instance| instance.held_in(regency).is_some());
        if installed && (!from_leader || holds_some) {
            return;
        }
        let selection = match self.check_sync(regency, &stop_data) {
            Ok(selection) => selection,
            Err(reason) => {
                self.effects.misbehaved(from, reason);
                return;
            }
        };
        if regency > self.sync.regency {
            self.enter(cx, regency);
        }
        let wants_later = self.sync.own_stop;
        let first = selection.first;
        self.install(cx, selection, stop_data);
        self.sync.own_stop = wants_later;
        if first > self.window.first() {
            self.note_ahead(cx, from, first.max(self.window.last().next()), regency);
        }
        // Without a proposal: the leader has nothing to propose, or has decided that instance since, or keeps a bound
        // value to itself, which the request timers see to.
        if from_leader {
            self.on_proposals(cx, from, regency, proposals);
        }
    }

    fn on_proposals(
        &mut self,
        cx: &Context<'_>,
        leader: ReplicaId,
        regency: Regency,
        proposals: Vec<Arc<Proposal>>,
    ) {
        for proposal in proposals.into_iter().take(limits::WINDOW_MAX) {
            self.on_propose(cx, leader, regency, proposal);
        }
    }

    fn select(&self, data: &[&StopData]) -> Option<Selection> {
        let believed = self.config.has(PlantedBug::BoundOnOneWord);
        let (view, begun) = (self.membership.view(), self.membership.chain().first());
        let mut selection = select(view, begun, self.config.window, data, believed)?;
        if self.config.has(PlantedBug::BoundNotReproposed) {
            selection.bound.clear();
        }
        Some(selection)
    }

    /// Every replica runs the leader's selection again.
    fn check_sync(&self, regency: Regency, stop_data: &[SignedStopData]) -> Result<Selection, String> {
        if stop_data.len() > usize::from(self.membership.view().n()) {
            return Err(format!("a SYNC with {} STOPDATAs", stop_data.len()));
        }
        let replicas: BTreeSet<ReplicaId> = stop_data.iter().map(|signed| signed.data.replica).collect();
        if replicas.len() != stop_data.len() || stop_data.iter().any(|s| s.data.regency != regency) {
            return Err("a SYNC with STOPDATAs of one replica twice, or of another regency".into());
        }
        let mut proofs_known = BTreeSet::new();
        for signed in stop_data {
            let verified = signed.verify(&self.membership, &mut proofs_known);
            if !self.config.has(PlantedBug::StopDataNotVerified) {
                verified?;
            }
        }
        let data: Vec<&StopData> = stop_data.iter().map(|signed| &signed.data).collect();
        let mut selection = self
            .select(&data)
            .ok_or_else(|| "a SYNC whose STOPDATAs are too few or not sound".to_string())?;
        if self.config.has(PlantedBug::SelectionNotChecked) {
            selection.bound.clear();
        }
        Ok(selection)
    }

    /// Gives a replica the SYNC of the regency this one is in, with the proposals if this is the leader.
    pub(crate) fn pass_sync_on(&mut self, to: ReplicaId) {
        let regency = self.sync.regency;
        if !self.sync.installed || self.sync.installed_by.is_empty() {
            return;
        }
        let held = self.window.iter().filter(|_| self.is_leader()).filter_map(|i| i.held_in(regency));
        let proposals = held.map(|held| Arc::clone(&held.proposal)).collect();
        let stop_data = self.sync.installed_by.clone();
        self.effects.send(to, Message::Sync { regency, stop_data, proposals });
    }

    /// Sends STOPDATA again.
    pub(crate) fn resend_synchronization(&mut self) {
        if !self.sync.installed {
            self.send_stop_data();
        }
    }

    /// A new leader that cannot get the regency going in time is suspected, too.
    pub(crate) fn on_synchronization_timer(&mut self, cx: &Context<'_>) {
        let now = cx.now.monotonic_us;
        let passed = self.sync.deadline.is_some_and(|deadline| deadline <= now);
        if passed {
            self.suspect(cx);
        }
        if passed || self.sync.deadline.is_none() {
            self.sync.deadline = Some(now.saturating_add(self.timeout_us()));
        }
    }

    pub(crate) fn is_served(&mut self, cx: &Context<'_>, peer: ReplicaId, what: Served) -> bool {
        self.catchup.is_served(peer, what, cx.now.monotonic_us, self.resend_us() / 2)
    }
}
