//! Catching up: decisions, with their proofs, and SYNCs from replicas that are ahead.

use crate::config::PlantedBug;
use crate::core::{Context, Core};
use crate::effect::Effect;
use crate::message::Message;
use crate::proof::Decision;
use crate::{InstanceNumber, Regency};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use steeldb_types::ReplicaId;

/// Decisions in one answer, and their bytes.
const DECISIONS_MAX: usize = 256;
pub(crate) const DECISIONS_BYTES_MAX: usize = 6 * 1024 * 1024;

/// What was asked for: an instance and a regency.
pub(crate) type Served = (InstanceNumber, Regency);

/// Who seems to be ahead, and whom this replica helped lately.
#[derive(Default)]
pub(crate) struct CatchUp {
    /// By replica, how far it seems to be. A lie costs one question.
    ahead: BTreeMap<ReplicaId, Served>,
    /// When to ask one of them: what is on its way may still come by itself.
    due: Option<u64>,
    /// Who was asked last.
    asked: ReplicaId,
    served: BTreeMap<ReplicaId, (Served, u64)>,
}

impl CatchUp {
    /// Replicas that seem to be ahead.
    pub(crate) fn ahead_len(&self) -> usize {
        self.ahead.len()
    }

    pub(crate) fn due(&self) -> Option<u64> {
        self.due
    }

    /// Whether `peer` was answered the same question a moment ago; takes note that it is now.
    pub(crate) fn is_served(&mut self, peer: ReplicaId, what: Served, now: u64, interval: u64) -> bool {
        if let Some((known, at)) = self.served.get(&peer)
            && *known == what
            && now < at.saturating_add(interval)
        {
            return true;
        }
        self.served.insert(peer, (what, now));
        false
    }
}

impl Core {
    /// Takes note of a message from a later instance or regency.
    pub(crate) fn note_ahead(
        &mut self,
        cx: &Context<'_>,
        from: ReplicaId,
        instance: InstanceNumber,
        regency: Regency,
    ) {
        if self.is_ahead((instance, regency)) {
            self.catchup.ahead.insert(from, (instance, regency));
            let soon = cx.now.monotonic_us.saturating_add(self.resend_us() / 4);
            self.catchup.due.get_or_insert(soon);
        }
    }

    fn is_ahead(&self, (instance, regency): Served) -> bool {
        instance > self.window.last() || regency >= self.sync.wanted()
    }

    /// Asks one of those who seem to be ahead, in turn.
    pub(crate) fn fetch_from_ahead(&mut self, cx: &Context<'_>) {
        self.catchup.due = None;
        let ahead = std::mem::take(&mut self.catchup.ahead);
        self.catchup.ahead = ahead.into_iter().filter(|(_, claim)| self.is_ahead(*claim)).collect();
        let after = self.catchup.ahead.range((Bound::Excluded(self.catchup.asked), Bound::Unbounded)).next();
        let Some(peer) = after.or_else(|| self.catchup.ahead.iter().next()).map(|(peer, _)| *peer) else {
            return;
        };
        self.catchup.ahead.remove(&peer);
        self.catchup.asked = peer;
        self.fetch(peer);
        if !self.catchup.ahead.is_empty() {
            self.catchup.due = Some(cx.now.monotonic_us.saturating_add(self.resend_us() / 2));
        }
    }

    /// Asks the next replica in turn, while nothing is decided here: perhaps it was decided there.
    pub(crate) fn fetch_from_next(&mut self) {
        let after = self.membership.peers().find(|peer| *peer > self.catchup.asked);
        let Some(peer) = after.or_else(|| self.membership.peers().next()) else { return };
        self.catchup.asked = peer;
        self.fetch(peer);
    }

    pub(crate) fn fetch(&mut self, peer: ReplicaId) {
        let (from, regency) = (self.log.next(), self.sync.wanted());
        self.effects.send(peer, Message::FetchDecisions { from, regency });
    }

    pub(crate) fn on_fetch(
        &mut self,
        cx: &Context<'_>,
        peer: ReplicaId,
        from: InstanceNumber,
        regency: Regency,
    ) {
        let helps = from <= self.reach() || (regency <= self.sync.regency() && self.sync.is_installed());
        if !helps || from == InstanceNumber(0) || self.is_served(cx, peer, (from, regency)) {
            return;
        }
        if regency <= self.sync.regency() {
            self.pass_sync_on(peer);
        }
        if from > self.reach() {
            return;
        }
        match self.log.read(from, DECISIONS_BYTES_MAX, DECISIONS_MAX) {
            Some((decisions, more)) => self.effects.send(peer, Message::Decisions { decisions, more }),
            None => {
                self.effects.push(Effect::ReadDecisions { peer, from, bytes_max: DECISIONS_BYTES_MAX });
            }
        }
    }

    pub(crate) fn on_decisions_read(&mut self, peer: ReplicaId, decisions: Vec<Arc<Decision>>) {
        if peer == self.config.me {
            let before = self.log.next();
            let damaged = decisions.into_iter().find_map(|decision| self.take_decision(decision).err());
            if let Some(reason) = damaged {
                // Checksums held, so this replica wrote it so, or somebody else wrote into its log.
                self.effects.misbehaved(peer, reason);
            }
            match self.log.next() > before {
                true => self.read_own_decisions(),
                false => self.fetch_from_next(),
            }
            return;
        }
        let Some(last) = decisions.last() else { return self.offer_checkpoint(peer) };
        let more = last.instance() < self.last_decided();
        self.effects.send(peer, Message::Decisions { decisions, more });
    }

    pub(crate) fn on_decisions(&mut self, from: ReplicaId, decisions: Vec<Arc<Decision>>, more: bool) {
        let before = self.log.next();
        for decision in decisions {
            if let Err(reason) = self.take_decision(decision) {
                self.effects.misbehaved(from, reason);
                // Nobody else may be known to be ahead, and nothing more be said: the others are asked in turn. Whoever is
                // asked can bring that about once.
                if from == self.catchup.asked {
                    self.fetch_from_next();
                }
                return;
            }
        }
        if self.log.next() > before {
            self.read_own_decisions();
            if more {
                self.fetch(from);
            }
        }
    }

    /// Takes in a decision, from wherever, if it is the next one.
    fn take_decision(&mut self, decision: Arc<Decision>) -> Result<(), String> {
        let next = self.log.next();
        if self.transfer.is_installing() || decision.instance() != next || decision.proposal.instance != next
        {
            return Ok(());
        }
        let verified = match self.config.has(PlantedBug::BatchNotMatched) {
            true => decision.proof.verify(self.membership.roster()),
            false => decision.verify(self.membership.roster()),
        };
        if !self.config.has(PlantedBug::ProofNotChecked) {
            verified?;
        }
        self.decided(decision);
        Ok(())
    }
}
