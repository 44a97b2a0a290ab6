//! The core alone: four replicas in one thread, no network and no disk, signed requests; operations per second at
//! different numbers of clients and windows. One operation costs one verification on each of the four replicas, all counted here.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use steeldb_ordering::{AcceptAll, Config, Core, Effect, Event, Now, Request, RequestId, Restored, Roster};
use steeldb_types::{ClientId, ReplicaId, SessionId, SessionKey, Timestamp, View};
use steeldb_wire::auth::SecretKey;

struct Cluster {
    cores: Vec<Core>,
    events: VecDeque<(usize, Event)>,
    delivered: usize,
    wall: i64,
}

impl Cluster {
    fn new(client: &SecretKey, window: usize) -> Cluster {
        let view = View::of_size(4).expect("four replicas");
        let keys: Vec<SecretKey> = (0..4u8).map(|i| SecretKey::from_seed(&[i; 32])).collect();
        let clients = BTreeMap::from([(ClientId(1), client.public())]);
        let publics = keys.iter().map(SecretKey::public).collect();
        let roster = Roster::of_keys(view.clone(), publics).expect("a key each");
        let core = |(me, key): (ReplicaId, &SecretKey)| {
            let mut config = Config::new(me, roster.clone(), key.clone(), clients.clone());
            config.window = window;
            Core::new(config, Restored::nothing()).expect("a good configuration")
        };
        let cores = view.replicas().zip(&keys).map(core).collect();
        Cluster { cores, events: VecDeque::new(), delivered: 0, wall: 0 }
    }

    /// Orders `requests`, given to every replica at once; ends when all replicas have delivered all.
    fn order(&mut self, requests: &[Arc<Request>]) {
        self.delivered = 0;
        self.wall += 1;
        for request in requests {
            self.events.extend((0..4).map(|replica| (replica, Event::Request(Arc::clone(request)))));
        }
        while let Some((me, event)) = self.events.pop_front() {
            let now = Now { monotonic_us: 0, wall: Timestamp(self.wall) };
            self.cores[me].handle(now, event, &AcceptAll);
            while let Some(effect) = self.cores[me].poll_effect() {
                self.run(me, effect);
            }
        }
        assert_eq!(self.delivered, 4 * requests.len());
    }

    fn run(&mut self, me: usize, effect: Effect) {
        let from = ReplicaId(me as u16);
        match effect {
            Effect::Persist { sequence, .. } => {
                self.events.push_back((me, Event::Persisted { upto: sequence }));
            }
            Effect::Send { to, message } => {
                self.events.push_back((usize::from(to.0), Event::Message { from, message }));
            }
            Effect::Broadcast { message } => {
                let others = (0..4).filter(|to| *to != me);
                self.events.extend(others.map(|to| (to, Event::Message { from, message: message.clone() })));
            }
            Effect::Deliver(delivery) => self.delivered += delivery.requests.len(),
            _ => {}
        }
    }
}

fn ordering(criterion: &mut Criterion) {
    let client = SecretKey::from_seed(&[9; 32]);
    let mut group = criterion.benchmark_group("ordering");
    group.sample_size(10);
    for (clients, window) in [(1u64, 1), (50, 1), (50, 2), (50, 4), (50, 8), (400, 1), (400, 8)] {
        group.throughput(Throughput::Elements(clients));
        let name = BenchmarkId::new(format!("signed requests at once, window {window}"), clients);
        group.bench_function(name, |bencher| {
            let mut cluster = Cluster::new(&client, window);
            let mut sequence = 0;
            bencher.iter_batched(
                || {
                    sequence += 1;
                    let request = |session| {
                        let session = SessionKey { client: ClientId(1), session: SessionId(session) };
                        Arc::new(Request::signed(RequestId { session, sequence }, vec![0; 64], &client))
                    };
                    (1..=clients).map(request).collect::<Vec<_>>()
                },
                |requests| cluster.order(&requests),
                criterion::BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, ordering);
criterion_main!(benches);
