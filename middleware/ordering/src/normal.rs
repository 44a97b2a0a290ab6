//! The normal phase: PROPOSE, WRITE, ACCEPT, decision (Mod-SMaRt, Algorithm 2; VP-Consensus).

use crate::config::PlantedBug;
use crate::core::{Context, Core};
use crate::effect::Effect;
use crate::instance::{Accept, Held};
use crate::message::Message;
use crate::proof::{Claim, Decision, Proof, sign_accept, verify_accept};
use crate::proposal::{Digests, Proposal};
use crate::record::Record;
use crate::{InstanceNumber, Regency};
use std::collections::BTreeSet;
use std::sync::Arc;
use steeldb_types::{ReplicaId, Timestamp, limits};

impl Core {
    /// The leader proposes as soon as requests wait and no instance runs.
    pub(crate) fn try_propose(&mut self, cx: &Context<'_>) -> bool {
        let (regency, number) = (self.sync.regency(), self.instance.number);
        if !self.is_leader()
            || !self.may_vote()
            || !self.sync.is_installed()
            || self.instance.held_in(regency).is_some()
            || self.sync.selection().is_some_and(|s| s.instance > number || self.sync.binds(number))
        {
            return false;
        }
        let Some(proposal) = self.new_proposal(cx) else { return false };
        self.effects.broadcast(Message::Propose { regency, proposal: Arc::clone(&proposal) });
        let value = proposal.digest();
        self.write(Claim { regency, value }, proposal);
        true
    }

    /// A batch of what waits, at a time after the last.
    pub(crate) fn new_proposal(&mut self, cx: &Context<'_>) -> Option<Arc<Proposal>> {
        let mut requests =
            self.pending.batch(&self.sessions, self.config.batch_requests_max, limits::BATCH_BYTES_MAX);
        if requests.is_empty() {
            return None;
        }
        // A change of the membership is alone in its batch, in its turn.
        if let Some(first) = requests.iter().position(|request| request.is_membership()) {
            requests.truncate(first.max(1));
        }
        let after_last = Timestamp(self.log.last_timestamp().0.saturating_add(1));
        let timestamp = cx.now.wall.max(after_last);
        Some(Arc::new(Proposal { instance: self.instance.number, timestamp, requests }))
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
        let number = self.instance.number;
        if regency < self.sync.regency() || proposal.instance < number {
            return;
        }
        self.note_ahead(cx, from, proposal.instance, regency);
        if proposal.instance == number && regency == self.sync.regency() && self.sync.is_installed() {
            self.consider(cx, proposal);
        } else {
            self.early.keep_proposal(number, from, regency, proposal);
        }
    }

    /// Considers a proposal that came before its instance or regency did.
    pub(crate) fn try_consider_early(&mut self, cx: &Context<'_>) -> bool {
        let regency = self.sync.regency();
        if !self.sync.is_installed() {
            return false;
        }
        let Some(proposal) = self.early.take_proposal(self.instance.number, self.leader(), regency) else {
            return false;
        };
        self.consider(cx, proposal);
        true
    }

    /// Considers the leader's proposal for the running instance and, when it is acceptable, writes it.
    fn consider(&mut self, cx: &Context<'_>, proposal: Arc<Proposal>) {
        if !self.membership.votes() {
            return;
        }
        let (regency, leader) = (self.sync.regency(), self.leader());
        let digests = proposal.digests();
        let claim = Claim { regency, value: digests.value };
        match self.instance.held_in(regency) {
            Some(held) if held.claim != claim => {
                self.effects.misbehaved(leader, format!("proposed two batches in {regency}"));
                return;
            }
            Some(held) if held.claim == claim && held.written => return,
            _ => {}
        }
        if self.instance.written_in(regency).is_some_and(|value| value != claim.value) {
            return;
        }
        let free = match self.sync.selection() {
            Some(selection) if selection.instance > self.instance.number => return,
            Some(selection) if selection.instance == self.instance.number => match selection.bound {
                Some(value) if value != claim.value => {
                    self.effects.misbehaved(leader, "proposed another value than the bound one");
                    self.suspect();
                    return;
                }
                bound => bound.is_none(),
            },
            _ => true,
        };
        // A bound value is valid by its proof: a correct replica wrote it (rule D4). It is not judged again.
        if free && let Err(reason) = self.judge(cx, &proposal, &digests) {
            self.effects.misbehaved(leader, format!("proposed an invalid batch: {reason}"));
            self.suspect();
            return;
        }
        let in_time = !free || self.is_in_time(cx, proposal.timestamp);
        self.carry_over(cx, &proposal, &digests, free);
        if in_time && self.may_vote() {
            self.write(claim, proposal);
        } else {
            // Not WRITTEN, but held: should a quorum find it in time, it may be decided (A14).
            self.instance.held = Some(Held { claim, proposal, written: false });
        }
    }

    /// Whether a proposal is valid: a deterministic function of it and of what was decided before (rule D1).
    fn judge(&self, cx: &Context<'_>, proposal: &Proposal, digests: &Digests) -> Result<(), String> {
        let requests = &proposal.requests;
        if requests.is_empty() || requests.len() > limits::BATCH_REQUESTS_MAX {
            return Err(format!("{} requests", requests.len()));
        }
        if proposal.size_bytes() > limits::BATCH_BYTES_MAX {
            return Err(format!("{} bytes", proposal.size_bytes()));
        }
        if proposal.timestamp <= self.log.last_timestamp() {
            return Err("its timestamp is not after the last".into());
        }
        if requests.len() > 1 && requests.iter().any(|request| request.is_membership()) {
            return Err("a change of the membership that is not alone".into());
        }
        let mut keys = BTreeSet::new();
        for (request, digest) in requests.iter().zip(&digests.requests) {
            let key = request.key();
            if request.payload().len() > limits::REQUEST_BYTES_MAX {
                return Err(format!("{key:?} is too large"));
            }
            if !keys.insert(key)
                || (self.sessions.is_stale(&key) && !self.config.has(PlantedBug::ExecutesTwice))
            {
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
        timestamp.0.abs_diff(cx.now.wall.0) <= tolerance_us
    }

    /// The proposal's requests wait here, too: should this regency fail, the next leader knows them, and this
    /// replica's timers see to it.
    fn carry_over(&mut self, cx: &Context<'_>, proposal: &Proposal, digests: &Digests, verified: bool) {
        for (request, digest) in proposal.requests.iter().zip(&digests.requests) {
            let key = request.key();
            if self.pending.digest(&key).is_none()
                && !self.sessions.is_stale(&key)
                && (verified || self.verify(cx, request).is_ok())
            {
                self.wait(cx, request, *digest);
            }
        }
    }

    /// VP-Consensus: WRITE, once it is durable that nothing else will be written in this regency (A7).
    pub(crate) fn write(&mut self, claim: Claim, proposal: Arc<Proposal>) {
        let instance = self.instance.number;
        self.instance.held = Some(Held { claim, proposal: Arc::clone(&proposal), written: true });
        self.instance.write(self.config.me, claim);
        self.effects.persist(Record::Write { regency: claim.regency, proposal });
        self.effects.broadcast(Message::Write { instance, claim });
    }

    pub(crate) fn on_write(
        &mut self,
        cx: &Context<'_>,
        from: ReplicaId,
        instance: InstanceNumber,
        claim: Claim,
    ) {
        let number = self.instance.number;
        self.note_ahead(cx, from, instance, claim.regency);
        if instance == number {
            self.instance.note_write(from, claim);
        } else if instance > number {
            self.early.keep_write(number, from, instance, claim);
        }
    }

    /// VP-Consensus: on a WRITE quorum the value is bound, and ACCEPT goes out.
    pub(crate) fn try_accept(&mut self) -> bool {
        let (me, regency) = (self.config.me, self.sync.regency());
        let Some(held) = self.instance.held_in(regency) else { return false };
        if !self.sync.is_installed()
            || !self.may_vote()
            || self.instance.bound.as_ref().is_some_and(|(bound, _)| bound.regency >= regency)
            || !self.is_quorum(&self.instance.writers(held.claim))
        {
            return false;
        }
        let (claim, proposal, written) = (held.claim, Arc::clone(&held.proposal), held.written);
        let instance = self.instance.number;
        let unwritten = (!written).then(|| Arc::clone(&proposal));
        self.instance.bound = Some((claim, proposal));
        self.effects.persist(Record::Accept { instance, claim, proposal: unwritten });
        let signature = sign_accept(instance, &claim, &self.config.key);
        self.instance.note_accept(me, Accept { claim, signature, verified: true });
        self.effects.broadcast(Message::Accept { instance, claim, signature });
        true
    }

    pub(crate) fn on_accept(
        &mut self,
        cx: &Context<'_>,
        from: ReplicaId,
        instance: InstanceNumber,
        accept: Accept,
    ) {
        let number = self.instance.number;
        self.note_ahead(cx, from, instance, accept.claim.regency);
        if instance == number {
            self.instance.note_accept(from, accept);
        } else if instance > number {
            self.early.keep_accept(number, from, instance, accept);
        }
    }

    /// Decides on ACCEPTs of weight Q_v for one value in one regency, whichever regency this replica is in: they are
    /// a proof by themselves.
    pub(crate) fn try_decide(&mut self) -> bool {
        if self.transfer.is_installing() {
            return false;
        }
        // Of this view alone: in others, others count.
        let view = self.membership.number();
        let claims = self.instance.accepts.values().map(|accept| accept.claim);
        let claims: BTreeSet<Claim> = claims.filter(|claim| claim.regency.view == view).collect();
        for claim in claims {
            if !self.is_quorum(&self.instance.accepters(claim)) || !self.verify_accepts(claim) {
                continue;
            }
            let Some(proposal) = self.instance.batch(claim.value) else { continue };
            let of_claim = self.instance.accepts.iter().filter(|(_, accept)| accept.claim == claim);
            let proof = Proof {
                instance: self.instance.number,
                claim,
                accepts: of_claim.map(|(replica, accept)| (*replica, accept.signature)).collect(),
            };
            self.decided(Arc::new(Decision { proposal, proof }));
            return true;
        }
        false
    }

    /// Decides on a proof out of the STOPDATAs that installed the regency, when the batch is held here. Who shows a
    /// proof may keep the batch to itself; correct replicas that accepted it hold it, and pass it on once decided.
    pub(crate) fn try_decide_by_proof(&mut self) -> bool {
        if self.transfer.is_installing() {
            return false;
        }
        let Some(proof) = self.sync.proof_of(self.instance.number) else { return false };
        let Some(proposal) = self.instance.batch(proof.claim.value) else { return false };
        self.decided(Arc::new(Decision { proposal, proof }));
        true
    }

    /// Verifies the ACCEPTs of a claim, now that they are enough; drops bad ones. Whether they still are enough.
    fn verify_accepts(&mut self, claim: Claim) -> bool {
        let (instance, roster) = (self.instance.number, self.membership.roster());
        let mut bad = Vec::new();
        for (replica, accept) in &mut self.instance.accepts {
            if accept.claim == claim && !accept.verified {
                match verify_accept(instance, &claim, *replica, &accept.signature, roster) {
                    Ok(()) => accept.verified = true,
                    Err(reason) => bad.push((*replica, reason)),
                }
            }
        }
        for (replica, reason) in bad {
            self.instance.accepts.remove(&replica);
            self.effects.misbehaved(replica, reason);
        }
        self.is_quorum(&self.instance.accepters(claim))
    }

    /// Takes in the decision of the running instance: delivers it and goes on to the next, in the next view if it makes
    /// one. What leaves from then on waits for its record, so nobody votes in a view that it may forget.
    pub(crate) fn decided(&mut self, decision: Arc<Decision>) {
        // The delivery depends on this replica's ACCEPT, which may be in the quorum, but not on the decision's own
        // record: the votes that are durable elsewhere bind the instance to this value for ever.
        self.append(Arc::clone(&decision));
        self.effects.persist(Record::Decision(decision));
        self.transfer.give_up(self.last_decided());
        self.sync.progress();
        self.resend_at = None;
        self.early.hand_over(&mut self.instance);
    }

    /// Adds a decision to the log and hands it to the application, unless it says it has it.
    pub(crate) fn append(&mut self, decision: Arc<Decision>) {
        let instance = decision.instance();
        let replays = self.config.has(PlantedBug::ReplayedChangeAccepted);
        let makes_view = self.membership.take(&decision, replays);
        for request in &decision.proposal.requests {
            self.pending.settle(&request.key());
        }
        let twice = self.config.has(PlantedBug::ExecutesTwice);
        let delivery = self.log.append(decision, &mut self.sessions, twice);
        if instance > self.delivered {
            let proof = delivery.proof.clone();
            self.effects.push(Effect::Deliver(delivery));
            self.take_checkpoint(&proof);
        }
        self.begin(instance.next());
        match makes_view {
            Ok(true) => self.begin_view(),
            Ok(false) => {}
            // A quorum judged it, so this does not happen with at most f faulty replicas; and all alike stay in this view.
            Err(_) => {}
        }
    }

    /// Sends the proposal again to those who have not written it.
    pub(crate) fn resend_as_leader(&mut self) {
        let regency = self.sync.regency();
        let Some(held) = self.instance.held_in(regency) else { return };
        for peer in self.membership.peers() {
            if self.instance.writes.get(&peer).is_none_or(|claim| claim.regency < regency) {
                let proposal = Arc::clone(&held.proposal);
                self.effects.send(peer, Message::Propose { regency, proposal });
            }
        }
    }
}
