//! The rules one replica keeps by itself, driven by hand: what leaves it, and when.

use std::collections::BTreeMap;
use std::sync::Arc;
use steeldb_ordering::{
    AcceptAll, Claim, Config, Core, Effect, Event, InstanceNumber, Message, Now, Proposal, Record, Refusal,
    Regency, Request, RequestId, Restored, Roster, Validator,
};
use steeldb_types::{ClientId, ReplicaId, SessionId, SessionKey, Timestamp, View, limits};
use steeldb_wire::auth::SecretKey;

const LEADER: ReplicaId = ReplicaId(0);
const SECOND_US: u64 = 1_000_000;

/// Replica 1 of 4, its disk and what it said.
struct Replica {
    core: Core,
    records: Vec<Record>,
    said: Vec<Message>,
    refused: Vec<Refusal>,
    accused: Vec<ReplicaId>,
    now_us: u64,
    confirms: bool,
}

fn client() -> SecretKey {
    SecretKey::from_seed(&[9; 32])
}

fn config(change: impl FnOnce(&mut Config)) -> Config {
    let keys: Vec<SecretKey> = (0..4u8).map(|i| SecretKey::from_seed(&[i; 32])).collect();
    let clients = BTreeMap::from([(ClientId(1), client().public())]);
    let publics = keys.iter().map(SecretKey::public).collect();
    let roster = Roster::of_keys(View::of_size(4).unwrap(), publics).unwrap();
    let mut config = Config::new(ReplicaId(1), roster, keys[1].clone(), clients);
    change(&mut config);
    config
}

fn request(session: u64, sequence: u64, payload: &[u8]) -> Arc<Request> {
    let session = SessionKey { client: ClientId(1), session: SessionId(session) };
    Arc::new(Request::signed(RequestId { session, sequence }, payload.to_vec(), &client()))
}

fn proposal(timestamp: i64, requests: Vec<Arc<Request>>) -> Arc<Proposal> {
    Arc::new(Proposal { instance: InstanceNumber(1), timestamp: Timestamp(timestamp), requests })
}

fn propose(proposal: &Arc<Proposal>) -> Message {
    Message::Propose { regency: Regency::new(0, 0), proposal: Arc::clone(proposal) }
}

impl Replica {
    fn new() -> Replica {
        Replica::with(config(|_| {}), Vec::new())
    }

    fn with(config: Config, records: Vec<Record>) -> Replica {
        let core = Core::new(config, Restored::new(InstanceNumber(0), records.clone())).unwrap();
        let (said, refused, accused) = (Vec::new(), Vec::new(), Vec::new());
        Replica { core, records, said, refused, accused, now_us: 0, confirms: true }
    }

    fn restart(self) -> Replica {
        Replica::with(config(|_| {}), self.records)
    }

    fn event(&mut self, event: Event, validator: &dyn Validator) {
        let now = Now { monotonic_us: self.now_us, wall: Timestamp(self.now_us as i64) };
        self.core.handle(now, event, validator);
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                Effect::Persist { sequence, record } => {
                    self.records.push(record);
                    if self.confirms {
                        self.core.handle(now, Event::Persisted { upto: sequence }, validator);
                    }
                }
                Effect::Send { message, .. } | Effect::Broadcast { message } => self.said.push(message),
                Effect::Refused { reason, .. } => self.refused.push(reason),
                Effect::Misbehaved { replica, .. } => self.accused.push(replica),
                _ => {}
            }
        }
    }

    fn hears(&mut self, from: ReplicaId, message: Message) {
        self.event(Event::Message { from, message }, &AcceptAll);
    }

    fn asked(&mut self, request: &Arc<Request>) {
        self.event(Event::Request(Arc::clone(request)), &AcceptAll);
    }

    fn pass(&mut self, us: u64) {
        self.now_us += us;
        self.event(Event::Tick, &AcceptAll);
    }

    fn count(&self, name: &str) -> usize {
        self.said.iter().filter(|message| message.name() == name).count()
    }

    fn written(&self) -> Vec<Claim> {
        let write = |message: &Message| match message {
            Message::Write { claim, .. } => Some(*claim),
            _ => None,
        };
        self.said.iter().filter_map(write).collect()
    }
}

#[test]
fn nothing_leaves_before_the_record_it_depends_on_is_durable() {
    let mut replica = Replica::new();
    replica.confirms = false;
    replica.hears(LEADER, propose(&proposal(1, vec![request(1, 1, b"a")])));
    assert!(matches!(replica.records[..], [Record::Write { .. }]));
    assert_eq!(replica.count("WRITE"), 0);
    replica.event(Event::Persisted { upto: 1 }, &AcceptAll);
    assert_eq!(replica.count("WRITE"), 1);
}

#[test]
fn one_value_is_written_per_regency_even_after_a_restart() {
    let (first, second) = (proposal(1, vec![request(1, 1, b"a")]), proposal(2, vec![request(1, 1, b"a")]));
    let mut replica = Replica::new();
    replica.hears(LEADER, propose(&first));
    replica.hears(LEADER, propose(&second));
    assert_eq!(replica.written(), [Claim { regency: Regency::new(0, 0), value: first.digest() }]);
    assert_eq!(replica.accused, [LEADER]);
    let mut replica = replica.restart();
    replica.hears(LEADER, propose(&second));
    assert_eq!(replica.written(), []);
}

#[test]
fn nothing_is_voted_for_in_a_regency_left_even_after_a_restart() {
    let mut replica = Replica::new();
    for from in [0, 2, 3] {
        replica.hears(ReplicaId(from), Message::Stop { regency: Regency::new(0, 2), requests: vec![] });
    }
    assert_eq!(replica.core.regency(), Regency::new(0, 2));
    assert_eq!(replica.count("STOPDATA"), 1);
    let value = proposal(1, vec![request(1, 1, b"a")]);
    for _ in 0..2 {
        replica.hears(LEADER, propose(&value));
        let claim = Claim { regency: Regency::new(0, 0), value: value.digest() };
        for from in [0, 2, 3] {
            replica.hears(ReplicaId(from), Message::Write { instance: InstanceNumber(1), claim });
        }
        assert_eq!((replica.count("WRITE"), replica.count("ACCEPT")), (0, 0));
        replica = replica.restart();
        assert_eq!(replica.core.regency(), Regency::new(0, 2));
    }
}

#[test]
fn an_invalid_proposal_is_not_written_and_its_leader_suspected() {
    struct Refuse;
    impl Validator for Refuse {
        fn check(&self, _: &Request, _: &Roster) -> Result<(), String> {
            Err("no".into())
        }
    }
    let message = propose(&proposal(1, vec![request(1, 1, b"a")]));
    let mut replica = Replica::new();
    replica.event(Event::Message { from: LEADER, message }, &Refuse);
    assert_eq!((replica.count("WRITE"), replica.count("STOP")), (0, 1));
    assert_eq!(replica.accused, [LEADER]);
}

#[test]
fn only_the_leader_proposes() {
    let mut replica = Replica::new();
    replica.hears(ReplicaId(2), propose(&proposal(1, vec![request(1, 1, b"a")])));
    assert_eq!(replica.count("WRITE"), 0);
    assert_eq!(replica.accused, [ReplicaId(2)]);
}

#[test]
fn a_time_at_the_edge_of_the_tolerance_is_written_and_one_past_it_is_not() {
    let tolerance_us = limits::CLOCK_TOLERANCE.as_micros() as i64;
    for (timestamp, writes) in
        [(tolerance_us, 1), (-tolerance_us, 1), (tolerance_us + 1, 0), (-tolerance_us - 1, 0)]
    {
        let mut replica = Replica::new();
        replica.hears(LEADER, propose(&proposal(timestamp, vec![request(1, 1, b"a")])));
        assert_eq!(replica.count("WRITE"), writes, "{timestamp}");
        assert_eq!(replica.count("STOP"), 0);
    }
}

#[test]
fn a_request_is_forwarded_first_and_the_leader_suspected_then() {
    let mut replica = Replica::new();
    replica.asked(&request(1, 1, b"a"));
    replica.pass(2 * SECOND_US);
    assert_eq!((replica.count("FORWARD"), replica.count("STOP")), (1, 0));
    replica.pass(2 * SECOND_US);
    let stop = replica.said.iter().find(|message| message.name() == "STOP");
    let expected = Message::Stop { regency: Regency::new(0, 1), requests: vec![request(1, 1, b"a")] };
    assert_eq!(stop, Some(&expected));
}

#[test]
fn f_stops_are_not_joined_and_f_plus_one_are() {
    let mut replica = Replica::new();
    let stop = |regency| Message::Stop { regency: Regency::new(0, regency), requests: vec![] };
    replica.hears(ReplicaId(2), stop(u64::MAX));
    assert_eq!(replica.count("STOP"), 0);
    replica.hears(ReplicaId(3), stop(1));
    assert_eq!(replica.count("STOP"), 1);
    // Its own makes three: Q_v.
    assert_eq!(replica.core.regency(), Regency::new(0, 1));
}

#[test]
fn what_cannot_be_ordered_is_turned_away_with_the_reason() {
    let mut replica = Replica::with(config(|config| config.pending_requests_max = 2), Vec::new());
    let largest = request(1, 1, &vec![0; limits::REQUEST_BYTES_MAX]);
    replica.asked(&largest);
    assert_eq!(replica.refused, []);
    replica.asked(&request(2, 1, &vec![0; limits::REQUEST_BYTES_MAX + 1]));
    replica.asked(&request(1, 1, b"another"));
    replica.asked(&largest);
    let session = SessionKey { client: ClientId(1), session: SessionId(5) };
    let id = RequestId { session, sequence: 1 };
    replica.asked(&Arc::new(Request::signed(id, vec![], &SecretKey::from_seed(&[8; 32]))));
    replica.asked(&request(3, 0, b"sequences start at 1"));
    replica.asked(&request(4, 1, b"fills it"));
    replica.asked(&request(5, 1, b"one too many"));
    assert!(
        matches!(
            replica.refused[..],
            [Refusal::TooLarge, Refusal::Conflict, Refusal::Invalid(_), Refusal::Stale, Refusal::Busy]
        ),
        "{:?}",
        replica.refused
    );
}

#[test]
fn what_waits_of_one_client_is_bounded_in_bytes() {
    let mut replica = Replica::new();
    let largest = |sequence| request(1, sequence, &vec![0; limits::REQUEST_BYTES_MAX]);
    let fit = (limits::PENDING_BYTES_PER_CLIENT_MAX / largest(1).size_bytes()) as u64;
    for sequence in 1..=fit {
        replica.asked(&largest(sequence));
    }
    assert_eq!(replica.refused, []);
    replica.asked(&largest(fit + 1));
    assert_eq!(replica.refused, [Refusal::Busy]);
    replica.asked(&request(2, 1, b"little"));
    assert_eq!(replica.refused, [Refusal::Busy], "there is room for a little one");
}

#[test]
fn a_log_with_a_hole_is_refused() {
    let beyond = InstanceNumber(limits::WINDOW_MAX as u64 + 1);
    let late = Arc::new(Proposal { instance: beyond, timestamp: Timestamp(1), requests: vec![] });
    let records = vec![Record::Write { regency: Regency::new(0, 0), proposal: late }];
    assert!(Core::new(config(|_| {}), Restored::new(InstanceNumber(0), records)).is_err());
}
