//! A leader that proposes what may not be ordered: refused, forged, repeated, ill-timed and empty batches, changes of the
//! membership that are past or unsigned, and one behind another. Now and then a good one, so that it leads for a while;
//! the same to all.

use super::{Adversary, Said, Stage};
use std::sync::Arc;
use steeldb_ordering::{Message, Proposal, Request};
use steeldb_types::{ReplicaId, Timestamp};
use steeldb_wire::auth::Signature;

pub(crate) struct InvalidProposer;

const HOUR_US: i64 = 3_600_000_000;

impl Adversary for InvalidProposer {
    fn twist(&mut self, stage: &mut Stage<'_>, _to: ReplicaId, message: Message) -> Vec<Said> {
        let Message::Propose { regency, proposal } = message else { return vec![message.into()] };
        let proposal = spoilt(stage, &proposal);
        let behind = behind_change(&proposal);
        let propose = |proposal| Message::Propose { regency, proposal: Arc::new(proposal) }.into();
        [Some(proposal), behind].into_iter().flatten().map(propose).collect()
    }
}

/// Once more what is void behind a change of the membership: it is valid in the view that the change ends.
fn behind_change(proposal: &Proposal) -> Option<Proposal> {
    let is_change = matches!(&proposal.requests[..], [request] if is_change(request));
    is_change.then(|| Proposal {
        instance: proposal.instance.next(),
        timestamp: Timestamp(proposal.timestamp.0 + 1),
        requests: proposal.requests.clone(),
    })
}

fn is_change(request: &Request) -> bool {
    matches!(request, Request::Membership { .. })
}

fn spoilt(stage: &Stage<'_>, proposal: &Proposal) -> Proposal {
    let mut spoilt = proposal.clone();
    if let [change] = &proposal.requests[..]
        && is_change(change)
        && proposal.digest().0[1].is_multiple_of(3)
    {
        spoilt.requests = vec![Arc::new(forged(change))];
        return spoilt;
    }
    match proposal.digest().0[0] % 10 {
        0 => spoilt.requests.push(Arc::clone(&stage.loot.refused)),
        1 => spoilt.requests.extend(proposal.requests.first().map(|request| Arc::new(forged(request)))),
        2 => spoilt.requests = stage.loot.requests.values().cloned().collect(),
        3 => spoilt.timestamp = Timestamp(proposal.timestamp.0 + HOUR_US),
        4 => spoilt.requests.clear(),
        5 => spoilt.requests.extend(proposal.requests.first().cloned()),
        6 => spoilt.timestamp = Timestamp(0),
        7 | 8 => spoilt.requests = past_change(stage, proposal),
        _ => {}
    }
    spoilt
}

/// Some change of the membership, ordered long ago perhaps; the batch's own requests where none is known.
fn past_change(stage: &Stage<'_>, proposal: &Proposal) -> Vec<Arc<Request>> {
    let changes: Vec<&Arc<Request>> = stage.loot.requests.values().filter(|r| is_change(r)).collect();
    let which = usize::from(proposal.digest().0[2]) % changes.len().max(1);
    changes.get(which).map_or_else(|| proposal.requests.clone(), |change| vec![Arc::clone(change)])
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
