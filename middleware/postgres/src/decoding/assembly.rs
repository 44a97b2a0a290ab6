//! Puts a transaction's changes together: pgoutput messages in, [`Decoded`] out. No I/O.

use super::protocol::{OldRow, PgOutput, ProtocolError, RelationMessage, ReplicaIdentity, Value};
use super::{Decoded, Lsn};
use crate::write_set::{Change, Identity, Operation, Row, WriteSet};
use std::collections::HashMap;
use std::sync::Arc;

/// A relation with its columns in ascending order of their names.
struct Relation {
    schema: String,
    name: String,
    identity: ReplicaIdentity,
    /// Where each column, in order of names, stands in a row as sent.
    order: Vec<usize>,
    names: Arc<[String]>,
    /// The same for the key's columns.
    key_order: Vec<usize>,
    key_names: Arc<[String]>,
    /// Where these stand in `order`; none with REPLICA IDENTITY FULL.
    key_places: Option<Vec<u16>>,
}

/// The transaction that is being decoded. pgoutput sends one at a time when it does not stream.
enum Current {
    None,
    /// Committed without PREPARE: the agent's own work, skipped.
    Plain,
    Prepared {
        gid: String,
        write_set: WriteSet,
        /// Parts of it were taken.
        in_parts: bool,
    },
}

/// Assembles transactions from pgoutput's messages.
pub struct Assembler {
    relations: HashMap<u32, Relation>,
    current: Current,
    bytes_max: u64,
    rows_max: usize,
}

impl Assembler {
    /// An assembler that gathers at most `bytes_max` bytes of changes, and `rows_max` of them, and one more: what
    /// has more comes in parts.
    pub fn new(bytes_max: u64, rows_max: usize) -> Assembler {
        Assembler { relations: HashMap::new(), current: Current::None, bytes_max, rows_max }
    }

    /// Takes in one message; yields what it completes.
    ///
    /// # Errors
    /// [`ProtocolError`]: the stream cannot be trusted any more.
    pub fn handle(&mut self, message: PgOutput<'_>) -> Result<Option<Decoded>, ProtocolError> {
        match message {
            PgOutput::Relation(message) => {
                self.relations.insert(message.id, Relation::new(message));
            }
            PgOutput::Begin => self.begin(Current::Plain, "Begin")?,
            PgOutput::BeginPrepare { gid } => {
                let current = Current::Prepared {
                    gid: gid.to_string(),
                    write_set: WriteSet::default(),
                    in_parts: false,
                };
                self.begin(current, "Begin Prepare")?;
            }
            PgOutput::Commit { .. } => match std::mem::replace(&mut self.current, Current::None) {
                Current::Plain => {}
                _ => return Err(ProtocolError::OutOfPlace("Commit")),
            },
            PgOutput::Prepare { end, gid } => return self.prepared(end, gid).map(Some),
            PgOutput::CommitPrepared { end, gid } => return self.resolved(end, gid, true).map(Some),
            PgOutput::RollbackPrepared { end, gid } => return self.resolved(end, gid, false).map(Some),
            PgOutput::Insert { relation, new } => self.change(relation, "Insert", |relation| {
                let new = relation.full_row(&new, None)?;
                Ok(new.map(|new| Operation::Insert { new }))
            })?,
            PgOutput::Update { relation, old, new } => {
                self.change(relation, "Update", |relation| relation.update(old.as_ref(), &new))?;
            }
            PgOutput::Delete { relation, old } => self.change(relation, "Delete", |relation| {
                let old = match &old {
                    OldRow::Key(values) => relation.key_row(values)?,
                    OldRow::Full(values) => relation.full_row(values, None)?,
                };
                Ok(old.map(|old| Operation::Delete { old }))
            })?,
            PgOutput::Truncate { relations, restart_identity } => {
                for relation in relations {
                    self.change(relation, "Truncate", |_| {
                        Ok(Some(Operation::Truncate { restart_identity }))
                    })?;
                }
            }
            PgOutput::Other => {}
        }
        Ok(self.part())
    }

    /// What is gathered, once it is too much.
    fn part(&mut self) -> Option<Decoded> {
        let Current::Prepared { gid, write_set, in_parts } = &mut self.current else { return None };
        let bytes = write_set.bytes();
        let too_much = bytes > self.bytes_max || write_set.changes().len() > self.rows_max;
        *in_parts |= too_much;
        too_much.then(|| Decoded::Part { gid: gid.clone(), part: write_set.take_part(), bytes })
    }

    fn begin(&mut self, current: Current, what: &'static str) -> Result<(), ProtocolError> {
        if !matches!(self.current, Current::None) {
            return Err(ProtocolError::OutOfPlace(what));
        }
        self.current = current;
        Ok(())
    }

    fn prepared(&mut self, lsn: Lsn, gid: &str) -> Result<Decoded, ProtocolError> {
        match std::mem::replace(&mut self.current, Current::None) {
            Current::Prepared { gid: begun, write_set, in_parts: false } if begun == gid => {
                Ok(Decoded::Prepared { gid: begun, write_set, lsn })
            }
            Current::Prepared { gid: begun, mut write_set, in_parts: true } if begun == gid => {
                let (last, definitions) = (write_set.take_part(), write_set.into_definitions());
                Ok(Decoded::PreparedInParts { gid: begun, last, definitions, lsn })
            }
            _ => Err(ProtocolError::OutOfPlace("Prepare")),
        }
    }

    fn resolved(&mut self, lsn: Lsn, gid: &str, committed: bool) -> Result<Decoded, ProtocolError> {
        match self.current {
            Current::None => Ok(Decoded::Resolved { gid: gid.to_string(), committed, lsn }),
            _ => Err(ProtocolError::OutOfPlace("Commit Prepared")),
        }
    }

    /// Adds what `operation` makes of a change; `None` marks the write set as incomplete.
    fn change(
        &mut self,
        relation: u32,
        what: &'static str,
        operation: impl FnOnce(&Relation) -> Result<Option<Operation>, ProtocolError>,
    ) -> Result<(), ProtocolError> {
        let write_set = match &mut self.current {
            Current::None => return Err(ProtocolError::OutOfPlace(what)),
            Current::Plain => return Ok(()),
            Current::Prepared { write_set, .. } => write_set,
        };
        let relation = self.relations.get(&relation).ok_or(ProtocolError::UnknownRelation(relation))?;
        match operation(relation)? {
            Some(operation) => {
                let identity = relation.key_places.clone().map_or(Identity::Row, Identity::Key);
                let (schema, table) = (relation.schema.clone(), relation.name.clone());
                let change = Change { schema, table, identity, operation };
                write_set.push(change);
            }
            None => write_set.mark_incomplete(relation.to_string()),
        }
        Ok(())
    }
}

impl std::fmt::Display for Relation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

impl Relation {
    fn new(message: RelationMessage) -> Relation {
        let mut order: Vec<usize> = (0..message.columns.len()).collect();
        order.sort_by(|a, b| message.columns[*a].name.cmp(&message.columns[*b].name));
        let key_order: Vec<usize> = order.iter().copied().filter(|i| message.columns[*i].key).collect();
        let places = (0u16..).zip(&order).filter(|(_, i)| message.columns[**i].key).map(|(place, _)| place);
        let key_places: Vec<u16> = places.collect();
        let has_key = message.identity != ReplicaIdentity::Full && !key_places.is_empty();
        let names = |order: &[usize]| order.iter().map(|i| message.columns[*i].name.clone()).collect();
        Relation {
            names: names(&order),
            key_names: names(&key_order),
            key_places: has_key.then_some(key_places),
            order,
            key_order,
            schema: message.schema,
            name: message.name,
            identity: message.identity,
        }
    }

    /// The row as all its columns, unchanged values taken from `old`. Nothing when one is missing there too.
    fn full_row(
        &self,
        values: &[Value<'_>],
        old: Option<&[Value<'_>]>,
    ) -> Result<Option<Row>, ProtocolError> {
        self.row(&self.order, &self.names, values, old)
    }

    /// The key's columns of a row.
    fn key_row(&self, values: &[Value<'_>]) -> Result<Option<Row>, ProtocolError> {
        self.row(&self.key_order, &self.key_names, values, None)
    }

    fn row(
        &self,
        order: &[usize],
        names: &Arc<[String]>,
        values: &[Value<'_>],
        old: Option<&[Value<'_>]>,
    ) -> Result<Option<Row>, ProtocolError> {
        for got in [Some(values), old].into_iter().flatten().map(<[Value<'_>]>::len) {
            if got != self.order.len() {
                let expected = self.order.len();
                return Err(ProtocolError::ColumnCount { relation: self.to_string(), expected, got });
            }
        }
        let mut row = Vec::with_capacity(order.len());
        for index in order {
            let value = match &values[*index] {
                Value::Unchanged => old.map_or(&Value::Unchanged, |old| &old[*index]),
                value => value,
            };
            match value {
                Value::Unchanged => return Ok(None),
                Value::Null => row.push(None),
                Value::Text(text) => row.push(Some((*text).to_string())),
            }
        }
        Ok(Some(Row::of_sorted(names.clone(), row)))
    }

    /// An update, its old row in one form whatever the server found worth sending: the whole row with REPLICA IDENTITY
    /// FULL, else the key, which is the new row's when it did not change.
    fn update(
        &self,
        old: Option<&OldRow<'_>>,
        new: &[Value<'_>],
    ) -> Result<Option<Operation>, ProtocolError> {
        let (old_row, filler) = match old {
            Some(OldRow::Full(values)) => (self.full_row(values, None)?, Some(values.as_slice())),
            Some(OldRow::Key(values)) => (self.key_row(values)?, None),
            None if self.identity == ReplicaIdentity::Full => (None, None),
            None => (self.key_row(new)?, None),
        };
        let mut new_row = self.full_row(new, filler)?;
        if let (None, Some(OldRow::Key(values))) = (&new_row, old) {
            // A TOASTed key: its old value was sent for that reason, and stands for the unchanged one.
            let filled: Vec<Value<'_>> = new
                .iter()
                .enumerate()
                .map(|(index, value)| match (value, values.get(index)) {
                    (Value::Unchanged, Some(Value::Text(text))) if self.key_order.contains(&index) => {
                        Value::Text(text)
                    }
                    (value, _) => value.clone(),
                })
                .collect();
            new_row = self.full_row(&filled, None)?;
        }
        Ok(old_row.zip(new_row).map(|(old, new)| Operation::Update { old, new }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::protocol::Column;
    use super::*;
    use crate::write_set::Part;
    use proptest::prelude::*;

    fn relation(identity: ReplicaIdentity, columns: &[(&str, bool)]) -> PgOutput<'static> {
        PgOutput::Relation(RelationMessage {
            id: 1,
            schema: "public".into(),
            name: "t".into(),
            identity,
            columns: columns.iter().map(|(name, key)| Column { key: *key, name: name.to_string() }).collect(),
        })
    }

    fn transaction(messages: Vec<PgOutput<'_>>) -> WriteSet {
        let mut assembler = Assembler::new(u64::MAX, usize::MAX);
        assembler.handle(PgOutput::BeginPrepare { gid: "g" }).unwrap();
        for message in messages {
            assert_eq!(assembler.handle(message).unwrap(), None);
        }
        match assembler.handle(PgOutput::Prepare { end: Lsn(1), gid: "g" }).unwrap() {
            Some(Decoded::Prepared { write_set, .. }) => write_set,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn column_order_does_not_matter() {
        let text = Value::Text;
        let a = transaction(vec![
            relation(ReplicaIdentity::Default, &[("id", true), ("v", false)]),
            PgOutput::Insert { relation: 1, new: vec![text("1"), text("x")] },
        ]);
        let b = transaction(vec![
            relation(ReplicaIdentity::Default, &[("v", false), ("id", true)]),
            PgOutput::Insert { relation: 1, new: vec![text("x"), text("1")] },
        ]);
        assert_eq!(a.digest().unwrap(), b.digest().unwrap());
    }

    #[test]
    fn g2_an_unchanged_toasted_value_is_filled_from_the_old_row() {
        let columns = [("id", true), ("v", true)];
        let old = || Some(OldRow::Full(vec![Value::Text("1"), Value::Text("long")]));
        let sent = transaction(vec![
            relation(ReplicaIdentity::Full, &columns),
            PgOutput::Update { relation: 1, old: old(), new: vec![Value::Text("2"), Value::Text("long")] },
        ]);
        let unchanged = transaction(vec![
            relation(ReplicaIdentity::Full, &columns),
            PgOutput::Update { relation: 1, old: old(), new: vec![Value::Text("2"), Value::Unchanged] },
        ]);
        assert_eq!(sent.digest().unwrap(), unchanged.digest().unwrap());
    }

    #[test]
    fn a_missing_value_makes_the_write_set_incomplete() {
        let set = transaction(vec![
            relation(ReplicaIdentity::Default, &[("id", true), ("v", false)]),
            PgOutput::Update { relation: 1, old: None, new: vec![Value::Text("2"), Value::Unchanged] },
        ]);
        assert_eq!(set.digest().unwrap_err().relation, "public.t");
    }

    #[test]
    fn a_key_that_is_sent_although_unchanged_makes_no_difference() {
        let columns = [("id", true), ("v", false)];
        let new = || vec![Value::Text("1"), Value::Text("y")];
        let key = Some(OldRow::Key(vec![Value::Text("1"), Value::Null]));
        let with = transaction(vec![
            relation(ReplicaIdentity::Default, &columns),
            PgOutput::Update { relation: 1, old: key, new: new() },
        ]);
        let without = transaction(vec![
            relation(ReplicaIdentity::Default, &columns),
            PgOutput::Update { relation: 1, old: None, new: new() },
        ]);
        assert_eq!(with.digest().unwrap(), without.digest().unwrap());
    }

    /// Up to the bounds all is gathered; one byte or one row more, and it comes in parts, which are the same changes.
    #[test]
    fn what_is_too_large_for_the_memory_comes_in_parts() {
        let insert = |id: &'static str| PgOutput::Insert { relation: 1, new: vec![Value::Text(id)] };
        let rows = ["1", "2", "3", "4", "5"];
        let whole = transaction(
            std::iter::once(relation(ReplicaIdentity::Default, &[("id", true)]))
                .chain(rows.map(insert))
                .collect(),
        );
        let each = whole.bytes() / 5;
        for (bytes_max, rows_max, lengths) in [
            (5 * each, 5, vec![]),
            (5 * each - 1, 5, vec![5, 0]),
            (5 * each, 4, vec![5, 0]),
            (2 * each, 5, vec![3, 2]),
            (5 * each, 1, vec![2, 2, 1]),
        ] {
            let mut assembler = Assembler::new(bytes_max, rows_max);
            assembler.handle(relation(ReplicaIdentity::Default, &[("id", true)])).unwrap();
            assembler.handle(PgOutput::BeginPrepare { gid: "g" }).unwrap();
            let mut parts: Vec<Part> = Vec::new();
            for row in rows {
                match assembler.handle(insert(row)).unwrap() {
                    None => {}
                    Some(Decoded::Part { gid, part, bytes }) => {
                        assert_eq!((gid.as_str(), bytes), ("g", each * part.changes.len() as u64));
                        parts.push(part);
                    }
                    other => panic!("{other:?}"),
                }
            }
            match assembler.handle(PgOutput::Prepare { end: Lsn(1), gid: "g" }).unwrap() {
                Some(Decoded::Prepared { write_set, .. }) => assert_eq!(write_set, whole),
                Some(Decoded::PreparedInParts { last, .. }) => parts.push(last),
                other => panic!("{other:?}"),
            }
            assert_eq!(parts.iter().map(|part| part.changes.len()).collect::<Vec<_>>(), lengths);
            if !parts.is_empty() {
                let changes = parts.iter().flat_map(|part| part.changes.clone());
                assert_eq!(WriteSet::new(changes), whole);
                let entries: Vec<_> = parts.iter().flat_map(|part| part.entries.clone()).collect();
                assert_eq!(entries, whole.changes().iter().map(Change::digest).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn messages_out_of_place_are_errors() {
        let mut assembler = Assembler::new(u64::MAX, usize::MAX);
        let insert = || PgOutput::Insert { relation: 1, new: vec![] };
        assert_eq!(assembler.handle(insert()), Err(ProtocolError::OutOfPlace("Insert")));
        assembler.handle(PgOutput::BeginPrepare { gid: "g" }).unwrap();
        assert_eq!(assembler.handle(insert()), Err(ProtocolError::UnknownRelation(1)));
        let prepare = PgOutput::Prepare { end: Lsn(1), gid: "h" };
        assert_eq!(assembler.handle(prepare), Err(ProtocolError::OutOfPlace("Prepare")));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(
            messages in proptest::collection::vec(
                (proptest::sample::select(b"BCbPKrRIUDTYOM".to_vec()), proptest::collection::vec(0u8..4, 0..60)),
                0..20,
            ),
        ) {
            let mut assembler = Assembler::new(1000, 3);
            for (tag, body) in messages {
                if let Ok(message) = PgOutput::parse(&[vec![tag], body].concat()) {
                    let _ = assembler.handle(message);
                }
            }
        }
    }
}
