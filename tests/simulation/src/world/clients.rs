//! What clients do: ask, ask again, and count answers.

use super::{Happening, World};
use crate::application::Reply;
use crate::scenario::{ClientFault, Fault};
use rand::Rng;
use rand::seq::IndexedRandom;
use std::sync::Arc;
use steeldb_ordering::{Event, Request, RequestKey};
use steeldb_types::{Digest, FaultModel, ReplicaId};

const RETRY_US: u64 = 400_000;
/// How often a faulty client asks.
const FAULTY_PAUSE_US: u64 = 60_000;
/// How many requests of a flood come at once.
const BURST: usize = 24;
const ANSWER_DELAY_MAX_US: u64 = 5_000;

impl World<'_> {
    /// A client asks for the current request of its session, and again later.
    pub(super) fn ask(&mut self, lane: usize, request: usize) {
        let Some(current) = self.workload.lanes.get(lane) else { return };
        match current.fault {
            None => self.ask_properly(lane, request),
            Some(fault) => self.ask_otherwise(lane, fault),
        }
    }

    fn ask_properly(&mut self, lane: usize, request: usize) {
        let current = self.workload.lanes.get(lane).filter(|lane| lane.next == request);
        let Some(asked) = current.and_then(|lane| lane.current()).cloned() else { return };
        let nodes = self.audience(lane);
        self.note(&format!("a client asks nodes {nodes:?} for {:?}", asked.key()));
        for node in nodes {
            self.request(node, &asked);
        }
        let retry_us = RETRY_US * if self.healed { 10 } else { 1 };
        self.at(self.now_us + retry_us, Happening::Ask { lane, request });
    }

    /// Whom a correct client reaches: now and then few, and after the faults perhaps a single correct replica.
    fn audience(&mut self, lane: usize) -> Vec<usize> {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        if let Some(script) = self.scenario.script.as_ref().filter(|_| !self.healed) {
            return all.into_iter().filter(|node| script.hears_client(*node, lane)).collect();
        }
        let correct = || all.iter().copied().filter(|node| !self.nodes[*node].faulty).collect();
        let some: Vec<usize> = if self.healed { correct() } else { all.clone() };
        match self.rng.random_range(0..3) {
            0 => some.choose(&mut self.rng).copied().into_iter().collect(),
            1 => some.into_iter().filter(|_| self.rng.random_bool(0.7)).collect(),
            _ => all,
        }
    }

    /// Some requests of a faulty client go to some replicas; as long as faults happen, and once more afterwards.
    fn ask_otherwise(&mut self, lane: usize, fault: ClientFault) {
        let requests = self.workload.lanes[lane].requests.clone();
        let nodes: Vec<usize> = (0..self.nodes.len()).collect();
        let mut asks: Vec<(usize, Arc<Request>)> = Vec::new();
        match fault {
            ClientFault::SomeReplicasOnly | ClientFault::WrongSignature => {
                let node = *nodes.choose(&mut self.rng).unwrap_or(&0);
                asks.extend(requests.choose(&mut self.rng).map(|request| (node, Arc::clone(request))));
            }
            ClientFault::TwoFaced => {
                for node in nodes {
                    let pair = 2 * self.rng.random_range(0..requests.len() / 2);
                    let face = pair + usize::from(self.rng.random_bool(0.5));
                    asks.push((node, Arc::clone(&requests[face])));
                }
            }
            ClientFault::Flood => {
                let from = self.rng.random_range(0..=requests.len() - BURST);
                for node in nodes {
                    let burst = requests[from..from + BURST].iter().rev();
                    asks.extend(burst.map(|request| (node, Arc::clone(request))));
                }
            }
        }
        self.note(&format!("a faulty client, {fault:?}, asks {} times", asks.len()));
        for (node, request) in asks {
            self.request(node, &request);
        }
        if !self.healed {
            self.at(self.now_us + FAULTY_PAUSE_US, Happening::Ask { lane, request: 0 });
        }
    }

    pub(super) fn request(&mut self, node: usize, request: &Arc<Request>) {
        if !self.ignores(node, request) {
            self.handle(node, Event::Request(Arc::clone(request)));
        }
    }

    /// A replica answers whoever waits for `key`.
    pub(super) fn reply(&mut self, at: usize, key: RequestKey) {
        let node = &self.nodes[at];
        if node.faulty && self.scenario.does(node.id, Fault::Silent) {
            return;
        }
        let Some(mut reply) = node.application.reply(&key) else { return };
        if node.adversaries.iter().any(|adversary| adversary.lies_to_clients()) {
            // All liars tell the same lie.
            reply = Reply { state: Digest([99; 32]), ..reply };
        }
        let from = node.id;
        if !self.healed && self.rng.random_bool(self.scenario.network.loss) {
            return;
        }
        let after_us = self.rng.random_range(100..ANSWER_DELAY_MAX_US);
        self.at(self.now_us + after_us, Happening::Answer { key, from, reply });
    }

    /// An answer reaches its client. In the crash model one is enough, otherwise f + 1 equal ones.
    pub(super) fn answer(&mut self, key: &RequestKey, from: ReplicaId, reply: Reply) {
        let needed = match self.scenario.model {
            FaultModel::Byzantine => usize::from(self.scenario.f()) + 1,
            FaultModel::Crash => 1,
        };
        let lanes = self.workload.lanes.iter_mut().enumerate();
        let mut waiting = lanes.filter(|(_, lane)| {
            lane.fault.is_none() && lane.current().is_some_and(|request| request.key() == *key)
        });
        let Some((index, lane)) = waiting.next() else { return };
        let Some(acknowledged) = lane.reply(from, reply, needed) else { return };
        let request = lane.next;
        self.note(&format!("{key:?} is acknowledged at {}", acknowledged.position));
        self.history.acknowledged.insert(*key, acknowledged);
        let after_us = self.rng.random_range(100..5_000);
        self.at(self.now_us + after_us, Happening::Ask { lane: index, request });
    }
}
