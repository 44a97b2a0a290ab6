//! The normal phase: PROPOSE, WRITE, ACCEPT, decision (Mod-SMaRt, Algorithm 2; VP-Consensus).

use crate::config::PlantedBug;
use crate::core::{Context, Core};
use crate::effect::{Effect, Refusal};
use crate::instance::{Accept, Held, Instance};
use crate::message::Message;
use crate::proof::{Claim, Decision, Proof, sign_accept, verify_accept};
use crate::proposal::{Digests, Proposal};
use crate::record::Record;
use crate::stopdata::Allowed;
use crate::window::{InFlight, executed_at};
use crate::{InstanceNumber, Regency, Request};
use std::collections::BTreeSet;
use std::sync::Arc;
use steeldb_types::{ReplicaId, Timestamp, limits};
use steeldb_wire::auth::Signature;

impl Core {
    /// The leader proposes as soon as requests wait and the window has room.
    pub(crate) fn try_propose(&mut self, cx: &Context<'_>) -> bool {
        if !self.is_leader() || !self.may_vote() || !self.sync.is_installed() {
            return false;
        }
        let regency = self.sync.regency();
        let Some(number) = self.window.first_open(regency) else { return false };
        let proposal = match self.sync.allowed(number) {
            // Bound values went out with the SYNC.
            Allowed::Nothing | Allowed::Only(_) => return false,
            Allowed::Empty => Some(self.proposal(cx, number, Vec::new())),
            Allowed::Any => self.new_proposal(cx, number),
        };
        let Some(proposal) = proposal else { return false };
        self.effects.broadcast(Message::Propose { regency, proposal: Arc::clone(&proposal) });
        let value = proposal.digest();
        self.write(Claim { regency, value }, proposal);
        true
    }

    /// A batch of what waits and is not in flight.
    pub(crate) fn new_proposal(&mut self, cx: &Context<'_>, number: InstanceNumber) -> Option<Arc<Proposal>> {
        let regency = self.sync.regency();
        let mut values = self.window.iter().filter_map(|instance| instance.value_in(regency));
        if values.any(|value| value.requests.iter().any(|request| request.is_membership())) {
            // A change of the membership is in flight: what is proposed behind it would be for nothing.
            return None;
        }
        let in_flight = match self.config.has(PlantedBug::InFlightIgnored) {
            true => InFlight::default(),
            false => InFlight::new(self.window.iter().filter_map(|instance| instance.value_in(regency))),
        };
        let requests_max = self.config.batch_requests_max;
        let mut requests =
            self.pending.batch(&self.clients, &in_flight, requests_max, limits::BATCH_BYTES_MAX);
        // A change of the membership is alone in its batch, in its turn.
        if let Some(first) = requests.iter().position(|request| request.is_membership()) {
            requests.truncate(first.max(1));
        }
        if requests.is_empty() { None } else { Some(self.proposal(cx, number, requests)) }
    }

    /// A proposal at a time after those before it.
    fn proposal(
        &self,
        cx: &Context<'_>,
        instance: InstanceNumber,
        requests: Vec<Arc<Request>>,
    ) -> Arc<Proposal> {
        let before = self.executed_before(instance).unwrap_or(cx.now.wall);
        let timestamp = cx.now.wall.max(Timestamp(before.0.saturating_add(1)));
        Arc::new(Proposal { instance, timestamp, requests })
    }

    /// When the instance before one in the window counts as executed; nothing while a value before it is not known.
    fn executed_before(&self, number: InstanceNumber) -> Option<Timestamp> {
        let before = self.window.predecessors(number, self.sync.regency())?;
        Some(executed_at(self.log.last_timestamp(), before))
    }

    pub(crate) fn on_propose(
        &mut self,
        cx: &Context<'_>,
        from: ReplicaId,
        regency: Regency,
        proposal: Arc<Proposal>,
    ) {
        if self.membership.leader(regency).is_some_and(|leader| leader != from) {
            self.effects.misbehaved(from, format!("proposed in {regency} without being its leader"));
            return;
        }
        let number = proposal.instance;
        if regency < self.sync.regency() || number < self.window.first() {
            return;
        }
        self.note_ahead(cx, from, number, regency);
        if regency == self.sync.regency() && self.sync.is_installed() && self.is_within_reach(number) {
            self.consider(cx, proposal);
        } else {
            self.early.keep_proposal(&self.window, from, regency, proposal);
        }
    }

    /// Whether a proposal for `number` can be judged: it is in the window, and all values before it are known.
    fn is_within_reach(&self, number: InstanceNumber) -> bool {
        let regency = self.sync.regency();
        self.window.contains(number) && self.window.predecessors(number, regency).is_some()
    }

    /// Considers a proposal that came before its instance, its predecessors or its regency did.
    pub(crate) fn try_consider_early(&mut self, cx: &Context<'_>) -> bool {
        let (regency, leader) = (self.sync.regency(), self.leader());
        if !self.sync.is_installed() {
            return false;
        }
        for number in self.window.numbers() {
            if let Some(proposal) = self.early.take_proposal(number, leader, regency) {
                self.consider(cx, proposal);
                return true;
            }
            if self.window.get(number).and_then(|instance| instance.value_in(regency)).is_none() {
                break;
            }
        }
        false
    }

    /// Considers the leader's proposal for an instance within reach and, when it is acceptable, writes it.
    fn consider(&mut self, cx: &Context<'_>, proposal: Arc<Proposal>) {
        if !self.membership.votes() {
            return;
        }
        let (regency, leader) = (self.sync.regency(), self.leader());
        let number = proposal.instance;
        let digests = proposal.digests();
        let claim = Claim { regency, value: digests.value };
        let instance = self.window.entry(number);
        match instance.held_in(regency) {
            Some(held) if held.claim != claim => {
                self.effects.misbehaved(leader, format!("proposed two batches in {regency}"));
                return;
            }
            Some(held) if held.claim == claim && held.written => return,
            _ => {}
        }
        if instance.written_in(regency).is_some_and(|value| value != claim.value) {
            return;
        }
        let allowed = self.sync.allowed(number);
        let free = match allowed {
            Allowed::Nothing => return,
            Allowed::Only(value) if value != claim.value => {
                self.effects.misbehaved(leader, "proposed another value than the bound one");
                self.blame(cx);
                return;
            }
            Allowed::Only(_) => false,
            Allowed::Empty | Allowed::Any => true,
        };
        // A bound value is valid by its proof: a correct replica wrote it (rule D4). It is not judged again.
        if free && let Err(reason) = self.judge(cx, &proposal, &digests, allowed == Allowed::Empty) {
            self.effects.misbehaved(leader, format!("proposed an invalid batch: {reason}"));
            self.blame(cx);
            return;
        }
        let in_time = !free || self.is_in_time(cx, proposal.timestamp);
        self.carry_over(cx, &proposal, &digests, free);
        if in_time && self.may_vote() {
            self.write(claim, proposal);
        } else {
            // Not WRITTEN, but held: should a quorum find it in time, it may be decided (A14).
            self.window.entry(number).held = Some(Held { claim, proposal, written: false });
        }
    }

    /// Whether a proposal is valid: a deterministic function of it and of the values before it (rule D1), those in
    /// flight as the same leader proposed them.
    ///
    /// What this replica knows of the order beyond the leader must make no difference. It may have executed what the
    /// leader still has in flight, so a request is a repetition when its session is known to be as far, but not when
    /// its session was forgotten meanwhile: that one is left out when it is delivered. Nor is a certified request one
    /// that is in flight here: the leader may have executed it, and been asked for it anew.
    fn judge(
        &self,
        cx: &Context<'_>,
        proposal: &Proposal,
        digests: &Digests,
        must_be_empty: bool,
    ) -> Result<(), String> {
        let requests = &proposal.requests;
        if requests.is_empty() != must_be_empty || requests.len() > limits::BATCH_REQUESTS_MAX {
            return Err(format!("{} requests", requests.len()));
        }
        if proposal.size_bytes() > limits::BATCH_BYTES_MAX {
            return Err(format!("{} bytes", proposal.size_bytes()));
        }
        let (number, regency) = (proposal.instance, self.sync.regency());
        let before = self.window.predecessors(number, regency).ok_or("what comes before it is not known")?;
        if proposal.timestamp <= executed_at(self.log.last_timestamp(), before.iter().copied()) {
            return Err("its timestamp is not after the last".into());
        }
        if requests.len() > 1 && requests.iter().any(|request| request.is_membership()) {
            return Err("a change of the membership that is not alone".into());
        }
        let in_flight = match self.config.has(PlantedBug::InFlightIgnored) {
            true => InFlight::default(),
            false => InFlight::new(before),
        };
        let mut keys = BTreeSet::new();
        for (request, digest) in requests.iter().zip(&digests.requests) {
            let key = request.key();
            if request.payload().len() > limits::REQUEST_BYTES_MAX {
                return Err(format!("{key:?} is too large"));
            }
            let repeated = match self.config.window {
                1 => self.clients.is_void(&key) || self.clients.is_impostor(request),
                _ => self.clients.sessions.is_executed(&key) || in_flight.is_repetition(&key),
            };
            if !keys.insert(key) || (repeated && !self.config.has(PlantedBug::ExecutesTwice)) {
                return Err(format!("{key:?} again"));
            }
            // What waits here was verified when it came.
            if self.pending.digest(&key) != Some(*digest) {
                self.verify(cx, request)?;
            }
        }
        Ok(())
    }

    fn is_in_time(&self, cx: &Context<'_>, timestamp: Timestamp) -> bool {
        let tolerance_us = u64::try_from(self.config.clock_tolerance.as_micros()).unwrap_or(u64::MAX);
        timestamp.0.abs_diff(cx.now.wall.0) <= tolerance_us || self.config.has(PlantedBug::TimeNotChecked)
    }

    /// The proposal's requests wait here, too: should this regency fail, the next leader knows them, and this
    /// replica's timers see to it.
    fn carry_over(&mut self, cx: &Context<'_>, proposal: &Proposal, digests: &Digests, verified: bool) {
        for (request, digest) in proposal.requests.iter().zip(&digests.requests) {
            let key = request.key();
            if self.pending.digest(&key).is_none()
                && !self.clients.is_void(&key)
                && !self.clients.is_impostor(request)
                && (verified || self.verify(cx, request).is_ok())
            {
                self.wait(cx, request, *digest);
            }
        }
    }

    /// VP-Consensus: WRITE, once it is durable that nothing else will be written in this regency (A7).
    pub(crate) fn write(&mut self, claim: Claim, proposal: Arc<Proposal>) {
        let number = proposal.instance;
        let instance = self.window.entry(number);
        instance.held = Some(Held { claim, proposal: Arc::clone(&proposal), written: true });
        instance.write(self.config.me, claim);
        self.effects.persist(Record::Write { regency: claim.regency, proposal });
        self.effects.broadcast(Message::Write { instance: number, claim });
    }

    pub(crate) fn on_write(
        &mut self,
        cx: &Context<'_>,
        from: ReplicaId,
        instance: InstanceNumber,
        claim: Claim,
    ) {
        self.note_ahead(cx, from, instance, claim.regency);
        if self.window.contains(instance) {
            self.window.entry(instance).note_write(from, claim);
        } else {
            self.early.keep_write(&self.window, from, instance, claim);
        }
    }

    /// VP-Consensus: on a WRITE quorum the value is bound, and ACCEPT goes out.
    pub(crate) fn try_accept(&mut self) -> bool {
        let stays = self.config.has(PlantedBug::VotesInLeftRegency);
        if !(self.sync.is_installed() || stays) || !self.may_vote() {
            return false;
        }
        let bindable = |instance: &&Instance| {
            let regency = self.acceptable_regency(instance);
            instance.bound.as_ref().is_none_or(|(bound, _)| bound.regency < regency)
                && instance.held_in(regency).is_some_and(|held| self.is_quorum(&instance.writers(held.claim)))
        };
        let Some(number) = self.window.iter().find(bindable).map(|instance| instance.number) else {
            return false;
        };
        self.accept(number);
        true
    }

    /// The regency in which an ACCEPT may go out: the one this replica is in.
    fn acceptable_regency(&self, instance: &Instance) -> Regency {
        match &instance.held {
            Some(held) if self.config.has(PlantedBug::VotesInLeftRegency) => held.claim.regency,
            _ => self.sync.regency(),
        }
    }

    fn accept(&mut self, number: InstanceNumber) {
        let me = self.config.me;
        let Some(regency) = self.window.get(number).map(|instance| self.acceptable_regency(instance)) else {
            return;
        };
        let instance = self.window.entry(number);
        let Some(held) = instance.held_in(regency) else { return };
        let (claim, proposal, written) = (held.claim, Arc::clone(&held.proposal), held.written);
        let unwritten = (!written).then(|| Arc::clone(&proposal));
        instance.bound = Some((claim, proposal));
        let signature = sign_accept(number, &claim, &self.config.key);
        instance.note_accept(me, Accept { claim, signature, verified: true });
        self.effects.persist(Record::Accept { instance: number, claim, proposal: unwritten });
        self.effects.broadcast(Message::Accept { instance: number, claim, signature });
    }

    pub(crate) fn on_accept(
        &mut self,
        cx: &Context<'_>,
        from: ReplicaId,
        instance: InstanceNumber,
        accept: Accept,
    ) {
        self.note_ahead(cx, from, instance, accept.claim.regency);
        if self.window.contains(instance) {
            if self.config.has(PlantedBug::ReplayedVoteCounted) {
                self.count_again(from, instance, &accept);
            }
            self.window.entry(instance).note_accept(from, accept);
        } else {
            self.early.keep_accept(&self.window, from, instance, accept);
        }
    }

    /// A planted bug: an ACCEPT that was counted counts for a replica that is still to be heard.
    fn count_again(&mut self, from: ReplicaId, number: InstanceNumber, again: &Accept) {
        let peers: Vec<ReplicaId> = self.membership.peers().collect();
        let instance = self.window.entry(number);
        let counted = instance.accepts.get(&from).is_some_and(|accept| accept.claim == again.claim);
        let absent = peers.into_iter().find(|peer| !instance.accepts.contains_key(peer));
        if let Some(absent) = absent.filter(|_| counted) {
            let accept = Accept { claim: again.claim, signature: again.signature, verified: true };
            instance.note_accept(absent, accept);
        }
    }

    /// Decides on ACCEPTs of weight Q_v for one value in one regency, whichever regency this replica is in: they are
    /// a proof by themselves.
    pub(crate) fn try_decide(&mut self) -> bool {
        if self.transfer.is_installing() {
            return false;
        }
        self.window.numbers().any(|number| self.try_decide_in(number))
    }

    fn try_decide_in(&mut self, number: InstanceNumber) -> bool {
        let Some(instance) = self.window.get(number).filter(|instance| instance.decided.is_none()) else {
            return false;
        };
        // Of this view alone: in others, others count.
        let view = self.membership.number();
        let claims = instance.accepts.values().map(|accept| accept.claim);
        let claims: BTreeSet<Claim> = claims.filter(|claim| claim.regency.view == view).collect();
        let any_regency = self.config.has(PlantedBug::OldRegencyVoteCounted);
        let enough = |claim: &Claim| match any_regency {
            true => self.is_quorum(&instance.accepters_of(claim.value)),
            false => self.is_quorum(&instance.accepters(*claim)),
        };
        let claims: Vec<Claim> = claims.into_iter().filter(enough).collect();
        for claim in claims {
            let Some(proposal) = self.window.entry(number).batch(claim.value) else { continue };
            if let Some(accepts) = self.verified_accepts(number, claim) {
                let proof = Proof { instance: number, claim, accepts };
                self.decided(Arc::new(Decision { proposal, proof }));
                return true;
            }
        }
        false
    }

    /// Decides on a proof out of the STOPDATAs that installed the regency, when the batch is held here. Who shows a
    /// proof may keep the batch to itself; correct replicas that accepted it hold it, and pass it on once decided.
    pub(crate) fn try_decide_by_proof(&mut self) -> bool {
        if self.transfer.is_installing() {
            return false;
        }
        let undecided = self.window.iter().filter(|instance| instance.decided.is_none());
        let proven = undecided.filter_map(|instance| {
            let proof = self.sync.proof_of(instance.number)?;
            Some(Decision { proposal: instance.batch(proof.claim.value)?, proof })
        });
        let Some(decision) = { proven }.next() else { return false };
        self.decided(Arc::new(decision));
        true
    }

    /// Verifies ACCEPTs of a claim, now that they may be enough, up to the weight that a proof needs; drops bad ones.
    /// Nothing: too few are good.
    fn verified_accepts(
        &mut self,
        number: InstanceNumber,
        claim: Claim,
    ) -> Option<Vec<(ReplicaId, Signature)>> {
        let roster = Arc::clone(self.membership.roster());
        let mut good: Vec<(ReplicaId, Signature)> = Vec::new();
        // Own ones first: they need no verification.
        let mut candidates = self.window.entry(number).accepters(claim);
        candidates.sort_by_key(|replica| *replica != self.config.me);
        for replica in candidates {
            let Some(accept) = self.window.entry(number).accepts.get_mut(&replica) else { continue };
            let signature = accept.signature;
            if !accept.verified && !self.config.has(PlantedBug::AcceptSignatureNotChecked) {
                self.verifications += 1;
                match verify_accept(number, &claim, replica, &signature, &roster) {
                    Ok(()) => accept.verified = true,
                    Err(reason) => {
                        self.window.entry(number).accepts.remove(&replica);
                        self.effects.misbehaved(replica, reason);
                        continue;
                    }
                }
            }
            good.push((replica, signature));
            let signers: Vec<ReplicaId> = good.iter().map(|(replica, _)| *replica).collect();
            if self.is_quorum(&signers) {
                good.sort_by_key(|(replica, _)| *replica);
                return Some(good);
            }
        }
        if self.config.has(PlantedBug::OldRegencyVoteCounted) {
            good.sort_by_key(|(replica, _)| *replica);
            return Some(good);
        }
        None
    }

    /// Takes in a decision: delivers it once all before it are, too.
    pub(crate) fn decided(&mut self, decision: Arc<Decision>) {
        self.window.entry(decision.instance()).decided.get_or_insert(decision);
        self.try_deliver();
    }

    /// Delivers what is decided, in order, and goes on to the instances behind it.
    pub(crate) fn try_deliver(&mut self) -> bool {
        if self.transfer.is_installing() {
            return false;
        }
        let out_of_order = self.config.has(PlantedBug::OutOfOrderDelivery);
        let decided = |core: &Core| match out_of_order {
            true => core.window.iter().find_map(|instance| instance.decided.clone()),
            false => core.window.get(core.window.first()).and_then(|instance| instance.decided.clone()),
        };
        let mut any = false;
        while let Some(decision) = decided(self) {
            // The delivery depends on this replica's ACCEPT, which may be in the quorum, but not on the decision's own
            // record: the votes that are durable elsewhere bind the instance to this value for ever. One that has sent no
            // ACCEPT waits for the decision's record: after a restart it would not know what it spoke of
            // ([`said_upto`](Core::said_upto)).
            let accepted = self.window.get(decision.instance()).is_some_and(|i| i.bound.is_some());
            if !accepted {
                self.effects.persist(Record::Decision(Arc::clone(&decision)));
            }
            self.append(Arc::clone(&decision));
            if accepted {
                self.effects.persist(Record::Decision(decision));
            }
            any = true;
        }
        if any {
            self.transfer.give_up(self.last_decided());
            self.resend_at = None;
            self.early.hand_over(&mut self.window);
        }
        any
    }

    /// Adds a decision to the log and hands it to the application, unless it says it has it.
    pub(crate) fn append(&mut self, decision: Arc<Decision>) {
        let instance = decision.instance();
        let replays = self.config.has(PlantedBug::ReplayedChangeAccepted);
        let makes_view = self.membership.take(&decision, replays);
        let settled = decision.proposal.requests.iter().map(|request| self.pending.settle(&request.key()));
        let longest = settled.flatten().min().map(|since| self.now_us.saturating_sub(since));
        self.timeouts.decided(longest);
        let twice =
            self.config.has(PlantedBug::ExecutesTwice) || self.config.has(PlantedBug::InFlightIgnored);
        let delivery = self.log.append(decision, &mut self.clients, self.config.rules(), twice);
        for client in delivery.registrations.iter().flat_map(|registration| &registration.gone) {
            for request in self.pending.drop_client(*client) {
                self.effects.push(Effect::Refused { request, reason: Refusal::NotJoined });
            }
        }
        self.settle_tentative(instance, delivery.proof.claim.value);
        if instance > self.delivered {
            self.effects.push(Effect::Deliver(delivery));
            self.take_checkpoint(instance);
        }
        self.window.begin(instance.next());
        match makes_view {
            Ok(true) => self.begin_view(),
            Ok(false) => {}
            // A quorum judged it. So this replica began with another view than the others, or more than f are faulty.
            Err(reason) => self.lost_view = Some(reason),
        }
    }

    /// Sends proposals again to those who have not written them.
    pub(crate) fn resend_as_leader(&mut self) {
        let regency = self.sync.regency();
        for instance in self.window.iter() {
            let Some(held) = instance.held_in(regency) else { continue };
            for peer in self.membership.peers() {
                if instance.writes.get(&peer).is_none_or(|claim| claim.regency < regency) {
                    let proposal = Arc::clone(&held.proposal);
                    self.effects.send(peer, Message::Propose { regency, proposal });
                }
            }
        }
    }
}
