//! Where each decision is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use steeldb_ordering::InstanceNumber;

/// A record's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Location {
    pub(crate) segment: u64,
    pub(crate) offset: u32,
}

/// Shared between the log, which adds to it, and its readers.
#[derive(Clone, Default)]
pub(crate) struct Index(Arc<Mutex<Places>>);

#[derive(Default)]
struct Places {
    decisions: BTreeMap<InstanceNumber, Location>,
    /// By segment, the highest instance decided in it.
    last: BTreeMap<u64, InstanceNumber>,
}

impl Index {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn extend(&self, locations: impl IntoIterator<Item = (InstanceNumber, Location)>) {
        let mut places = self.places();
        for (instance, location) in locations {
            let last = places.last.entry(location.segment).or_default();
            *last = (*last).max(instance);
            places.decisions.insert(instance, location);
        }
    }

    pub(crate) fn get(&self, instance: InstanceNumber) -> Option<Location> {
        self.places().decisions.get(&instance).copied()
    }

    pub(crate) fn first(&self) -> Option<InstanceNumber> {
        self.places().decisions.first_key_value().map(|(instance, _)| *instance)
    }

    pub(crate) fn last(&self) -> InstanceNumber {
        self.places().decisions.last_key_value().map_or(InstanceNumber(0), |(instance, _)| *instance)
    }

    /// The last of the consecutive decisions after `instance`.
    pub(crate) fn last_consecutive(&self, instance: InstanceNumber) -> InstanceNumber {
        let places = self.places();
        let after = places.decisions.range(instance.next()..).zip(instance.next().0..);
        let consecutive = after.take_while(|((found, _), wanted)| found.0 == *wanted);
        consecutive.map(|((found, _), _)| *found).last().unwrap_or(instance)
    }

    /// The highest instance decided in a segment.
    pub(crate) fn last_in(&self, segment: u64) -> InstanceNumber {
        self.places().last.get(&segment).copied().unwrap_or_default()
    }

    pub(crate) fn drop_segment(&self, segment: u64) {
        let mut places = self.places();
        places.last.remove(&segment);
        places.decisions.retain(|_, location| location.segment != segment);
    }
}
