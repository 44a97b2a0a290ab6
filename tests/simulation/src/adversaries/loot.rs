//! What faulty replicas know together: their keys, and what was said to any of them. Bounded.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use steeldb_ordering::{
    Claim, Decision, InstanceNumber, Message, Proof, Proposal, Request, RequestKey, SignedStopData,
    StableCheckpoint,
};
use steeldb_types::{Digest, ReplicaId, Timestamp};
use steeldb_wire::auth::SecretKey;

const KEPT_MAX: usize = 32;

pub(crate) struct Loot {
    /// The faulty replicas' keys.
    pub(crate) keys: Vec<(ReplicaId, SecretKey)>,
    /// Properly signed, and refused by the application.
    pub(crate) refused: Arc<Request>,
    /// Clients' requests.
    pub(crate) requests: BTreeMap<RequestKey, Arc<Request>>,
    /// Genuine decisions.
    pub(crate) decisions: VecDeque<Arc<Decision>>,
    /// Others' genuine STOPDATAs, of several regencies.
    pub(crate) stop_data: VecDeque<SignedStopData>,
    /// Genuine checkpoints.
    checkpoints: VecDeque<Arc<StableCheckpoint>>,
    /// Genuine ACCEPTs by claim.
    accepts: VecDeque<Proof>,
}

impl Loot {
    pub(crate) fn new(keys: Vec<(ReplicaId, SecretKey)>, refused: Arc<Request>) -> Loot {
        Loot {
            keys,
            refused,
            requests: BTreeMap::new(),
            decisions: VecDeque::new(),
            stop_data: VecDeque::new(),
            checkpoints: VecDeque::new(),
            accepts: VecDeque::new(),
        }
    }

    /// Takes in what one of them heard.
    pub(crate) fn hear(&mut self, from: ReplicaId, message: &Message) {
        match message {
            Message::Propose { proposal, .. } => self.note_requests(&proposal.requests),
            Message::Forward { requests } | Message::Stop { requests, .. } => self.note_requests(requests),
            Message::Sync { stop_data, .. } => {
                stop_data.iter().for_each(|signed| keep(&mut self.stop_data, signed.clone()));
            }
            Message::StopData { data, .. } => keep(&mut self.stop_data, data.clone()),
            Message::Decisions { decisions, .. } => {
                decisions.iter().for_each(|decision| keep(&mut self.decisions, Arc::clone(decision)));
            }
            Message::Accept { instance, claim, signature } => {
                let mut known = self.accepts.iter_mut();
                match known.find(|proof| (proof.instance, proof.claim) == (*instance, *claim)) {
                    Some(proof) => {
                        if proof.accepts.iter().all(|(replica, _)| *replica != from) {
                            proof.accepts.push((from, *signature));
                        }
                    }
                    None => {
                        let accepts = vec![(from, *signature)];
                        keep(&mut self.accepts, Proof { instance: *instance, claim: *claim, accepts });
                    }
                }
            }
            _ => {}
        }
    }

    /// Takes in a checkpoint that one of them has.
    pub(crate) fn note_checkpoint(&mut self, stable: &Arc<StableCheckpoint>) {
        keep(&mut self.checkpoints, Arc::clone(stable));
    }

    /// The genuine checkpoint of an instance, or the last one.
    pub(crate) fn checkpoint(&self, instance: Option<InstanceNumber>) -> Option<&Arc<StableCheckpoint>> {
        let mut known = self.checkpoints.iter().rev();
        known.find(|stable| instance.is_none_or(|instance| stable.certificate.instance == instance))
    }

    fn note_requests(&mut self, requests: &[Arc<Request>]) {
        for request in requests {
            if self.requests.len() < KEPT_MAX {
                self.requests.entry(request.key()).or_insert_with(|| Arc::clone(request));
            }
        }
    }

    /// A batch that nobody asked for.
    pub(crate) fn invented(&self, instance: InstanceNumber) -> Arc<Proposal> {
        let requests =
            vec![Arc::new(Request::Certified { key: Digest([66; 32]), payload: b"forged".to_vec() })];
        let timestamp = Timestamp(1_800_000_000_000_000 + instance.0 as i64);
        Arc::new(Proposal { instance, timestamp, requests })
    }

    /// A proof under the faulty replicas' signatures, made out to others as well.
    pub(crate) fn forged_proof(&self, instance: InstanceNumber, claim: Claim, n: u16) -> Proof {
        let accepts = (0..n).map(ReplicaId).filter_map(|replica| {
            let key = self.keys.iter().find(|(id, _)| *id == replica).or(self.keys.first());
            Some((replica, super::sign_accept(&key?.1, instance, claim)))
        });
        Proof { instance, claim, accepts: accepts.collect() }
    }

    /// A proof of genuine signatures, and too few of them.
    pub(crate) fn thin_proof(&self) -> Option<Proof> {
        let mut proof = self.accepts.back()?.clone();
        for (replica, key) in &self.keys {
            if proof.accepts.iter().all(|(known, _)| known != replica) {
                proof.accepts.push((*replica, super::sign_accept(key, proof.instance, proof.claim)));
            }
        }
        proof.accepts.sort_by_key(|(replica, _)| *replica);
        Some(proof)
    }
}

fn keep<T: PartialEq>(kept: &mut VecDeque<T>, one: T) {
    if !kept.contains(&one) {
        kept.push_back(one);
        if kept.len() > KEPT_MAX {
            kept.pop_front();
        }
    }
}
