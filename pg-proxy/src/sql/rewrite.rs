//! Rewriting by replacing text at tokens, so that the rest of the statement stays the user's to the letter.
//!
//! What reads the clock or draws random values goes to its replicated equivalent in schema `steeldb`; search paths
//! get `steeldb` directly before `pg_catalog`; COPY loses FREEZE, which would make rows visible to older snapshots.

use std::cell::OnceCell;
use std::cmp::Reverse;

use pg_query::protobuf::{ScanToken, Token, VariableSetKind};

use super::position::Edit;
use super::walk::{Call, Findings, Literal, Setting};
use steeldb_analysis::parse;
use steeldb_types::TEMPORARY_SCHEMA_PLACEHOLDER;

/// Functions that are sent to schema `steeldb`, unqualified or as `pg_catalog`'s.
const REPLICATED: [&str; 8] = [
    "now",
    "statement_timestamp",
    "clock_timestamp",
    "transaction_timestamp",
    "timeofday",
    "gen_random_uuid",
    "nextval",
    "setval",
];

/// A query string with its tokens, scanned when first needed.
pub(super) struct Source<'a> {
    pub(super) sql: &'a str,
    tokens: OnceCell<Vec<ScanToken>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(sql: &'a str) -> Self {
        Self { sql, tokens: OnceCell::new() }
    }

    /// All tokens but comments, in order.
    pub(super) fn tokens(&self) -> &[ScanToken] {
        self.tokens.get_or_init(|| {
            let mut tokens = parse::scan(self.sql);
            tokens.retain(|token| {
                token.token != Token::SqlComment as i32 && token.token != Token::CComment as i32
            });
            tokens
        })
    }

    /// The 1-based character position of byte `location`.
    pub(super) fn position(&self, location: i32) -> Option<usize> {
        let byte = usize::try_from(location).ok()?;
        Some(self.sql.get(..byte)?.chars().count() + 1)
    }

    /// The part of `start..end` between the first and the last token in it.
    pub(super) fn trim(&self, start: usize, end: usize) -> (usize, usize) {
        let slice = &self.sql[start..end];
        if !slice.contains("--") && !slice.contains("/*") {
            let space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c');
            let trimmed = slice.trim_start_matches(space);
            let first = end - trimmed.len();
            return (first, first + trimmed.trim_end_matches(space).len());
        }
        let tokens = self.tokens();
        let from = tokens.partition_point(|token| (token.start as usize) < start);
        let to = tokens.partition_point(|token| token.end as usize <= end);
        match tokens.get(from..to) {
            Some([only]) => (only.start as usize, only.end as usize),
            Some([first, .., last]) => (first.start as usize, last.end as usize),
            _ => (start, end),
        }
    }

    pub(super) fn index_at(&self, location: i32) -> Option<usize> {
        self.tokens().binary_search_by_key(&location, |token| token.start).ok()
    }

    pub(super) fn text(&self, index: usize) -> &'a str {
        let Some(token) = self.tokens().get(index) else { return "" };
        self.sql.get(token.start as usize..token.end as usize).unwrap_or("")
    }

    pub(super) fn is(&self, index: usize, kind: Token) -> bool {
        self.tokens().get(index).is_some_and(|token| token.token == kind as i32)
    }

    pub(super) fn start(&self, index: usize) -> usize {
        self.tokens().get(index).map_or(self.sql.len(), |token| token.start as usize)
    }

    pub(super) fn end(&self, index: usize) -> usize {
        self.tokens().get(index).map_or(self.sql.len(), |token| token.end as usize)
    }

    /// The first and last token of a constant: a sign may precede it, UESCAPE follow.
    fn constant(&self, literal: &Literal) -> Option<(usize, usize)> {
        let first = self.index_at(literal.location)?;
        let signed = self.is(first, Token::Ascii45) || self.is(first, Token::Ascii43);
        let mut last = first + usize::from(signed);
        if self.is(last + 1, Token::Uescape) {
            last += 2;
        }
        Some((first, last))
    }
}

/// The edits that `found` asks for, sorted and apart.
pub(super) fn edits(source: &Source<'_>, found: &Findings) -> Vec<Edit> {
    let mut edits = Vec::new();
    edits.extend(found.time_keywords.iter().filter_map(|&location| time_keyword(source, location)));
    edits.extend(found.calls.iter().filter_map(|call| replicated_call(source, call)));
    let local = is_local(found);
    edits.extend(found.calls.iter().filter_map(|call| path_by_call(source, call, local)));
    for setting in &found.settings {
        edits.extend(search_path(source, setting, is_local(found)));
    }
    // Two of them are an error that PostgreSQL shall report.
    if let ([location], Some(&"CopyStmt")) = (found.freezes.as_slice(), found.statements.first()) {
        edits.extend(freeze(source, *location));
    }
    order(&mut edits);
    edits
}

/// Sorts edits and keeps them apart.
pub(super) fn order(edits: &mut Vec<Edit>) {
    // The grammar may let one piece of text appear twice in the tree.
    edits.sort_by_key(|edit| (edit.start, Reverse(edit.end)));
    edits.dedup();
    let mut free_from = 0;
    edits.retain(|edit| {
        let apart = edit.start >= free_from;
        free_from = free_from.max(edit.end);
        apart
    });
}

/// Whether what the statement sets is the session's own, and not part of what it defines for others.
fn is_local(found: &Findings) -> bool {
    let defines =
        |name: &&str| name.starts_with("Create") || name.starts_with("Alter") || **name == *"ViewStmt";
    !found.statements.first().is_some_and(defines)
}

/// `CURRENT_TIMESTAMP(3)` becomes `steeldb."current_timestamp"(3)`: the column is still named current_timestamp.
fn time_keyword(source: &Source<'_>, location: i32) -> Option<Edit> {
    let index = source.index_at(location)?;
    let parentheses = if source.is(index + 1, Token::Ascii40) { "" } else { "()" };
    let text = format!("steeldb.\"{}\"{parentheses}", source.text(index).to_ascii_lowercase());
    Some(Edit { start: source.start(index), end: source.end(index), text })
}

fn replicated_call(source: &Source<'_>, call: &Call) -> Option<Edit> {
    let (name, schema) = call.name.split_last()?;
    let replicated = REPLICATED.contains(&name.as_str());
    let start = usize::try_from(call.location).ok()?;
    match schema {
        [] if replicated => Some(Edit { start, end: start, text: "steeldb.".into() }),
        [.., schema] if schema == "pg_catalog" && replicated => {
            let mut last = source.index_at(call.location)?;
            // Each name may be written U&"..." UESCAPE '.', so it is the dots that are counted.
            let mut dots = call.name.len() - 1;
            while dots > 0 {
                last += 1;
                dots -= usize::from(source.is(last, Token::Ascii46));
                source.tokens().get(last)?;
            }
            Some(Edit { start, end: source.start(last), text: "steeldb".into() })
        }
        _ => None,
    }
}

/// `local`: the session's temporary relations come first, or where `pg_temp` stands.
fn search_path(source: &Source<'_>, setting: &Setting, local: bool) -> Vec<Edit> {
    if setting.name != "search_path" || setting.kind != VariableSetKind::VarSetValue as i32 {
        return Vec::new();
    }
    let replicated = replicated_path(source, setting);
    let whole = replicated.as_ref().is_some_and(|edit| edit.text.starts_with("search_path TO "));
    let temp = setting.values.iter().find(|value| value.text.as_deref() == Some("pg_temp"));
    let mut edits = Vec::new();
    let first = setting.values.first().and_then(|value| value.text.as_deref());
    let done = first.is_some_and(|first| first == TEMPORARY_SCHEMA_PLACEHOLDER);
    if local && !whole && !done {
        let (place, replaces) = (temp.or(setting.values.first()), temp.is_some());
        edits.extend(place.and_then(|value| source.constant(value)).map(|(first, last)| match replaces {
            true => Edit {
                start: source.start(first),
                end: source.end(last),
                text: TEMPORARY_SCHEMA_PLACEHOLDER.into(),
            },
            false => Edit {
                start: source.start(first),
                end: source.start(first),
                text: format!("{TEMPORARY_SCHEMA_PLACEHOLDER}, "),
            },
        }));
    }
    edits.extend(replicated.map(|edit| match whole && local {
        true => Edit {
            text: edit.text.replacen(
                "search_path TO ",
                &format!("search_path TO {TEMPORARY_SCHEMA_PLACEHOLDER}, "),
                1,
            ),
            ..edit
        },
        false => edit,
    }));
    edits
}

/// The edit that puts `steeldb` before `pg_catalog`.
fn replicated_path(source: &Source<'_>, setting: &Setting) -> Option<Edit> {
    let named = |name: &str| setting.values.iter().position(|value| value.text.as_deref() == Some(name));
    if let Some(catalog) = named("pg_catalog")
        && setting.values.len() > 1
    {
        if catalog > 0 && named("steeldb") == Some(catalog - 1) {
            return None;
        }
        let start = usize::try_from(setting.values[catalog].location).ok()?;
        return Some(Edit { start, end: start, text: "steeldb, ".into() });
    }
    let (first, last) = source.constant(setting.values.last()?)?;
    let written = source.sql.get(source.start(first)..source.end(last))?;
    let path = match named("pg_catalog") {
        Some(_) => format!("steeldb, {written}"),
        None => format!("{written}, steeldb, pg_catalog"),
    };
    // SET SCHEMA takes a single name only.
    let schema = first.checked_sub(1).filter(|&before| source.is(before, Token::Schema));
    let (start, text) = match schema {
        Some(before) => (source.start(before), format!("search_path TO {path}")),
        None if path.starts_with("steeldb, ") => {
            return Some(Edit {
                start: source.start(first),
                end: source.start(first),
                text: "steeldb, ".into(),
            });
        }
        None => {
            return Some(Edit {
                start: source.end(last),
                end: source.end(last),
                text: ", steeldb, pg_catalog".into(),
            });
        }
    };
    Some(Edit { start, end: source.end(last), text })
}

fn path_by_call(source: &Source<'_>, call: &Call, local: bool) -> Option<Edit> {
    let [name, value] = call.literals.get(..2)? else { return None };
    if !name.text.as_deref().is_some_and(|name| name.eq_ignore_ascii_case("search_path")) {
        return None;
    }
    let written = value.text.as_deref()?;
    let local = local && !written.starts_with(TEMPORARY_SCHEMA_PLACEHOLDER);
    let path = match (extended_path(written), local) {
        (path, false) => path?,
        (path, true) => {
            format!("{TEMPORARY_SCHEMA_PLACEHOLDER}, {}", path.unwrap_or_else(|| written.to_string()))
        }
    };
    let (first, last) = source.constant(value)?;
    let prefix = if path.contains('\\') { "E" } else { "" };
    let text = format!("{prefix}'{}'", path.replace('\'', "''").replace('\\', "\\\\"));
    Some(Edit { start: source.start(first), end: source.end(last), text })
}

/// The value of search_path with `steeldb` before `pg_catalog`, `None` when it stands there already.
pub(crate) fn extended_path(path: &str) -> Option<String> {
    if path.trim().is_empty() {
        return Some("steeldb, pg_catalog".into());
    }
    let (mut start, mut quoted, mut before) = (0, false, "");
    for (at, c) in path.char_indices().chain([(path.len(), ',')]) {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => {
                let element = path[start..at].trim();
                if element == "\"pg_catalog\"" || element.eq_ignore_ascii_case("pg_catalog") {
                    let position = start + (path[start..at].len() - path[start..at].trim_start().len());
                    let stands = before.trim_matches('"').eq_ignore_ascii_case("steeldb");
                    return (!stands).then(|| format!("{}steeldb, {}", &path[..position], &path[position..]));
                }
                before = element;
                start = at + 1;
            }
            _ => {}
        }
    }
    // An open quote is PostgreSQL's to report.
    (!quoted).then(|| format!("{path}, steeldb, pg_catalog"))
}

/// Removes FREEZE from COPY's options, whichever syntax it is in.
fn freeze(source: &Source<'_>, location: i32) -> Option<Edit> {
    let index = source.index_at(location)?;
    // Spaces before it go too, but no line end: that may be the end of a comment.
    let cut = |start: usize, end: usize| {
        let start = source.sql[..start].trim_end_matches(' ').len();
        Some(Edit { start, end, text: String::new() })
    };
    let mut depth = 0usize;
    let opening = (0..index).rev().find(|&before| {
        depth += usize::from(source.is(before, Token::Ascii41));
        let opens = source.is(before, Token::Ascii40);
        let encloses = opens && depth == 0;
        depth -= usize::from(opens && depth > 0);
        encloses
    });
    let Some(opening) = opening else { return cut(source.start(index), source.end(index)) };
    let after = (index + 1..source.tokens().len())
        .find(|&next| source.is(next, Token::Ascii44) || source.is(next, Token::Ascii41))?;
    if source.is(after, Token::Ascii44) {
        Some(Edit { start: source.start(index), end: source.start(after + 1), text: String::new() })
    } else if source.is(index.checked_sub(1)?, Token::Ascii44) {
        cut(source.start(index - 1), source.start(after))
    } else {
        let with = opening.checked_sub(1).filter(|&before| source.text(before).eq_ignore_ascii_case("with"));
        cut(source.start(with.unwrap_or(opening)), source.end(after))
    }
}

#[cfg(test)]
mod tests {
    use super::extended_path;

    #[test]
    fn a_path_gets_steeldb_before_pg_catalog() {
        for (path, expected) in [
            ("", Some("steeldb, pg_catalog")),
            (" public ", Some(" public , steeldb, pg_catalog")),
            ("a, \"B,c\"", Some("a, \"B,c\", steeldb, pg_catalog")),
            ("pg_catalog", Some("steeldb, pg_catalog")),
            ("a,  PG_CATALOG, b", Some("a,  steeldb, PG_CATALOG, b")),
            ("a, \"pg_catalog\"", Some("a, steeldb, \"pg_catalog\"")),
            ("steeldb, pg_catalog", None),
            ("\"open", None),
        ] {
            assert_eq!(extended_path(path).as_deref(), expected, "{path}");
        }
    }
}
