//! Shows what proves nothing: STOPDATAs without its votes, or with votes and decisions that never were; as a leader,
//! SYNCs of its own choice with others' STOPDATAs altered; decisions under too few signatures.

use super::{Adversary, Said, Stage};
use rand::Rng;
use std::collections::BTreeSet;
use std::sync::Arc;
use steeldb_ordering::{
    Claim, Decision, InstanceNumber, Message, Proposal, Regency, SignedStopData, StopData, Votes,
};
use steeldb_types::{ReplicaId, Timestamp};
use steeldb_wire::auth::{Namespace, SecretKey};
use steeldb_wire::codec;

pub(crate) struct ProofForger;

impl Adversary for ProofForger {
    fn twist(&mut self, stage: &mut Stage<'_>, to: ReplicaId, message: Message) -> Vec<Said> {
        match message {
            Message::StopData { data, values } => vec![stop_data(stage, data.data, values).into()],
            Message::Sync { regency, stop_data, proposals } => {
                sync(stage, to, regency, stop_data, proposals).into_iter().map(Said::from).collect()
            }
            Message::Decisions { .. } => vec![decision(stage, InstanceNumber(1)).into()],
            other => vec![other.into()],
        }
    }

    fn hear(
        &mut self,
        stage: &mut Stage<'_>,
        from: ReplicaId,
        message: &Message,
    ) -> Vec<(ReplicaId, Message)> {
        match message {
            Message::FetchDecisions { from: instance, .. } => vec![(from, decision(stage, *instance))],
            _ => vec![],
        }
    }

    fn lies_to_clients(&self) -> bool {
        true
    }
}

fn sign(key: &SecretKey, data: StopData) -> SignedStopData {
    let signature = key.sign(Namespace::StopData, &codec::encode(&data));
    SignedStopData { data, signature }
}

/// Its own STOPDATA, another than is true.
fn stop_data(stage: &mut Stage<'_>, mut data: StopData, values: Vec<Arc<Proposal>>) -> Message {
    let mut shown = values;
    match stage.rng.random_range(0..6) {
        0 => {}
        // Only the last of its proofs, where several instances are in flight.
        5 => drop(data.last.drain(..data.last.len().saturating_sub(1))),
        1 => {
            data.votes.clear();
            shown.clear();
        }
        2 => {
            // A WRITE quorum that never was, in the latest regency it can be claimed for.
            let instance = InstanceNumber(data.next().0 + stage.rng.random_range(0..3));
            let invented = stage.loot.invented(instance);
            if let Some(number) = data.regency.number.checked_sub(1) {
                let regency = Regency { number, ..data.regency };
                let claim = Claim { regency, value: invented.digest() };
                data.votes = vec![Votes { instance, bound: Some(claim), written: vec![claim] }];
                shown = vec![invented];
            }
        }
        3 => {
            data.last.clear();
            data.votes.clear();
            shown.clear();
        }
        _ => {
            // A last decision that never was.
            let instance = data.next();
            let claim = Claim {
                regency: Regency::first(data.regency.view),
                value: stage.loot.invented(instance).digest(),
            };
            data.last = match stage.loot.thin_proof() {
                Some(thin) if stage.rng.random_bool(0.5) => vec![thin],
                _ => vec![stage.loot.forged_proof(instance, claim, stage.n)],
            };
            data.votes.clear();
            shown.clear();
        }
    }
    Message::StopData { data: sign(stage.key, data), values: shown }
}

/// As a leader: what others said, altered, and a proposal of its own choice.
fn sync(
    stage: &mut Stage<'_>,
    to: ReplicaId,
    regency: Regency,
    mut stop_data: Vec<SignedStopData>,
    mut proposals: Vec<Arc<Proposal>>,
) -> Vec<Message> {
    match stage.rng.random_range(0..5) {
        // Others' votes vanish; their signatures cannot be made anew.
        0 => {
            for signed in &mut stop_data {
                if let Some((_, key)) = stage.loot.keys.iter().find(|(id, _)| *id == signed.data.replica) {
                    signed.data.votes.clear();
                    *signed = sign(key, signed.data.clone());
                } else {
                    signed.data.votes.clear();
                }
            }
        }
        // Made up from scratch in everyone's name.
        1 => {
            let blank = |replica| StopData { replica, regency, last: vec![], votes: vec![] };
            stop_data = (0..stage.n).map(|replica| sign(stage.key, blank(ReplicaId(replica)))).collect();
        }
        // One replica's, many times over.
        2 => {
            let mine = stop_data.iter().find(|signed| signed.data.replica == stage.me).cloned();
            stop_data = mine.into_iter().flat_map(|signed| vec![signed; usize::from(stage.n)]).collect();
        }
        // Of another regency.
        3 => {
            let mut seen = BTreeSet::new();
            let old = stage.loot.stop_data.iter();
            stop_data = old.filter(|signed| seen.insert(signed.data.replica)).cloned().collect();
        }
        _ => {}
    }
    let other = proposals.pop().map(|proposal| {
        let timestamp = Timestamp(proposal.timestamp.0 + 1 + i64::from(to.0 % 2));
        Arc::new(Proposal { timestamp, ..(*proposal).clone() })
    });
    let other = other.or_else(|| {
        let instance = stop_data.iter().map(|signed| signed.data.next()).max()?;
        let requests = stage.loot.requests.values().take(1).cloned().collect();
        Some(Arc::new(Proposal { instance, timestamp: Timestamp(1_700_000_001_000_000), requests }))
    });
    let Some(other) = other else { return vec![Message::Sync { regency, stop_data, proposals }] };
    proposals.push(Arc::clone(&other));
    let (instance, claim) = (other.instance, Claim { regency, value: other.digest() });
    vec![
        Message::Sync { regency, stop_data, proposals },
        Message::Write { instance, claim },
        stage.accept(instance, claim),
    ]
}

/// A decision that never was, under the faulty replicas' signatures alone.
fn decision(stage: &mut Stage<'_>, instance: InstanceNumber) -> Message {
    let proposal = stage.loot.invented(instance);
    let claim = Claim { regency: Regency::default(), value: proposal.digest() };
    let proof = stage.loot.forged_proof(instance, claim, stage.n);
    Message::Decisions { decisions: vec![Arc::new(Decision { proposal, proof })], more: false }
}
