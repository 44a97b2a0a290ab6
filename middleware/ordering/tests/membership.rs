//! Changes of the membership: what a cluster does when its view changes, message by message.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use steeldb_ordering::{
    AcceptAll, Change, Config, Core, Decision, Delivery, Effect, Event, InstanceNumber, Joining, Member,
    Message, Now, Record, Refusal, Regency, Request, RequestId, Restored, Roster, ViewChain,
};
use steeldb_types::{ClientId, FaultModel, ReplicaId, SessionId, SessionKey, Timestamp, View, ViewNumber};
use steeldb_wire::auth::SecretKey;

fn replica_key(id: u16) -> SecretKey {
    SecretKey::from_seed(&[id as u8 + 1; 32])
}

fn client() -> SecretKey {
    SecretKey::from_seed(&[200; 32])
}

fn administrator() -> SecretKey {
    SecretKey::from_seed(&[201; 32])
}

fn ids(list: &[u16]) -> Vec<ReplicaId> {
    list.iter().map(|id| ReplicaId(*id)).collect()
}

fn genesis(model: FaultModel, n: u16) -> Roster {
    let view = View::new(ViewNumber(0), model, n, 1, vec![]).unwrap();
    let member =
        |id: ReplicaId| Member { id, key: replica_key(id.0).public(), address: format!("h{}:1", id.0) };
    let members = view.replicas().map(member).collect();
    Roster::new(view, members).unwrap()
}

/// Replicas in one thread; what goes to or comes from a cut-off one is lost.
struct Cluster {
    genesis: Roster,
    cores: BTreeMap<u16, Core>,
    records: BTreeMap<u16, Vec<Record>>,
    delivered: BTreeMap<u16, Vec<Delivery>>,
    views: BTreeMap<u16, Vec<(InstanceNumber, Arc<Roster>)>>,
    refused: Vec<(u16, Refusal)>,
    accused: Vec<(u16, ReplicaId, String)>,
    cut_off: Vec<u16>,
    events: VecDeque<(u16, Event)>,
    now_us: u64,
    sequence: u64,
}

impl Cluster {
    fn new(genesis: Roster) -> Cluster {
        let mut cluster = Cluster {
            cores: BTreeMap::new(),
            records: BTreeMap::new(),
            delivered: BTreeMap::new(),
            views: BTreeMap::new(),
            refused: vec![],
            accused: vec![],
            cut_off: vec![],
            events: VecDeque::new(),
            now_us: 0,
            sequence: 0,
            genesis,
        };
        for id in cluster.genesis.view().replicas() {
            cluster.start(id.0);
        }
        cluster
    }

    fn start(&mut self, id: u16) {
        let clients = BTreeMap::from([(ClientId(1), client().public())]);
        let mut config = Config::new(ReplicaId(id), self.genesis.clone(), replica_key(id), clients);
        config.administrators = vec![administrator().public()];
        config.decisions_kept_bytes = 1 << 20;
        let records = self.records.entry(id).or_default().clone();
        let core = Core::new(config, Restored::new(InstanceNumber(0), records)).unwrap();
        self.delivered.entry(id).or_default().clear();
        self.views.entry(id).or_default().clear();
        self.cores.insert(id, core);
        self.drain(id);
        let others: Vec<u16> = self.cores.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            self.events.push_back((id, Event::LinkUp(ReplicaId(other))));
        }
        self.settle();
    }

    fn drain(&mut self, me: u16) {
        let from = ReplicaId(me);
        while let Some(effect) = self.cores.get_mut(&me).and_then(Core::poll_effect) {
            match effect {
                Effect::Persist { sequence, record } => {
                    self.records.get_mut(&me).unwrap().push(record);
                    self.events.push_back((me, Event::Persisted { upto: sequence }));
                }
                Effect::Send { to, message } => self.carry(from, to.0, message),
                Effect::Broadcast { message } => {
                    let others: Vec<u16> = self.cores.keys().copied().filter(|to| *to != me).collect();
                    for to in others {
                        self.carry(from, to, message.clone());
                    }
                }
                Effect::Deliver(delivery) => self.delivered.get_mut(&me).unwrap().push(delivery),
                Effect::ViewInstalled { roster, first } => {
                    self.views.get_mut(&me).unwrap().push((first, roster));
                }
                Effect::Refused { reason, .. } => self.refused.push((me, reason)),
                Effect::Misbehaved { replica, reason } => self.accused.push((me, replica, reason)),
                _ => {}
            }
        }
    }

    fn carry(&mut self, from: ReplicaId, to: u16, message: Message) {
        if !self.cut_off.contains(&from.0) && !self.cut_off.contains(&to) && self.cores.contains_key(&to) {
            self.events.push_back((to, Event::Message { from, message }));
        }
    }

    fn settle(&mut self) {
        for _ in 0..200_000 {
            let Some((me, event)) = self.events.pop_front() else { return };
            let now = Now { monotonic_us: self.now_us, wall: Timestamp(self.now_us as i64) };
            if let Some(core) = self.cores.get_mut(&me) {
                core.handle(now, event, &AcceptAll);
            }
            self.drain(me);
        }
        panic!("never quiet");
    }

    /// Lets time pass in steps of a tenth of a second.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.now_us += 100_000;
            let all: Vec<u16> = self.cores.keys().copied().collect();
            self.events.extend(all.into_iter().map(|id| (id, Event::Tick)));
            self.settle();
        }
    }

    fn ask(&mut self, replicas: &[u16], request: Request) {
        let request = Arc::new(request);
        self.now_us += 1;
        for id in replicas {
            self.events.push_back((*id, Event::Request(Arc::clone(&request))));
        }
        self.settle();
    }

    /// Asks for the next request of the one session.
    fn order(&mut self, replicas: &[u16]) {
        self.sequence += 1;
        let session = SessionKey { client: ClientId(1), session: SessionId(1) };
        let id = RequestId { session, sequence: self.sequence };
        self.ask(replicas, Request::signed(id, vec![], &client()));
    }

    fn change(&mut self, replicas: &[u16], of: u16, set: impl FnOnce(&mut Change)) {
        let mut change = Change::of(self.cores[&of].roster());
        set(&mut change);
        self.ask(replicas, change.signed(&administrator()));
    }

    fn view(&self, id: u16) -> u64 {
        self.cores[&id].roster().view().number().0
    }

    fn decided(&self, id: u16) -> u64 {
        self.cores[&id].last_decided().0
    }

    fn decision(&self, id: u16, instance: u64) -> Arc<Decision> {
        let of = |record: &Record| match record {
            Record::Decision(decision) if decision.instance().0 == instance => Some(Arc::clone(decision)),
            _ => None,
        };
        self.records[&id].iter().find_map(of).unwrap()
    }

    fn assert_honest(&self) {
        assert!(self.accused.is_empty(), "{:?}", self.accused);
    }
}

#[test]
fn a_change_takes_effect_at_the_next_instance_everywhere() {
    let mut cluster = Cluster::new(genesis(FaultModel::Byzantine, 5));
    let all = [0, 1, 2, 3, 4];
    cluster.order(&all);
    cluster.change(&all, 0, |change| change.heavy = Some(ids(&[3, 4])));
    cluster.order(&all);
    for id in all {
        assert_eq!((cluster.view(id), cluster.decided(id)), (1, 3));
        let views: Vec<u64> = cluster.delivered[&id].iter().map(|d| d.proof.view().0).collect();
        assert_eq!(views, [0, 0, 1]);
        let (first, roster) = &cluster.views[&id][0];
        assert_eq!((first.0, roster.view().heavy()), (3, &ids(&[3, 4])[..]));
        assert_eq!(cluster.cores[&id].regency(), Regency::first(ViewNumber(1)));
    }
    // The new weights count: without a heavy one it takes all four others; with both, one more.
    cluster.cut_off = vec![0, 1];
    cluster.order(&[2, 3, 4]);
    cluster.pass(10);
    assert_eq!(cluster.decided(2), 4);
    cluster.cut_off = vec![3, 4];
    cluster.order(&[0, 1, 2]);
    cluster.pass(10);
    assert_eq!(
        cluster.decided(0),
        4,
        "what the others decided, and no more: three light ones are no quorum now"
    );
    cluster.assert_honest();
}

#[test]
fn a_removed_replica_votes_no_more_and_still_serves_decisions() {
    let mut cluster = Cluster::new(genesis(FaultModel::Byzantine, 5));
    let all = [0, 1, 2, 3, 4];
    cluster.order(&all);
    cluster.cut_off = vec![3];
    cluster.change(&all, 0, |change| change.remove = ids(&[1]));
    assert_eq!(cluster.cores[&0].roster().view().members(), ids(&[0, 2, 3, 4]));
    cluster.order(&[0, 2, 4]);
    assert_eq!((cluster.decided(0), cluster.decided(1)), (3, 2), "it has its last decision and no more");
    cluster.order(&[1]);
    assert_eq!(cluster.refused, [(1, Refusal::NotAMember)]);
    // Replica 3 knows nothing of the new view, and whom it hears of it from was removed.
    cluster.cut_off = vec![0, 2, 4];
    cluster.events.push_back((3, Event::LinkUp(ReplicaId(1))));
    cluster.settle();
    assert_eq!((cluster.view(3), cluster.decided(3)), (1, 2));
    // Votes of the removed one do not count: 0, 2 and 1 are no quorum of the new view.
    cluster.cut_off = vec![3, 4];
    cluster.order(&[0, 1, 2]);
    cluster.pass(10);
    assert_eq!(cluster.decided(0), 3);
    cluster.cut_off.clear();
    cluster.pass(10);
    for id in [0, 2, 3, 4] {
        assert_eq!((cluster.view(id), cluster.decided(id)), (1, 4), "replica {id}");
    }
    cluster.assert_honest();
}

#[test]
fn a_new_replica_starts_from_the_genesis_view_catches_up_and_votes() {
    let mut cluster = Cluster::new(genesis(FaultModel::Byzantine, 4));
    let joining = Joining { key: replica_key(4).public(), address: "h4:1".into() };
    cluster.start(4);
    cluster.order(&[0, 1, 2, 3]);
    cluster.change(&[0, 1, 2, 3], 0, |change| {
        change.remove = ids(&[2]);
        change.add = vec![joining];
    });
    cluster.order(&[0, 1, 3]);
    cluster.pass(3);
    assert_eq!((cluster.view(4), cluster.decided(4)), (1, 3));
    cluster.cut_off = vec![1];
    cluster.order(&[0, 3, 4]);
    cluster.pass(10);
    assert_eq!(cluster.decided(0), 4, "it takes the new one's votes to decide");
    assert!(cluster.decision(0, 4).proof.accepts.iter().any(|(replica, _)| *replica == ReplicaId(4)));
    cluster.assert_honest();
}

#[test]
fn an_offline_verifier_follows_the_chain_from_the_genesis_view() {
    let mut cluster = Cluster::new(genesis(FaultModel::Byzantine, 5));
    cluster.order(&[0, 1, 2, 3, 4]);
    cluster.change(&[0, 1, 2, 3, 4], 0, |change| change.remove = ids(&[4]));
    cluster.order(&[0, 1, 2, 3]);
    let joining = Joining { key: replica_key(9).public(), address: "h9:1".into() };
    cluster.change(&[0, 1, 2, 3], 0, |change| change.add = vec![joining]);
    cluster.order(&[0, 1, 2, 3]);
    let certificates = cluster.cores[&0].views().certificates(ViewNumber(0), 16);
    assert_eq!(certificates.len(), 2);
    let mut chain = ViewChain::new(cluster.genesis.clone());
    assert!(chain.follow(&certificates[1]).is_err(), "not before the first");
    for certificate in &certificates {
        assert_eq!(chain.follow(certificate), Ok(true));
        assert_eq!(chain.follow(certificate), Ok(false), "again");
    }
    assert_eq!(chain.roster(), cluster.cores[&0].roster());
    for (view, certificate) in (1..).zip(&certificates) {
        assert_eq!(chain.made_by(&certificate.proposal.requests[0]), Some(ViewNumber(view)));
    }
    assert_eq!(chain.made_by(&cluster.decision(0, 1).proposal.requests[0]), None);
    for instance in 1..=5 {
        let decision = cluster.decision(0, instance);
        assert_eq!(chain.verify(&decision.proof), Ok(()), "instance {instance}");
        // The same votes for an instance of another view.
        let mut moved = decision.proof.clone();
        moved.claim.regency.view = ViewNumber((moved.view().0 + 1) % 3);
        assert!(chain.verify(&moved).is_err());
    }
    // A decision without a change makes no view, and one of too few makes none either.
    let mut fresh = ViewChain::new(cluster.genesis.clone());
    assert!(fresh.follow(&cluster.decision(0, 1)).is_err());
    let mut thin = (*certificates[0]).clone();
    thin.proof.accepts.truncate(2);
    assert!(fresh.follow(&Arc::new(thin)).is_err());
    // Replicas of the first view that sign for an instance of the second prove nothing.
    let last = cluster.decision(0, 5);
    let mut claim = last.proof.claim;
    claim.regency = Regency::new(0, 7);
    let sign = |id: u16| {
        let bytes = steeldb_wire::codec::encode(&(claim.regency, last.instance(), claim.value));
        (ReplicaId(id), replica_key(id).sign(steeldb_wire::auth::Namespace::Accept, &bytes))
    };
    let proof = steeldb_ordering::Proof { claim, accepts: (0..5).map(sign).collect(), ..last.proof.clone() };
    assert!(proof.verify(&cluster.genesis).is_ok(), "well signed");
    assert!(chain.verify(&proof).unwrap_err().contains("another view"));
}

#[test]
fn the_view_survives_a_restart() {
    let mut cluster = Cluster::new(genesis(FaultModel::Byzantine, 5));
    let all = [0, 1, 2, 3, 4];
    cluster.change(&all, 0, |change| change.remove = ids(&[0]));
    cluster.order(&[1, 2, 3, 4]);
    for id in [1, 2, 3, 4] {
        cluster.start(id);
        assert_eq!((cluster.view(id), cluster.decided(id)), (1, 2));
        assert_eq!(cluster.views[&id].len(), 1, "the shell is told again");
    }
    cluster.order(&[1, 2, 3, 4]);
    assert_eq!(cluster.decided(3), 3);
    cluster.assert_honest();
}

#[test]
fn another_genesis_view_than_the_clusters_is_noticed_at_the_start_and_another_address_is_none() {
    let mut cluster = Cluster::new(genesis(FaultModel::Byzantine, 5));
    cluster.change(&[0, 1, 2, 3, 4], 0, |change| change.remove = ids(&[4]));
    let with = |genesis: Roster| {
        let mut config = Config::new(ReplicaId(0), genesis, replica_key(0), BTreeMap::new());
        config.administrators = vec![administrator().public()];
        let records = cluster.records[&0].clone();
        Core::new(config, Restored::new(InstanceNumber(0), records)).map(|core| core.roster().view().number())
    };
    let mut members = cluster.genesis.members().to_vec();
    members[3].address = "elsewhere:1".into();
    let moved = Roster::new(cluster.genesis.view().clone(), members.clone()).unwrap();
    assert_eq!(with(moved).ok(), Some(ViewNumber(1)));
    members[3].key = replica_key(77).public();
    let other = Roster::new(cluster.genesis.view().clone(), members).unwrap();
    assert!(with(other).is_err());
}

#[test]
fn a_regency_change_that_straddles_the_view_change_is_void() {
    let mut cluster = Cluster::new(genesis(FaultModel::Byzantine, 5));
    let all = [0, 1, 2, 3, 4];
    cluster.order(&all);
    // 3 and 4 hear nothing and suspect the leader: two STOPs, which is f + 1, wait for the others.
    cluster.cut_off = vec![3, 4];
    cluster.order(&[3, 4]);
    cluster.pass(6);
    cluster.change(&[0, 1, 2], 0, |change| change.heavy = Some(ids(&[1, 2])));
    assert_eq!((cluster.view(0), cluster.view(3)), (1, 0));
    let stop = Message::Stop { regency: Regency::new(0, 1), requests: vec![] };
    for from in [3, 4] {
        for to in [0, 1, 2] {
            let (from, message) = (ReplicaId(from), stop.clone());
            cluster.events.push_back((to, Event::Message { from, message }));
        }
    }
    cluster.settle();
    for id in [0, 1, 2] {
        assert_eq!(cluster.cores[&id].regency(), Regency::first(ViewNumber(1)), "old STOPs are of no view");
    }
    // Once they hear of the decision they are in the new view, where nothing is suspected yet, and what they hold is
    // ordered there.
    cluster.cut_off.clear();
    cluster.pass(8);
    for id in all {
        assert_eq!((cluster.view(id), cluster.decided(id)), (1, 3), "replica {id}");
    }
    cluster.assert_honest();
}

#[test]
fn the_new_view_begins_with_the_leader_that_the_change_names() {
    let mut cluster = Cluster::new(genesis(FaultModel::Byzantine, 4));
    cluster.cut_off = vec![0];
    cluster.order(&[1, 2, 3]);
    cluster.pass(8);
    assert_eq!((cluster.decided(1), cluster.cores[&1].leader()), (1, ReplicaId(1)));
    cluster.change(&[1, 2, 3], 1, |change| {
        change.move_to = vec![(ReplicaId(2), "new:1".into())];
        change.first_leader = Some(ReplicaId(1));
    });
    assert_eq!((cluster.view(1), cluster.cores[&1].leader()), (1, ReplicaId(1)));
    cluster.order(&[1, 2, 3]);
    assert_eq!(cluster.decided(1), 3, "without waiting for the one that is down");
    cluster.cut_off.clear();
    cluster.order(&[0, 1, 2, 3]);
    cluster.pass(3);
    assert_eq!((cluster.view(0), cluster.decided(0)), (1, 4));
    cluster.assert_honest();
}

#[test]
fn who_may_not_change_the_membership_is_refused() {
    let mut cluster = Cluster::new(genesis(FaultModel::Byzantine, 5));
    let all = [0, 1, 2, 3, 4];
    let mut change = Change::of(&cluster.genesis);
    change.remove = ids(&[4]);
    cluster.ask(&all, change.signed(&client()));
    let said = |refusal: &Refusal, what: &str| refusal.to_string().contains(what);
    assert!(cluster.refused.len() == 5 && said(&cluster.refused[0].1, "administrator"));
    cluster.refused.clear();
    let good = change.signed(&administrator());
    cluster.ask(&all, good.clone());
    assert_eq!(cluster.view(0), 1);
    cluster.ask(&[0, 1, 2, 3], good);
    assert!(cluster.refused.len() == 4 && said(&cluster.refused[0].1, "current one"), "no replay");
    assert_eq!(cluster.view(0), 1);
    cluster.assert_honest();
}

#[test]
fn a_change_that_waited_for_another_is_forgotten_and_blames_nobody() {
    let mut cluster = Cluster::new(genesis(FaultModel::Byzantine, 5));
    let mut one = Change::of(&cluster.genesis);
    one.remove = ids(&[4]);
    let mut other = Change::of(&cluster.genesis);
    other.heavy = Some(ids(&[2, 3]));
    for request in [one.signed(&administrator()), other.signed(&administrator())] {
        let request = Arc::new(request);
        for id in 0..5 {
            cluster.events.push_back((id, Event::Request(Arc::clone(&request))));
        }
    }
    cluster.settle();
    cluster.pass(10);
    assert_eq!((cluster.view(0), cluster.decided(0)), (1, 1));
    assert!(cluster.cores.values().all(|core| core.pending_requests() == 0));
    assert_eq!(cluster.cores[&0].regency(), Regency::first(ViewNumber(1)), "no leader was suspected");
    cluster.assert_honest();
}

#[test]
fn in_the_crash_model_three_replicas_go_on_with_two() {
    let mut cluster = Cluster::new(genesis(FaultModel::Crash, 3));
    cluster.order(&[0, 1, 2]);
    cluster.cut_off = vec![0];
    cluster.order(&[1, 2]);
    cluster.pass(8);
    assert_eq!((cluster.decided(1), cluster.decision(1, 2).proof.accepts.len()), (2, 2));
    let joining = Joining { key: replica_key(3).public(), address: "h3:1".into() };
    cluster.change(&[1, 2], 1, |change| {
        change.remove = ids(&[0]);
        change.add = vec![joining];
        change.first_leader = Some(ReplicaId(1));
    });
    cluster.start(3);
    cluster.order(&[1, 2, 3]);
    assert_eq!((cluster.view(3), cluster.decided(3)), (1, 4));
    cluster.assert_honest();
}
