//! A client: a shim's core, what it is to do, and what it was shown.

use crate::scenario::{ClientFault, MASTER, Scenario};
use crate::sql::Statement;
use crate::workload::{self, Plan};
use crate::world::{DATABASE, ROLE};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use steeldb_client_shim::{Completion, Core, CoreConfig, Modes, NewOperation, OperationFlags, Waiting};
use steeldb_replica::scheduler::ClientRights;
use steeldb_types::{ClientId, ReplicaId, SessionId, SessionKey, Term, TxId, View};
use steeldb_wire::auth::SecretKey;
use steeldb_wire::transaction::{OperationKind, StatementText};

/// How often a client's last transaction is tried.
const PROBES_MAX: u32 = 12;

/// A statement that a client ran, and what it was shown.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The statement.
    pub statement: Statement,
    /// The answer so far.
    pub messages: Vec<u8>,
    /// The answer is complete.
    pub complete: bool,
}

/// How a transaction ended for its client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// As the shim says.
    Finished(Result<Completion, String>),
    /// With its session.
    Lost,
}

/// A transaction as its client saw it.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Which.
    pub tx: TxId,
    /// Its statements, in their order.
    pub shown: Vec<Shown>,
    /// SteelDB itself failed a statement: nothing is vouched for.
    pub broken: bool,
    /// When it began, virtual microseconds.
    pub began_us: u64,
    /// When it ended.
    pub ended_us: Option<u64>,
    /// How.
    pub ended: Option<Ended>,
}

/// What a client does now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// It has no session.
    Out,
    Opening,
    /// Between transactions.
    Idle,
    /// It has asked what became of a transaction.
    Asking,
    Running,
    Finishing,
    /// It has done what it had to do.
    Done,
    /// A faulty one is gone for good.
    Away,
}

pub(crate) struct Client {
    index: usize,
    key: Arc<SecretKey>,
    view: View,
    pub(crate) fault: Option<ClientFault>,
    pub(crate) core: Option<Core>,
    sessions: u64,
    plans: Vec<Plan>,
    /// The plan that runs, and its next statement.
    pub(crate) plan: Option<Plan>,
    pub(crate) next_statement: usize,
    /// Statements sent and not answered.
    pub(crate) unanswered: usize,
    /// A statement failed.
    pub(crate) failed: bool,
    /// It went on once from its savepoint.
    pub(crate) recovered: bool,
    pub(crate) attempt: Option<Attempt>,
    /// Transactions whose end it was not told.
    doubts: Vec<TxId>,
    /// The last number of its session, and the transaction that it asks for.
    counter: u64,
    pub(crate) asked: Option<TxId>,
    pub(crate) state: State,
    pub(crate) up: BTreeSet<ReplicaId>,
    /// The newest master's term that f + 1 replicas spoke of, and the newest that each did.
    term: Term,
    said: BTreeMap<ReplicaId, Term>,
    pub(crate) moves: u64,
    pub(crate) alarms: u64,
    pub(crate) waiting: Option<(Waiting, u64)>,
    tokens: u32,
    probes: u32,
    probed: bool,
    probing: bool,
    /// Whether its last transaction has to commit.
    must_commit: bool,
}

impl Client {
    /// The clients of a scenario.
    pub(crate) fn all(scenario: &Scenario, view: &View, rng: &mut ChaCha8Rng) -> Vec<Client> {
        let correct = (0..scenario.clients.correct).map(|_| None);
        let faults = correct.chain(scenario.clients.faulty.iter().copied().map(Some));
        faults.enumerate().map(|(index, fault)| Client::new(scenario, view, index, fault, rng)).collect()
    }

    fn new(
        scenario: &Scenario,
        view: &View,
        index: usize,
        fault: Option<ClientFault>,
        rng: &mut ChaCha8Rng,
    ) -> Client {
        let mut tokens = index as u32 * 1_000;
        let count = if fault.is_some() { 12 } else { scenario.clients.transactions };
        let plan = |_| workload::plan_of(scenario, index as u32, rng, &mut tokens);
        let plans = (0..count).map(plan).rev().collect();
        Client {
            index,
            key: Arc::new(SecretKey::from_seed(&[100 + index as u8; 32])),
            view: view.clone(),
            fault,
            core: None,
            sessions: 0,
            plans,
            plan: None,
            next_statement: 0,
            unanswered: 0,
            failed: false,
            recovered: false,
            attempt: None,
            doubts: Vec::new(),
            counter: 0,
            asked: None,
            state: State::Out,
            up: BTreeSet::new(),
            term: Term::first(MASTER),
            said: BTreeMap::new(),
            moves: 0,
            alarms: 0,
            waiting: None,
            tokens,
            probes: 0,
            probed: false,
            probing: false,
            must_commit: scenario.has_a_way_out(),
        }
    }

    pub(crate) fn id(&self) -> ClientId {
        ClientId(self.index as u32 + 1)
    }

    pub(crate) fn key(&self) -> &SecretKey {
        &self.key
    }

    pub(crate) fn rights(&self) -> (ClientId, ClientRights) {
        let rights = ClientRights {
            key: self.key.public(),
            databases: vec![DATABASE.into()],
            roles: vec![ROLE.into()],
        };
        (self.id(), rights)
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, State::Done | State::Away)
    }

    pub(crate) fn is_away(&self) -> bool {
        self.state == State::Away
    }

    pub(crate) fn state(&self) -> String {
        let tx = self.attempt.as_ref().map(|attempt| attempt.tx);
        let waits = self.core.as_ref().and_then(Core::waiting);
        format!("{:?} {tx:?} waits for {waits:?}, {} of {PROBES_MAX} probes", self.state, self.probes)
    }

    /// Opens a new session.
    pub(crate) fn open(&mut self, client_bug: impl FnOnce(&mut CoreConfig)) {
        self.sessions += 1;
        self.counter = 0;
        let session = SessionKey { client: self.id(), session: SessionId(self.sessions) };
        let mut config = CoreConfig {
            view: self.view.clone(),
            master: self.term.master,
            epoch: self.term.epoch,
            session,
            key: self.key.clone(),
            database: DATABASE.into(),
            role: ROLE.into(),
            parameters: Vec::new(),
            backends: true,
            bulk_bytes_max: steeldb_types::limits::BULK_BYTES_MAX,
            #[cfg(feature = "planted-bugs")]
            planted_bug: None,
        };
        client_bug(&mut config);
        let up = self.up.clone();
        self.core = Some(Core::new(config, |replica| up.contains(&replica)));
        self.state = State::Opening;
    }

    /// Begins the next transaction, or has nothing more to do. `healed`: the faults are over, and the last one may run.
    pub(crate) fn begin(&mut self, healed: bool, now_us: u64) {
        let plan = match self.plans.pop() {
            Some(plan) => Some(plan),
            None if !healed || self.fault.is_some() => return,
            None if self.probed || self.probes >= PROBES_MAX => None,
            None => {
                self.probes += 1;
                self.probing = true;
                self.tokens += 1;
                Some(workload::probe(self.index, self.tokens))
            }
        };
        let Some(core) = &mut self.core else { return };
        let Some(plan) = plan else {
            core.close();
            self.state = State::Done;
            return;
        };
        core.begin(Modes { read_only: plan.read_only, ..Modes::default() });
        let Some(tx) = core.tx() else { return };
        self.counter = tx.counter;
        self.attempt = Some(Attempt {
            tx,
            shown: Vec::new(),
            broken: false,
            began_us: now_us,
            ended_us: None,
            ended: None,
        });
        self.plan = Some(plan);
        (self.next_statement, self.unanswered) = (0, 0);
        (self.failed, self.recovered) = (false, false);
        self.state = State::Running;
    }

    /// A replica says which term runs: the driver's rule. The epochs that it knows of from now on.
    pub(crate) fn term_said(&mut self, from: ReplicaId, term: Term) -> Option<RangeInclusive<u64>> {
        if self.said.get(&from).is_some_and(|said| said.epoch > term.epoch) {
            return None;
        }
        self.said.insert(from, term);
        let alike = self.said.values().filter(|said| **said == term).count();
        let heard = self.term.epoch + 1..=term.epoch;
        if heard.is_empty() || alike <= usize::from(self.view.f()) {
            return None;
        }
        self.term = term;
        if let Some(core) = &mut self.core {
            core.begin_term(term);
        }
        Some(heard)
    }

    /// What it asks for before its next transaction, if anything: what is in doubt, or now and then that very transaction,
    /// which is void then. One that misbehaves asks for anybody's.
    pub(crate) fn question(&mut self, healed: bool, rng: &mut ChaCha8Rng) -> Option<TxId> {
        if self.fault == Some(ClientFault::Impostor) && rng.random_bool(0.5) {
            let client = ClientId(rng.random_range(1..=4));
            let session = SessionKey { client, session: SessionId(rng.random_range(1..3)) };
            return Some(TxId { session, counter: rng.random_range(1..6) });
        }
        let session = SessionKey { client: self.id(), session: SessionId(self.sessions) };
        let next = TxId { session, counter: self.counter + 1 };
        self.doubts.pop().or_else(|| (!healed && rng.random_bool(0.03)).then_some(next))
    }

    /// Asks what became of a transaction.
    pub(crate) fn ask(&mut self, tx: TxId) {
        if let Some(core) = &mut self.core {
            self.asked = Some(tx);
            self.state = State::Asking;
            core.ask(tx);
        }
    }

    /// Sends a statement.
    pub(crate) fn send(&mut self, statement: Statement, rng: &mut ChaCha8Rng) {
        let (Some(core), Some(attempt)) = (&mut self.core, &mut self.attempt) else { return };
        let text = StatementText { sql: statement.to_string(), parameter_types: vec![] };
        let flags = OperationFlags {
            row_order: statement.is_ordered(),
            must_vote: statement.locks(),
            writes: !matches!(statement, Statement::Select { .. } | Statement::Clock),
            ..OperationFlags::default()
        };
        attempt.shown.push(Shown { statement, messages: Vec::new(), complete: false });
        self.unanswered += 1;
        core.operation(NewOperation {
            text: Arc::new(text),
            keep: rng.random_bool(0.5),
            kind: OperationKind::Execute { bind: vec![0; 6] },
            flags,
        });
    }

    /// Its transaction has ended.
    pub(crate) fn end(&mut self, ended: Ended, now_us: u64) -> Option<Attempt> {
        if self.probing {
            self.probing = false;
            let committed = matches!(ended, Ended::Finished(Ok(Completion::Committed(Some(_)))));
            self.probed |= committed || !self.must_commit;
        }
        self.plan = None;
        let mut attempt = self.attempt.take()?;
        let in_doubt = matches!(&ended, Ended::Finished(Err(sqlstate)) if sqlstate == "08007");
        if in_doubt || ended == Ended::Lost {
            self.doubts.push(attempt.tx);
        }
        (attempt.ended_us, attempt.ended) = (Some(now_us), Some(ended));
        Some(attempt)
    }

    /// Its session is lost; what it would have done next counts as done if it had none.
    pub(crate) fn lost(&mut self, healed: bool) {
        let idle = self.attempt.is_none();
        self.core = None;
        self.waiting = None;
        self.asked = None;
        self.state = State::Out;
        if idle && healed {
            // Nobody is there to do it with.
            if self.plans.pop().is_none() {
                self.probes += 1;
                self.probed |= !self.must_commit;
                if self.probed || self.probes >= PROBES_MAX {
                    self.state = State::Done;
                }
            }
        }
    }

    /// Whether its last transaction was tried before.
    pub(crate) fn is_probing(&self) -> bool {
        self.probes > 0 && !self.probed
    }

    /// Whether its last transaction committed, where it had to.
    pub(crate) fn probe_failed(&self) -> bool {
        self.fault.is_none() && self.must_commit && !self.probed
    }

    /// What a client that misbehaves is after next: it starts anew without a word.
    pub(crate) fn vanish(&mut self) {
        self.core = None;
        self.attempt = None;
        self.plan = None;
        self.waiting = None;
        self.state = State::Out;
    }
}
