//! Applying a peer's write set: rows as they are, by column name, without triggers, foreign keys and rules.
//!
//! Invariants:
//! - each update and delete hits exactly one row, or the transaction fails with the relation and the key;
//! - in whatever order a peer gives changes of which *w* is the digest, they fail or make the rows that the transaction made: a
//!   row that several changes are about is found by all values where *w* leaves their order open;
//! - values enter as untyped literals, through the input functions that read what the output functions wrote;
//! - the transaction is left open: COMMIT or PREPARE TRANSACTION is the caller's.

mod exact;

use crate::connection::{Backend, BackendError};
use crate::quote;
use crate::write_set::{Change, Identity, Operation, Row, WriteSet};
use exact::Exact;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Rows and bytes of one INSERT. Enough to make round trips rare, and far below what the parser minds.
const INSERT_ROWS_MAX: usize = 500;
const INSERT_BYTES_MAX: usize = 256 * 1024;

/// Why a write set was not applied. The transaction is to be rolled back.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The server failed a command, or the session broke.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The relation is not here.
    #[error("there is no table {relation} here")]
    NoRelation {
        /// `schema.name`.
        relation: String,
    },
    /// The relation has no column of that name that can be written.
    #[error("{relation} has no column {column} here")]
    NoColumn {
        /// `schema.name`.
        relation: String,
        /// The column.
        column: String,
    },
    /// An update or delete did not hit exactly one row: this server's rows are not those the change was made on.
    #[error("{hit} rows of {relation} instead of one have {row}")]
    NotOneRow {
        /// `schema.name`.
        relation: String,
        /// How many rows were hit.
        hit: u64,
        /// The key, or the start of the old row.
        row: String,
    },
    /// The relation has a trigger or rule that fires even for replicated changes, so its effects would be doubled.
    #[error("{relation} has a trigger or rule that is ENABLE ALWAYS or ENABLE REPLICA")]
    AlwaysTrigger {
        /// `schema.name`.
        relation: String,
    },
    /// The write set lacks values.
    #[error("the write set is not whole")]
    NotWhole,
    /// The changes cannot be read back from where they wait.
    #[error("the changes cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
}

/// Bytes of the statements that are sent together. Each is looked at before more are sent.
const SCRIPT_BYTES_MAX: usize = 1024 * 1024;

/// What the catalogs here say of a table.
#[derive(Default)]
struct Table {
    /// Name of each column that can be written, and whether it is of the primary key. A deferrable one does not count: for
    /// a moment two rows may have it.
    columns: BTreeMap<String, bool>,
    /// The column GENERATED ALWAYS AS IDENTITY, which takes a value from INSERT but never from UPDATE.
    identity: Option<String>,
    partitioned: bool,
    always: bool,
}

type Tables = BTreeMap<(String, String), Table>;

/// Applies `write_set` on `backend`, a superuser's session. Begins a transaction unless one is open, and leaves it open;
/// `session_replication_role` is `replica` until its end. Returns how many changes were applied.
///
/// # Errors
/// [`ApplyError`]; the transaction has then failed or must be rolled back.
pub async fn apply_write_set(backend: &mut Backend, write_set: &WriteSet) -> Result<u64, ApplyError> {
    apply_write_sets(backend, &[write_set]).await
}

/// The same with those of several commits, in their order: all or nothing, with a round trip for a megabyte of them.
///
/// # Errors
/// As [`apply_write_set`].
pub async fn apply_write_sets(backend: &mut Backend, write_sets: &[&WriteSet]) -> Result<u64, ApplyError> {
    if write_sets.iter().any(|set| set.digest().is_err()) {
        return Err(ApplyError::NotWhole);
    }
    let mut applying = Applying::default();
    applying.begin(backend, write_sets.iter().flat_map(|write_set| write_set.changes())).await?;
    applying.run(backend, write_sets.iter().map(|write_set| write_set.changes()), true).await?;
    Ok(applying.changes)
}

/// Applies one write set that is too large to be held, in pieces, in one transaction.
#[derive(Default)]
pub struct Applying {
    tables: Tables,
    /// What the catalogs were asked for.
    known: BTreeSet<(String, String)>,
    begun: bool,
    changes: u64,
}

impl Applying {
    /// Applies the next changes on `backend`, always the same superuser's session, of which nothing else is asked meanwhile:
    /// the first of them begin a transaction, as [`apply_write_set`] does. A TRUNCATE of several tables must not be
    /// cut in two.
    ///
    /// # Errors
    /// As [`apply_write_set`].
    pub async fn apply(&mut self, backend: &mut Backend, changes: &[Change]) -> Result<(), ApplyError> {
        self.begin(backend, changes.iter()).await?;
        self.run(backend, std::iter::once(changes), false).await
    }

    /// How many changes were applied.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// `whole`: each piece is a whole write set.
    async fn run<'a>(
        &mut self,
        backend: &mut Backend,
        changes: impl Iterator<Item = &'a [Change]>,
        whole: bool,
    ) -> Result<(), ApplyError> {
        let mut script = Script::default();
        for mut rest in changes {
            self.changes += rest.len() as u64;
            let exact = if whole { Exact::of(rest, &self.tables) } else { Exact::All };
            while let Some(first) = rest.first() {
                let statement = statement(first, rest, &self.tables, &exact)?;
                if !script.sql.is_empty() && script.sql.len() + statement.sql.len() > SCRIPT_BYTES_MAX {
                    std::mem::take(&mut script).run(backend).await?;
                }
                script.add(first, &statement);
                rest = &rest[statement.taken..];
            }
        }
        script.run(backend).await
    }
}

/// Statements that are sent together.
#[derive(Default)]
struct Script<'a> {
    sql: String,
    /// What each command tag that comes back is about: the first change, and how many.
    expected: Vec<(&'a Change, usize)>,
}

impl<'a> Script<'a> {
    fn add(&mut self, first: &'a Change, statement: &Statement) {
        self.sql.push_str(&statement.sql);
        self.sql.push_str(";\n");
        self.expected.extend(std::iter::repeat_n((first, statement.taken), statement.tags));
    }

    async fn run(self, backend: &mut Backend) -> Result<(), ApplyError> {
        if self.expected.is_empty() {
            return Ok(());
        }
        let answer = backend.simple(&self.sql).await?;
        if answer.tags.len() != self.expected.len() {
            let (sent, answered) = (self.expected.len(), answer.tags.len());
            let what = format!("{answered} command tags for {sent} statements");
            return Err(ApplyError::Backend(BackendError::Protocol(what)));
        }
        self.expected.iter().zip(&answer.tags).try_for_each(|((first, taken), tag)| check(first, *taken, tag))
    }
}

impl Applying {
    /// Begins a transaction unless one is open, and reads what the catalogs say of the tables that are new to it.
    async fn begin<'a>(
        &mut self,
        backend: &mut Backend,
        changes: impl Iterator<Item = &'a Change>,
    ) -> Result<(), ApplyError> {
        let mut wanted: BTreeSet<(&str, &str)> =
            changes.map(|change| (change.schema.as_str(), change.table.as_str())).collect();
        wanted.retain(|(schema, table)| self.known.insert((schema.to_string(), table.to_string())));
        let mut sql = String::new();
        if !self.begun {
            self.begun = true;
            let idle = backend.transaction_status() == crate::connection::TransactionStatus::Idle;
            sql.push_str(if idle { "BEGIN; " } else { "" });
            // Text forms are read as they were written, whatever the database's settings are.
            sql.push_str(
                "SET LOCAL session_replication_role = replica; SET LOCAL search_path = pg_catalog; \
                 SET LOCAL datestyle = 'ISO, MDY'; SET LOCAL intervalstyle = postgres; SET LOCAL timezone = 'UTC'; \
                 SET LOCAL lc_monetary = 'C'; SET LOCAL xmloption = content; SET LOCAL standard_conforming_strings = on; \
                 SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = hex; SET CONSTRAINTS ALL DEFERRED; ",
            );
        }
        if wanted.is_empty() {
            if !sql.is_empty() {
                backend.simple(&sql).await?;
            }
            return Ok(());
        }
        sql.push_str(
            "SELECT n.nspname, c.relname, a.attname, c.relkind = 'p', \
             coalesce(a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]), false), \
             EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled IN ('A', 'R')) \
             OR EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_enabled IN ('A', 'R')), \
             coalesce(a.attidentity = 'a', false) \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             LEFT JOIN pg_attribute a \
             ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' \
             LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary AND i.indisvalid AND i.indimmediate \
             WHERE c.relkind IN ('r', 'p') AND (n.nspname, c.relname) IN (VALUES ",
        );
        for (index, (schema, table)) in wanted.iter().enumerate() {
            sql.push_str(if index == 0 { "(" } else { ", (" });
            quote::push_literal(&mut sql, schema);
            sql.push_str("::name, ");
            quote::push_literal(&mut sql, table);
            sql.push_str("::name)");
        }
        sql.push(')');
        for row in backend.simple(&sql).await?.rows {
            let [
                Some(schema),
                Some(name),
                column,
                Some(partitioned),
                Some(key),
                Some(always),
                Some(identity),
            ] = row.as_slice()
            else {
                continue;
            };
            let table = self.tables.entry((schema.clone(), name.clone())).or_default();
            table.partitioned = partitioned == "t";
            table.always = always == "t";
            if let Some(column) = column {
                table.columns.insert(column.clone(), key == "t");
                if identity == "t" {
                    table.identity = Some(column.clone());
                }
            }
        }
        Ok(())
    }
}

fn table<'a>(tables: &'a Tables, change: &Change) -> Result<&'a Table, ApplyError> {
    let table = tables.get(&(change.schema.clone(), change.table.clone()));
    let table = table.ok_or_else(|| ApplyError::NoRelation { relation: change.relation() })?;
    if table.always {
        return Err(ApplyError::AlwaysTrigger { relation: change.relation() });
    }
    let rows = [change.operation.old_row(), change.operation.new_row()];
    for (column, _) in rows.into_iter().flatten().flat_map(Row::columns) {
        if !table.columns.contains_key(column) {
            return Err(ApplyError::NoColumn { relation: change.relation(), column: column.to_string() });
        }
    }
    Ok(table)
}

/// What makes some changes.
struct Statement {
    sql: String,
    /// How many changes it covers.
    taken: usize,
    /// How many command tags it gives.
    tags: usize,
}

/// The statement for the first of `changes`.
fn statement(
    first: &Change,
    changes: &[Change],
    tables: &Tables,
    exact: &Exact<'_>,
) -> Result<Statement, ApplyError> {
    let table = table(tables, first)?;
    let exact = exact.is(first, tables);
    let mut sql = String::new();
    match &first.operation {
        Operation::Insert { new } => {
            let (sql, taken) = insert(first, new, changes);
            return Ok(Statement { sql, taken, tags: 1 });
        }
        Operation::Truncate { restart_identity } => {
            let (sql, taken) = truncate(*restart_identity, changes, tables)?;
            return Ok(Statement { sql, taken, tags: 1 });
        }
        Operation::Update { old, new } => {
            let identity = table.identity.as_deref();
            let settable = new.columns().any(|(name, _)| Some(name) != identity);
            if !settable || identity.is_some_and(|column| old.get(column) != new.get(column)) {
                // Changed by SET ... = DEFAULT, or not known to be unchanged.
                sql.push_str("DELETE FROM ONLY ");
                push_relation(&mut sql, first);
                push_where(&mut sql, first, old, table, exact);
                sql.push_str("; ");
                sql.push_str(&insert(first, new, std::slice::from_ref(first)).0);
                return Ok(Statement { sql, taken: 1, tags: 2 });
            }
            sql.push_str("UPDATE ONLY ");
            push_relation(&mut sql, first);
            sql.push_str(" SET ");
            let mut separator = "";
            for (name, value) in new.columns().filter(|(name, _)| Some(*name) != identity) {
                sql.push_str(separator);
                quote::push_identifier(&mut sql, name);
                sql.push_str(" = ");
                push_value(&mut sql, value);
                separator = ", ";
            }
            push_where(&mut sql, first, old, table, exact);
        }
        Operation::Delete { old } => {
            sql.push_str("DELETE FROM ONLY ");
            push_relation(&mut sql, first);
            push_where(&mut sql, first, old, table, exact);
        }
    }
    Ok(Statement { sql, taken: 1, tags: 1 })
}

/// One INSERT for as many of the following rows of the same table as one statement should hold.
fn insert(first: &Change, row: &Row, changes: &[Change]) -> (String, usize) {
    let mut sql = String::from("INSERT INTO ");
    push_relation(&mut sql, first);
    if row.columns().len() == 0 {
        sql.push_str(" DEFAULT VALUES");
        return (sql, 1);
    }
    let mut separator = " (";
    for (name, _) in row.columns() {
        sql.push_str(separator);
        quote::push_identifier(&mut sql, name);
        separator = ", ";
    }
    // A value of an identity column GENERATED ALWAYS is a value like others here.
    sql.push_str(") OVERRIDING SYSTEM VALUE VALUES ");
    let same_columns = |other: &Row| other.columns().map(|c| c.0).eq(row.columns().map(|c| c.0));
    let mut taken = 0;
    for change in changes {
        let Some(new) = change.operation.new_row() else { break };
        // The row of an update that is made as a delete and an insert comes alone.
        if taken > 0 && !matches!(change.operation, Operation::Insert { .. }) {
            break;
        }
        let same = change.schema == first.schema && change.table == first.table && same_columns(new);
        if !same || taken == INSERT_ROWS_MAX || (taken > 0 && sql.len() > INSERT_BYTES_MAX) {
            break;
        }
        sql.push_str(if taken == 0 { "(" } else { ", (" });
        let mut separator = "";
        for (_, value) in new.columns() {
            sql.push_str(separator);
            push_value(&mut sql, value);
            separator = ", ";
        }
        sql.push(')');
        taken += 1;
    }
    (sql, taken)
}

/// One TRUNCATE for all that follow each other: tables that refer to each other can only be truncated together.
fn truncate(
    restart_identity: bool,
    changes: &[Change],
    tables: &Tables,
) -> Result<(String, usize), ApplyError> {
    let mut sql = String::from("TRUNCATE ");
    let mut taken = 0;
    for change in changes {
        if change.operation != (Operation::Truncate { restart_identity }) {
            break;
        }
        if taken > 0 {
            sql.push_str(", ");
        }
        // Partitions are listed by themselves; their parent, which has no rows, cannot be ONLY.
        sql.push_str(if table(tables, change)?.partitioned { "" } else { "ONLY " });
        push_relation(&mut sql, change);
        taken += 1;
    }
    sql.push_str(if restart_identity { " RESTART IDENTITY" } else { "" });
    Ok((sql, taken))
}

/// Finds one row: by its primary key, if there is one, though the whole row may be known, unless it is `exact`. A row that
/// differs here in other columns becomes what it is elsewhere. Rows that are alike in all columns are interchangeable, so the
/// first will do.
fn push_where(sql: &mut String, change: &Change, old: &Row, table: &Table, exact: bool) {
    sql.push_str(" WHERE ctid = (SELECT ctid FROM ONLY ");
    push_relation(sql, change);
    let of_key = |name: &str| table.columns.get(name).copied().unwrap_or(false);
    let keys = table.columns.values().filter(|of_key| **of_key).count();
    let has_key =
        keys > 0 && old.columns().filter(|(name, value)| of_key(name) && value.is_some()).count() == keys;
    let mut separator = " WHERE ";
    let mut condition = |name: &str, before: &str, value: Option<&str>, after: &str| {
        sql.push_str(separator);
        separator = " AND ";
        sql.push_str(before);
        quote::push_identifier(sql, name);
        match value {
            None => sql.push_str(after),
            Some(value) => {
                sql.push_str(after);
                quote::push_literal(sql, value);
            }
        }
    };
    for (name, value) in old.columns().filter(|(name, _)| exact || !has_key || of_key(name)) {
        match value {
            None => condition(name, "", None, " IS NULL"),
            // By the key's own operator, so that its index serves.
            Some(value) if of_key(name) || change.identity != Identity::Row => {
                condition(name, "", Some(value), " = ");
            }
            Some(_) => condition(name, "", None, " IS NOT NULL"),
        }
        if let Some(value) = value
            && (exact || !of_key(name))
            && change.identity == Identity::Row
        {
            // By text form: not every type has an equality, and not every equality tells 1.0 from 1.00. concat()
            // calls the output function that decoding called; a cast to text might not.
            condition(name, "concat(", Some(value), ") COLLATE \"C\" = ");
        }
    }
    sql.push_str(" LIMIT 1)");
}

fn push_relation(sql: &mut String, change: &Change) {
    quote::push_identifier(sql, &change.schema);
    sql.push('.');
    quote::push_identifier(sql, &change.table);
}

fn push_value(sql: &mut String, value: Option<&str>) {
    match value {
        None => sql.push_str("NULL"),
        Some(value) => quote::push_literal(sql, value),
    }
}

/// `UPDATE 1`, `DELETE 1`, `INSERT 0 n`.
fn check(first: &Change, taken: usize, tag: &str) -> Result<(), ApplyError> {
    if matches!(first.operation, Operation::Truncate { .. }) {
        return Ok(());
    }
    let hit = tag.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0);
    if hit == taken as u64 {
        return Ok(());
    }
    let mut row = String::new();
    for (name, value) in first.operation.old_row().into_iter().flat_map(Row::columns) {
        let value: String = value.unwrap_or("null").chars().take(60).collect();
        let _ = write!(row, "{}{name} = {value}", if row.is_empty() { "" } else { ", " });
        if row.len() > 500 {
            row.push_str(", ...");
            break;
        }
    }
    Err(ApplyError::NotOneRow { relation: first.relation(), hit, row })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(columns: &[(&str, Option<&str>)]) -> Row {
        Row::new(columns.iter().map(|(n, v)| (n.to_string(), v.map(str::to_string))).collect()).unwrap()
    }

    fn change(operation: Operation) -> Change {
        Change { schema: "public".into(), table: "t".into(), identity: Identity::Key(vec![0]), operation }
    }

    fn tables() -> Tables {
        let columns = [("id".to_string(), true), ("v".to_string(), false)].into();
        [(("public".to_string(), "t".to_string()), Table { columns, ..Table::default() })].into()
    }

    #[test]
    fn inserts_share_a_statement() {
        let insert = |id| change(Operation::Insert { new: row(&[("id", Some(id)), ("v", None)]) });
        let changes =
            [insert("1"), insert("2"), change(Operation::Delete { old: row(&[("id", Some("1"))]) })];
        let Statement { sql, taken, tags } =
            statement(&changes[0], &changes, &tables(), &Exact::All).unwrap();
        assert_eq!((taken, tags), (2, 1));
        assert_eq!(
            sql,
            r#"INSERT INTO "public"."t" ("id", "v") OVERRIDING SYSTEM VALUE VALUES ('1', NULL), ('2', NULL)"#
        );
    }

    #[test]
    fn quotes_cannot_leave_their_literal() {
        let delete = change(Operation::Delete { old: row(&[("id", Some("1'; DROP TABLE t; --"))]) });
        let Statement { sql, .. } =
            statement(&delete, std::slice::from_ref(&delete), &tables(), &Exact::All).unwrap();
        assert!(sql.ends_with(r#""id" = '1''; DROP TABLE t; --' LIMIT 1)"#), "{sql}");
    }

    #[test]
    fn unknown_relations_and_columns_are_errors() {
        let insert = change(Operation::Insert { new: row(&[("other", None)]) });
        let all = std::slice::from_ref(&insert);
        assert!(matches!(statement(&insert, all, &tables(), &Exact::All), Err(ApplyError::NoColumn { .. })));
        assert!(matches!(
            statement(&insert, all, &Tables::new(), &Exact::All),
            Err(ApplyError::NoRelation { .. })
        ));
    }

    #[test]
    fn a_miss_names_the_key() {
        let delete = change(Operation::Delete { old: row(&[("id", Some("7"))]) });
        let error = check(&delete, 1, "DELETE 0").unwrap_err().to_string();
        assert_eq!(error, "0 rows of public.t instead of one have id = 7");
    }
}
