//! What of the order of changes counts in *w*: as much as decides what the rows are in the end.
//!
//! Which of two rows a statement changes first is up to plans and to where the rows are on the disk (G1), so *w* cannot be a
//! digest over changes in their order. Over their multiset alone it would not tell apart two transactions that leave other
//! rows behind: one that sets a row to 1 and then to 2, and one that sets it to 2 and then to 1. So it covers besides
//! - of each key that several changes touch, which one touches it last. A change touches the key that it takes away and the
//!   one that it makes; the last one decides whether there is such a row, and with which values;
//! - of each change of a table that the transaction truncated before, how often it had done so.
//!
//! Where all values identify a row ([`Identity::Row`]) nothing more is needed: each change takes away one row with exactly
//! these values or makes one, or both, so in whatever order the changes can be made, the rows in the end are those of before
//! and all new ones without all old ones. Whoever makes such changes has to find rows by all values, then (`apply`).

use super::{Change, Identity, Operation, Row};
use std::collections::BTreeMap;
use steeldb_types::{Digest, Hasher};

/// A change touches a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Touch {
    /// The digest of the table's name and of the key.
    pub key: Digest,
    /// The digest of the change.
    pub change: Digest,
}

/// Follows a transaction's changes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Order {
    /// How often a table was truncated so far.
    truncated: BTreeMap<(String, String), u64>,
}

impl Order {
    /// Takes in the next change, of digest `digest`: adds what it touches to `touches`, and gives the entry of *w* that says
    /// that it comes behind a TRUNCATE of its table.
    pub fn follow(&mut self, change: &Change, digest: Digest, touches: &mut Vec<Touch>) -> Option<Digest> {
        touches.extend(change.keys().into_iter().flatten().map(|key| Touch { key, change: digest }));
        let truncates = matches!(change.operation, Operation::Truncate { .. });
        if self.truncated.is_empty() && !truncates {
            return None;
        }
        let table = (change.schema.clone(), change.table.clone());
        let before = self.truncated.get(&table).copied().unwrap_or_default();
        if truncates {
            self.truncated.insert(table, before + 1);
        }
        (before > 0).then(|| {
            let mut hasher = Hasher::new("steeldb/behind-truncate/1");
            hasher.number(before).part(&digest.0);
            hasher.finish()
        })
    }
}

/// Finds who touches keys last. It is given touches in ascending order of their keys, those of one key in the order of their
/// changes.
#[derive(Default)]
pub struct LastTouches {
    last: Option<Touch>,
    /// Another one of the same key came before it.
    several: bool,
}

impl LastTouches {
    /// Takes in the next touch; gives the entry of *w* for the key before, if it needs one.
    pub fn follow(&mut self, touch: Touch) -> Option<Digest> {
        let same = self.last.is_some_and(|last| last.key == touch.key);
        let entry = if same { None } else { self.entry() };
        self.several = same;
        self.last = Some(touch);
        entry
    }

    /// The entry for the last key, if it needs one.
    pub fn finish(self) -> Option<Digest> {
        self.entry()
    }

    fn entry(&self) -> Option<Digest> {
        let Touch { key, change } = self.last.filter(|_| self.several)?;
        Some(Digest::of("steeldb/last-touch/1", &[&key.0, &change.0]))
    }
}

/// The entries of *w* for all keys that are touched more than once; `touches` in the order of their changes.
pub(super) fn last_touches(touches: &[Touch]) -> Vec<Digest> {
    let mut touches = touches.to_vec();
    // Stable: those of one key stay in their order.
    touches.sort_by_key(|touch| touch.key);
    let mut last = LastTouches::default();
    let mut entries: Vec<Digest> = touches.into_iter().filter_map(|touch| last.follow(touch)).collect();
    entries.extend(last.finish());
    entries
}

impl Change {
    /// The digests of the keys that it touches, each once.
    fn keys(&self) -> [Option<Digest>; 2] {
        let Identity::Key(places) = &self.identity else { return [None; 2] };
        let made = |new: &Row| {
            let columns: Vec<_> = new.columns().collect();
            self.key(places.iter().filter_map(|place| columns.get(usize::from(*place)).copied()))
        };
        let gone = |old: &Row| self.key(old.columns());
        match &self.operation {
            Operation::Insert { new } => [None, Some(made(new))],
            Operation::Delete { old } => [Some(gone(old)), None],
            Operation::Update { old, new } => {
                let (gone, made) = (gone(old), made(new));
                [Some(gone), Some(made).filter(|made| *made != gone)]
            }
            Operation::Truncate { .. } => [None; 2],
        }
    }

    fn key<'a>(&self, columns: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> Digest {
        let mut hasher = Hasher::new("steeldb/key/1");
        hasher.part(self.schema.as_bytes()).part(self.table.as_bytes());
        for (name, value) in columns {
            hasher.part(name.as_bytes());
            match value {
                None => hasher.number(0),
                Some(value) => hasher.number(1).part(value.as_bytes()),
            };
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests;
