//! Small-scope exhaustive scenarios (Bano et al., Twins: BFT Systems Made Robust, OPODIS 2021): one of four replicas
//! runs twice under one identity, and in each of the first regencies the five nodes fall into groups that cannot hear
//! each other. Every choice of these, but for what symmetry makes equal, is a scenario.
//!
//! What happens within a regency is scripted by these choices alone: messages take equally long, none is lost inside
//! a group, STOPs reach everyone so that regencies follow each other. Each twin hears another client, so that a
//! twinned leader proposes two batches. After the last scripted regency all nodes hear each other, and liveness is
//! demanded.

mod generator;

pub use generator::{Generator, Scope};

use crate::scenario::{Clients, Clocks, Fault, Network, Power, Scenario};
use steeldb_ordering::{Message, Regency};
use steeldb_types::{FaultModel, ReplicaId};

/// Replicas.
const N: u16 = 4;
/// The nodes: four replicas and the twin of one of them.
pub(crate) const NODES: usize = N as usize + 1;
/// The replica that runs twice. Which regencies it leads is the first leader's choice.
const TWINNED: ReplicaId = ReplicaId(0);

/// Who can talk to whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Script {
    /// The scenario's number.
    pub number: u64,
    /// The leader of regency 0; the others follow in turn.
    pub first_leader: ReplicaId,
    /// By regency, the nodes' groups: by node, its group's number.
    pub groups: Vec<[u8; NODES]>,
}

impl Script {
    /// Whether a message gets through before all is healed.
    pub(crate) fn passes(&self, from: usize, to: usize, message: &Message) -> bool {
        let Some(regency) = regency_of(message) else { return true };
        let Some(groups) = usize::try_from(regency.number).ok().and_then(|number| self.groups.get(number))
        else {
            return true;
        };
        groups[from] == groups[to]
    }

    /// Whether a node hears the client of a lane: of the twins, each another one.
    pub(crate) fn hears_client(&self, node: usize, lane: usize) -> bool {
        match node {
            0 => lane.is_multiple_of(2),
            4 => !lane.is_multiple_of(2),
            _ => true,
        }
    }

    /// The scenario that plays the script.
    pub fn scenario(&self) -> Scenario {
        Scenario {
            seed: self.number,
            model: FaultModel::Byzantine,
            n: N,
            faulty: vec![(TWINNED, vec![Fault::Twins])],
            // All scripted regencies come to an end: time-outs double with each, from twice 0.2 s on.
            faults_us: 1_000_000 << self.groups.len(),
            network: Network {
                loss: 0.0,
                accepts_lost: 0.0,
                duplication: 0.0,
                delay_max_us: 1_000,
                in_order: true,
                encoded: false,
                partitions: 0,
                one_way_partitions: 0,
            },
            power: Power {
                crashes: 0,
                blackouts: 0,
                restarts_of_all: 0,
                away: None,
                disk_max_us: 60,
                slow_disk: None,
            },
            clocks: Clocks { skew_max_us: 0, drift_max_ppm: 0 },
            clients: Clients { sessions: 2, requests_per_session: 1, certified: 0, faulty: Vec::new() },
            window: 1,
            checkpoints: None,
            membership: None,
            ambush: None,
            script: Some(self.clone()),
            #[cfg(feature = "planted-bugs")]
            planted_bug: None,
        }
    }
}

/// The regency whose groups a message belongs to; nothing: it always gets through.
fn regency_of(message: &Message) -> Option<Regency> {
    match message {
        Message::Propose { regency, .. } | Message::Sync { regency, .. } => Some(*regency),
        Message::Write { claim, .. } | Message::Accept { claim, .. } => Some(claim.regency),
        Message::StopData { data, .. } => Some(data.data.regency),
        // Who decided and who did not is for the regencies to settle: no help around them.
        Message::Decisions { decisions, .. } => {
            decisions.first().map(|decision| decision.proof.claim.regency)
        }
        _ => None,
    }
}
