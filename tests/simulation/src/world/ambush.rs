//! Ambushes: what goes wrong at the worst moment, see [`AmbushKind`]. Each is something that a network and a power supply
//! may do; only the timing is malice.

use super::World;
use crate::scenario::AmbushKind;
use crate::views::Views;
use rand::Rng;
use std::collections::BTreeSet;
use steeldb_ordering::{Claim, Delivery, InstanceNumber, Message, Regency};
use steeldb_types::{FaultModel, ReplicaId};

/// The longest way of a late WRITE once it is let go, microseconds.
const RELEASED_DELAY_MAX_US: u64 = 1_000;

/// How far an ambush has got.
#[derive(Default)]
pub(super) struct State {
    /// Bit i: node i hears nobody, and nobody hears it.
    cut_off: u32,
    /// ACCEPTs of this regency and those before no longer arrive.
    stopped: Option<Regency>,
    /// Nor do WRITEs.
    writes_stopped: bool,
    /// WRITEs that are late: from, to, which.
    late: Vec<(usize, usize, Message)>,
    /// The late ones have been let go.
    released: bool,
    sprung: bool,
}

impl State {
    /// Nothing will happen any more.
    pub(super) fn over() -> State {
        State { released: true, sprung: true, ..State::default() }
    }
}

impl World<'_> {
    fn waits_for(&self, instance: InstanceNumber) -> Option<AmbushKind> {
        let ambush = self.scenario.ambush.filter(|_| !self.ambush.sprung)?;
        (ambush.instance == instance.0).then_some(ambush.kind)
    }

    /// What is left of a message that is on its way: nothing when it is stopped, or late.
    pub(super) fn pass_ambush(&mut self, from: usize, to: usize, message: Message) -> Option<Message> {
        let Some(ambush) = self.scenario.ambush else { return Some(message) };
        let (is_write, instance, regency) = match &message {
            Message::Write { instance, claim } => (true, *instance, claim.regency),
            Message::Accept { instance, claim, .. } => (false, *instance, claim.regency),
            _ if self.is_cut_off(from) || self.is_cut_off(to) => return None,
            _ => return Some(message),
        };
        let concerned = instance.0 >= ambush.instance;
        let deaf = ambush.kind == AmbushKind::PowerLoss && !self.ambush.sprung && to == self.deaf_one();
        if self.is_cut_off(from) || self.is_cut_off(to) || self.is_stopped(&message) || (deaf && concerned) {
            return None;
        }
        let lates = matches!(ambush.kind, AmbushKind::LateWrites | AmbushKind::Relapse);
        if lates && !self.ambush.released && is_write && concerned && regency.number == 0 {
            self.ambush.late.push((from, to, message));
            return None;
        }
        Some(message)
    }

    fn is_cut_off(&self, node: usize) -> bool {
        self.ambush.cut_off >> node & 1 == 1
    }

    /// Whether votes of its regency no longer arrive, those that are on their way included.
    pub(super) fn is_stopped(&self, message: &Message) -> bool {
        let Some(regency) = self.ambush.stopped else { return false };
        match message {
            Message::Accept { claim, .. } => claim.regency <= regency,
            Message::Write { claim, .. } => self.ambush.writes_stopped && claim.regency <= regency,
            _ => false,
        }
    }

    /// Who hears of no vote: the last correct replica.
    fn deaf_one(&self) -> usize {
        self.nodes.iter().rposition(|node| !node.faulty).unwrap_or(0)
    }

    /// A correct replica delivers.
    pub(super) fn ambush_decision(&mut self, at: usize, delivery: &Delivery) {
        let Some(kind) = self.waits_for(delivery.instance) else { return };
        if self.ambush.stopped.is_some() {
            return;
        }
        self.note(&format!("ambush: node {at} has decided"));
        self.ambush.sprung = true;
        self.ambush.stopped = Some(delivery.proof.claim.regency);
        self.ambush.cut_off = 1 << at;
        match kind {
            AmbushKind::Blackout => {
                let others = self.correct_nodes().filter(|node| *node != at).collect();
                self.power_fails(self.now_us, others);
            }
            AmbushKind::PowerLoss => {
                let signers = delivery.proof.accepts.iter().map(|(replica, _)| *replica);
                let signers: BTreeSet<ReplicaId> = signers.collect();
                let with_it = self.correct_nodes().filter(|node| *node != at);
                let with_it = with_it.filter(|node| signers.contains(&self.nodes[*node].id));
                self.ambush.cut_off = with_it.fold(0, |cut_off, node| cut_off | 1 << node);
                self.power_fails(self.now_us, vec![at]);
            }
            AmbushKind::CutOff | AmbushKind::Believed | AmbushKind::LateWrites | AmbushKind::Relapse => {}
        }
    }

    /// A correct replica has vouched for a claim.
    pub(super) fn ambush_belief(&mut self, at: usize, instance: InstanceNumber, claim: Claim) {
        if self.waits_for(instance) != Some(AmbushKind::Believed) {
            return;
        }
        let liars = self.scenario.faulty.iter().filter(|_| self.scenario.model == FaultModel::Byzantine);
        let vouched = self.history.vouched.iter();
        let vouched = vouched.filter(|(_, other)| (other.instance, other.claim) == (instance, claim));
        let vouchers = vouched.map(|(replica, _)| *replica).chain(liars.map(|(replica, _)| *replica));
        let vouchers = vouchers.collect();
        let Ok(views) = Views::of(&self.history) else { return };
        if !views.at(instance).is_some_and(|view| views.is_quorum(view, &vouchers)) {
            return;
        }
        self.note(&format!("ambush: {instance} is believed"));
        self.ambush.sprung = true;
        self.ambush.stopped = Some(claim.regency);
        self.ambush.writes_stopped = true;
        let leader = self.nodes[at].core.as_ref().map(|core| core.leader());
        self.ambush.cut_off = leader.map_or(0, |leader| 1 << leader.0);
        let all = self.correct_nodes().collect();
        self.power_fails(self.now_us, all);
    }

    /// A leader says how its regency begins.
    pub(super) fn ambush_sync(&mut self, at: usize, message: &Message) {
        let Some(ambush) = self.scenario.ambush.filter(|_| !self.ambush.released) else { return };
        if !matches!(message, Message::Sync { .. }) || self.ambush.late.is_empty() {
            return;
        }
        self.ambush.released = true;
        self.note(&format!("ambush: late WRITEs arrive, node {at} begins its regency"));
        for (from, to, message) in std::mem::take(&mut self.ambush.late) {
            let after_us = self.rng.random_range(100..RELEASED_DELAY_MAX_US);
            self.arrives(from, to, message, after_us);
        }
        if ambush.kind == AmbushKind::Relapse && !self.ambush.sprung {
            self.ambush.cut_off = 1 << at;
            let others = self.correct_nodes().filter(|node| *node != at).collect();
            self.power_fails(self.now_us, others);
        }
    }

    fn correct_nodes(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|node| !self.nodes[*node].faulty)
    }
}
