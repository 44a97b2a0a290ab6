//! Several instances in flight, and STOPs that end, at one replica driven by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use steeldb_ordering::{
    AcceptAll, Change, Claim, Config, Core, Decision, Delivery, Effect, Event, InstanceNumber, Message, Now,
    Proof, Proposal, Record, Refusal, Regency, Request, RequestId, Restored, Roster,
};
use steeldb_types::{ClientId, ReplicaId, SessionId, SessionKey, Timestamp, View};
use steeldb_wire::auth::{Namespace, SecretKey};
use steeldb_wire::codec;

const LEADER: ReplicaId = ReplicaId(0);
const SECOND_US: u64 = 1_000_000;

/// Replica 1 of 4.
struct Replica {
    core: Core,
    window: usize,
    records: Vec<Record>,
    said: Vec<Message>,
    delivered: Vec<Delivery>,
    accused: Vec<ReplicaId>,
    refused: Vec<Refusal>,
    /// Tentative deliveries, by instance, regency and timestamp; those taken back, by instance.
    tentative: Vec<(u64, u64, i64)>,
    revoked: Vec<u64>,
    confirms: bool,
    now_us: u64,
}

fn key(replica: u16) -> SecretKey {
    SecretKey::from_seed(&[replica as u8; 32])
}

fn client() -> SecretKey {
    SecretKey::from_seed(&[9; 32])
}

fn request(sequence: u64) -> Arc<Request> {
    let session = SessionKey { client: ClientId(1), session: SessionId(1) };
    Arc::new(Request::signed(RequestId { session, sequence }, vec![7], &client()))
}

fn proposal(instance: u64, timestamp: i64, requests: Vec<Arc<Request>>) -> Arc<Proposal> {
    let instance = InstanceNumber(instance);
    Arc::new(Proposal { instance, timestamp: Timestamp(timestamp), requests })
}

impl Replica {
    fn new(window: usize) -> Replica {
        Replica::with(window, Vec::new())
    }

    fn with(window: usize, records: Vec<Record>) -> Replica {
        let roster =
            Roster::of_keys(View::of_size(4).unwrap(), (0..4).map(|i| key(i).public()).collect()).unwrap();
        let clients = BTreeMap::from([(ClientId(1), client().public())]);
        let mut config = Config::new(ReplicaId(1), roster, key(1), clients);
        config.window = window;
        config.tentative = true;
        config.administrators = vec![client().public()];
        let core = Core::new(config, Restored::new(InstanceNumber(0), records.clone())).unwrap();
        let (said, delivered, accused) = (Vec::new(), Vec::new(), Vec::new());
        Replica {
            core,
            window,
            records,
            said,
            delivered,
            accused,
            refused: Vec::new(),
            tentative: Vec::new(),
            revoked: Vec::new(),
            confirms: true,
            now_us: 0,
        }
    }

    fn restart(self) -> Replica {
        Replica::with(self.window, self.records)
    }

    fn event(&mut self, event: Event) {
        let now = Now { monotonic_us: self.now_us, wall: Timestamp(self.now_us as i64) };
        self.core.handle(now, event, &AcceptAll);
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                Effect::Persist { sequence, record } => {
                    self.records.push(record);
                    if self.confirms {
                        self.core.handle(now, Event::Persisted { upto: sequence }, &AcceptAll);
                    }
                }
                Effect::Send { message, .. } | Effect::Broadcast { message } => self.said.push(message),
                Effect::Tentative(t) => {
                    self.tentative.push((t.instance.0, t.claim.regency.number, t.timestamp.0));
                }
                Effect::Revoke { instance } => self.revoked.push(instance.0),
                Effect::Deliver(delivery) => self.delivered.push(delivery),
                Effect::Refused { reason, .. } => self.refused.push(reason),
                Effect::Misbehaved { replica, .. } => self.accused.push(replica),
                _ => {}
            }
        }
    }

    fn hears(&mut self, from: u16, message: Message) {
        self.event(Event::Message { from: ReplicaId(from), message });
    }

    fn is_proposed(&mut self, proposal: &Arc<Proposal>) {
        self.hears(0, Message::Propose { regency: Regency::default(), proposal: Arc::clone(proposal) });
    }

    /// Hears WRITEs of two others: with its own a quorum.
    fn is_written(&mut self, proposal: &Proposal) {
        let claim = Claim { regency: Regency::default(), value: proposal.digest() };
        for from in [0, 2] {
            self.hears(from, Message::Write { instance: proposal.instance, claim });
        }
    }

    /// Hears ACCEPTs of all others.
    fn is_accepted(&mut self, proposal: &Proposal) {
        self.is_accepted_in(Regency::default(), proposal);
    }

    fn is_accepted_in(&mut self, regency: Regency, proposal: &Proposal) {
        let instance = proposal.instance;
        let claim = Claim { regency, value: proposal.digest() };
        for from in [0, 2, 3] {
            let bytes = codec::encode(&(claim.regency, instance, claim.value));
            let signature = key(from).sign(Namespace::Accept, &bytes);
            self.hears(from, Message::Accept { instance, claim, signature });
        }
    }

    fn is_stopped_by(&mut self, from: u16) {
        self.hears(from, Message::Stop { regency: Regency::new(0, 1), requests: vec![] });
    }

    fn pass(&mut self, us: u64) {
        self.now_us += us;
        self.event(Event::Tick);
    }

    fn written(&self) -> Vec<u64> {
        let write = |message: &Message| match message {
            Message::Write { instance, .. } => Some(instance.0),
            _ => None,
        };
        self.said.iter().filter_map(write).collect()
    }

    fn stops(&self) -> usize {
        self.said.iter().filter(|message| message.name() == "STOP").count()
    }

    fn delivered(&self) -> Vec<u64> {
        self.delivered.iter().map(|delivery| delivery.instance.0).collect()
    }
}

#[test]
fn with_one_instance_in_flight_the_next_is_taken_up_when_it_is_decided() {
    let (first, second) = (proposal(1, 1, vec![request(1)]), proposal(2, 2, vec![request(2)]));
    let mut replica = Replica::new(1);
    replica.is_proposed(&first);
    replica.is_proposed(&second);
    assert_eq!(replica.written(), [1]);
    replica.is_accepted(&first);
    assert_eq!(replica.written(), [1, 2]);
}

#[test]
fn a_proposal_waits_for_those_before_it() {
    let proposals: Vec<_> = (1..=3).map(|i| proposal(i, i as i64, vec![request(i)])).collect();
    let mut replica = Replica::new(3);
    replica.is_proposed(&proposals[2]);
    replica.is_proposed(&proposals[1]);
    assert_eq!(replica.written(), []);
    replica.is_proposed(&proposals[0]);
    assert_eq!(replica.written(), [1, 2, 3]);
    assert_eq!(replica.accused, []);
}

#[test]
fn instances_decided_in_any_order_are_delivered_in_theirs() {
    let proposals: Vec<_> = (1..=3).map(|i| proposal(i, i as i64, vec![request(i)])).collect();
    let mut replica = Replica::new(3);
    for proposal in &proposals {
        replica.is_proposed(proposal);
    }
    replica.is_accepted(&proposals[2]);
    replica.is_accepted(&proposals[1]);
    assert_eq!(replica.delivered(), []);
    replica.is_accepted(&proposals[0]);
    assert_eq!(replica.delivered(), [1, 2, 3]);
    let decisions = replica.records.iter().filter_map(|record| match record {
        Record::Decision(decision) => Some(decision.instance().0),
        _ => None,
    });
    assert_eq!(decisions.collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn a_leader_that_puts_a_request_into_two_instances_in_flight_is_suspected() {
    for requests in [vec![request(2)], vec![request(1)]] {
        let mut replica = Replica::new(2);
        replica.is_proposed(&proposal(1, 1, vec![request(2)]));
        replica.is_proposed(&proposal(2, 2, requests));
        assert_eq!((replica.written(), replica.stops()), (vec![1], 1));
        assert_eq!(replica.accused, [LEADER]);
    }
}

#[test]
fn time_ascends_through_the_window() {
    let mut replica = Replica::new(2);
    replica.is_proposed(&proposal(1, 5, vec![request(1)]));
    replica.is_proposed(&proposal(2, 5, vec![request(2)]));
    assert_eq!((replica.written(), replica.accused), (vec![1], vec![LEADER]));
}

#[test]
fn an_empty_batch_is_proposed_into_gaps_only() {
    let mut replica = Replica::new(2);
    replica.is_proposed(&proposal(1, 1, vec![]));
    assert_eq!((replica.written(), replica.accused), (vec![], vec![LEADER]));
}

#[test]
fn the_votes_of_every_instance_in_flight_survive_a_restart_and_go_into_stopdata() {
    let proposals: Vec<_> = (1..=2).map(|i| proposal(i, i as i64, vec![request(i)])).collect();
    let mut replica = Replica::new(2);
    for proposal in &proposals {
        replica.is_proposed(proposal);
    }
    let (instance, value) = (InstanceNumber(2), proposals[1].digest());
    for from in [0, 2] {
        let claim = Claim { regency: Regency::default(), value };
        replica.hears(from, Message::Write { instance, claim });
    }
    let mut replica = replica.restart();
    replica.is_proposed(&proposal(2, 3, vec![request(2)]));
    assert_eq!(replica.written(), []);
    for from in [0, 2, 3] {
        replica.hears(from, Message::Stop { regency: Regency::new(0, 2), requests: vec![] });
    }
    let data = replica.said.iter().find_map(|message| match message {
        Message::StopData { data, values } => Some((data.data.clone(), values.clone())),
        _ => None,
    });
    let (data, values) = data.unwrap();
    let votes = data.votes.iter().map(|v| (v.instance.0, v.bound.is_some(), v.written.len()));
    assert_eq!(votes.collect::<Vec<_>>(), [(1, false, 1), (2, true, 1)]);
    assert_eq!(values, [Arc::clone(&proposals[1])]);
}

#[test]
fn a_decision_costs_two_verifications_of_four_replicas_and_late_accepts_none() {
    let mut replica = Replica::new(1);
    for instance in 1..=10 {
        let proposal = proposal(instance, instance as i64, vec![request(instance)]);
        replica.is_proposed(&proposal);
        let claim = Claim { regency: Regency::default(), value: proposal.digest() };
        for from in [0, 2, 3] {
            replica.hears(from, Message::Write { instance: proposal.instance, claim });
        }
        replica.is_accepted(&proposal);
    }
    assert_eq!(replica.delivered().len(), 10);
    assert_eq!(replica.core.accepts_verified(), 20);
}

#[test]
fn a_stop_that_is_not_repeated_is_forgotten() {
    let mut replica = Replica::new(1);
    replica.is_stopped_by(2);
    replica.pass(3 * SECOND_US);
    replica.is_stopped_by(2);
    replica.pass(3 * SECOND_US);
    assert_eq!(replica.stops(), 0);
    // The first was repeated: with another they are f + 1.
    replica.is_stopped_by(3);
    assert_eq!(replica.core.regency(), Regency::new(0, 1));

    let mut replica = Replica::new(1);
    replica.is_stopped_by(2);
    replica.pass(4 * SECOND_US);
    replica.is_stopped_by(3);
    assert_eq!((replica.stops(), replica.core.regency()), (0, Regency::default()));
}

#[test]
fn a_stop_is_repeated_while_its_reason_lasts_and_taken_back_then() {
    let first = proposal(1, 1, vec![request(1)]);
    let mut replica = Replica::new(1);
    replica.event(Event::Request(request(1)));
    replica.pass(2 * SECOND_US);
    replica.pass(2 * SECOND_US);
    assert_eq!(replica.stops(), 1);
    replica.pass(SECOND_US / 2);
    replica.pass(SECOND_US / 2);
    assert_eq!(replica.stops(), 3);
    replica.is_proposed(&first);
    replica.is_accepted(&first);
    assert_eq!(replica.delivered(), [1]);
    let stops = replica.stops();
    (0..10).for_each(|_| replica.pass(SECOND_US));
    assert_eq!(replica.stops(), stops);
    // It is not one of f + 1 any more.
    replica.is_stopped_by(2);
    assert_eq!(replica.core.regency(), Regency::default());
}

#[test]
fn a_leader_that_serves_others_does_not_keep_a_stop_from_being_repeated() {
    let mut replica = Replica::new(1);
    let other = SessionKey { client: ClientId(1), session: SessionId(2) };
    let kept_back = Request::signed(RequestId { session: other, sequence: 1 }, vec![], &client());
    replica.event(Event::Request(Arc::new(kept_back)));
    replica.pass(2 * SECOND_US);
    replica.pass(2 * SECOND_US);
    let before = replica.stops();
    for instance in 1..=20 {
        let now = replica.now_us as i64;
        let served = proposal(instance, now + 1, vec![request(instance)]);
        replica.is_proposed(&served);
        replica.is_accepted(&served);
        replica.pass(SECOND_US / 10);
    }
    assert_eq!(replica.delivered().len(), 20);
    assert!(replica.stops() >= before + 3, "{} after {before}", replica.stops());
}

#[test]
fn a_request_that_comes_again_is_told_from_one_that_came_too_late() {
    let mut replica = Replica::new(1);
    let executed = proposal(1, 1, vec![request(2)]);
    replica.is_proposed(&executed);
    replica.is_accepted(&executed);
    replica.event(Event::Request(request(2)));
    replica.event(Event::Request(request(1)));
    assert_eq!(replica.refused, [Refusal::Executed, Refusal::Stale]);
}

/// What waits for the application is no request yet: nobody is blamed for it. What is one is ordered within the
/// time-out, or its leader is suspected, whatever the leader says of its own application.
#[test]
fn a_leader_answers_for_requests_and_not_for_what_is_no_request_yet() {
    let mut replica = Replica::new(1);
    (0..10).for_each(|_| replica.pass(2 * SECOND_US));
    assert_eq!(replica.stops(), 0);
    let certificate = Request::Certified { key: Default::default(), payload: vec![1] };
    replica.event(Event::Request(Arc::new(certificate)));
    replica.pass(2 * SECOND_US);
    // It goes to the leader whole: who lacked it can propose it now.
    let forwarded = replica.said.iter().filter(|message| message.name() == "FORWARD").count();
    assert_eq!((forwarded, replica.stops()), (1, 0));
    replica.pass(2 * SECOND_US);
    assert_eq!(replica.stops(), 1);
}

#[test]
fn a_tentative_delivery_waits_for_its_record_and_for_the_instances_before_it() {
    let (first, second) = (proposal(1, 1, vec![request(1)]), proposal(2, 2, vec![request(2)]));
    let mut replica = Replica::new(2);
    replica.is_proposed(&first);
    replica.is_proposed(&second);
    replica.is_written(&second);
    assert_eq!(replica.tentative, []);
    replica.confirms = false;
    replica.is_written(&first);
    assert!(matches!(replica.records.last(), Some(Record::Accept { .. })));
    assert_eq!(replica.tentative, []);
    replica.confirms = true;
    replica.event(Event::Persisted { upto: 4 });
    assert_eq!(replica.tentative, [(1, 0, 1)]);
    replica.is_accepted(&first);
    assert_eq!((replica.delivered(), &replica.revoked), (vec![1], &vec![]));
    assert_eq!(replica.tentative, [(1, 0, 1), (2, 0, 2)]);
    assert_eq!(replica.core.said_upto(), InstanceNumber(0), "all of it in this life");
    // The record is still there after a restart, and so is what it allows to say.
    let mut replica = replica.restart();
    assert_eq!(replica.core.said_upto(), InstanceNumber(2));
    replica.pass(1);
    assert_eq!(replica.tentative, [(2, 0, 2)]);
}

#[test]
fn a_tentative_delivery_is_taken_back_when_something_else_is_decided() {
    let (bound, decided) = (proposal(1, 1, vec![request(1)]), proposal(1, 2, vec![request(2)]));
    let mut replica = Replica::new(1);
    replica.is_proposed(&bound);
    replica.is_written(&bound);
    assert_eq!(replica.tentative, [(1, 0, 1)]);
    // More than f replicas lie here, or it could not be; a later regency may bring it about with fewer.
    let claim = Claim { regency: Regency::new(0, 1), value: decided.digest() };
    let accept = |from: u16| {
        let bytes = codec::encode(&(claim.regency, decided.instance, claim.value));
        (ReplicaId(from), key(from).sign(Namespace::Accept, &bytes))
    };
    let proof = Proof { instance: decided.instance, claim, accepts: [0, 2, 3].map(accept).to_vec() };
    let decisions = vec![Arc::new(Decision { proposal: Arc::clone(&decided), proof })];
    replica.hears(2, Message::Decisions { decisions, more: false });
    assert_eq!((replica.revoked.clone(), replica.delivered()), (vec![1], vec![1]));
}

#[test]
fn who_delivers_without_having_accepted_waits_for_the_record_of_the_decision() {
    let first = proposal(1, 1, vec![request(1)]);
    let mut accepting = Replica::new(1);
    accepting.is_proposed(&first);
    accepting.is_written(&first);
    accepting.confirms = false;
    accepting.is_accepted(&first);
    assert_eq!(accepting.delivered(), vec![1], "its ACCEPT is on record");
    assert_eq!(accepting.restart().core.said_upto(), InstanceNumber(1));

    let mut late = Replica::new(1);
    late.is_proposed(&first);
    late.confirms = false;
    late.is_accepted(&first);
    assert!(matches!(late.records.last(), Some(Record::Decision(_))));
    assert_eq!(late.delivered(), Vec::<u64>::new());
    late.event(Event::Persisted { upto: late.records.len() as u64 });
    assert_eq!(late.delivered(), vec![1]);
}

#[test]
fn who_has_accepted_a_change_says_so_until_it_knows_what_became_of_it() {
    let mut replica = Replica::new(1);
    let change = Change { first_leader: Some(ReplicaId(1)), ..Change::of(replica.core.roster()) };
    let first = proposal(1, 1, vec![Arc::new(change.signed(&client()))]);
    replica.is_proposed(&first);
    assert!(!replica.core.is_changing_view());
    replica.is_written(&first);
    assert!(replica.core.is_changing_view());
    let mut replica = replica.restart();
    assert!(replica.core.is_changing_view());
    replica.is_accepted(&first);
    assert_eq!((replica.core.is_changing_view(), replica.core.leader()), (false, ReplicaId(1)));
}

#[test]
fn what_is_decided_behind_a_change_of_the_membership_is_void_and_decided_anew_in_the_new_view() {
    for restarted in [false, true] {
        let mut replica = Replica::new(4);
        let change = Change { first_leader: Some(ReplicaId(2)), ..Change::of(replica.core.roster()) };
        let change = proposal(1, 1, vec![Arc::new(change.signed(&client()))]);
        let behind = proposal(2, 2, vec![request(1)]);
        replica.is_proposed(&change);
        replica.is_proposed(&behind);
        replica.is_accepted(&behind);
        assert_eq!((replica.written(), replica.delivered()), (vec![1, 2], vec![]));
        replica.is_accepted(&change);
        assert_eq!((replica.delivered(), replica.core.leader()), (vec![1], ReplicaId(2)));
        if restarted {
            replica = replica.restart();
        }
        // Votes of the view before count no more, whenever they come.
        replica.is_accepted(&behind);
        let first = Regency::new(1, 0);
        replica.said.clear();
        replica.delivered.clear();
        replica.hears(2, Message::Propose { regency: first, proposal: Arc::clone(&behind) });
        assert_eq!((replica.written(), replica.delivered()), (vec![2], vec![]));
        replica.is_accepted_in(first, &behind);
        assert_eq!(replica.delivered(), [2]);
        assert_eq!((replica.delivered[0].proof.view().0, replica.accused.len()), (1, 0));
    }
}

#[test]
fn votes_of_a_view_that_ended_are_not_restored_when_the_log_says_them_again() {
    let mut replica = Replica::new(2);
    let to = |leader| Change { first_leader: Some(ReplicaId(leader)), ..Change::of(replica.core.roster()) };
    let changes = [to(2), to(3)].map(|change| Arc::new(change.signed(&client())));
    let [first, second] = [1, 2].map(|i| proposal(i, i as i64, vec![Arc::clone(&changes[i as usize - 1])]));
    for proposal in [&first, &second] {
        replica.is_proposed(proposal);
        replica.is_written(proposal);
    }
    replica.is_accepted(&first);
    assert_eq!((replica.delivered(), replica.core.is_changing_view()), (vec![1], false));
    let of_second = |record: &&Record| match record {
        Record::Write { proposal, .. } => proposal.instance.0 == 2,
        Record::Accept { instance, .. } => instance.0 == 2,
        _ => false,
    };
    let again: Vec<Record> = replica.records.iter().filter(of_second).cloned().collect();
    assert_eq!(again.len(), 2);
    replica.records.extend(again);
    assert!(!replica.restart().core.is_changing_view());
}
