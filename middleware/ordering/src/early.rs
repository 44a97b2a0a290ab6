//! Out-of-context messages: what arrives before this replica can judge it, bounded per sender.

use crate::instance::{Accept, Instance};
use crate::proof::Claim;
use crate::{InstanceNumber, Proposal, Regency};
use std::collections::BTreeMap;
use std::sync::Arc;
use steeldb_types::ReplicaId;

/// How many instances ahead messages are kept for; farther ahead, decisions are fetched instead.
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

    fn slot(
        &mut self,
        running: InstanceNumber,
        instance: InstanceNumber,
        from: ReplicaId,
    ) -> Option<&mut Slot> {
        let ahead = instance.0.checked_sub(running.0)?;
        (ahead <= INSTANCES_AHEAD).then(|| self.slots.entry((instance, from)).or_default())
    }

    /// Keeps a leader's proposal for a later instance or regency; the latest one replaces others of its leader.
    pub(crate) fn keep_proposal(
        &mut self,
        running: InstanceNumber,
        from: ReplicaId,
        regency: Regency,
        proposal: Arc<Proposal>,
    ) {
        let Some(slot) = self.slot(running, proposal.instance, from) else { return };
        if slot.proposal.as_ref().is_none_or(|(known, _)| *known < regency) {
            slot.proposal = Some((regency, proposal));
        }
    }

    pub(crate) fn keep_write(
        &mut self,
        running: InstanceNumber,
        from: ReplicaId,
        instance: InstanceNumber,
        claim: Claim,
    ) {
        let Some(slot) = self.slot(running, instance, from) else { return };
        if slot.write.is_none_or(|known| known.regency < claim.regency) {
            slot.write = Some(claim);
        }
    }

    pub(crate) fn keep_accept(
        &mut self,
        running: InstanceNumber,
        from: ReplicaId,
        instance: InstanceNumber,
        accept: Accept,
    ) {
        let Some(slot) = self.slot(running, instance, from) else { return };
        if slot.accept.as_ref().is_none_or(|known| known.claim.regency < accept.claim.regency) {
            slot.accept = Some(accept);
        }
    }

    /// Gives a new instance the votes that came early, and forgets older instances.
    pub(crate) fn hand_over(&mut self, instance: &mut Instance) {
        self.slots = self.slots.split_off(&(instance.number, ReplicaId(0)));
        let number = instance.number;
        for ((_, from), slot) in self.slots.iter_mut().take_while(|((of, _), _)| *of == number) {
            if let Some(claim) = slot.write.take() {
                instance.note_write(*from, claim);
            }
            if let Some(accept) = slot.accept.take() {
                instance.note_accept(*from, accept);
            }
        }
    }

    /// Takes the proposal of `leader` for the running instance in `regency`.
    pub(crate) fn take_proposal(
        &mut self,
        running: InstanceNumber,
        leader: ReplicaId,
        regency: Regency,
    ) -> Option<Arc<Proposal>> {
        let slot = self.slots.get_mut(&(running, leader))?;
        slot.proposal.take_if(|(known, _)| *known == regency).map(|(_, proposal)| proposal)
    }
}
