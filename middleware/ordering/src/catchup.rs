//! Catching up: decisions, with their proofs, and SYNCs from replicas that are ahead.

use crate::config::PlantedBug;
use crate::core::{Context, Core};
use crate::effect::Effect;
use crate::message::Message;
use crate::proof::Decision;
use crate::{InstanceNumber, Regency};
use std::collections::BTreeMap;
use std::sync::Arc;
use steeldb_types::ReplicaId;

/// Decisions in one answer, and their bytes.
const DECISIONS_MAX: usize = 256;
pub(crate) const DECISIONS_BYTES_MAX: usize = 6 * 1024 * 1024;

/// How often everybody is asked for what one replica says there is. Then that counts as a lie, until it is said again. Each
/// time takes twice as long as the one before.
const ROUNDS_MAX: u32 = 6;

/// What was asked for: an instance and a regency.
pub(crate) type Served = (InstanceNumber, Regency);

/// How far a replica seems to be, and how many questions were asked since it said so.
struct Claim {
    what: Served,
    questions: u32,
}

/// Who seems to be ahead, and whom this replica helped lately.
#[derive(Default)]
pub(crate) struct CatchUp {
    /// By replica. A lie costs a bounded number of questions.
    ahead: BTreeMap<ReplicaId, Claim>,
    /// When to ask one of them: what is on its way may still come by itself.
    due: Option<u64>,
    /// Who was asked last.
    asked: ReplicaId,
    /// What was missing then.
    missing: InstanceNumber,
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

    /// The next one in turn of those that were not asked for what they have; now it is.
    fn not_asked(&mut self) -> Option<ReplicaId> {
        let mut claims = self.ahead.iter().filter(|(_, claim)| claim.questions == 0);
        let first = claims.clone().next();
        let peer = *claims.find(|(peer, _)| **peer > self.asked).or(first)?.0;
        self.ahead.entry(peer).and_modify(|claim| claim.questions = 1);
        Some(peer)
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
            self.catchup.ahead.insert(from, Claim { what: (instance, regency), questions: 0 });
            let soon = cx.now.monotonic_us.saturating_add(self.resend_us() / 4);
            self.catchup.due = Some(self.catchup.due.map_or(soon, |due| due.min(soon)));
        }
    }

    fn is_ahead(&self, (instance, regency): Served) -> bool {
        instance > self.window.last() || regency >= self.sync.wanted()
    }

    /// Asks one of those who seem to be ahead, in turn; then all others, too, while it leads to nothing: who spoke may have
    /// been a faulty one that says no more, and in an idle cluster nobody else speaks.
    pub(crate) fn fetch_from_ahead(&mut self, cx: &Context<'_>) {
        self.catchup.due = None;
        let peers = u32::try_from(self.membership.peers().count()).unwrap_or(u32::MAX).max(1);
        let mut ahead = std::mem::take(&mut self.catchup.ahead);
        ahead.retain(|_, claim| {
            self.is_ahead(claim.what) && claim.questions < ROUNDS_MAX.saturating_mul(peers)
        });
        self.catchup.ahead = ahead;
        let Some(fewest) = self.catchup.ahead.values().map(|claim| claim.questions).min() else { return };
        let wait = (self.resend_us() / 2).saturating_mul(1 << (fewest / peers));
        self.catchup.due = Some(cx.now.monotonic_us.saturating_add(wait));
        let came = self.log.next() > std::mem::replace(&mut self.catchup.missing, self.log.next());
        if let Some(peer) = self.catchup.not_asked() {
            self.catchup.asked = peer;
            self.fetch(peer);
        } else if !came && self.resend_at.is_none() {
            // Else who was asked is answering, or the others are asked in turn anyway.
            self.catchup.ahead.values_mut().for_each(|claim| claim.questions += 1);
            self.fetch_from_next();
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
