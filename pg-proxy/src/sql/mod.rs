//! SQL analysis: what each statement of a query is, what must be refused, and the text to run instead.
//!
//! The grammar is PostgreSQL's own. Invariants: text that is not rewritten stays the user's to the byte; every
//! position in rewritten text leads back to one in the user's query; no input makes the analysis panic or overflow
//! its stack; what PostgreSQL would not parse never reaches a replica.
//!
//! This is a service to honest clients (early, helpful errors). Nothing here protects a replica from a client: each
//! replica enforces its own rules (A4), and what differs between replicas ends in an abort.

mod cache;
mod classify;
mod modes;
mod outcome;
mod position;
mod refuse;
mod rewrite;
mod statement;
mod temporary;
#[cfg(test)]
mod tests;
mod walk;

pub use cache::{Analysis, Analyzer};
pub use modes::{Isolation, TransactionModes};
pub(crate) use rewrite::extended_path;
pub use statement::{Argument, Flags, Refusal, Statement, StatementKind};
pub use steeldb_analysis::SyntaxError;

use pg_query::protobuf::RawStmt;
use rewrite::Source;
use statement::IfTemporary;
use steeldb_analysis::parse;

/// Analyses a query string of any number of statements; empty ones are left out.
///
/// # Errors
///
/// 42601 with PostgreSQL's message and position where its grammar refuses the text; 54000 past
/// [`steeldb_types::limits::STATEMENT_BYTES_MAX`]; 54001 for text nested too deeply; 22021 for a zero byte.
pub fn analyze(sql: &str) -> Result<Vec<Statement>, SyntaxError> {
    parse::with_stack(sql, || {
        let tree = parse::parse(sql)?;
        let source = Source::new(sql);
        Ok(tree.stmts.iter().filter_map(|raw| statement(&source, raw)).collect())
    })
}

fn statement(source: &Source<'_>, raw: &RawStmt) -> Option<Statement> {
    let node = raw.stmt.as_deref()?.node.as_ref()?;
    let found = walk::walk(node);
    let kind = classify::kind(node, &found);
    let mut flags = classify::flags(node, &kind, &found);
    let refused = refuse::refusal(source, node, &kind, &found);

    let start = usize::try_from(raw.stmt_location).ok()?;
    let end = match usize::try_from(raw.stmt_len) {
        Ok(length) if length > 0 => start + length,
        _ => source.sql.len(),
    };
    let (start, end) = source.trim(start, end);
    let temporary = temporary::on_commit(node, &found);
    flags.wall &= temporary.is_none();
    let mut edits = rewrite::edits(source, &found);
    edits.extend(temporary::edits(source, &found, temporary.is_some(), (start, end)));
    rewrite::order(&mut edits);
    let if_temporary = temporary::if_temporary(source, node, start);
    edits.retain(|edit| start <= edit.start && edit.end <= end);
    let (text, positions) = position::apply(source.sql, start, end, &edits);
    let if_temporary = if_temporary.map(|(names, more)| {
        let mut edits = edits.clone();
        edits.extend(more);
        rewrite::order(&mut edits);
        let (text, positions) = position::apply(source.sql, start, end, &edits);
        IfTemporary { names, text, positions }
    });
    let offset = source.sql[..start].chars().count();
    Some(Statement {
        text,
        offset,
        kind,
        flags,
        parameters: found.parameters,
        temporary,
        if_temporary,
        refused,
        is_of_temporary: false,
        positions,
    })
}
