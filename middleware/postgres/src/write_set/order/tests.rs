//! Changes in any order of which *w* is the digest leave the same rows behind, or cannot be made.

use super::super::WriteSet;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn row(columns: &[(&str, u8)]) -> Row {
    let columns = columns.iter().map(|(name, value)| (name.to_string(), Some(value.to_string()))).collect();
    Row::new(columns).unwrap()
}

/// Rows of two tables that have a primary key: by table and key, their value.
type Rows = BTreeMap<(u8, u8), u8>;

/// What a transaction does next, if it can.
#[derive(Clone, Copy, Debug)]
enum Step {
    Insert(u8, u8, u8),
    /// From one key to another, or the same.
    Update(u8, u8, u8, u8),
    Delete(u8, u8),
    Truncate(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let (table, key, value) = (0u8..2, 0u8..3, 0u8..3);
    prop_oneof![
        3 => (table.clone(), key.clone(), value.clone()).prop_map(|(t, k, v)| Step::Insert(t, k, v)),
        3 => (table.clone(), key.clone(), value.clone()).prop_map(|(t, k, v)| Step::Update(t, k, k, v)),
        2 => (table.clone(), key.clone(), key.clone(), value).prop_map(|(t, k, l, v)| Step::Update(t, k, l, v)),
        2 => (table.clone(), key).prop_map(|(t, k)| Step::Delete(t, k)),
        1 => table.prop_map(Step::Truncate),
    ]
}

/// A transaction's changes as decoding shows them, and the rows that it leaves behind.
fn run(before: &Rows, steps: &[Step], identity: &Identity) -> (Vec<Change>, Rows) {
    let (mut rows, mut changes) = (before.clone(), Vec::new());
    for step in steps {
        let old_row = |k: u8, v: u8| match identity {
            Identity::Row => row(&[("id", k), ("v", v)]),
            Identity::Key(_) => row(&[("id", k)]),
        };
        let (table, operation) = match *step {
            Step::Insert(t, k, v) if !rows.contains_key(&(t, k)) => {
                rows.insert((t, k), v);
                (t, Operation::Insert { new: row(&[("id", k), ("v", v)]) })
            }
            Step::Update(t, k, l, v) if k == l || !rows.contains_key(&(t, l)) => {
                let Some(old) = rows.remove(&(t, k)) else { continue };
                rows.insert((t, l), v);
                (t, Operation::Update { old: old_row(k, old), new: row(&[("id", l), ("v", v)]) })
            }
            Step::Delete(t, k) => {
                let Some(old) = rows.remove(&(t, k)) else { continue };
                (t, Operation::Delete { old: old_row(k, old) })
            }
            Step::Truncate(t) => {
                rows.retain(|(table, _), _| *table != t);
                (t, Operation::Truncate { restart_identity: false })
            }
            Step::Insert(..) | Step::Update(..) => continue,
        };
        let (schema, table) = ("s".to_string(), table.to_string());
        changes.push(Change { schema, table, identity: identity.clone(), operation });
    }
    (changes, rows)
}

/// Makes changes as `apply` does: rows are found by their key, and where *w* leaves the order open and several changes are
/// about one, by their value too. None: they cannot be made.
fn apply(before: &Rows, changes: &[Change]) -> Option<Rows> {
    let number = |row: &Row, column: &str| row.get(column).flatten().map(|text| text.parse::<u8>().unwrap());
    let id = |change: &Change, row: &Row| (change.table.parse::<u8>().unwrap(), number(row, "id").unwrap());
    let (mut seen, mut several) = (BTreeSet::new(), BTreeSet::new());
    for change in changes {
        let ids: BTreeSet<(u8, u8)> = [change.operation.old_row(), change.operation.new_row()]
            .into_iter()
            .flatten()
            .map(|row| id(change, row))
            .collect();
        several.extend(ids.into_iter().filter(|id| !seen.insert(*id)));
    }
    let mut rows = before.clone();
    for change in changes {
        if matches!(change.operation, Operation::Truncate { .. }) {
            rows.retain(|(table, _), _| table.to_string() != change.table);
        }
        let (old, new) = (change.operation.old_row(), change.operation.new_row());
        if let Some(old) = old {
            let found = rows.remove(&id(change, old))?;
            let ids = [Some(old), new].into_iter().flatten().map(|row| id(change, row));
            let exact = change.identity == Identity::Row && ids.into_iter().any(|id| several.contains(&id));
            if exact && number(old, "v") != Some(found) {
                return None;
            }
        }
        if let Some(new) = new
            && rows.insert(id(change, new), number(new, "v").unwrap()).is_some()
        {
            return None;
        }
    }
    Some(rows)
}

fn rows() -> impl Strategy<Value = Rows> {
    proptest::collection::btree_map((0u8..2, 0u8..3), 0u8..3, 0..6)
}

/// Every order of up to six changes.
fn orders(changes: &[Change]) -> Vec<Vec<Change>> {
    if changes.len() <= 1 {
        return vec![changes.to_vec()];
    }
    let without = |at: usize| {
        let mut rest = changes.to_vec();
        let first = rest.remove(at);
        (first, rest)
    };
    (0..changes.len())
        .map(without)
        .flat_map(|(first, rest)| {
            orders(&rest)
                .into_iter()
                .map(move |rest| [std::slice::from_ref(&first), rest.as_slice()].concat())
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn b13_whatever_order_w_allows_leaves_the_same_rows_behind(
        before in rows(),
        steps in proptest::collection::vec(step(), 1..10),
        by_key in any::<bool>(),
    ) {
        let identity = if by_key { Identity::Key(vec![0]) } else { Identity::Row };
        let (mut changes, _) = run(&before, &steps, &identity);
        changes.truncate(5);
        let after = apply(&before, &changes).expect("as they were made they can be made");
        let w = WriteSet::new(changes.clone()).digest().unwrap();
        for order in orders(&changes) {
            if WriteSet::new(order.clone()).digest().unwrap() == w
                && let Some(rows) = apply(&before, &order)
            {
                prop_assert_eq!(&rows, &after, "{:?}", order);
            }
        }
    }
}

fn change(identity: Identity, operation: Operation) -> Change {
    Change { schema: "s".into(), table: "t".into(), identity, operation }
}

fn w(changes: &[Change]) -> Digest {
    WriteSet::new(changes.to_vec()).digest().unwrap()
}

#[test]
fn g1_which_change_of_a_row_is_the_last_counts_and_which_row_comes_first_does_not() {
    let update = |id: u8, v: u8| {
        let operation = Operation::Update { old: row(&[("id", id)]), new: row(&[("id", id), ("v", v)]) };
        change(Identity::Key(vec![0]), operation)
    };
    assert_ne!(w(&[update(1, 1), update(1, 2)]), w(&[update(1, 2), update(1, 1)]));
    assert_eq!(w(&[update(1, 1), update(2, 2)]), w(&[update(2, 2), update(1, 1)]));
    let three = [update(1, 1), update(1, 2), update(1, 3)];
    assert_eq!(w(&three), w(&[update(1, 2), update(1, 1), update(1, 3)]), "the last one decides");
}

/// `UPDATE t SET id = id - 1` goes through the rows as they are on the disk, which a unique index that is checked at once
/// allows in one order of neighbours only; `SET x = x + 1` without a key goes in any.
#[test]
fn g1_a_statement_that_moves_rows_along_has_one_w() {
    let by = |identity: Identity, from: u8| {
        let operation = Operation::Update { old: row(&[("id", from)]), new: row(&[("id", from - 1)]) };
        change(identity, operation)
    };
    let all = |order: [u8; 3]| w(&order.map(|from| by(Identity::Row, from)));
    assert_eq!(all([1, 2, 3]), all([3, 1, 2]));
    let keyed = |order: [u8; 3]| w(&order.map(|from| by(Identity::Key(vec![0]), from)));
    assert_ne!(keyed([1, 2, 3]), keyed([3, 2, 1]), "the server refuses the second one: 3 would meet 2");
    assert_eq!(keyed([1, 5, 2]), keyed([5, 1, 2]));
}

#[test]
fn what_comes_behind_a_truncate_is_not_what_comes_before_it() {
    let insert = |v: u8| change(Identity::Row, Operation::Insert { new: row(&[("v", v)]) });
    let truncate = || change(Identity::Row, Operation::Truncate { restart_identity: false });
    assert_ne!(w(&[insert(1), truncate(), insert(2)]), w(&[insert(2), truncate(), insert(1)]));
    assert_ne!(w(&[truncate(), insert(1)]), w(&[insert(1), truncate()]));
    assert_eq!(w(&[truncate(), insert(1), insert(2)]), w(&[truncate(), insert(2), insert(1)]));
    let twice = |first: Change, second: Change| w(&[truncate(), first, truncate(), second]);
    assert_ne!(twice(insert(1), insert(2)), twice(insert(2), insert(1)));
}

/// Places that no row has, as a liar may send.
#[test]
fn places_that_are_none_are_no_panic() {
    let new = row(&[("v", 1)]);
    let change = change(Identity::Key(vec![0, 7, u16::MAX]), Operation::Insert { new });
    assert!(WriteSet::new([change]).digest().is_ok());
}
