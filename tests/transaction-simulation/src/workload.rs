//! What clients want: transactions of a few statements over few rows, so that they meet.

use crate::scenario::Scenario;
use crate::sql::{Key, Statement, Value};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use steeldb_wire::transaction::Decision;

/// Rows that no transaction but one client's last one changes.
const PROBES: Key = 900;

/// What a client is to do in one transaction.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) statements: Vec<Statement>,
    /// All statements at once, or each after the answer to the one before.
    pub(crate) pipelined: bool,
    pub(crate) decision: Decision,
    /// It goes on after an error, from its last savepoint.
    pub(crate) persists: bool,
    pub(crate) read_only: bool,
    /// The longest pause before each statement, microseconds.
    pub(crate) pause_us: u64,
}

/// Where clients are kept apart, the rows of each begin so far behind those of the one before.
const APART: Key = 100;

/// The rows that are there from the start.
pub(crate) fn rows(scenario: &Scenario) -> BTreeMap<Key, Value> {
    let clients = scenario.clients.correct + scenario.clients.faulty.len() as u32;
    let probes = (0..clients).map(|client| PROBES + client);
    let groups = if scenario.keeps_clients_apart() { clients } else { 1 };
    let shared = (0..groups).flat_map(|of| (0..scenario.clients.keys).map(move |key| of * APART + key));
    shared.chain(probes).map(|key| (key, vec![10_000 + key])).collect()
}

/// A client's transaction, on rows of its own where clients are kept apart; nothing of it comes out otherwise on some
/// replica then.
pub(crate) fn plan_of(scenario: &Scenario, client: u32, rng: &mut ChaCha8Rng, tokens: &mut u32) -> Plan {
    let mut plan = plan(rng, scenario.clients.keys, tokens);
    if scenario.keeps_clients_apart() {
        let behind = client * APART;
        for statement in &mut plan.statements {
            *statement = match statement.clone() {
                Statement::Drift { key, token } => {
                    let key = key + behind;
                    Statement::Update { from: key, to: key, append: true, token }
                }
                Statement::Select { from, to, ordered, lock } => {
                    Statement::Select { from: from + behind, to: to + behind, ordered, lock }
                }
                Statement::Update { from, to, append, token } => {
                    Statement::Update { from: from + behind, to: to + behind, append, token }
                }
                Statement::Insert { key, token } => Statement::Insert { key: key + behind, token },
                Statement::Delete { from, to } => Statement::Delete { from: from + behind, to: to + behind },
                same => same,
            };
        }
    }
    plan
}

/// A client's last transaction, which meets nobody.
pub(crate) fn probe(client: usize, token: u32) -> Plan {
    let key = PROBES + client as u32;
    Plan {
        statements: vec![Statement::Update { from: key, to: key, append: true, token }],
        pipelined: false,
        decision: Decision::Commit,
        persists: false,
        read_only: false,
        pause_us: 1_000,
    }
}

/// A transaction; `tokens` counts what its client has written.
fn plan(rng: &mut ChaCha8Rng, keys: u32, tokens: &mut u32) -> Plan {
    let mut token = || {
        *tokens += 1;
        *tokens
    };
    let mut statements = Vec::new();
    let kind = rng.random_range(0..10);
    let key = |rng: &mut ChaCha8Rng| rng.random_range(0..keys);
    match kind {
        // Reads, then writes what it read.
        0..3 => {
            let key = key(rng);
            let lock = rng.random_bool(0.3);
            statements.push(Statement::Select { from: key, to: key, ordered: false, lock });
            statements.push(Statement::Update { from: key, to: key, append: true, token: token() });
        }
        // Reads alone.
        3..5 => {
            for _ in 0..rng.random_range(1..=3) {
                let ordered = rng.random_bool(0.5);
                statements.push(Statement::Select { from: 0, to: keys + 2, ordered, lock: false });
            }
            statements.push(Statement::Clock);
        }
        _ => {
            for _ in 0..rng.random_range(1..=4) {
                let at = key(rng);
                statements.push(match rng.random_range(0..12) {
                    0 => Statement::Drift { key: at, token: token() },
                    1..5 => Statement::Update { from: at, to: at, append: true, token: token() },
                    5 => Statement::Update { from: at, to: at, append: false, token: token() },
                    6 => Statement::Update { from: at, to: at + 1, append: true, token: token() },
                    7..9 => Statement::Insert { key: keys + rng.random_range(0..3), token: token() },
                    9 => Statement::Delete { from: keys, to: keys + rng.random_range(0..3) },
                    10 => Statement::Select { from: 0, to: keys + 2, ordered: true, lock: false },
                    _ => Statement::Select { from: at, to: at, ordered: false, lock: true },
                });
            }
        }
    }
    let savepoints = rng.random_bool(0.25);
    if savepoints {
        let at = rng.random_range(0..=statements.len());
        statements.insert(at, Statement::Savepoint("a".into()));
        match rng.random_range(0..3) {
            0 => {
                statements.push(Statement::RollbackTo("a".into()));
                let at = key(rng);
                statements.push(Statement::Update { from: at, to: at, append: true, token: token() });
            }
            1 => statements.push(Statement::Release("a".into())),
            _ => {}
        }
    }
    Plan {
        statements,
        pipelined: rng.random_bool(0.3),
        decision: if rng.random_bool(0.15) { Decision::Rollback } else { Decision::Commit },
        persists: savepoints,
        read_only: (3..5).contains(&kind) && rng.random_bool(0.5),
        pause_us: [500, 5_000, 100_000][rng.random_range(0..3)],
    }
}
