//! Whom a replica asks that has heard of decisions which it does not have, while nothing else happens: one replica, driven
//! by hand.

use std::collections::{BTreeMap, BTreeSet};
use steeldb_ordering::{
    AcceptAll, Claim, Config, Core, Effect, Event, InstanceNumber, Message, Now, Regency, Restored, Roster,
};
use steeldb_types::{Digest, ReplicaId, Timestamp, View};
use steeldb_wire::auth::SecretKey;

/// Questions for one claim past which it is taken for a lie: far more than it takes to ask each of the others twice.
const QUESTIONS_MAX: usize = 100;

/// Replica 1 of 4, and whom it asked for decisions.
struct Replica {
    core: Core,
    asked: Vec<ReplicaId>,
    now_us: u64,
}

impl Replica {
    fn new() -> Replica {
        let keys: Vec<SecretKey> = (0..4u8).map(|i| SecretKey::from_seed(&[i; 32])).collect();
        let publics = keys.iter().map(SecretKey::public).collect();
        let roster = Roster::of_keys(View::of_size(4).unwrap(), publics).unwrap();
        let config = Config::new(ReplicaId(1), roster, keys[1].clone(), BTreeMap::new());
        let core = Core::new(config, Restored::new(InstanceNumber(0), Vec::new())).unwrap();
        Replica { core, asked: Vec::new(), now_us: 0 }
    }

    fn event(&mut self, event: Event) {
        let now = Now { monotonic_us: self.now_us, wall: Timestamp(self.now_us as i64) };
        self.core.handle(now, event, &AcceptAll);
        while let Some(effect) = self.core.poll_effect() {
            if let Effect::Send { to, message: Message::FetchDecisions { .. } } = effect {
                self.asked.push(to);
            }
        }
    }

    /// Hears a vote in a later instance: whoever casts it seems to have decided those before.
    fn hears_of(&mut self, instance: u64, from: u16) {
        let claim = Claim { regency: Regency::default(), value: Digest([7; 32]) };
        let message = Message::Write { instance: InstanceNumber(instance), claim };
        self.event(Event::Message { from: ReplicaId(from), message });
    }

    /// Until no timer is left, or after so many questions.
    fn waits(&mut self) {
        while let Some(due) = self.core.next_timeout()
            && self.asked.len() < QUESTIONS_MAX
        {
            self.now_us = self.now_us.max(due);
            self.event(Event::Tick);
        }
    }
}

#[test]
fn when_the_only_one_known_to_be_ahead_stays_silent_the_others_are_asked() {
    let mut replica = Replica::new();
    replica.hears_of(1_000, 2);
    replica.waits();
    assert_eq!(replica.asked.first(), Some(&ReplicaId(2)));
    let asked: BTreeSet<ReplicaId> = replica.asked.iter().copied().collect();
    assert_eq!(asked, BTreeSet::from([ReplicaId(0), ReplicaId(2), ReplicaId(3)]));
    // An answer may be lost with the link that it came over.
    let times = |peer: u16| replica.asked.iter().filter(|asked| **asked == ReplicaId(peer)).count();
    assert!([0, 2, 3].into_iter().all(|peer| times(peer) > 1), "{:?}", replica.asked);
}

#[test]
fn a_lie_about_being_ahead_costs_questions_that_end() {
    let mut replica = Replica::new();
    replica.hears_of(u64::MAX, 2);
    replica.waits();
    let once = replica.asked.len();
    assert!(once < QUESTIONS_MAX, "{:?}", replica.asked);
    assert_eq!(replica.core.next_timeout(), None);
    // What others say later is asked for all the same.
    replica.hears_of(1_000, 0);
    replica.waits();
    assert_eq!(replica.asked.get(once), Some(&ReplicaId(0)));
}
