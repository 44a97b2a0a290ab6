//! Write sets: what a transaction did to rows, in a form that is equal on every correct replica (rule 6).
//!
//! Invariants:
//! - columns go by name, in ascending order; values are PostgreSQL's text form;
//! - the digest is a SHA-256 over sorted entries, since sums or exclusive ors of digests can be forged: one entry for each
//!   change, and more for what of their order decides what the rows are in the end (`order.rs`);
//! - a transaction with more changes than are gathered in memory comes in parts, and its digest is made of the same sorted
//!   entries;
//! - a write set that misses a value (see [`Incomplete`]) has no digest, so nobody can vote for it;
//! - a write set from a peer is what its bytes say: digest, length and flags are computed here, never shipped.

mod order;
mod row;

pub use order::{LastTouches, Order, Touch};
pub use row::{DuplicateColumn, Row};

use borsh::{BorshDeserialize, BorshSerialize};
use std::io;
use steeldb_types::{Digest, Hasher, is_temporary_schema};

/// The table that event triggers write a transaction's DDL to.
pub const DDL_TABLE: &str = "steeldb.ddl_command";

/// The table with the record of every voted transaction.
pub const RECORD_TABLE: &str = "steeldb.transaction";

/// What tells a table's rows apart in a write set: its replica identity.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum Identity {
    /// All values: the table has no key, or values that may be TOASTed.
    Row,
    /// The columns of a unique index that is checked at once: the places they have among all columns of the table but generated
    /// ones, in ascending order of names.
    Key(Vec<u16>),
}

/// What happened to a row, or to all of a table.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum Operation {
    /// A new row.
    Insert {
        /// All columns but generated ones.
        new: Row,
    },
    /// A changed row.
    Update {
        /// Its key, or the whole old row: see [`Identity`].
        old: Row,
        /// All columns but generated ones; unchanged TOASTed values are filled from the old row.
        new: Row,
    },
    /// A row that is gone.
    Delete {
        /// Its key, or the whole old row: see [`Identity`].
        old: Row,
    },
    /// All rows are gone.
    Truncate {
        /// Whether sequences were restarted.
        restart_identity: bool,
    },
}

/// One change of a row, or the truncation of a table.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Change {
    /// Schema of the table, which is a leaf when the table is partitioned.
    pub schema: String,
    /// Name of the table.
    pub table: String,
    /// What tells its rows apart.
    pub identity: Identity,
    /// What happened.
    pub operation: Operation,
}

/// A value is missing: an unchanged TOASTed value of a table whose replica identity does not carry the old row. The
/// event triggers prevent it; it means that somebody went round them.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the write set misses a value of {relation}, whose replica identity should be FULL; run: ALTER TABLE {relation} REPLICA IDENTITY FULL"
)]
pub struct Incomplete {
    /// `schema.name`.
    pub relation: String,
}

/// One row of `steeldb.ddl_command`: a DDL command of the transaction, or an object it dropped or rewrote.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DdlCommand {
    /// `end`, `drop` or `rewrite`: the event trigger that wrote it.
    pub phase: String,
    /// Such as `ALTER TABLE`.
    pub command_tag: String,
    /// Such as `table`; empty when PostgreSQL does not tell (GRANT).
    pub object_type: String,
    /// Schema of the object; empty when it has none.
    pub schema: String,
    /// The object's name, schema-qualified and quoted; empty when PostgreSQL does not tell.
    pub identity: String,
}

/// What a transaction did besides changing rows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Definitions {
    truncates: bool,
    ddl: Vec<DdlCommand>,
    incomplete: Option<Incomplete>,
}

/// The changes of one transaction.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WriteSet {
    gathered: Part,
    order: Order,
    bytes: u64,
    definitions: Definitions,
}

/// Changes of a transaction that has more of them than are gathered in memory, as they follow each other.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Part {
    /// The changes.
    pub changes: Vec<Change>,
    /// Entries of *w*: the digest of each, and what says that it comes behind a TRUNCATE.
    pub entries: Vec<Digest>,
    /// The keys they touch.
    pub touches: Vec<Touch>,
}

/// *w* of a transaction whose entries come one by one, in ascending order.
pub struct SortedDigests {
    hasher: Hasher,
    left: u64,
    last: Option<Digest>,
}

/// Entries that are not in ascending order, or not as many as was said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the digests of a write set are not in ascending order, or not as many as was said")]
pub struct OutOfOrder;

impl SortedDigests {
    /// Of `entries` digests.
    pub fn new(entries: u64) -> SortedDigests {
        let mut hasher = Hasher::new("steeldb/write-set/2");
        hasher.number(entries);
        SortedDigests { hasher, left: entries, last: None }
    }

    /// Adds the next one.
    ///
    /// # Errors
    /// [`OutOfOrder`].
    pub fn add(&mut self, digest: Digest) -> Result<(), OutOfOrder> {
        if self.left == 0 || self.last.is_some_and(|last| last > digest) {
            return Err(OutOfOrder);
        }
        self.left -= 1;
        self.last = Some(digest);
        self.hasher.part(&digest.0);
        Ok(())
    }

    /// *w*.
    ///
    /// # Errors
    /// [`OutOfOrder`]: some are missing.
    pub fn finish(self) -> Result<Digest, OutOfOrder> {
        if self.left == 0 { Ok(self.hasher.finish()) } else { Err(OutOfOrder) }
    }
}

impl Part {
    /// Adds the next change of a transaction.
    pub fn push(&mut self, change: Change, order: &mut Order) {
        let digest = change.digest();
        self.entries.push(digest);
        self.entries.extend(order.follow(&change, digest, &mut self.touches));
        self.changes.push(change);
    }
}

impl Definitions {
    /// Whether a table was truncated that is not temporary (rule 9: a wall).
    pub fn truncates(&self) -> bool {
        self.truncates
    }

    /// The DDL commands of the transaction, in order.
    pub fn ddl(&self) -> &[DdlCommand] {
        &self.ddl
    }

    /// The value that is missing, if one is. Such a transaction must not be voted for.
    pub fn incomplete(&self) -> Option<&Incomplete> {
        self.incomplete.as_ref()
    }

    fn note(&mut self, change: &Change) {
        self.truncates |=
            matches!(change.operation, Operation::Truncate { .. }) && !is_temporary_schema(&change.schema);
        if let (true, Operation::Insert { new }) = (change.is_of(DDL_TABLE), &change.operation) {
            let text = |column| new.get(column).flatten().unwrap_or_default().to_string();
            self.ddl.push(DdlCommand {
                phase: text("phase"),
                command_tag: text("command_tag"),
                object_type: text("object_type"),
                schema: text("schema_name"),
                identity: text("object_identity"),
            });
        }
    }
}

impl Operation {
    /// The new row, if there is one.
    pub fn new_row(&self) -> Option<&Row> {
        match self {
            Operation::Insert { new } | Operation::Update { new, .. } => Some(new),
            Operation::Delete { .. } | Operation::Truncate { .. } => None,
        }
    }

    /// The key or old row, if there is one.
    pub fn old_row(&self) -> Option<&Row> {
        match self {
            Operation::Update { old, .. } | Operation::Delete { old } => Some(old),
            Operation::Insert { .. } | Operation::Truncate { .. } => None,
        }
    }
}

impl Change {
    /// `schema.name`, unquoted: for comparing and for messages.
    pub fn relation(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    /// The digest of this change alone.
    pub fn digest(&self) -> Digest {
        // Writing into memory cannot fail short of a 4 GiB value, which no PostgreSQL field holds.
        let bytes = borsh::to_vec(self).unwrap_or_default();
        let mut hasher = Change::hasher(bytes.len() as u64);
        hasher.stream(&bytes);
        hasher.finish()
    }

    /// What makes that digest of the change's encoding, `length` bytes that come in pieces.
    pub fn hasher(length: u64) -> Hasher {
        let mut hasher = Hasher::new("steeldb/change/2");
        hasher.part_of(length);
        hasher
    }

    fn size(&self) -> u64 {
        let rows = [self.operation.old_row(), self.operation.new_row()];
        (self.schema.len() + self.table.len()) as u64 + rows.into_iter().flatten().map(Row::size).sum::<u64>()
    }

    fn is_of(&self, relation: &str) -> bool {
        relation.split_once('.').is_some_and(|(schema, table)| schema == self.schema && table == self.table)
    }
}

impl WriteSet {
    /// The write set of `changes`.
    pub fn new(changes: impl IntoIterator<Item = Change>) -> WriteSet {
        let mut write_set = WriteSet::default();
        for change in changes {
            write_set.push(change);
        }
        write_set
    }

    /// Adds a change.
    pub(crate) fn push(&mut self, change: Change) {
        self.bytes = self.bytes.saturating_add(change.size());
        self.definitions.note(&change);
        self.gathered.push(change, &mut self.order);
    }

    /// Takes the changes out, so that more of them can be gathered.
    pub(crate) fn take_part(&mut self) -> Part {
        self.bytes = 0;
        std::mem::take(&mut self.gathered)
    }

    /// Marks that a value of `relation` is missing. The first relation is kept.
    pub(crate) fn mark_incomplete(&mut self, relation: String) {
        self.definitions.incomplete.get_or_insert(Incomplete { relation });
    }

    pub(crate) fn into_definitions(self) -> Definitions {
        self.definitions
    }

    /// The changes in the order they were made.
    pub fn changes(&self) -> &[Change] {
        &self.gathered.changes
    }

    /// How many changes there are.
    pub fn changes_len(&self) -> u64 {
        self.gathered.changes.len() as u64
    }

    /// Roughly how many bytes they take.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What it did besides changing rows.
    pub fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    /// As [`Definitions::truncates`].
    pub fn truncates(&self) -> bool {
        self.definitions.truncates()
    }

    /// As [`Definitions::ddl`].
    pub fn ddl(&self) -> &[DdlCommand] {
        self.definitions.ddl()
    }

    /// The sorted entries of *w*.
    pub fn entries(&self) -> Vec<Digest> {
        let Part { entries, touches, .. } = &self.gathered;
        let mut entries = [entries.as_slice(), &order::last_touches(touches)].concat();
        entries.sort_unstable();
        entries
    }

    /// *w*, the digest that votes and certificates carry.
    ///
    /// # Errors
    /// [`Incomplete`]: such a transaction must not be voted for.
    pub fn digest(&self) -> Result<Digest, Incomplete> {
        if let Some(incomplete) = self.definitions.incomplete() {
            return Err(incomplete.clone());
        }
        let entries = self.entries();
        let mut sorted = SortedDigests::new(entries.len() as u64);
        for digest in entries {
            // They are in order, and as many.
            let _ = sorted.add(digest);
        }
        Ok(sorted.hasher.finish())
    }
}

impl BorshSerialize for WriteSet {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        if self.definitions.incomplete.is_some() {
            return Err(io::Error::other("a write set without all its values cannot be shipped"));
        }
        self.gathered.changes.serialize(writer)
    }
}

impl BorshDeserialize for WriteSet {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<WriteSet> {
        Ok(WriteSet::new(Vec::<Change>::deserialize_reader(reader)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeldb_wire::codec;

    fn row(columns: &[(&str, Option<&str>)]) -> Row {
        Row::new(columns.iter().map(|(n, v)| (n.to_string(), v.map(str::to_string))).collect()).unwrap()
    }

    fn insert(table: &str, columns: &[(&str, Option<&str>)]) -> Change {
        let operation = Operation::Insert { new: row(columns) };
        Change { schema: "public".into(), table: table.into(), identity: Identity::Row, operation }
    }

    #[test]
    fn changes_of_several_rows_count_as_a_multiset() {
        let (a, b) = (insert("t", &[("a", Some("1"))]), insert("t", &[("a", Some("2"))]));
        let of = |changes: &[&Change]| WriteSet::new(changes.iter().map(|c| (*c).clone())).digest().unwrap();
        assert_eq!(of(&[&a, &b]), of(&[&b, &a]));
        assert_ne!(of(&[&a]), of(&[&a, &a]));
        assert_ne!(of(&[&a, &a]), of(&[&b, &b]));
        assert_ne!(of(&[&a, &a, &b]), of(&[&a, &b, &b]));
    }

    #[test]
    fn null_empty_text_and_another_column_differ() {
        let of = |columns: &[(&str, Option<&str>)]| insert("t", columns).digest();
        let all = [of(&[("a", None)]), of(&[("a", Some(""))]), of(&[("b", None)]), of(&[])];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b));
        }
        assert_eq!(of(&[("a", None), ("b", Some("x"))]), of(&[("b", Some("x")), ("a", None)]));
    }

    #[test]
    fn a_shipped_write_set_has_the_digest_of_its_changes() {
        let set = WriteSet::new([insert("t", &[("a", None), ("b", Some("x"))]), insert("u", &[])]);
        let bytes = codec::encode(&set);
        let back: WriteSet = codec::decode(&bytes, 1000).unwrap();
        assert_eq!(back, set);
        assert_eq!(back.digest(), set.digest());
    }

    #[test]
    fn columns_out_of_order_are_refused() {
        let columns = vec![("b".to_string(), Some("1".to_string())), ("a".to_string(), None)];
        assert!(borsh::from_slice::<Row>(&borsh::to_vec(&columns).unwrap()).is_err());
        assert_eq!(Row::new(vec![("a".into(), None), ("a".into(), None)]), Err(DuplicateColumn));
    }

    #[test]
    fn digests_that_come_one_by_one_make_the_same_w() {
        let changes: Vec<Change> = (0..50).map(|i| insert("t", &[("a", Some(&i.to_string()))])).collect();
        let mut digests: Vec<Digest> = changes.iter().chain(&changes[..3]).map(Change::digest).collect();
        digests.sort_unstable();
        let of = |digests: &[Digest], said: u64| {
            let mut sorted = SortedDigests::new(said);
            digests.iter().try_for_each(|digest| sorted.add(*digest))?;
            sorted.finish()
        };
        let whole = WriteSet::new(changes.iter().chain(&changes[..3]).cloned());
        assert_eq!(of(&digests, 53).unwrap(), whole.digest().unwrap());
        assert_eq!((of(&digests, 52), of(&digests, 54)), (Err(OutOfOrder), Err(OutOfOrder)));
        digests.swap(10, 30);
        assert_eq!(of(&digests, 53), Err(OutOfOrder));
    }

    #[test]
    fn the_digest_of_a_change_is_that_of_its_encoding_however_it_is_cut() {
        let change = insert("t", &[("a", Some("x"))]);
        let bytes = codec::encode(&change);
        let mut hasher = Change::hasher(bytes.len() as u64);
        for piece in bytes.chunks(3) {
            hasher.stream(piece);
        }
        assert_eq!(hasher.finish(), change.digest());
    }

    #[test]
    fn an_incomplete_write_set_has_no_digest() {
        let mut set = WriteSet::new([insert("t", &[])]);
        set.mark_incomplete("public.t".into());
        assert_eq!(set.digest(), Err(Incomplete { relation: "public.t".into() }));
        assert!(borsh::to_vec(&set).is_err());
    }

    #[test]
    fn ddl_is_seen() {
        let operation =
            Operation::Insert { new: row(&[("phase", Some("end")), ("command_tag", Some("CREATE TABLE"))]) };
        let set = WriteSet::new([Change {
            schema: "steeldb".into(),
            table: "ddl_command".into(),
            identity: Identity::Row,
            operation,
        }]);
        assert_eq!(set.ddl()[0].command_tag, "CREATE TABLE");
    }
}
