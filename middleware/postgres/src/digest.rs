//! Digests of a replica's contents: of tables, to compare replicas row for row, and of the catalogs, by name.
//!
//! Invariants:
//! - a table's digest does not depend on the order of rows or columns, on dead rows or on OIDs;
//! - generated columns are in it (decoding does not show them, G3);
//! - text forms are pinned, whatever the database or the role has set.

use crate::connection::{Backend, BackendError, TransactionStatus};
use crate::quote;
use steeldb_types::{Digest, Hasher};

/// The digest of one table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableDigest {
    /// Schema.
    pub schema: String,
    /// Name.
    pub table: String,
    /// Rows.
    pub rows: u64,
    /// Over the rows' multiset, their number and the column names.
    pub digest: Digest,
}

/// A table or materialized view with its columns in ascending order of their names.
struct Table {
    schema: String,
    table: String,
    columns: Vec<String>,
}

/// Lanes of 64 bits that the digests of rows are added in.
const LANES: usize = 4;

/// Digests of all user tables and materialized views but temporary ones, which may be dropped beside it, and of
/// `steeldb.transaction`, in the snapshot of the transaction that `backend` (a superuser's session) has open.
///
/// The digests of rows, salted, are added lane by lane, which needs one pass and no memory. Sums of unsalted digests can be forged
/// by whoever may choose many rows; so give a `salt` that was not known when the rows were written, such as one drawn
/// for this comparison.
///
/// # Errors
/// [`BackendError`]; `Protocol` when no transaction is open.
pub async fn table_digests(backend: &mut Backend, salt: &[u8]) -> Result<Vec<TableDigest>, BackendError> {
    pin_text_forms(backend).await?;
    let mut digests = Vec::new();
    for table in tables(backend).await? {
        digests.push(table_digest(backend, &table, salt).await?);
    }
    Ok(digests)
}

/// The digest of the catalogs by name, as the open transaction sees them: `steeldb.catalog_digest()`.
///
/// # Errors
/// [`BackendError`].
pub async fn catalog_digest(backend: &mut Backend) -> Result<Digest, BackendError> {
    let answer = backend.simple("SELECT pg_catalog.encode(steeldb.catalog_digest(), 'hex')").await?;
    let mut digest = [0u8; 32];
    answer
        .value()
        .and_then(|text| hex::decode_to_slice(text, &mut digest).ok())
        .ok_or_else(|| BackendError::Protocol("a catalog digest is 32 bytes".to_string()))?;
    Ok(Digest(digest))
}

async fn pin_text_forms(backend: &mut Backend) -> Result<(), BackendError> {
    if backend.transaction_status() != TransactionStatus::InTransaction {
        return Err(BackendError::Protocol("table digests are taken inside a transaction".to_string()));
    }
    backend
        .simple(
            "SET LOCAL search_path = pg_catalog; SET LOCAL datestyle = 'ISO, MDY'; SET LOCAL intervalstyle = postgres; \
             SET LOCAL timezone = 'UTC'; SET LOCAL lc_monetary = 'C'; SET LOCAL extra_float_digits = 1; \
             SET LOCAL bytea_output = hex",
        )
        .await?;
    Ok(())
}

async fn tables(backend: &mut Backend) -> Result<Vec<Table>, BackendError> {
    let answer = backend
        .simple(
            "SELECT n.nspname, c.relname, a.attname \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
             WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' \
             AND (n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'steeldb') \
             AND n.nspname !~ '^steeldb_temp_[0-9a-f]{20}$' \
             OR (n.nspname, c.relname) = ('steeldb', 'transaction')) \
             ORDER BY n.nspname COLLATE \"C\", c.relname COLLATE \"C\", a.attname COLLATE \"C\"",
        )
        .await?;
    let mut tables: Vec<Table> = Vec::new();
    for row in answer.rows {
        let [Some(schema), Some(table), column] = row.as_slice() else { continue };
        let same = tables.last().is_some_and(|last| last.schema == *schema && last.table == *table);
        if !same {
            tables.push(Table { schema: schema.clone(), table: table.clone(), columns: Vec::new() });
        }
        if let (Some(last), Some(column)) = (tables.last_mut(), column) {
            last.columns.push(column.clone());
        }
    }
    Ok(tables)
}

async fn table_digest(
    backend: &mut Backend,
    table: &Table,
    salt: &[u8],
) -> Result<TableDigest, BackendError> {
    let answer = backend.simple(&statement(table, salt)).await?;
    let malformed = || BackendError::Protocol("a table digest is a count and its lanes".to_string());
    let row = answer.rows.first().ok_or_else(malformed)?;
    let rows = row.first().cloned().flatten().and_then(|count| count.parse().ok()).ok_or_else(malformed)?;
    let mut hasher = Hasher::new("steeldb/table/1");
    hasher.number(rows);
    for column in &table.columns {
        hasher.part(column.as_bytes());
    }
    for lane in 1..=LANES {
        let sum = row.get(lane).cloned().flatten().ok_or_else(malformed)?;
        hasher.part(sum.as_bytes());
    }
    Ok(TableDigest {
        schema: table.schema.clone(),
        table: table.table.clone(),
        rows,
        digest: hasher.finish(),
    })
}

/// A row's text is that of a record of its columns, which quotes values and tells null from empty. The numeric sums are
/// exact, so no reduction is needed.
fn statement(table: &Table, salt: &[u8]) -> String {
    let columns: Vec<String> = table.columns.iter().map(|column| quote::identifier(column)).collect();
    let lanes: Vec<String> = (0..LANES)
        .map(|lane| format!("coalesce(sum(('x' || substr(h, {}, 16))::bit(64)::int8), 0)", lane * 16 + 1))
        .collect();
    format!(
        "SELECT count(*), {} FROM (SELECT encode(sha256('\\x{}'::bytea || convert_to(ROW({})::text, 'UTF8')), 'hex') AS h \
         FROM ONLY {}.{} OFFSET 0) AS rows",
        lanes.join(", "),
        hex::encode(salt),
        columns.join(", "),
        quote::identifier(&table.schema),
        quote::identifier(&table.table),
    )
}
