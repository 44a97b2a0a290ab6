//! Certified-deterministic statements (design, section 8): those of which every correct replica has the same result, on
//! the same snapshot, whatever it knows of statistics, plans, clocks and physical order. A master whose result of one
//! differs from one's own has lied, or cannot do better; of any other statement it may only have been unlucky.
//!
//! Three sieves, and what is caught in none is certified: the grammar ([`steeldb_analysis::certificate`]), which leaves
//! names; PostgreSQL's own analysis, which turns them into OIDs ([`tree`], [`shape`]); and the catalogs, here. Names must
//! mean the same in every session: an unqualified one must be the only one of its kind in any schema, since search paths
//! are the client's. Functions must be immutable, built in, and, unless there is one row that they are certainly called
//! for, unable to fail: whether a plan evaluates what fails is up to statistics.
//!
//! What is certified is the result of a statement that succeeded. Whether it succeeds may be a matter of timing and of
//! space: [`is_excused`] names the errors that a correct master may have where others have none.

mod shape;
mod tree;

use bytes::BytesMut;
use shape::{COLUMN_TYPES, Shape};
use std::collections::BTreeSet;
use std::path::Path;
use steeldb_analysis::{Certificate, Name, certificate};
use steeldb_postgres::message::{ErrorFields, parse, sync, tag};
use steeldb_postgres::{AGENT_ROLE, Backend, BackendError, quote};
use steeldb_wire::transaction::StatementText;

/// Time of the server's, so that functions of these names are as fixed as the transaction's slot.
const CLOCKS: [&str; 9] = [
    "now",
    "transaction_timestamp",
    "statement_timestamp",
    "clock_timestamp",
    "current_timestamp",
    "current_date",
    "localtimestamp",
    "localtime",
    "current_time",
];

/// Built-in functions that cannot fail though they are not marked leakproof.
const CANNOT_FAIL: [&str; 6] =
    ["numeric_eq", "numeric_ne", "numeric_lt", "numeric_le", "numeric_gt", "numeric_ge"];

/// Indexes, constraints and defaults are read as text; what cannot be certified there is known by these words.
const OPAQUE: &str =
    "SQLVALUEFUNCTION|NEXTVALUEEXPR|COERCEVIAIO|ARRAYCOERCE|SUBLINK|XMLEXPR|JSON|:opfuncid 0 ";

/// Whether a correct replica may fail with this SQLSTATE where another one, with the same snapshot, does not: conflicts
/// with others, cancellation, and what a server has too little of. A master's result that is such an error proves nothing.
pub fn is_excused(sqlstate: &str) -> bool {
    const CONFLICTS: [&str; 5] = ["23503", "23505", "23P01", "25P02", "55P03"];
    const CLASSES: [&str; 6] = ["40", "53", "54", "57", "58", "XX"];
    CONFLICTS.contains(&sqlstate) || CLASSES.iter().any(|class| sqlstate.starts_with(class))
}

/// Whether the statement is certified deterministic on the server behind `socket_dir`, as its catalogs are now.
/// `row_order`: its rows are compared in sequence, as the operation says. What cannot be found out is not certified.
pub async fn is_certified(
    socket_dir: &Path,
    database: &str,
    statement: &StatementText,
    row_order: bool,
) -> bool {
    let text = statement.sql.clone();
    let Ok(Some(certificate)) = tokio::task::spawn_blocking(move || certificate(&text)).await else {
        return false;
    };
    match look_up(socket_dir, database, statement, &certificate, row_order).await {
        Ok(certified) => certified,
        Err(error) => {
            tracing::debug!(%error, "a statement could not be looked up, so it is not certified");
            false
        }
    }
}

async fn look_up(
    socket_dir: &Path,
    database: &str,
    statement: &StatementText,
    certificate: &Certificate,
    row_order: bool,
) -> Result<bool, BackendError> {
    let mut backend = Backend::connect(socket_dir, database, AGENT_ROLE, &[]).await?;
    backend
        .simple(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = '1s'; \
             SET LOCAL statement_timeout = '10s'; SET LOCAL search_path = pg_catalog",
        )
        .await?;
    let Some(path) = names_are_clear(&mut backend, certificate).await? else { return Ok(false) };
    let Some(text) = analysed(&mut backend, &path, statement).await? else { return Ok(false) };
    let shape = tree::read(&text).and_then(|tree| shape::shape(&tree, row_order));
    let Some(shape) = shape else { return Ok(false) };
    Ok(functions_are_fixed(&mut backend, &shape).await?
        && tables_are_plain(&mut backend, &shape).await?
        && writes_are_plain(&mut backend, &shape).await?
        && keys_hold(&mut backend, &shape).await?)
}

/// Whether each name means the same under every search path; if so, one under which it means that.
async fn names_are_clear(
    backend: &mut Backend,
    certificate: &Certificate,
) -> Result<Option<String>, BackendError> {
    let unqualified = |names: &BTreeSet<Name>| {
        array(names.iter().filter(|name| name.schema.is_none()).map(|name| name.name.as_str()))
    };
    let schemas_are = |names: &BTreeSet<Name>, allowed: &[&str]| {
        names.iter().filter_map(|name| name.schema.as_deref()).all(|schema| allowed.contains(&schema))
    };
    if !schemas_are(&certificate.functions, &["pg_catalog", "steeldb"])
        || !schemas_are(&certificate.operators, &["pg_catalog"])
        || !schemas_are(&certificate.types, &["pg_catalog"])
    {
        return Ok(None);
    }
    // Schema steeldb shadows what is not fixed by itself, and stands in a path or does not.
    let shadowed = "SELECT EXISTS (SELECT FROM pg_proc WHERE proname = ANY ($1::text[]) \
                        AND pronamespace <> 'pg_catalog'::regnamespace) \
                    OR EXISTS (SELECT FROM pg_operator WHERE oprname = ANY ($2::text[]) \
                        AND oprnamespace <> 'pg_catalog'::regnamespace) \
                    OR EXISTS (SELECT FROM pg_type WHERE typname = ANY ($3::text[]) \
                        AND typnamespace <> 'pg_catalog'::regnamespace)";
    let names = [
        unqualified(&certificate.functions),
        unqualified(&certificate.operators),
        unqualified(&certificate.types),
    ];
    let values: Vec<Option<&str>> = names.iter().map(|names| Some(names.as_str())).collect();
    if backend.extended(shadowed, &values).await?.value() != Some("f") {
        return Ok(None);
    }
    let found = backend
        .extended(
            "SELECT min(n.nspname::text), count(*) FROM unnest($1::text[]) AS wanted(name) \
             LEFT JOIN pg_class c ON c.relname = wanted.name AND c.relkind NOT IN ('i', 'I', 't') \
             LEFT JOIN pg_namespace n ON n.oid = c.relnamespace GROUP BY wanted.name",
            &[Some(&unqualified(&certificate.relations))],
        )
        .await?;
    let mut path = vec![];
    for row in &found.rows {
        match row.as_slice() {
            [Some(schema), Some(count)] if count == "1" => path.push(quote::identifier(schema)),
            _ => return Ok(None),
        }
    }
    path.push("pg_catalog".to_string());
    Ok(Some(path.join(", ")))
}

/// The statement as PostgreSQL understands it, views and defaults put in. It is not executed.
async fn analysed(
    backend: &mut Backend,
    path: &str,
    statement: &StatementText,
) -> Result<Option<String>, BackendError> {
    backend
        .simple(&format!(
            "SET LOCAL search_path = {path}; SET LOCAL log_min_messages = panic; \
             SET LOCAL client_min_messages = log; SET LOCAL debug_pretty_print = off; \
             SET LOCAL debug_print_rewritten = on"
        ))
        .await?;
    let mut out = BytesMut::new();
    parse("", &statement.sql, &statement.parameter_types, &mut out)?;
    sync(&mut out);
    backend.send(&out).await?;
    let mut trees = Vec::new();
    let mut failed = false;
    loop {
        let message = backend.next_message().await?;
        match message.tag {
            tag::READY_FOR_QUERY => break,
            tag::ERROR_RESPONSE => failed = true,
            tag::NOTICE_RESPONSE => {
                let fields = ErrorFields::parse(&message.body)?;
                if fields.severity == "LOG" && fields.message.starts_with("rewritten parse tree") {
                    trees.extend(fields.detail);
                }
            }
            _ => {}
        }
    }
    if failed || trees.len() != 1 {
        return Ok(None);
    }
    backend.simple("SET LOCAL debug_print_rewritten = off; SET LOCAL search_path = pg_catalog").await?;
    Ok(trees.pop())
}

/// Whether all functions are built in and immutable, and fail only where they may.
async fn functions_are_fixed(backend: &mut Backend, shape: &Shape) -> Result<bool, BackendError> {
    let answer = backend
        .extended(
            "SELECT count(*) FROM (SELECT unnest($1::oid[]) AS oid, false AS may_fail \
                                   UNION ALL SELECT unnest($2::oid[]), true) AS called \
             WHERE NOT EXISTS (SELECT FROM pg_proc p WHERE p.oid = called.oid AND ( \
                 p.oid < 16384 AND p.pronamespace = 'pg_catalog'::regnamespace AND p.provolatile = 'i' \
                     AND (called.may_fail OR p.proleakproof OR p.proname = ANY ($3::text[])) \
                 OR p.pronamespace = 'steeldb'::regnamespace AND p.proname = ANY ($4::text[])))",
            &[
                Some(&array(shape.safe.iter())),
                Some(&array(shape.immutable.iter())),
                Some(&array(CANNOT_FAIL.iter())),
                Some(&array(CLOCKS.iter())),
            ],
        )
        .await?;
    Ok(answer.value() == Some("0"))
}

/// The tables with the partitions of those that are partitioned.
const TREE: &str = "WITH RECURSIVE tree(oid) AS (SELECT unnest($1::oid[]) \
                    UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree ON i.inhparent = tree.oid)";

/// Whether all are ordinary or partitioned tables of clients, with plain columns, and rows that everyone sees.
async fn tables_are_plain(backend: &mut Backend, shape: &Shape) -> Result<bool, BackendError> {
    let columns = array(COLUMN_TYPES.iter());
    let answer = backend
        .extended(
            &format!(
                "{TREE} SELECT count(*) FROM tree LEFT JOIN pg_class c ON c.oid = tree.oid \
                 LEFT JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.oid IS NULL OR c.relkind NOT IN ('r', 'p') OR c.relpersistence <> 'p' \
                 OR c.relrowsecurity OR c.relhasrules OR c.oid < 16384 \
                 OR n.nspname IN ('pg_catalog', 'information_schema', 'steeldb') OR n.nspname ~ '^pg_' \
                 OR c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid) \
                 OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 \
                     AND NOT a.attisdropped AND (a.atttypid <> ALL ($2::oid[]) OR a.attcollation NOT IN (0, 100, 950)))"
            ),
            &[Some(&array(shape.relations.iter())), Some(&columns)],
        )
        .await?;
    Ok(answer.value() == Some("0"))
}

/// Whether writing to the target runs nothing but what is fixed: no triggers, no cascades, immutable expressions.
async fn writes_are_plain(backend: &mut Backend, shape: &Shape) -> Result<bool, BackendError> {
    let Some(target) = shape.target else { return Ok(true) };
    let answer = backend
        .extended(
            &format!(
                "{TREE}, expressions(text) AS ( \
                     SELECT d.adbin::text FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid \
                         AND a.attnum = d.adnum WHERE d.adrelid IN (TABLE tree) AND a.attgenerated <> '' \
                     UNION ALL SELECT conbin::text FROM pg_constraint WHERE conrelid IN (TABLE tree) AND conbin IS NOT NULL \
                     UNION ALL SELECT concat(indexprs::text, ' ', indpred::text) FROM pg_index \
                         WHERE indrelid IN (TABLE tree)) \
                 SELECT NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid IN (TABLE tree) AND NOT tgisinternal) \
                 AND NOT ($2::bool AND EXISTS (SELECT FROM pg_constraint WHERE confrelid IN (TABLE tree) \
                     AND contype = 'f' AND (confupdtype NOT IN ('a', 'r') OR confdeltype NOT IN ('a', 'r')))) \
                 AND NOT EXISTS (SELECT FROM pg_index i, unnest(i.indclass::oid[]) AS class(oid) \
                     WHERE i.indrelid IN (TABLE tree) AND class.oid >= 16384) \
                 AND NOT EXISTS (SELECT FROM expressions WHERE text ~ $3) \
                 AND NOT EXISTS (SELECT FROM expressions, regexp_matches(text, ':(?:opfuncid|funcid) ([0-9]+)', 'g') AS m(found) \
                     WHERE NOT EXISTS (SELECT FROM pg_proc p WHERE p.oid = found[1]::oid AND p.oid < 16384 \
                         AND p.pronamespace = 'pg_catalog'::regnamespace AND p.provolatile = 'i'))"
            ),
            &[
                Some(&array([target].iter())),
                Some(if shape.changes_rows { "true" } else { "false" }),
                Some(OPAQUE),
            ],
        )
        .await?;
    Ok(answer.value() == Some("t"))
}

/// Whether the unique keys that the statement rests on are there.
async fn keys_hold(backend: &mut Backend, shape: &Shape) -> Result<bool, BackendError> {
    let none = BTreeSet::new();
    let sorted = match (&shape.must_be_key, shape.must_pin) {
        (None, false) => return Ok(true),
        (Some(columns), false) => columns,
        (_, true) => &none,
    };
    let Some(relation) = shape.relations.first().map(u32::to_string) else { return Ok(false) };
    let answer = backend
        .extended(
            "SELECT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = $1::oid AND i.indisunique AND i.indisvalid \
                 AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL \
                 AND NOT EXISTS (SELECT FROM generate_series(0, i.indnkeyatts - 1) AS k WHERE NOT ( \
                     EXISTS (SELECT FROM unnest($2::int[], $3::oid[]) AS pin(att, op) \
                         JOIN pg_opclass c ON c.oid = i.indclass[k] \
                         JOIN pg_amop o ON o.amopfamily = c.opcfamily AND o.amopopr = pin.op \
                             AND o.amopstrategy = 3 AND o.amopmethod = 403 \
                         WHERE pin.att = i.indkey[k]) \
                     OR i.indkey[k] = ANY ($4::int[]) AND EXISTS (SELECT FROM pg_attribute a \
                         WHERE a.attrelid = i.indrelid AND a.attnum = i.indkey[k] AND a.attnotnull))))",
            &[
                Some(&relation),
                Some(&array(shape.pins.iter().map(|(column, _)| column))),
                Some(&array(shape.pins.iter().map(|(_, operator)| operator))),
                Some(&array(sorted.iter())),
            ],
        )
        .await?;
    Ok(answer.value() == Some("t"))
}

/// An array in PostgreSQL's text form.
fn array<T: ToString>(items: impl Iterator<Item = T>) -> String {
    let quoted = |item: T| format!("\"{}\"", item.to_string().replace('\\', "\\\\").replace('"', "\\\""));
    format!("{{{}}}", items.map(quoted).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_hold_any_name() {
        assert_eq!(array(["a", "b\"\\"].iter()), r#"{"a","b\"\\"}"#);
        assert_eq!(array([1, 2].iter()), r#"{"1","2"}"#);
        assert_eq!(array([0; 0].iter()), "{}");
    }

    #[test]
    fn errors_of_timing_and_space_are_excused_and_no_others() {
        for sqlstate in ["40001", "40P01", "55P03", "57014", "23505", "53100", "XX000"] {
            assert!(is_excused(sqlstate), "{sqlstate}");
        }
        for sqlstate in ["22012", "23514", "42P01", "P0001"] {
            assert!(!is_excused(sqlstate), "{sqlstate}");
        }
    }
}
