//! Schedules by hand, one per thing that could go wrong.

use crate::cluster::{CLIENTS_MAX, Cluster, N, SECOND_US, account, confirm, join, key, leave, request};
use std::sync::Arc;
use steeldb_ordering::{
    FIRST_JOINED_CLIENT, JoinRefusal, Message, Proposal, Refusal, Regency, Registered, Request,
};
use steeldb_types::{ClientId, Digest, Timestamp};

const ALL: [usize; 4] = [0, 1, 2, 3];

fn refused(reason: JoinRefusal) -> Option<Registered> {
    Some(Registered::Refused(reason))
}

fn challenge(cluster: &mut Cluster, request: &Arc<Request>) -> Digest {
    match cluster.register(request) {
        Some(Registered::Challenge(challenge)) => challenge,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_joins_works_and_leaves_and_is_refused_then() {
    let mut cluster = Cluster::new(1, None);
    let client = cluster.join(&key(1), account("a", 2)).unwrap();
    assert_eq!(client, FIRST_JOINED_CLIENT);
    for sequence in 1..=3 {
        cluster.order(&request(&key(1), client, sequence));
    }
    assert_eq!(cluster.register(&leave(&key(1), client)), Some(Registered::Left));
    let late = request(&key(1), client, 4);
    cluster.order(&late);
    cluster.pass(20 * SECOND_US);
    for at in ALL {
        assert_eq!(cluster.executions(at, &request(&key(1), client, 3)), 1);
        assert_eq!(cluster.executions(at, &late), 0);
        assert!(cluster.nodes[at].refused.contains(&(late.key(), Refusal::NotJoined)));
        assert!(cluster.nodes[at].accused.is_empty());
        let core = cluster.nodes[at].core.as_ref().unwrap();
        assert_eq!(core.regency(), Regency::default(), "nobody is blamed for it");
    }
    let again = cluster.join(&key(1), account("a", 2)).unwrap();
    assert_eq!(again, ClientId(client.0 + 1), "a number is given once");
    cluster.assert_agreement();
}

#[test]
fn a_join_goes_on_across_a_change_of_the_leader() {
    let mut cluster = Cluster::new(1, None);
    let joining = join(&key(1), account("a", 1), 50 * SECOND_US);
    let challenge = challenge(&mut cluster, &joining);
    // The leader goes with the Confirm on its way.
    cluster.cut_off.insert(0);
    cluster.submit(&ALL, &confirm(&key(1), challenge));
    cluster.pass(15 * SECOND_US);
    assert!(cluster.nodes[1].core.as_ref().unwrap().regency() > Regency::default());
    assert_eq!(cluster.joined(1), [FIRST_JOINED_CLIENT]);
    cluster.cut_off.clear();
    cluster.pass(15 * SECOND_US);
    for at in ALL {
        assert_eq!(cluster.joined(at), [FIRST_JOINED_CLIENT], "{at}");
    }
    cluster.assert_agreement();
}

#[test]
fn registrations_that_come_again_change_nothing() {
    let mut cluster = Cluster::new(1, None);
    let joining = join(&key(1), account("a", 2), 50 * SECOND_US);
    let first = challenge(&mut cluster, &joining);
    assert_eq!(challenge(&mut cluster, &joining), first, "the reply was lost");
    let confirming = confirm(&key(1), first);
    let joined = Some(Registered::Joined(FIRST_JOINED_CLIENT));
    assert_eq!(cluster.register(&confirming), joined);
    assert_eq!(cluster.register(&confirming), joined);
    assert_eq!(cluster.register(&joining), joined, "who is joined need not join");
    let leaving = leave(&key(1), FIRST_JOINED_CLIENT);
    assert_eq!(cluster.register(&leaving), Some(Registered::Left));
    // A faulty replica has kept all of it. The Join makes a challenge that nobody will answer.
    assert_ne!(challenge(&mut cluster, &joining), first, "challenges are never the same");
    assert_eq!(cluster.register(&confirming), refused(JoinRefusal::WrongChallenge));
    assert_eq!(cluster.register(&leaving), None, "of strangers nothing but Joins is ordered");
    cluster.pass(60 * SECOND_US);
    assert_eq!(cluster.register(&joining), refused(JoinRefusal::TooLate));
    assert_eq!(cluster.joined(2), []);
    cluster.assert_agreement();
}

#[test]
fn a_later_join_replaces_an_earlier_one_and_not_the_other_way_round() {
    let mut cluster = Cluster::new(1, None);
    let earlier = join(&key(1), account("a", 2), 40 * SECOND_US);
    let later = join(&key(1), account("a", 2), 50 * SECOND_US);
    let first = challenge(&mut cluster, &earlier);
    let second = challenge(&mut cluster, &later);
    assert_ne!(first, second);
    assert_eq!(cluster.register(&earlier), refused(JoinRefusal::Superseded));
    assert_eq!(cluster.register(&confirm(&key(1), first)), refused(JoinRefusal::WrongChallenge));
    assert_eq!(cluster.register(&confirm(&key(1), second)), Some(Registered::Joined(FIRST_JOINED_CLIENT)));
}

#[test]
fn a_wrong_challenge_or_one_that_is_answered_too_late_does_not_join() {
    let mut cluster = Cluster::new(1, None);
    let joining = join(&key(1), account("a", 2), 50 * SECOND_US);
    let right = challenge(&mut cluster, &joining);
    let wrong = confirm(&key(1), Digest([7; 32]));
    assert_eq!(cluster.register(&wrong), refused(JoinRefusal::WrongChallenge));
    cluster.pass(21 * SECOND_US);
    assert_eq!(cluster.register(&confirm(&key(1), right)), refused(JoinRefusal::NotJoining));
    assert_eq!(cluster.joined(0), []);
    let forever = join(&key(1), account("a", 2), 10_000 * SECOND_US);
    assert_eq!(cluster.register(&forever), refused(JoinRefusal::TooLong { max_ms: 60_000 }));
}

#[test]
fn nobody_has_another_leave_and_nobody_asks_in_anothers_name() {
    let mut cluster = Cluster::new(1, None);
    let victim = cluster.join(&key(1), account("a", 1)).unwrap();
    let other = cluster.join(&key(2), account("b", 1)).unwrap();
    assert_eq!(cluster.register(&leave(&key(2), victim)), refused(JoinRefusal::NotJoined));
    let theirs = request(&key(2), victim, 1);
    cluster.order(&theirs);
    // A leader that proposes it is at fault.
    let instance = cluster.nodes[1].core.as_ref().unwrap().last_decided().next();
    let timestamp = Timestamp(cluster.now_us as i64 + 1000);
    let forged = Arc::new(Proposal { instance, timestamp, requests: vec![Arc::clone(&theirs)] });
    cluster.twist = Box::new(move |at, message| match message {
        Message::Propose { regency, .. } if at == 0 => {
            Message::Propose { regency, proposal: Arc::clone(&forged) }
        }
        other => other,
    });
    cluster.submit(&ALL, &request(&key(2), other, 1));
    cluster.pass(15 * SECOND_US);
    for at in [1, 2, 3] {
        assert_eq!(cluster.executions(at, &theirs), 0);
        assert_eq!(cluster.executions(at, &request(&key(2), other, 1)), 1, "under the next leader");
        assert!(cluster.nodes[at].accused.iter().all(|(replica, _)| replica.0 == 0));
        assert!(!cluster.nodes[at].accused.is_empty());
        assert_eq!(cluster.joined(at), [victim, other]);
    }
}

#[test]
fn a_flood_of_joins_fills_no_table_and_keeps_no_other_account_out() {
    let mut cluster = Cluster::new(1, None);
    let until = 50 * SECOND_US;
    for seed in 0..40 {
        let made = cluster.register(&join(&key(seed), account("flood", 200), until));
        match seed {
            0 | 1 => assert!(matches!(made, Some(Registered::Challenge(_)))),
            _ => assert_eq!(made, refused(JoinRefusal::TooManyJoining)),
        }
    }
    let client = cluster.join(&key(50), account("a", 1)).unwrap();
    assert_eq!(client, FIRST_JOINED_CLIENT);
    // Many accounts together: the table has its bound.
    let accounts = (60..80).map(|seed| (seed, format!("account {seed}")));
    let made: Vec<_> =
        accounts.map(|(seed, name)| cluster.register(&join(&key(seed), account(&name, 1), until))).collect();
    assert_eq!(made.iter().filter(|made| **made == refused(JoinRefusal::TooManyJoining)).count(), 16);
    // Unconfirmed, they go by themselves.
    cluster.pass(21 * SECOND_US);
    assert!(cluster.join(&key(90), account("late", 1)).is_ok());
    cluster.assert_agreement();
}

#[test]
fn strangers_without_a_credential_have_nothing_ordered() {
    let mut cluster = Cluster::new(1, None);
    let stranger = join(&key(1), account("nobody", 1), 50 * SECOND_US);
    assert_eq!(cluster.register(&stranger), None);
    assert_eq!(cluster.register(&confirm(&key(1), Digest([1; 32]))), None);
    assert_eq!(cluster.register(&leave(&key(1), FIRST_JOINED_CLIENT)), None);
    cluster.order(&request(&key(1), FIRST_JOINED_CLIENT, 1));
    let why: Vec<_> = cluster.nodes[0].refused.iter().map(|(_, reason)| reason.clone()).collect();
    assert_eq!(why[0], Refusal::Invalid("not yours".into()));
    assert_eq!(why[1..], [Refusal::NotJoined, Refusal::NotJoined, Refusal::NotJoined]);
    assert!(cluster.nodes[0].delivered.is_empty());
}

#[test]
fn an_account_has_as_many_clients_as_it_may_and_so_has_the_cluster() {
    let mut cluster = Cluster::new(1, None);
    for seed in 1..=2 {
        cluster.join(&key(seed), account("a", 2)).unwrap();
    }
    let full = Err(Registered::Refused(JoinRefusal::AccountFull { sessions_max: 2 }));
    assert_eq!(cluster.join(&key(3), account("a", 2)), full);
    for seed in 4..=5 {
        cluster.join(&key(seed), account("b", 2)).unwrap();
    }
    assert_eq!(cluster.joined(0).len(), CLIENTS_MAX);
    assert_eq!(cluster.join(&key(6), account("c", 2)), Err(Registered::Refused(JoinRefusal::Full)));
    cluster.assert_agreement();
}

#[test]
fn who_was_idle_for_long_makes_room_and_the_same_one_on_every_replica() {
    let mut cluster = Cluster::new(1, None);
    let clients: Vec<_> = (1..=2).map(|seed| cluster.join(&key(seed), account("a", 2)).unwrap()).collect();
    cluster.pass(60 * SECOND_US);
    cluster.order(&request(&key(1), clients[0], 1));
    cluster.pass(60 * SECOND_US);
    // One replica's clock is no part of it: what counts is when the second was executed last.
    let newcomer = cluster.join(&key(3), account("a", 2)).unwrap();
    for at in ALL {
        assert_eq!(cluster.joined(at), [clients[0], newcomer]);
        let gone = cluster.nodes[at].delivered.values().flat_map(|delivery| &delivery.registrations);
        assert_eq!(gone.flat_map(|made| &made.gone).collect::<Vec<_>>(), [&clients[1]]);
    }
    cluster.order(&request(&key(2), clients[1], 1));
    assert_eq!(cluster.executions(1, &request(&key(2), clients[1], 1)), 0);
    // Nobody else has to go while there is room.
    cluster.join(&key(4), account("b", 2)).unwrap();
    assert_eq!(cluster.joined(0).len(), 3);
}

#[test]
fn what_waits_of_a_client_that_goes_is_refused_and_nobody_is_suspected() {
    let mut cluster = Cluster::new(1, None);
    let client = cluster.join(&key(1), account("a", 1)).unwrap();
    // A request that only one replica has heard of, and that the leader does not.
    let lonely = request(&key(1), client, 9);
    cluster.cut_off.insert(3);
    cluster.submit(&[3], &lonely);
    cluster.run();
    assert!(cluster.nodes[3].core.as_ref().unwrap().is_pending(&lonely.key()));
    cluster.submit(&[0, 1, 2], &leave(&key(1), client));
    cluster.run();
    cluster.cut_off.clear();
    cluster.pass(20 * SECOND_US);
    for at in 0..N {
        let core = cluster.nodes[at].core.as_ref().unwrap();
        assert_eq!((core.pending_requests(), core.regency()), (0, Regency::default()), "{at}");
    }
    assert!(cluster.nodes[3].refused.contains(&(lonely.key(), Refusal::NotJoined)));
}

#[test]
fn a_right_withdrawn_by_an_instance_in_flight_makes_the_request_behind_it_void() {
    withdrawn_right(None);
}

#[cfg(feature = "planted-bugs")]
#[test]
#[should_panic(expected = "void")]
fn a_withdrawn_right_that_is_exercised_is_caught() {
    withdrawn_right(Some(steeldb_ordering::PlantedBug::WithdrawnRightExecuted));
}

/// The leader proposes a Leave and, before it is decided, a request of who leaves: it is right to, and must not be blamed.
fn withdrawn_right(bug: crate::cluster::Bug) {
    let mut cluster = Cluster::new(4, bug);
    let client = cluster.join(&key(1), account("a", 1)).unwrap();
    let (leaving, late) = (leave(&key(1), client), request(&key(1), client, 1));
    // Both proposals leave before anything else is heard.
    cluster.submit(&[0], &leaving);
    cluster.submit(&[0], &late);
    cluster.submit(&[1, 2, 3], &late);
    cluster.run();
    cluster.pass(5 * SECOND_US);
    let batches: Vec<_> =
        cluster.decisions(&[1]).into_values().map(|d| d.proposal.requests.clone()).collect();
    let place = |of: &Arc<Request>| batches.iter().position(|batch| batch.contains(of));
    let (left, asked) = (place(&leaving).expect("ordered"), place(&late).expect("ordered"));
    assert!(left < asked, "the request is behind the Leave");
    for at in ALL {
        assert_eq!(cluster.executions(at, &late), 0, "void at {at}");
        assert_eq!(cluster.joined(at), []);
        assert!(cluster.nodes[at].accused.is_empty(), "{:?}", cluster.nodes[at].accused);
        assert_eq!(cluster.nodes[at].core.as_ref().unwrap().regency(), Regency::default());
    }
    cluster.assert_agreement();
}

#[test]
fn a_join_and_its_confirmation_in_flight_together_join_nobody_without_the_challenge() {
    let mut cluster = Cluster::new(4, None);
    cluster.submit(&ALL, &join(&key(1), account("a", 1), 50 * SECOND_US));
    cluster.submit(&ALL, &confirm(&key(1), Digest([3; 32])));
    cluster.run();
    cluster.pass(5 * SECOND_US);
    assert_eq!(cluster.joined(0), []);
    cluster.assert_agreement();
}

#[test]
fn a_restart_from_a_checkpoint_and_a_state_transfer_keep_the_registry() {
    let mut cluster = Cluster::new(1, None);
    let first = cluster.join(&key(1), account("a", 2)).unwrap();
    let waiting = join(&key(2), account("a", 2), 50 * SECOND_US);
    let open = challenge(&mut cluster, &waiting);
    cluster.stop(3);
    for sequence in 1..=40 {
        cluster.submit(&[0, 1, 2], &request(&key(1), first, sequence));
        cluster.run();
    }
    // One from its own checkpoint, one from the others', since nobody keeps the decisions.
    cluster.stop(2);
    cluster.start(2);
    cluster.run();
    assert_eq!(cluster.joined(2), [first]);
    cluster.start(3);
    cluster.pass(15 * SECOND_US);
    assert_eq!(cluster.joined(3), [first]);
    assert!(!cluster.nodes[3].delivered.contains_key(&20), "the state was transferred");
    // The join that waited is confirmed, by all of them.
    cluster.order(&confirm(&key(2), open));
    cluster.pass(5 * SECOND_US);
    for at in ALL {
        assert_eq!(cluster.joined(at), [first, ClientId(first.0 + 1)], "{at}");
        let again = request(&key(1), first, 40);
        cluster.nodes[at].refused.clear();
        cluster.submit(&[at], &again);
        cluster.run();
        assert_eq!(cluster.nodes[at].refused, [(again.key(), Refusal::Executed)]);
    }
    cluster.assert_agreement();
}
