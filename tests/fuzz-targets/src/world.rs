//! A cluster of four, and a fifth replica that may join, whose keys all are known here, so that arbitrary messages can be signed rightly.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use steeldb_ordering::{
    Account, Change, Claim, Config, Decision, FIRST_JOINED_CLIENT, InstanceNumber, Join, Joining, Proof,
    Proposal, Regency, Registration, RegistryConfig, Request, RequestId, Roster, SignedStopData, StopData,
};
use steeldb_types::{ClientId, Digest, ReplicaId, SessionId, SessionKey, Timestamp, View};
use steeldb_wire::auth::{Namespace, SecretKey, Signature};
use steeldb_wire::codec::encode;

/// The replica under test; replica 0 leads first.
pub(crate) const ME: ReplicaId = ReplicaId(1);

pub(crate) const CLIENT: ClientId = ClientId(1);

/// Of the client, who may also change the membership, and of the replicas.
fn keys() -> &'static (SecretKey, [SecretKey; 5]) {
    static KEYS: OnceLock<(SecretKey, [SecretKey; 5])> = OnceLock::new();
    let key = |seed| SecretKey::from_seed(&[seed; 32]);
    KEYS.get_or_init(|| (key(5), [1, 2, 3, 4, 6].map(key)))
}

pub(crate) fn key(replica: ReplicaId) -> &'static SecretKey {
    &keys().1[usize::from(replica.0) % 5]
}

pub(crate) fn client_key() -> &'static SecretKey {
    &keys().0
}

/// The genesis view.
pub(crate) fn genesis() -> Roster {
    let publics = keys().1[..4].iter().map(SecretKey::public).collect();
    Roster::of_keys(View::of_size(4).expect("four replicas"), publics).expect("four keys")
}

/// The configuration of [`ME`].
pub(crate) fn config(window: usize) -> Config {
    let clients = BTreeMap::from([(CLIENT, client_key().public())]);
    let mut config = Config::new(ME, genesis(), key(ME).clone(), clients);
    config.window = window;
    config.tentative = true;
    config.administrators = vec![client_key().public()];
    config.registry = Some(RegistryConfig::default());
    config
}

pub(crate) fn request(session: u64, sequence: u64, payload: Vec<u8>) -> Request {
    let session = SessionKey { client: CLIENT, session: SessionId(session) };
    Request::signed(RequestId { session, sequence }, payload, client_key())
}

/// A change of the membership: another leader, another address, one who joins, one who leaves.
pub(crate) fn change(roster: &Roster, kind: u8) -> Request {
    let members = roster.view().members();
    let some = members[usize::from(kind / 4) % members.len()];
    let mut change = Change::of(roster);
    match kind % 4 {
        0 => change.first_leader = Some(some),
        1 => change.move_to.push((some, format!("h{kind}:1"))),
        2 => {
            let (key, address) = (key(roster.next_id()).public(), "h4:1".into());
            change.add.push(Joining { key, address });
        }
        _ => change.remove.push(some),
    }
    change.signed(client_key())
}

/// Of a guest: to join, to confirm, to leave, to have something executed.
pub(crate) fn guest_request(kind: u8, number: u64) -> Request {
    let client = ClientId(FIRST_JOINED_CLIENT.0 + (number % 2) as u32);
    let registration = match kind % 4 {
        0 => Registration::Join(Join {
            account: Account { name: b"a".to_vec(), sessions_max: 2 },
            credential: b"credential".to_vec(),
            until: Timestamp(1000 + number as i64),
        }),
        1 => Registration::Confirm { challenge: Digest([number as u8; 32]) },
        2 => Registration::Leave { client },
        _ => {
            let session = SessionKey { client, session: SessionId(1) };
            return Request::signed_joined(RequestId { session, sequence: number }, vec![7], client_key());
        }
    };
    registration.signed(client_key())
}

pub(crate) fn proposal(instance: u64, timestamp: i64, requests: Vec<Arc<Request>>) -> Arc<Proposal> {
    let (instance, timestamp) = (InstanceNumber(instance), Timestamp(timestamp));
    Arc::new(Proposal { instance, timestamp, requests })
}

pub(crate) fn accept(instance: InstanceNumber, claim: &Claim, signer: ReplicaId) -> Signature {
    key(signer).sign(Namespace::Accept, &encode(&(claim.regency, instance, claim.value)))
}

pub(crate) fn proof(proposal: &Proposal, regency: Regency, signers: &[ReplicaId]) -> Proof {
    let (instance, claim) = (proposal.instance, Claim { regency, value: proposal.digest() });
    let accepts = signers.iter().map(|signer| (*signer, accept(instance, &claim, *signer))).collect();
    Proof { instance, claim, accepts }
}

pub(crate) fn decision(proposal: Arc<Proposal>, regency: Regency, signers: &[ReplicaId]) -> Arc<Decision> {
    let proof = proof(&proposal, regency, signers);
    Arc::new(Decision { proposal, proof })
}

pub(crate) fn stop_data(data: StopData) -> SignedStopData {
    let signature = key(data.replica).sign(Namespace::StopData, &encode(&data));
    SignedStopData { data, signature }
}
