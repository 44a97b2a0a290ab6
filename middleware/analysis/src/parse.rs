//! The way to PostgreSQL's parser and scanner: bounds, stacks, and errors with their positions.
//!
//! The parser lets through trees of at most 10,000 nested messages (an operator takes two, a UNION one, a sub-select
//! six) and 10,000 open parentheses, with chains of AND and OR flat; beyond, the answer is 54001, as PostgreSQL's own
//! is at its `max_stack_depth`. Decoding, walking and dropping a tree recurse as deep, so every text that could nest
//! deeply is analysed on a thread whose stack holds the deepest tree.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use pg_query::protobuf::{ParseResult, ScanToken};
use steeldb_types::limits::STATEMENT_BYTES_MAX;

use crate::SyntaxError;

/// Texts up to this length are analysed on the caller's stack: a level of nesting takes at least two bytes.
const SHALLOW_BYTES_MAX: usize = 512;

/// The stack for all other texts, bytes. Only what is touched is ever backed by memory.
const STACK_BYTES: usize = 128 * 1024 * 1024;

/// While it parses or scans, the library redirects the process's standard error; two at once would lose it.
static LIBRARY: Mutex<()> = Mutex::new(());

const DEPTH_HINT: &str = "Nest the statement less deeply, or split it.";

/// Runs `analysis` of `sql` where its recursion fits the stack.
pub fn with_stack<T: Send>(
    sql: &str,
    analysis: impl FnOnce() -> Result<T, SyntaxError> + Send,
) -> Result<T, SyntaxError> {
    if sql.len() > STATEMENT_BYTES_MAX {
        return Err(error(
            "54000",
            format!(
                "statement is too long: {} bytes, at most {STATEMENT_BYTES_MAX} are supported",
                sql.len()
            ),
            Some("Split the statement, send values as parameters, or use COPY."),
        ));
    }
    if sql.contains('\0') {
        return Err(error("22021", "invalid byte sequence for encoding \"UTF8\": 0x00".into(), None));
    }
    if sql.len() <= SHALLOW_BYTES_MAX {
        return caught(analysis);
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("sql-analysis".into())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || caught(analysis));
        match thread {
            Ok(thread) => thread.join().unwrap_or_else(|_| Err(unreadable())),
            Err(_) => Err(error("53200", "out of memory for the analysis of a statement".into(), None)),
        }
    })
}

/// The tree of `sql`. Call it, and drop its result, inside [`with_stack`].
pub fn parse(sql: &str) -> Result<ParseResult, SyntaxError> {
    match library(|| pg_query::parse(sql, 0)) {
        Ok(result) => Ok(result.protobuf),
        Err(pg_query::Error::Parse(message)) => Err(parse_error(sql, message)),
        Err(pg_query::Error::Conversion(_)) => Err(unreadable()),
        Err(_) => Err(unreadable()),
    }
}

/// The tokens of `sql`, comments included, in order. Nothing when the scanner itself fails.
pub fn scan(sql: &str) -> Vec<ScanToken> {
    library(|| pg_query::scan_tokens(sql)).unwrap_or_default()
}

fn library<T>(call: impl FnOnce() -> T) -> T {
    let _guard = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
    call()
}

/// A panic of the binding's own tree inspection must cost one statement, not the session.
fn caught<T>(analysis: impl FnOnce() -> Result<T, SyntaxError>) -> Result<T, SyntaxError> {
    catch_unwind(AssertUnwindSafe(analysis)).unwrap_or_else(|_| Err(unreadable()))
}

fn unreadable() -> SyntaxError {
    error("0A000", "statement could not be analysed by SteelDB".into(), Some("Please report the statement."))
}

fn error(sqlstate: &'static str, message: String, hint: Option<&'static str>) -> SyntaxError {
    SyntaxError { sqlstate, message, hint, position: None, byte: None }
}

fn parse_error(sql: &str, message: String) -> SyntaxError {
    if message.starts_with("stack depth limit") || message.starts_with("memory exhausted") {
        return error("54001", "stack depth limit exceeded".into(), Some(DEPTH_HINT));
    }
    let byte = error_byte(sql, &message);
    let position = byte.and_then(|byte| sql.get(..byte)).map(|before| before.chars().count() + 1);
    SyntaxError { sqlstate: "42601", message, hint: None, position, byte: position.and(byte) }
}

/// Where a parse error lies. The binding keeps the message and drops the position, so it is found again: at the end,
/// where the text named by the message begins if the scanner failed, else at the first token with that text that
/// the parser does not accept after what stands before it.
fn error_byte(sql: &str, message: &str) -> Option<usize> {
    if message.ends_with(" at end of input") {
        return Some(sql.len());
    }
    let (_, near) = message.split_once(" at or near \"")?;
    let near = near.strip_suffix('"')?;
    let tokens = scan(sql);
    if tokens.is_empty() {
        // The scanner failed; what it could not read runs to the end of the text, or is one odd character.
        return if sql.ends_with(near) { Some(sql.len() - near.len()) } else { sql.find(near) };
    }
    let candidates: Vec<(usize, usize)> = tokens
        .iter()
        .map(|token| (token.start as usize, token.end as usize))
        .filter(|&(start, end)| sql.get(start..end) == Some(near))
        .collect();
    // Prefixes are accepted as far as the offending token: a search by halves finds the first that is not.
    let offends = |end: usize| {
        sql.get(..end).is_some_and(|prefix| match library(|| pg_query::parse(prefix, 0)) {
            Err(pg_query::Error::Parse(other)) => !other.ends_with(" at end of input"),
            _ => false,
        })
    };
    let first = if candidates.len() == 1 { 0 } else { candidates.partition_point(|&(_, end)| !offends(end)) };
    candidates.get(first).map(|&(start, _)| start)
}
