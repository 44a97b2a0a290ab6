//! Out-of-context messages: what arrives before this replica can judge it, bounded per sender.

use crate::instance::Accept;
use crate::proof::Claim;
use crate::window::Window;
use crate::{InstanceNumber, Proposal, Regency};
use std::collections::BTreeMap;
use std::sync::Arc;
use steeldb_types::{ReplicaId, limits};

/// How many instances behind the window messages are kept for; farther ahead, decisions are fetched instead.
const INSTANCES_AHEAD: u64 = 2;

/// Per sender and instance, the PROPOSE, WRITE and ACCEPT of the highest regency.
#[derive(Default)]
pub(crate) struct Early {
    slots: BTreeMap<(InstanceNumber, ReplicaId), Slot>,
}

#[derive(Default)]
struct Slot {
    proposal: Option<(Regency, Arc<Proposal>)>,
    write: Option<Claim>,
    accept: Option<Accept>,
}

impl Early {
    /// Senders and instances that something is kept of.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    fn slot(&mut self, window: &Window, instance: InstanceNumber, from: ReplicaId) -> Option<&mut Slot> {
        let last = window.last().0.saturating_add(INSTANCES_AHEAD);
        (window.first() <= instance && instance.0 <= last)
            .then(|| self.slots.entry((instance, from)).or_default())
    }

    /// Keeps a leader's proposal for a later instance or regency; the latest one replaces others of its leader.
    pub(crate) fn keep_proposal(
        &mut self,
        window: &Window,
        from: ReplicaId,
        regency: Regency,
        proposal: Arc<Proposal>,
    ) {
        // No valid batch is larger, and what nobody has judged must not fill the memory.
        if proposal.size_bytes() > limits::BATCH_BYTES_MAX {
            return;
        }
        let Some(slot) = self.slot(window, proposal.instance, from) else { return };
        if slot.proposal.as_ref().is_none_or(|(known, _)| *known < regency) {
            slot.proposal = Some((regency, proposal));
        }
    }

    pub(crate) fn keep_write(
        &mut self,
        window: &Window,
        from: ReplicaId,
        instance: InstanceNumber,
        claim: Claim,
    ) {
        let Some(slot) = self.slot(window, instance, from) else { return };
        if slot.write.is_none_or(|known| known.regency < claim.regency) {
            slot.write = Some(claim);
        }
    }

    pub(crate) fn keep_accept(
        &mut self,
        window: &Window,
        from: ReplicaId,
        instance: InstanceNumber,
        accept: Accept,
    ) {
        let Some(slot) = self.slot(window, instance, from) else { return };
        if slot.accept.as_ref().is_none_or(|known| known.claim.regency < accept.claim.regency) {
            slot.accept = Some(accept);
        }
    }

    /// Gives the instances in the window the votes that came early, and forgets older instances.
    pub(crate) fn hand_over(&mut self, window: &mut Window) {
        self.slots = self.slots.split_off(&(window.first(), ReplicaId(0)));
        for ((number, from), slot) in &mut self.slots {
            if !window.contains(*number) {
                break;
            }
            if let Some(claim) = slot.write.take() {
                window.entry(*number).note_write(*from, claim);
            }
            if let Some(accept) = slot.accept.take() {
                window.entry(*number).note_accept(*from, accept);
            }
        }
    }

    /// Takes the proposal of `leader` for an instance in `regency`.
    pub(crate) fn take_proposal(
        &mut self,
        number: InstanceNumber,
        leader: ReplicaId,
        regency: Regency,
    ) -> Option<Arc<Proposal>> {
        let slot = self.slots.get_mut(&(number, leader))?;
        slot.proposal.take_if(|(known, _)| *known == regency).map(|(_, proposal)| proposal)
    }
}
