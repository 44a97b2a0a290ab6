//! The window: the consensus instances in flight, from the first that is not delivered.
//!
//! With one instance in flight this is Mod-SMaRt as in the thesis. With more, every rule of VP-Consensus holds in each
//! instance by itself; the instances are tied together by these rules alone:
//! - A replica takes up a proposal only when it knows the values before it in the window, in the same regency or
//!   decided: what is valid in an instance depends on them.
//! - Instances may be decided in any order and are delivered in theirs.
//! - Votes are kept, logged and shown in STOPDATA for each instance.
//! - Which view an instance belongs to is known once all before it are delivered. What was voted for or decided in it
//!   before, in a view that an earlier instance has ended, counts for nothing: it is voted on anew in the new view.

use crate::instance::Instance;
use crate::{InstanceNumber, Proposal, Regency, Request, RequestKey};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use steeldb_types::{SessionKey, Timestamp, ViewNumber};

pub(crate) struct Window {
    /// The first instance that is not delivered.
    first: InstanceNumber,
    /// Instances of which something is known. None is before the first; votes of an earlier life may be behind the
    /// last.
    instances: BTreeMap<InstanceNumber, Instance>,
    size: u64,
}

impl Window {
    pub(crate) fn new(size: usize) -> Window {
        Window { first: InstanceNumber(1), instances: BTreeMap::new(), size: (size as u64).max(1) }
    }

    pub(crate) fn first(&self) -> InstanceNumber {
        self.first
    }

    pub(crate) fn last(&self) -> InstanceNumber {
        InstanceNumber(self.first.0.saturating_add(self.size - 1))
    }

    pub(crate) fn contains(&self, number: InstanceNumber) -> bool {
        self.first <= number && number <= self.last()
    }

    /// The numbers in the window, ascending.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = InstanceNumber> + use<> {
        (self.first.0..=self.last().0).map(InstanceNumber)
    }

    pub(crate) fn get(&self, number: InstanceNumber) -> Option<&Instance> {
        self.instances.get(&number)
    }

    /// An instance that is not delivered, created when nothing is known of it.
    pub(crate) fn entry(&mut self, number: InstanceNumber) -> &mut Instance {
        debug_assert!(number >= self.first, "an instance that is delivered");
        self.instances.entry(number).or_insert_with(|| Instance::new(number))
    }

    /// What is known of instances, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values()
    }

    /// Goes on to an instance; those before it are forgotten.
    pub(crate) fn begin(&mut self, first: InstanceNumber) {
        self.instances = self.instances.split_off(&first);
        self.first = first;
    }

    /// A view begins at the first instance: what was done in later instances in views before is void.
    pub(crate) fn begin_view(&mut self, view: ViewNumber) {
        for instance in self.instances.values_mut() {
            instance.begin_view(view);
        }
    }

    /// Whether anything is in flight.
    pub(crate) fn is_running(&self) -> bool {
        self.iter().any(|instance| instance.is_running())
    }

    /// The values before `number` in the window, as far as one is known in `regency` or decided for each; nothing
    /// while one is missing.
    pub(crate) fn predecessors(
        &self,
        number: InstanceNumber,
        regency: Regency,
    ) -> Option<Vec<&Arc<Proposal>>> {
        (self.first.0..number.0).map(|before| self.get(InstanceNumber(before))?.value_in(regency)).collect()
    }

    /// The first instance in the window without a value in `regency`.
    pub(crate) fn first_open(&self, regency: Regency) -> Option<InstanceNumber> {
        let open = |number: &InstanceNumber| self.get(*number).and_then(|i| i.value_in(regency)).is_none();
        self.numbers().find(open)
    }
}

/// When the last of some proposals counts as executed: agreed time ascends strictly, whatever they say.
pub(crate) fn executed_at<'a>(
    last: Timestamp,
    proposals: impl IntoIterator<Item = &'a Arc<Proposal>>,
) -> Timestamp {
    proposals
        .into_iter()
        .fold(last, |last, proposal| proposal.timestamp.max(Timestamp(last.0.saturating_add(1))))
}

/// The requests of proposals in flight.
#[derive(Default)]
pub(crate) struct InFlight {
    sessions: BTreeMap<SessionKey, u64>,
    others: BTreeSet<RequestKey>,
}

impl InFlight {
    pub(crate) fn new<'a>(proposals: impl IntoIterator<Item = &'a Arc<Proposal>>) -> InFlight {
        let mut all = InFlight::default();
        for request in proposals.into_iter().flat_map(|proposal| &proposal.requests) {
            all.add(request);
        }
        all
    }

    fn add(&mut self, request: &Request) {
        match request.key() {
            RequestKey::Client(id) => {
                let last = self.sessions.entry(id.session).or_default();
                *last = (*last).max(id.sequence);
            }
            key => {
                self.others.insert(key);
            }
        }
    }

    /// Whether a leader that proposes the request now puts it into the order twice: it must have known.
    pub(crate) fn is_repetition(&self, key: &RequestKey) -> bool {
        matches!(key, RequestKey::Client(_)) && self.supersedes(key)
    }

    /// Whether the request is in flight, or a later one of its session.
    pub(crate) fn supersedes(&self, key: &RequestKey) -> bool {
        match key {
            RequestKey::Client(id) => self.sessions.get(&id.session).is_some_and(|last| id.sequence <= *last),
            key => self.others.contains(key),
        }
    }
}
