//! Whatever bytes and messages come in: the codec is canonical, and nothing panics.

use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use steeldb_ordering::{
    AcceptAll, Account, Claim, Config, Core, Decision, Effect, Event, FIRST_JOINED_CLIENT, InstanceNumber,
    Join, Message, Now, Proof, Proposal, Record, Regency, Registration, RegistryConfig, Request, RequestId,
    Restored, Roster, SignedStopData, StopData, Votes,
};
use steeldb_types::{ClientId, Digest, ReplicaId, SessionId, SessionKey, Timestamp, View};
use steeldb_wire::auth::{SecretKey, Signature};

fn digest() -> impl Strategy<Value = Digest> {
    // Few values, so that messages agree with each other now and then.
    (0..3u8).prop_map(|byte| Digest([byte; 32]))
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..4u64, Just(u64::MAX), any::<u64>()]
}

fn replica() -> impl Strategy<Value = ReplicaId> {
    prop_oneof![0..4u16, any::<u16>()].prop_map(ReplicaId)
}

fn signature() -> impl Strategy<Value = Signature> {
    any::<u8>().prop_map(|byte| Signature([byte; 64]))
}

fn regency() -> impl Strategy<Value = Regency> {
    (prop_oneof![4 => Just(0), 1 => number()], number()).prop_map(|(view, number)| Regency::new(view, number))
}

fn claim() -> impl Strategy<Value = Claim> {
    (regency(), digest()).prop_map(|(regency, value)| Claim { regency, value })
}

fn request() -> impl Strategy<Value = Arc<Request>> {
    let payload = || prop::collection::vec(any::<u8>(), 0..20);
    let id = || {
        (0..3u32, number(), number()).prop_map(|(client, session, sequence)| RequestId {
            session: SessionKey { client: ClientId(client), session: SessionId(session) },
            sequence,
        })
    };
    let key = SecretKey::from_seed(&[9; 32]);
    prop_oneof![
        (id(), payload()).prop_map(move |(id, payload)| Request::signed(id, payload, &key)),
        (id(), payload(), signature()).prop_map(|(id, payload, signature)| Request::Client {
            id,
            payload,
            signature
        }),
        (digest(), payload()).prop_map(|(key, payload)| Request::Certified { key, payload }),
        (id(), payload()).prop_map(|(mut id, payload)| {
            id.session.client.0 += FIRST_JOINED_CLIENT.0;
            Request::signed_joined(id, payload, &SecretKey::from_seed(&[9; 32]))
        }),
        registration().prop_map(|registration| registration.signed(&SecretKey::from_seed(&[9; 32]))),
        (registration(), signature()).prop_map(|(registration, signature)| Request::Registration {
            registration,
            key: SecretKey::from_seed(&[9; 32]).public(),
            signature,
        }),
    ]
    .prop_map(Arc::new)
}

fn registration() -> impl Strategy<Value = Registration> {
    let account = (prop::collection::vec(any::<u8>(), 0..80), any::<u16>())
        .prop_map(|(name, sessions_max)| Account { name, sessions_max });
    let credential = prop::collection::vec(any::<u8>(), 0..20);
    prop_oneof![
        (account, credential, prop_oneof![0..100i64, any::<i64>()]).prop_map(
            |(account, credential, until)| Registration::Join(Join {
                account,
                credential,
                until: Timestamp(until)
            })
        ),
        digest().prop_map(|challenge| Registration::Confirm { challenge }),
        (0..3u32).prop_map(|number| Registration::Leave { client: ClientId(FIRST_JOINED_CLIENT.0 + number) }),
    ]
}

fn proposal() -> impl Strategy<Value = Arc<Proposal>> {
    let requests = prop::collection::vec(request(), 0..4);
    let timestamp = prop_oneof![0..100i64, any::<i64>()];
    (number(), timestamp, requests).prop_map(|(instance, timestamp, requests)| {
        let (instance, timestamp) = (InstanceNumber(instance), Timestamp(timestamp));
        Arc::new(Proposal { instance, timestamp, requests })
    })
}

fn proof() -> impl Strategy<Value = Proof> {
    let accepts = prop::collection::vec((replica(), signature()), 0..5);
    (number(), claim(), accepts).prop_map(|(instance, claim, accepts)| Proof {
        instance: InstanceNumber(instance),
        claim,
        accepts,
    })
}

fn signed_stop_data() -> impl Strategy<Value = SignedStopData> {
    let written = prop::collection::vec(claim(), 0..4);
    let votes = (number(), prop::option::of(claim()), written).prop_map(|(instance, bound, written)| Votes {
        instance: InstanceNumber(instance),
        bound,
        written,
    });
    let votes = prop::collection::vec(votes, 0..3);
    (replica(), regency(), prop::collection::vec(proof(), 0..3), votes, signature()).prop_map(
        |(replica, regency, last, votes, signature)| SignedStopData {
            data: StopData { replica, regency, last, votes },
            signature,
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let requests = || prop::collection::vec(request(), 0..4);
    let decisions = prop::collection::vec((proposal(), proof()), 0..3).prop_map(|decisions| {
        decisions.into_iter().map(|(proposal, proof)| Arc::new(Decision { proposal, proof })).collect()
    });
    let stop_data = prop::collection::vec(signed_stop_data(), 0..5);
    let proposals = || prop::collection::vec(proposal(), 0..3);
    let instance = || number().prop_map(InstanceNumber);

    prop_oneof![
        requests().prop_map(|requests| Message::Forward { requests }),
        (regency(), proposal()).prop_map(|(regency, proposal)| Message::Propose { regency, proposal }),
        (instance(), claim()).prop_map(|(instance, claim)| Message::Write { instance, claim }),
        (instance(), claim(), signature()).prop_map(|(instance, claim, signature)| Message::Accept {
            instance,
            claim,
            signature
        }),
        (regency(), requests()).prop_map(|(regency, requests)| Message::Stop { regency, requests }),
        (signed_stop_data(), proposals()).prop_map(|(data, values)| Message::StopData { data, values }),
        (regency(), stop_data, proposals()).prop_map(|(regency, stop_data, proposals)| Message::Sync {
            regency,
            stop_data,
            proposals
        }),
        (instance(), regency()).prop_map(|(from, regency)| Message::FetchDecisions { from, regency }),
        (decisions, any::<bool>()).prop_map(|(decisions, more)| Message::Decisions { decisions, more }),
    ]
}

fn config(me: u16) -> Config {
    let keys: Vec<SecretKey> = (0..4u8).map(|i| SecretKey::from_seed(&[i; 32])).collect();
    let clients = BTreeMap::from([(ClientId(1), SecretKey::from_seed(&[9; 32]).public())]);
    let publics = keys.iter().map(SecretKey::public).collect();
    let key = keys[usize::from(me)].clone();
    let roster = Roster::of_keys(View::of_size(4).unwrap(), publics).unwrap();
    let registry = Some(RegistryConfig::default());
    Config { registry, ..Config::new(ReplicaId(me), roster, key, clients) }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_decode_only_to_what_encodes_to_them(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        kind in 0..10u8,
    ) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes.clone());
        }
        if let Ok(record) = Record::decode(&bytes) {
            prop_assert_eq!(record.encode(), bytes);
        }
    }

    #[test]
    fn messages_survive_the_way_and_damaged_ones_do_no_harm(
        message in message(),
        at in any::<prop::sample::Index>(),
        bit in 0..8u32,
    ) {
        let mut bytes = message.encode();
        prop_assert_eq!(Message::decode(&bytes), Ok(message));
        let index = at.index(bytes.len());
        bytes[index] ^= 1 << bit;
        if let Ok(other) = Message::decode(&bytes) {
            prop_assert_eq!(other.encode(), bytes);
        }
    }

    /// Messages that look valid and make no sense: no panic, no delivery, and no record that cannot be read back.
    #[test]
    fn a_core_survives_whatever_replicas_say(
        me in 0..4u16,
        said in prop::collection::vec((replica(), message(), 0..1_000_000u64), 1..40),
    ) {
        let mut core = Core::new(config(me), Restored::nothing()).unwrap();
        let (mut now, mut records) = (0, Vec::new());
        for (from, message, pause) in said {
            now += pause;
            for event in [Event::Message { from, message }, Event::LinkUp(from), Event::Tick] {
                core.handle(Now { monotonic_us: now, wall: Timestamp(50) }, event, &AcceptAll);
                while let Some(effect) = core.poll_effect() {
                    match effect {
                        Effect::Persist { sequence, record } => {
                            prop_assert_eq!(Record::decode(&record.encode()), Ok(record.clone()));
                            records.push(record);
                            let event = Event::Persisted { upto: sequence };
                            core.handle(Now { monotonic_us: now, wall: Timestamp(50) }, event, &AcceptAll);
                        }
                        Effect::Deliver(delivery) => prop_assert!(false, "delivered {:?}", delivery),
                        _ => {}
                    }
                }
            }
        }
        let regency = core.regency();
        let again = Core::new(config(me), Restored::new(InstanceNumber(0), records));
        prop_assert_eq!(again.map(|core| core.regency()).ok(), Some(regency));
    }
}
