//! Records as a core writes them, and a model of what a log must hold.

#![allow(dead_code, reason = "each test uses its part")]

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use steeldb_ordering::{
    Checkpoint, CheckpointCertificate, Claim, Decision, InstanceNumber, Proof, Proposal, Record, Regency,
    Request, StableCheckpoint,
};
use steeldb_ordering_log::{Reader, Recovered};
use steeldb_types::{Digest, Position, Timestamp, ViewNumber};

pub fn proposal(instance: u64, bytes: usize) -> Arc<Proposal> {
    let payload = (0..bytes).map(|i| (instance as usize * 7 + i * 13) as u8).collect();
    let request = Request::Certified { key: Digest([instance as u8; 32]), payload };
    let timestamp = Timestamp(instance as i64);
    Arc::new(Proposal { instance: InstanceNumber(instance), timestamp, requests: vec![Arc::new(request)] })
}

pub fn write(regency: u64, proposal: &Arc<Proposal>) -> Record {
    Record::Write { regency: Regency::new(0, regency), proposal: Arc::clone(proposal) }
}

fn claim(regency: u64, proposal: &Proposal) -> Claim {
    Claim { regency: Regency::new(0, regency), value: proposal.digest() }
}

pub fn accept(regency: u64, proposal: &Arc<Proposal>, with_value: bool) -> Record {
    Record::Accept {
        instance: proposal.instance,
        claim: claim(regency, proposal),
        proposal: with_value.then(|| Arc::clone(proposal)),
    }
}

pub fn decision(regency: u64, proposal: &Arc<Proposal>) -> Record {
    let proof = Proof { instance: proposal.instance, claim: claim(regency, proposal), accepts: vec![] };
    Record::Decision(Arc::new(Decision { proposal: Arc::clone(proposal), proof }))
}

pub fn checkpoint(instance: u64) -> Record {
    let instance = InstanceNumber(instance);
    let last = Proof { instance, claim: claim(0, &proposal(instance.0, 1)), accepts: vec![] };
    Record::Checkpoint(Arc::new(StableCheckpoint {
        certificate: CheckpointCertificate {
            view: ViewNumber(0),
            instance,
            digest: Digest([1; 32]),
            signatures: vec![],
            last: vec![last],
        },
        checkpoint: Checkpoint {
            instance,
            position: Position(instance.0),
            timestamp: Timestamp(0),
            history: Digest([2; 32]),
            core_chunks: 1,
            chunks: vec![Digest([3; 32])],
        },
        core: vec![4; 40],
        views: vec![],
    }))
}

/// Writes what a core would: votes, decisions, now and then a regency or a checkpoint.
pub struct Author {
    pub next: u64,
    pub regency: u64,
    value: Option<(Arc<Proposal>, bool)>,
    pub checkpoint: u64,
}

impl Author {
    pub fn new() -> Author {
        Author { next: 1, regency: 0, value: None, checkpoint: 0 }
    }

    pub fn record(&mut self, rng: &mut ChaCha8Rng) -> Record {
        match (self.value.clone(), rng.random_range(0..20)) {
            (_, 0) => {
                self.regency += 1;
                if let Some((_, accepted)) = &mut self.value {
                    *accepted = false;
                }
                Record::Regency(Regency::new(0, self.regency))
            }
            (None, 1) if self.next > self.checkpoint + 3 => {
                self.checkpoint = self.next - 1;
                checkpoint(self.checkpoint)
            }
            (None, choice) => {
                let value = proposal(self.next, rng.random_range(0..1500));
                match choice {
                    2 => {
                        self.next += 1;
                        decision(self.regency, &value)
                    }
                    3 => {
                        self.value = Some((Arc::clone(&value), true));
                        accept(self.regency, &value, true)
                    }
                    _ => {
                        self.value = Some((Arc::clone(&value), false));
                        write(self.regency, &value)
                    }
                }
            }
            (Some((value, false)), choice) if choice < 10 => {
                self.value = Some((Arc::clone(&value), true));
                accept(self.regency, &value, false)
            }
            (Some((value, _)), _) => {
                self.value = None;
                self.next += 1;
                decision(self.regency, &value)
            }
        }
    }

    /// Goes on from what survived.
    pub fn resume(&mut self, model: &Model) {
        self.next = model.decided() + 1;
        self.regency = model.regency.number;
        self.checkpoint = model.checkpoint;
        self.value = None;
    }
}

/// What a log holds, or must hold.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Model {
    pub regency: Regency,
    pub decisions: BTreeMap<u64, Arc<Decision>>,
    /// Of undecided instances.
    pub votes: BTreeMap<u64, Vec<Record>>,
    pub checkpoint: u64,
    pub passive: u64,
}

impl Model {
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Regency(regency) => self.regency = self.regency.max(*regency),
            Record::Write { proposal, .. } => {
                self.votes.entry(proposal.instance.0).or_default().push(record.clone());
            }
            Record::Accept { instance, .. } => {
                self.votes.entry(instance.0).or_default().push(record.clone());
            }
            Record::Decision(decision) => {
                self.votes.remove(&decision.instance().0);
                self.decisions.insert(decision.instance().0, Arc::clone(decision));
            }
            Record::Checkpoint(stable) => {
                self.checkpoint = self.checkpoint.max(stable.certificate.instance.0);
            }
            Record::Passive { upto } => self.passive = self.passive.max(upto.0),
        }
    }

    pub fn decided(&self) -> u64 {
        self.decisions.last_key_value().map_or(0, |(instance, _)| *instance)
    }

    /// In a few words.
    pub fn summary(&self) -> String {
        let votes: Vec<_> = self.votes.iter().map(|(instance, votes)| (*instance, votes.len())).collect();
        let (first, count) = (self.decisions.keys().next(), self.decisions.len());
        let (regency, decided) = (self.regency, self.decided());
        format!(
            "{regency:?}, {count} decisions {first:?} to {decided}, votes {votes:?}, checkpoint {}, passive {}",
            self.checkpoint, self.passive
        )
    }

    /// Without decisions before `first`: they may or may not be kept.
    pub fn from(mut self, first: u64) -> Model {
        self.decisions = self.decisions.split_off(&first);
        self
    }
}

/// What came back: the records for the core, and every decision up to `last` that can be read. The first number is the
/// last of the consecutive decisions that the core is given.
pub fn observe(recovered: Recovered, reader: &Reader, last: u64) -> (u64, Model) {
    let mut model = Model::default();
    let mut given = None;
    for record in recovered.records(InstanceNumber(u64::MAX)) {
        match &record {
            Record::Decision(decision) => {
                let instance = decision.instance().0;
                assert!(given.is_none_or(|given: u64| given + 1 == instance), "a hole before {instance}");
                given = Some(instance);
            }
            Record::Checkpoint(stable) => given = given.max(Some(stable.certificate.instance.0)),
            _ => {}
        }
        model.apply(&record);
    }
    for instance in 1..=last {
        if let Ok(Some(decision)) = reader.decision(InstanceNumber(instance)) {
            model.decisions.insert(instance, decision);
        }
    }
    (given.unwrap_or(0), model)
}
