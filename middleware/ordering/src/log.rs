//! The decided log: where the total order has got to, and its last part in memory.

use crate::checkpoint::{CoreState, chain};
use crate::clients::{Clients, Execution, Place, Rules};
use crate::effect::{Delivery, RegistrationOutcome};
use crate::window::executed_at;
use crate::{Decision, InstanceNumber, Proof, Proposal, Request};
use std::collections::VecDeque;
use std::sync::Arc;
use steeldb_types::{Digest, Position, Timestamp};

/// When a batch counts as executed, and what of it is, where in the order.
type Batch = (Timestamp, Vec<(Position, Arc<Request>)>);

pub(crate) struct DecidedLog {
    last: InstanceNumber,
    last_timestamp: Timestamp,
    position: Position,
    /// The chained digest of all decided values.
    history: Digest,
    /// Proofs of the last instances, as many as may be in flight.
    last_proofs: VecDeque<Proof>,
    window: usize,
    tail: VecDeque<Arc<Decision>>,
    tail_bytes: usize,
    tail_bytes_max: usize,
}

impl DecidedLog {
    pub(crate) fn new(tail_bytes_max: usize, window: usize) -> DecidedLog {
        DecidedLog {
            last: InstanceNumber(0),
            last_timestamp: Timestamp(i64::MIN),
            position: Position(0),
            history: Digest::default(),
            last_proofs: VecDeque::new(),
            window: window.max(1),
            tail: VecDeque::new(),
            tail_bytes: 0,
            tail_bytes_max,
        }
    }

    pub(crate) fn next(&self) -> InstanceNumber {
        self.last.next()
    }

    /// Bytes of decided batches in memory.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.tail_bytes
    }

    pub(crate) fn last_timestamp(&self) -> Timestamp {
        self.last_timestamp
    }

    /// Proofs of the last instances, ascending: what STOPDATA shows.
    pub(crate) fn last_proofs(&self) -> Vec<Proof> {
        self.last_proofs.iter().cloned().collect()
    }

    pub(crate) fn position(&self) -> Position {
        self.position
    }

    pub(crate) fn history(&self) -> Digest {
        self.history
    }

    /// Goes on behind a checkpoint; `last` proves its instance and those before it.
    pub(crate) fn restart_at(&mut self, state: &CoreState, last: &[Proof]) {
        self.last = state.instance;
        self.last_timestamp = state.timestamp;
        self.position = state.position;
        self.history = state.history;
        self.last_proofs = last.iter().skip(last.len().saturating_sub(self.window)).cloned().collect();
        self.tail.clear();
        self.tail_bytes = 0;
    }

    /// Adds the next decision and numbers its requests. What was executed before is filtered out here, before
    /// anything is counted: a function of the decided order alone.
    pub(crate) fn append(
        &mut self,
        decision: Arc<Decision>,
        clients: &mut Clients,
        rules: Rules,
        executes_twice: bool,
    ) -> Delivery {
        let proposal = &decision.proposal;
        self.last = proposal.instance;
        // A batch that a later regency put before this one may be of a later time.
        self.last_timestamp = executed_at(self.last_timestamp, [proposal]);
        self.history = chain(self.history, self.last, decision.proof.claim.value);
        self.last_proofs.push_back(decision.proof.clone());
        if self.last_proofs.len() > self.window {
            self.last_proofs.pop_front();
        }
        let mut requests = Vec::with_capacity(proposal.requests.len());
        let mut registrations = Vec::new();
        let place = Place { now: self.last_timestamp, history: self.history };
        for request in &proposal.requests {
            match clients.execute(request, place, rules) {
                Execution::Registered(registered, gone) => {
                    let request = Arc::clone(request);
                    registrations.push(RegistrationOutcome { request, registered, gone });
                }
                Execution::Void if !executes_twice => {}
                Execution::Executed | Execution::Void => {
                    self.position = self.position.next();
                    requests.push((self.position, Arc::clone(request)));
                }
            }
        }
        let delivery = Delivery {
            instance: proposal.instance,
            regency: decision.proof.claim.regency,
            timestamp: self.last_timestamp,
            requests,
            registrations,
            proof: decision.proof.clone(),
        };
        self.tail_bytes += proposal.size_bytes();
        self.tail.push_back(decision);
        // The last one always stays: others are most likely to lack it.
        while self.tail_bytes > self.tail_bytes_max && self.tail.len() > 1 {
            if let Some(oldest) = self.tail.pop_front() {
                self.tail_bytes -= oldest.proposal.size_bytes();
            }
        }
        delivery
    }

    /// What [`append`](Self::append) would deliver of a proposal for the next instance: when, and which requests. Nothing
    /// where that cannot be told beforehand.
    pub(crate) fn preview(&self, proposal: &Arc<Proposal>, clients: &Clients) -> Option<Batch> {
        let executed = clients.preview(&proposal.requests)?;
        let mut position = self.position;
        let mut requests = Vec::with_capacity(executed.len());
        for request in executed {
            position = position.next();
            requests.push((position, request));
        }
        Some((executed_at(self.last_timestamp, [proposal]), requests))
    }

    /// Decisions from `from` on, at most so many bytes (at least one), and whether there are more. Nothing: they are
    /// no longer in memory.
    pub(crate) fn read(
        &self,
        from: InstanceNumber,
        bytes_max: usize,
        count_max: usize,
    ) -> Option<(Vec<Arc<Decision>>, bool)> {
        let first = self.tail.front().map_or(self.next(), |decision| decision.instance());
        let skip = usize::try_from(from.0.checked_sub(first.0)?).ok()?;
        let mut bytes = 0;
        let decisions: Vec<_> = self
            .tail
            .iter()
            .skip(skip)
            .take(count_max)
            .take_while(|decision| {
                let first = bytes == 0;
                bytes += decision.proposal.size_bytes();
                first || bytes <= bytes_max
            })
            .cloned()
            .collect();
        let more = decisions.last().is_some_and(|decision| decision.instance() < self.last);
        Some((decisions, more))
    }
}
