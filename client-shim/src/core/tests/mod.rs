//! The core against replicas in the same process (see `testing`): what the application is told, and what is sent.

mod doubt;
mod liars;
mod operations;
mod ordered;
mod outcomes;
mod resuming;
mod sessions;
mod verification;

use super::*;
use crate::testing::{FakeCluster, Lie, message};
use steeldb_types::{ClientId, SessionId, Slot, Term, Timestamp};
use steeldb_wire::transaction::{AbortReason, Outcome, SqlState};

struct World {
    core: Core,
    cluster: FakeCluster,
    events: Vec<Event>,
    /// Messages to these replicas are kept back.
    cut: Vec<ReplicaId>,
}

/// COPY data that a transaction may have here.
const BULK_BYTES_MAX: u64 = 1024 * 1024;

impl World {
    fn with(cluster: FakeCluster) -> World {
        let config = CoreConfig {
            view: cluster.view(),
            master: ReplicaId(0),
            epoch: 0,
            session: SessionKey { client: ClientId(1), session: SessionId(7) },
            key: Arc::new(SecretKey::from_seed(&[3; 32])),
            database: "db".into(),
            role: "app".into(),
            parameters: vec![("application_name".into(), "test".into())],
            backends: true,
            bulk_bytes_max: BULK_BYTES_MAX,
            #[cfg(feature = "planted-bugs")]
            planted_bug: None,
        };
        let mut world =
            World { core: Core::new(config, |_| true), cluster, events: Vec::new(), cut: Vec::new() };
        world.settle();
        world
    }

    fn new() -> World {
        let mut world = World::with(FakeCluster::new(4));
        assert!(matches!(world.events.remove(0), Event::Opened { .. }));
        world
    }

    /// Delivers all messages until nothing moves.
    fn settle(&mut self) {
        while let Some(transmit) = self.core.poll_transmit() {
            for to in transmit.to {
                if self.cut.contains(&to) {
                    continue;
                }
                for (from, answer) in self.cluster.deliver(to, transmit.message.clone()) {
                    self.core.receive(from, answer);
                }
            }
        }
        while let Some(event) = self.core.poll_event() {
            if let Event::Result { messages, .. } = &event {
                self.core.consumed(messages.len());
            }
            self.events.push(event);
        }
        if self.core.transmits.front().is_some() {
            self.settle();
        }
    }

    fn add(&mut self, sql: &str, flags: OperationFlags) -> u32 {
        let text = Arc::new(StatementText { sql: sql.into(), parameter_types: vec![] });
        let bind = vec![0, 0, 0, 0, 0, 0];
        let kind = match sql.starts_with("COPY t FROM") {
            true => OperationKind::CopyIn { bind },
            false => OperationKind::Execute { bind },
        };
        self.core.operation(NewOperation { text, keep: true, kind, flags })
    }

    fn run(&mut self, sql: &str) -> Vec<Event> {
        self.add(sql, OperationFlags::default());
        self.settle();
        std::mem::take(&mut self.events)
    }

    fn finish(&mut self, decision: Decision) -> Result<Completion, ShimError> {
        self.core.finish(decision);
        self.settle();
        self.finished().expect("no end of the transaction")
    }

    fn finished(&mut self) -> Option<Result<Completion, ShimError>> {
        std::mem::take(&mut self.events).into_iter().find_map(|event| match event {
            Event::Finished(result) => Some(result),
            _ => None,
        })
    }

    fn transaction(&mut self, statements: &[&str]) {
        self.core.begin(Modes::default());
        for sql in statements {
            self.run(sql);
        }
    }

    fn heard(&mut self, replica: u16, is: impl Fn(&ClientMessage) -> bool) -> usize {
        self.cluster.replica(replica).heard.iter().filter(|message| is(message)).count()
    }

    fn ordered(&self, is: impl Fn(&Ordered) -> bool) -> usize {
        self.cluster.ordered.iter().filter(|ordered| is(ordered)).count()
    }
}

fn code(result: Result<Completion, ShimError>) -> String {
    result.expect_err("an error").sqlstate.to_string()
}

fn shown(events: &[Event]) -> Vec<u8> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Result { messages, .. } => Some(messages.to_vec()),
            _ => None,
        })
        .collect::<Vec<_>>()
        .concat()
}
