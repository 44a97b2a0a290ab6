//! Ordered work outside transactions; requests; closing.

use super::*;

#[test]
fn maintenance_is_shown_once_f_plus_1_answer_alike() {
    let mut world = World::new();
    world.core.maintain("VACUUM t".into());
    world.settle();
    assert!(
        matches!(&world.events[..], [Event::Maintained(Ok(messages))] if messages.as_ref() == message(b'C', b"VACUUM\0"))
    );
    world.events.clear();
    world.cut = (0..4).map(ReplicaId).collect();
    world.core.maintain("VACUUM t".into());
    let answer = |tag: &str| ReplicaMessage::Maintained {
        session: SessionId(7),
        sequence: 2,
        messages: message(b'C', format!("{tag}\0").as_bytes()),
    };
    world.core.receive(ReplicaId(0), answer("LIE"));
    world.core.receive(ReplicaId(0), answer("VACUUM"));
    world.core.receive(ReplicaId(1), answer("VACUUM"));
    assert!(world.core.events.is_empty());
    world.core.receive(ReplicaId(2), answer("VACUUM"));
    world.settle();
    assert!(
        matches!(&world.events[..], [Event::Maintained(Ok(messages))] if messages.as_ref() == message(b'C', b"VACUUM\0"))
    );
}

#[test]
fn verify_reports_what_each_replica_says_once() {
    let mut world = World::new();
    world.cluster.replica(2).lie = Lie::OtherRows;
    world.core.verify();
    world.settle();
    let digests: Vec<String> = world
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Verified { tables: Ok(tables), .. } => Some(tables[0].digest.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(digests, ["abc", "abc", "f00", "abc"]);
}

#[test]
fn requests_are_signed_as_the_ordering_core_checks_them() {
    let mut world = World::new();
    world.transaction(&["SELECT 1"]);
    let key = SecretKey::from_seed(&[3; 32]).public();
    let request = world.cluster.replica(1).heard.iter().find_map(|message| match message {
        ClientMessage::Request { session, sequence, payload, signature } => Some(Request::Client {
            id: RequestId {
                session: SessionKey { client: ClientId(1), session: *session },
                sequence: *sequence,
            },
            payload: payload.clone(),
            signature: *signature,
        }),
        _ => None,
    });
    assert_eq!(request.unwrap().verify_signature(&[(ClientId(1), key)].into()), Ok(()));
}

#[test]
fn closing_tells_every_replica() {
    let mut world = World::new();
    world.transaction(&["INSERT 1"]);
    world.core.close();
    world.settle();
    for replica in 0..4 {
        assert_eq!(world.heard(replica, |message| matches!(message, ClientMessage::CloseSession { .. })), 1);
    }
}
