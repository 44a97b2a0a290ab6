//! Temporary relations: CREATE TEMPORARY TABLE t becomes CREATE TABLE in the session's schema for such, and `pg_temp` that
//! schema's name ([`steeldb_types::temporary_schema`]). The text is analysed once for all sessions, so a placeholder of the
//! same length stands there.

use pg_query::NodeEnum;
use pg_query::protobuf::{IntoClause, Node, ObjectType, OnCommitAction, RangeVar, SelectStmt, Token};
use steeldb_types::TEMPORARY_SCHEMA_PLACEHOLDER;

use super::position::Edit;
use super::rewrite::Source;
use super::walk::Findings;

const PG_TEMP: &str = "pg_temp";

/// What the temporary relation that a statement makes is to become at the end of its transaction; none if it makes none.
pub(super) fn on_commit(node: &NodeEnum, found: &Findings) -> Option<&'static str> {
    let (relation, action) = match node {
        NodeEnum::CreateStmt(create) => (create.relation.as_ref(), create.oncommit()),
        NodeEnum::CreateTableAsStmt(create) => into(create.into.as_deref()),
        NodeEnum::SelectStmt(select) => into(into_clause(select)),
        NodeEnum::ViewStmt(view) => (view.view.as_ref(), OnCommitAction::Undefined),
        NodeEnum::CreateSeqStmt(create) => (create.sequence.as_ref(), OnCommitAction::Undefined),
        _ => return None,
    };
    let relation =
        relation.filter(|relation| relation.relpersistence == "t" || relation.schemaname == PG_TEMP)?;
    debug_assert!(found.relations.iter().any(|other| other.location == relation.location));
    Some(match action {
        OnCommitAction::OncommitDeleteRows => "delete",
        OnCommitAction::OncommitDrop => "drop",
        _ => "preserve",
    })
}

fn into(clause: Option<&IntoClause>) -> (Option<&RangeVar>, OnCommitAction) {
    match clause {
        Some(clause) => (clause.rel.as_ref(), clause.on_commit()),
        None => (None, OnCommitAction::Undefined),
    }
}

/// INTO stands in the leftmost select of a set operation.
fn into_clause(select: &SelectStmt) -> Option<&IntoClause> {
    let mut leftmost = select;
    while let Some(left) = leftmost.larg.as_deref() {
        leftmost = left;
    }
    leftmost.into_clause.as_deref()
}

/// The names that DROP, TRUNCATE, ALTER TABLE or CREATE INDEX has its objects by, if it qualifies none of them, and the edits
/// that make them temporary ones. Whether they are, only the server knows.
pub(super) fn if_temporary(
    source: &Source<'_>,
    node: &NodeEnum,
    from: usize,
) -> Option<(Vec<String>, Vec<Edit>)> {
    let relation = |relation: &RangeVar| {
        let at = usize::try_from(relation.location).ok()?;
        relation.schemaname.is_empty().then(|| (relation.relname.clone(), at))
    };
    let places: Option<Vec<(String, usize)>> = match node {
        NodeEnum::AlterTableStmt(alter) => alter.relation.iter().map(relation).collect(),
        NodeEnum::IndexStmt(index) => index.relation.iter().map(relation).collect(),
        NodeEnum::TruncateStmt(truncate) => truncate
            .relations
            .iter()
            .map(|node| match &node.node {
                Some(NodeEnum::RangeVar(range)) => relation(range),
                _ => None,
            })
            .collect(),
        NodeEnum::DropStmt(drop)
            if matches!(
                drop.remove_type(),
                ObjectType::ObjectTable
                    | ObjectType::ObjectView
                    | ObjectType::ObjectSequence
                    | ObjectType::ObjectIndex
            ) =>
        {
            let names: Option<Vec<String>> = drop.objects.iter().map(unqualified).collect();
            let places = dropped(source, from, drop.objects.len())?;
            names.map(|names| names.into_iter().zip(places).collect())
        }
        _ => None,
    };
    let places = places.filter(|places| !places.is_empty())?;
    let edit = |(_, at): &(String, usize)| Edit {
        start: *at,
        end: *at,
        text: format!("{TEMPORARY_SCHEMA_PLACEHOLDER}."),
    };
    let edits = places.iter().map(edit).collect();
    Some((places.into_iter().map(|(name, _)| name).collect(), edits))
}

fn unqualified(node: &Node) -> Option<String> {
    match &node.node {
        Some(NodeEnum::List(list)) => match list.items.as_slice() {
            [Node { node: Some(NodeEnum::String(name)) }] => Some(name.sval.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// Where the names of DROP begin, which have no locations in the tree: behind DROP, the kind and IF EXISTS, and behind each
/// comma.
fn dropped(source: &Source<'_>, from: usize, count: usize) -> Option<Vec<usize>> {
    let first = (0..source.tokens().len()).find(|index| source.start(*index) >= from)?;
    let names = if source.is(first + 2, Token::IfP) { first + 4 } else { first + 2 };
    let commas = (names..source.tokens().len()).filter(|index| source.is(*index, Token::Ascii44));
    Some(
        std::iter::once(names)
            .chain(commas.map(|comma| comma + 1))
            .take(count)
            .map(|at| source.start(at))
            .collect(),
    )
}

/// The edits that a statement between the two bytes needs; `makes`: it makes a temporary relation.
pub(super) fn edits(
    source: &Source<'_>,
    found: &Findings,
    makes: bool,
    (start, end): (usize, usize),
) -> Vec<Edit> {
    let mut edits = Vec::new();
    let text = source.sql.as_bytes().get(start..end).unwrap_or_default();
    if text.windows(PG_TEMP.len()).any(|window| window.eq_ignore_ascii_case(PG_TEMP.as_bytes())) {
        edits.extend(qualified(source));
    }
    if makes {
        let made = found.relations.iter().filter(|relation| relation.persistence == 't');
        for relation in made {
            edits.extend(temporary_keyword(source, relation.location));
            if relation.schema.is_empty()
                && let Ok(at) = usize::try_from(relation.location)
            {
                edits.push(Edit { start: at, end: at, text: format!("{TEMPORARY_SCHEMA_PLACEHOLDER}.") });
            }
        }
        edits.extend(on_commit_clause(source, start));
    }
    edits
}

/// `pg_temp` where it qualifies a name.
fn qualified(source: &Source<'_>) -> Vec<Edit> {
    let names = |index: usize| {
        let text = source.text(index);
        let name = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        name.map_or(text.eq_ignore_ascii_case(PG_TEMP), |name| name == PG_TEMP)
    };
    (0..source.tokens().len())
        .filter(|index| source.is(index + 1, Token::Ascii46) && names(*index))
        .filter(|index| index.checked_sub(1).is_none_or(|before| !source.is(before, Token::Ascii46)))
        .map(|index| Edit {
            start: source.start(index),
            end: source.end(index),
            text: TEMPORARY_SCHEMA_PLACEHOLDER.into(),
        })
        .collect()
}

/// Removes [LOCAL | GLOBAL] TEMPORARY, which stands somewhere in front of the name at `location`.
fn temporary_keyword(source: &Source<'_>, location: i32) -> Option<Edit> {
    let name = source.index_at(location)?;
    let is_temporary = |index: &usize| source.is(*index, Token::Temporary) || source.is(*index, Token::Temp);
    let keyword = (name.saturating_sub(6)..name).rev().find(is_temporary)?;
    let scope = keyword
        .checked_sub(1)
        .filter(|before| source.is(*before, Token::Local) || source.is(*before, Token::Global));
    let start = source.start(scope.unwrap_or(keyword));
    Some(Edit { start, end: source.start(keyword + 1), text: String::new() })
}

/// Removes ON COMMIT with what follows, which is for temporary tables of PostgreSQL's alone.
fn on_commit_clause(source: &Source<'_>, from: usize) -> Option<Edit> {
    let on = (0..source.tokens().len()).find(|index| {
        source.start(*index) >= from && source.is(*index, Token::On) && source.is(index + 1, Token::Commit)
    })?;
    // DROP, or DELETE ROWS and PRESERVE ROWS.
    let last = if source.is(on + 2, Token::Drop) { on + 2 } else { on + 3 };
    // The space before it goes, too, but no line end: that may be the end of a comment.
    let start = source.sql[..source.start(on)].trim_end_matches(' ').len();
    Some(Edit { start, end: source.end(last), text: String::new() })
}
