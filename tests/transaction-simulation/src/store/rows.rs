//! The versions of rows.

use crate::sql::{Key, Value};
use std::collections::BTreeMap;

/// A row's value, or that it is gone, since a commit.
type Version = (u64, Option<Value>);

/// Committed rows, all versions of them.
#[derive(Default)]
pub(crate) struct Rows {
    versions: BTreeMap<Key, Vec<Version>>,
    commits: u64,
}

impl Rows {
    pub(crate) fn new(rows: &BTreeMap<Key, Value>) -> Rows {
        let versions = rows.iter().map(|(key, value)| (*key, vec![(0, Some(value.clone()))])).collect();
        Rows { versions, commits: 0 }
    }

    /// How many commits there were: what a snapshot is.
    pub(crate) fn commits(&self) -> u64 {
        self.commits
    }

    pub(crate) fn commit(&mut self, changes: impl Iterator<Item = (Key, Option<Value>)>) {
        self.commits += 1;
        for (key, value) in changes {
            self.versions.entry(key).or_default().push((self.commits, value));
        }
    }

    /// A row as a snapshot sees it.
    pub(crate) fn at(&self, key: Key, snapshot: u64) -> Option<&Value> {
        let versions = self.versions.get(&key)?;
        versions.iter().rev().find(|(commit, _)| *commit <= snapshot)?.1.as_ref()
    }

    pub(crate) fn latest(&self, key: Key) -> Option<&Value> {
        self.at(key, u64::MAX)
    }

    /// Whether a row was changed after a snapshot.
    pub(crate) fn changed_since(&self, key: Key, snapshot: u64) -> bool {
        self.versions
            .get(&key)
            .and_then(|versions| versions.last())
            .is_some_and(|(commit, _)| *commit > snapshot)
    }

    /// All rows as they are now.
    pub(crate) fn contents(&self) -> BTreeMap<Key, Value> {
        let latest = |(key, _): (&Key, _)| Some((*key, self.latest(*key)?.clone()));
        self.versions.iter().filter_map(latest).collect()
    }

    /// A row's latest version becomes another one behind everybody's back.
    pub(crate) fn tamper(&mut self, key: Key, value: Value) {
        if let Some(version) = self.versions.get_mut(&key).and_then(|versions| versions.last_mut()) {
            version.1 = Some(value);
        }
    }
}
