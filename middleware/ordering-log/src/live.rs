//! What a replica has promised and what it stands on: all that a new segment has to repeat of those before it.

use std::collections::BTreeMap;
use std::sync::Arc;
use steeldb_ordering::{InstanceNumber, Record, Regency, StableCheckpoint};

#[derive(Clone, Default)]
pub(crate) struct Live {
    pub(crate) regency: Regency,
    /// WRITE and ACCEPT records of undecided instances, in their order.
    pub(crate) votes: BTreeMap<InstanceNumber, Vec<Record>>,
    /// The highest instance voted in, or not to be voted in.
    pub(crate) voted: InstanceNumber,
    /// The highest instance whose decision was known.
    pub(crate) decided: InstanceNumber,
    /// Up to where votes may have been lost.
    pub(crate) passive: InstanceNumber,
    pub(crate) checkpoint: Option<Arc<StableCheckpoint>>,
}

impl Live {
    pub(crate) fn note(&mut self, record: &Record) {
        match record {
            Record::Regency(regency) => self.regency = self.regency.max(*regency),
            Record::Write { proposal, .. } => self.note_vote(proposal.instance, record),
            Record::Accept { instance, .. } => self.note_vote(*instance, record),
            Record::Decision(decision) => self.decide(decision.instance()),
            Record::Checkpoint(stable) => {
                let instance = stable.certificate.instance;
                self.votes = self.votes.split_off(&instance.next());
                self.decided = self.decided.max(instance);
                let known = self.checkpoint.as_ref().map(|known| known.certificate.instance);
                if known < Some(instance) {
                    self.checkpoint = Some(Arc::clone(stable));
                }
            }
            Record::Passive { upto } => self.must_not_vote(*upto),
        }
    }

    fn note_vote(&mut self, instance: InstanceNumber, record: &Record) {
        self.voted = self.voted.max(instance);
        if instance > self.passive {
            self.votes.entry(instance).or_default().push(record.clone());
        }
    }

    pub(crate) fn decide(&mut self, instance: InstanceNumber) {
        self.decided = self.decided.max(instance);
        self.votes.remove(&instance);
    }

    pub(crate) fn must_not_vote(&mut self, upto: InstanceNumber) {
        self.passive = self.passive.max(upto);
        self.voted = self.voted.max(upto);
        self.votes = self.votes.split_off(&self.passive.next());
    }

    /// What the next segment begins with.
    pub(crate) fn records(&self) -> Vec<Record> {
        let passive = Some(self.passive).filter(|upto| *upto > InstanceNumber(0));
        let checkpoint = self.checkpoint.iter().map(|stable| Record::Checkpoint(Arc::clone(stable)));
        checkpoint
            .chain(passive.map(|upto| Record::Passive { upto }))
            .chain([Record::Regency(self.regency)])
            .chain(self.votes.values().flatten().cloned())
            .collect()
    }
}
