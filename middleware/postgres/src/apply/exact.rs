//! Rows that are to be found by all their values.

use super::Tables;
use crate::write_set::{Change, Identity, Row};
use std::collections::BTreeSet;

/// Which rows are found by all their values though they have a key: those that several changes of a write set are about, where
/// *w* leaves the order of these open ([`Identity::Row`]). Others are found by their key alone.
pub(super) enum Exact<'a> {
    /// It is not known which they are: all.
    All,
    Keys(BTreeSet<Key<'a>>),
}

/// Schema, table, and the values of the primary key.
pub(super) type Key<'a> = (&'a str, &'a str, Vec<Option<&'a str>>);

impl<'a> Exact<'a> {
    /// Of a whole write set.
    pub(super) fn of(changes: &'a [Change], tables: &Tables) -> Exact<'a> {
        let (mut seen, mut several) = (BTreeSet::new(), BTreeSet::new());
        for key in changes.iter().flat_map(|change| keys(change, tables)) {
            if let Some(key) = seen.replace(key) {
                several.insert(key);
            }
        }
        Exact::Keys(several)
    }

    pub(super) fn is(&self, change: &Change, tables: &Tables) -> bool {
        match self {
            Exact::All => change.identity == Identity::Row,
            Exact::Keys(several) => keys(change, tables).any(|key| several.contains(&key)),
        }
    }
}

/// The primary keys that a change is about, each once; none where *w* tells the order.
fn keys<'a>(change: &'a Change, tables: &Tables) -> impl Iterator<Item = Key<'a>> {
    let (schema, name) = (change.schema.as_str(), change.table.as_str());
    let table =
        (change.identity == Identity::Row).then(|| tables.get(&(schema.to_string(), name.to_string())));
    let table = table.flatten().filter(|table| table.columns.values().any(|of_key| *of_key));
    let key = |row: &'a Row| {
        let of_key = |column: &str| table.is_some_and(|table| table.columns.get(column) == Some(&true));
        let values = row.columns().filter(|(column, _)| of_key(column)).map(|(_, value)| value).collect();
        table.map(|_| (schema, name, values))
    };
    let (old, new) = (change.operation.old_row().and_then(key), change.operation.new_row().and_then(key));
    let new = new.filter(|new| old.as_ref() != Some(new));
    [old, new].into_iter().flatten()
}
