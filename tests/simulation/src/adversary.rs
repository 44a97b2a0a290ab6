//! Faulty replicas: a core that follows the protocol, behind something that twists what it says. It has its own key
//! and no other.

use crate::scenario::Fault;
use std::collections::BTreeMap;
use std::sync::Arc;
use steeldb_ordering::{
    Claim, Decision, InstanceNumber, Message, Proof, Proposal, Regency, Request, RequestKey, SignedStopData,
};
use steeldb_types::{Digest, ReplicaId, Timestamp};
use steeldb_wire::auth::{Namespace, SecretKey, Signature};
use steeldb_wire::codec;

pub(crate) struct Adversary {
    fault: Fault,
    key: SecretKey,
    /// By original value: what the other half was told instead.
    twins: BTreeMap<Digest, Arc<Proposal>>,
    /// Requests seen, to be proposed again.
    seen: BTreeMap<RequestKey, Arc<Request>>,
    refused: Arc<Request>,
}

impl Adversary {
    pub(crate) fn new(fault: Fault, key: SecretKey, refused: Arc<Request>) -> Adversary {
        Adversary { fault, key, twins: BTreeMap::new(), seen: BTreeMap::new(), refused }
    }

    /// What really goes to `to` in place of `message`.
    pub(crate) fn twist(&mut self, to: ReplicaId, message: Message) -> Vec<Message> {
        match self.fault {
            Fault::Crash => vec![message],
            Fault::Silent => vec![],
            Fault::SilentLeader => match message {
                Message::Propose { .. } | Message::Sync { .. } => vec![],
                other => vec![other],
            },
            Fault::Equivocator => self.equivocate(to, message),
            Fault::InvalidProposer => vec![self.propose_rubbish(message)],
            Fault::Liar => self.lie(message),
        }
    }

    /// What it says by itself when it hears `message` from `from`.
    pub(crate) fn hear(&mut self, from: ReplicaId, message: &Message) -> Vec<(ReplicaId, Message)> {
        match (self.fault, message) {
            (Fault::InvalidProposer, Message::Propose { proposal, .. }) => {
                self.note_seen(proposal);
                vec![]
            }
            (Fault::Liar, Message::FetchDecisions { from: instance, .. }) => {
                vec![(from, self.forged_decision(*instance))]
            }
            _ => vec![],
        }
    }

    /// The same requests at another time, for odd replicas; with the leader's votes at once.
    fn equivocate(&mut self, to: ReplicaId, message: Message) -> Vec<Message> {
        let other_half = to.0 % 2 == 1;
        match message {
            Message::Propose { regency, proposal } => {
                let instance = proposal.instance;
                let proposal = self.told(other_half, proposal);
                let claim = Claim { regency, value: proposal.digest() };
                let signature = self.accept(instance, claim);
                vec![
                    Message::Propose { regency, proposal },
                    Message::Write { instance, claim },
                    Message::Accept { instance, claim, signature },
                ]
            }
            Message::Sync { regency, stop_data, proposal: Some(proposal) } => {
                let proposal = Some(self.told(other_half, proposal));
                vec![Message::Sync { regency, stop_data, proposal }]
            }
            Message::Write { instance, claim } => {
                vec![Message::Write { instance, claim: self.claimed(other_half, claim) }]
            }
            Message::Accept { instance, claim, .. } => {
                let claim = self.claimed(other_half, claim);
                vec![Message::Accept { instance, claim, signature: self.accept(instance, claim) }]
            }
            other => vec![other],
        }
    }

    fn told(&mut self, other_half: bool, proposal: Arc<Proposal>) -> Arc<Proposal> {
        if !other_half {
            return proposal;
        }
        let twin = self.twins.entry(proposal.digest()).or_insert_with(|| {
            let timestamp = Timestamp(proposal.timestamp.0 + 1);
            Arc::new(Proposal { timestamp, ..(*proposal).clone() })
        });
        Arc::clone(twin)
    }

    fn claimed(&self, other_half: bool, claim: Claim) -> Claim {
        match self.twins.get(&claim.value) {
            Some(twin) if other_half => Claim { value: twin.digest(), ..claim },
            _ => claim,
        }
    }

    fn accept(&self, instance: InstanceNumber, claim: Claim) -> Signature {
        let bytes = codec::encode(&(claim.regency, instance, claim.value));
        self.key.sign(Namespace::Accept, &bytes)
    }

    fn propose_rubbish(&mut self, message: Message) -> Message {
        let Message::Propose { regency, proposal } = message else { return message };
        self.note_seen(&proposal);
        let mut twisted = (*proposal).clone();
        // The same rubbish to all, and now and then none, so that it leads for a while.
        match proposal.digest().0[0] % 8 {
            0 => twisted.requests.push(Arc::clone(&self.refused)),
            1 => twisted.requests.extend(twisted.requests.first().map(|request| Arc::new(forged(request)))),
            2 => twisted.requests = self.seen.values().cloned().collect(),
            3 => twisted.timestamp = Timestamp(twisted.timestamp.0 + 3_600_000_000),
            4 => twisted.requests.clear(),
            _ => {}
        }
        Message::Propose { regency, proposal: Arc::new(twisted) }
    }

    fn note_seen(&mut self, proposal: &Proposal) {
        for request in &proposal.requests {
            self.seen.entry(request.key()).or_insert_with(|| Arc::clone(request));
        }
    }

    fn lie(&mut self, message: Message) -> Vec<Message> {
        match message {
            Message::StopData { data: SignedStopData { mut data, .. }, .. } => {
                data.bound = None;
                data.written.clear();
                let bytes = codec::encode(&data);
                let signature = self.key.sign(Namespace::StopData, &bytes);
                vec![Message::StopData { data: SignedStopData { data, signature }, value: None }]
            }
            Message::Sync { regency, stop_data, proposal: Some(proposal) } => {
                let instance = proposal.instance;
                let proposal = self.told(true, proposal);
                let claim = Claim { regency, value: proposal.digest() };
                let signature = self.accept(instance, claim);
                vec![
                    Message::Sync { regency, stop_data, proposal: Some(proposal) },
                    Message::Write { instance, claim },
                    Message::Accept { instance, claim, signature },
                ]
            }
            Message::Decisions { .. } => vec![self.forged_decision(InstanceNumber(1))],
            Message::Accept { instance, claim, .. } if self.twins.is_empty() && instance.0 % 2 == 1 => {
                vec![Message::Accept { instance, claim, signature: Signature([7; 64]) }]
            }
            other => {
                let twins = !self.twins.is_empty();
                // Having told a twin, it votes for nothing else.
                if twins && matches!(other, Message::Write { .. } | Message::Accept { .. }) {
                    return vec![];
                }
                vec![other]
            }
        }
    }

    /// A decision that never was, under its own signature alone.
    fn forged_decision(&self, instance: InstanceNumber) -> Message {
        let requests =
            vec![Arc::new(Request::Certified { key: Digest([66; 32]), payload: b"forged".to_vec() })];
        let timestamp = Timestamp(1_000_000_000_000_000 + instance.0 as i64);
        let proposal = Arc::new(Proposal { instance, timestamp, requests });
        let claim = Claim { regency: Regency::default(), value: proposal.digest() };
        let signature = self.accept(instance, claim);
        let accepts = (0..4).map(|replica| (ReplicaId(replica), signature)).collect();
        let proof = Proof { instance, claim, accepts };
        Message::Decisions { decisions: vec![Arc::new(Decision { proposal, proof })], more: false }
    }
}

/// Another payload and a later sequence under the same signature.
fn forged(request: &Request) -> Request {
    match request {
        Request::Client { id, signature, .. } => {
            let mut id = *id;
            id.sequence += 1000;
            Request::Client { id, payload: b"forged".to_vec(), signature: *signature }
        }
        Request::Certified { key, .. } => {
            Request::Certified { key: *key, payload: b"refuse: forged".to_vec() }
        }
        Request::Membership { payload, administrator, .. } => Request::Membership {
            payload: payload.clone(),
            administrator: *administrator,
            signature: Signature([7; 64]),
        },
    }
}
