//! A leader that proposes what may not be ordered: refused, forged, repeated, ill-timed and empty batches. Now and
//! then a good one, so that it leads for a while; the same to all.

use super::{Adversary, Said, Stage};
use std::sync::Arc;
use steeldb_ordering::{Message, Proposal, Request};
use steeldb_types::{ReplicaId, Timestamp};
use steeldb_wire::auth::Signature;

pub(crate) struct InvalidProposer;

const HOUR_US: i64 = 3_600_000_000;

impl Adversary for InvalidProposer {
    fn twist(&mut self, stage: &mut Stage<'_>, _to: ReplicaId, message: Message) -> Vec<Said> {
        vec![match message {
            Message::Propose { regency, proposal } => {
                Message::Propose { regency, proposal: Arc::new(spoilt(stage, &proposal)) }.into()
            }
            other => other.into(),
        }]
    }
}

fn spoilt(stage: &Stage<'_>, proposal: &Proposal) -> Proposal {
    let mut spoilt = proposal.clone();
    match proposal.digest().0[0] % 10 {
        0 => spoilt.requests.push(Arc::clone(&stage.loot.refused)),
        1 => spoilt.requests.extend(proposal.requests.first().map(|request| Arc::new(forged(request)))),
        2 => spoilt.requests = stage.loot.requests.values().cloned().collect(),
        3 => spoilt.timestamp = Timestamp(proposal.timestamp.0 + HOUR_US),
        4 => spoilt.requests.clear(),
        5 => spoilt.requests.extend(proposal.requests.first().cloned()),
        6 => spoilt.timestamp = Timestamp(0),
        // A change of the membership that is past, or that nobody signed.
        choice @ (7 | 8) => {
            let is_change = |request: &&Arc<Request>| matches!(***request, Request::Membership { .. });
            if let Some(change) = stage.loot.requests.values().find(is_change) {
                let change = if choice == 7 { Arc::clone(change) } else { Arc::new(forged(change)) };
                spoilt.requests = vec![change];
            }
        }
        _ => {}
    }
    spoilt
}

/// Another payload and a later sequence under the same signature.
fn forged(request: &Request) -> Request {
    match request {
        Request::Client { id, signature, .. } => {
            let mut id = *id;
            id.sequence += 1000;
            Request::Client { id, payload: b"forged".to_vec(), signature: *signature }
        }
        Request::Membership { payload, administrator, .. } => Request::Membership {
            payload: payload.clone(),
            administrator: *administrator,
            signature: Signature([7; 64]),
        },
        Request::Joined { id, key, signature, .. } => {
            let mut id = *id;
            id.sequence += 1000;
            Request::Joined { id, key: *key, payload: b"forged".to_vec(), signature: *signature }
        }
        Request::Registration { registration, key, .. } => Request::Registration {
            registration: registration.clone(),
            key: *key,
            signature: Signature([7; 64]),
        },
        Request::Certified { key, .. } => {
            Request::Certified { key: *key, payload: b"refuse: forged".to_vec() }
        }
    }
}
