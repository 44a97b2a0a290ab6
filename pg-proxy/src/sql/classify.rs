//! From the tree's outermost node to the kind of statement and what it may do.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    DefElem, DiscardMode, DropStmt, Node, SelectStmt, TransactionStmt, TransactionStmtKind, VariableSetKind,
    VariableSetStmt,
};

use super::modes::{TransactionModes, boolean, constant};
use super::outcome;
use super::statement::{Flags, StatementKind};
use super::walk::Findings;

const SEQUENCE_FUNCTIONS: [&str; 4] = ["nextval", "setval", "currval", "lastval"];

/// The kind of the statement whose outermost node is `node`.
pub(super) fn kind(node: &NodeEnum, found: &Findings) -> StatementKind {
    use StatementKind as Kind;
    match node {
        NodeEnum::SelectStmt(select) if select_into(select) => ddl(node, found),
        NodeEnum::SelectStmt(select) if let Some(question) = outcome::question(select) => question,
        NodeEnum::SelectStmt(select) => Kind::Query { row_order: !select.sort_clause.is_empty() },
        NodeEnum::InsertStmt(_)
        | NodeEnum::UpdateStmt(_)
        | NodeEnum::DeleteStmt(_)
        | NodeEnum::MergeStmt(_) => Kind::Modify,
        NodeEnum::CopyStmt(copy) if copy.is_from => Kind::CopyIn,
        NodeEnum::CopyStmt(copy) => Kind::CopyOut { row_order: row_order(copy.query.as_deref()) },
        NodeEnum::TransactionStmt(transaction) => transaction_kind(transaction),
        NodeEnum::VariableSetStmt(set) => set_kind(set),
        NodeEnum::VariableShowStmt(show) => Kind::Show { name: show.name.to_lowercase() },
        NodeEnum::ConstraintsSetStmt(_) => Kind::SetConstraints,
        NodeEnum::DiscardStmt(discard) => {
            Kind::Discard { all: discard.target == DiscardMode::DiscardAll as i32 }
        }
        NodeEnum::LockStmt(lock) => Kind::LockTable { access_share: lock.mode == ACCESS_SHARE_LOCK },
        NodeEnum::VacuumStmt(_) => Kind::Maintenance,
        NodeEnum::DeclareCursorStmt(cursor) => Kind::DeclareCursor {
            name: cursor.portalname.clone(),
            row_order: row_order(cursor.query.as_deref()),
        },
        NodeEnum::FetchStmt(fetch) if fetch.ismove => Kind::Move { name: fetch.portalname.clone() },
        NodeEnum::FetchStmt(fetch) => Kind::Fetch { name: fetch.portalname.clone() },
        NodeEnum::ClosePortalStmt(close) => Kind::CloseCursor { name: named(&close.portalname) },
        NodeEnum::PrepareStmt(prepare) => Kind::Prepare {
            name: prepare.name.clone(),
            prepared: Box::new(inner(prepare.query.as_deref(), found)),
        },
        NodeEnum::ExecuteStmt(execute) => Kind::Execute { name: execute.name.clone() },
        NodeEnum::DeallocateStmt(deallocate) => Kind::Deallocate { name: named(&deallocate.name) },
        NodeEnum::ExplainStmt(explain) => Kind::Explain {
            analyze: option(&explain.options, "analyze"),
            explained: Box::new(inner(explain.query.as_deref(), found)),
        },
        NodeEnum::DoStmt(_) => Kind::Do,
        NodeEnum::CallStmt(_) => Kind::Call,
        NodeEnum::ListenStmt(_) => Kind::Listen,
        NodeEnum::NotifyStmt(_) => Kind::Notify,
        NodeEnum::UnlistenStmt(_) => Kind::Unlisten,
        NodeEnum::CheckPointStmt(_)
        | NodeEnum::LoadStmt(_)
        | NodeEnum::AlterSystemStmt(_)
        | NodeEnum::CreatedbStmt(_)
        | NodeEnum::DropdbStmt(_)
        | NodeEnum::AlterDatabaseStmt(_)
        | NodeEnum::AlterDatabaseSetStmt(_)
        | NodeEnum::AlterDatabaseRefreshCollStmt(_)
        | NodeEnum::CreateTableSpaceStmt(_)
        | NodeEnum::DropTableSpaceStmt(_)
        | NodeEnum::CreateSubscriptionStmt(_)
        | NodeEnum::AlterSubscriptionStmt(_)
        | NodeEnum::DropSubscriptionStmt(_) => Kind::Refused,
        _ => ddl(node, found),
    }
}

/// AccessShareLock of PostgreSQL's lockdefs.h.
const ACCESS_SHARE_LOCK: i32 = 1;

/// What the statement of that `kind` may do.
pub(super) fn flags(node: &NodeEnum, kind: &StatementKind, found: &Findings) -> Flags {
    let modifies = ["InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"];
    let sequences = found.calls.iter().any(|call| {
        call.name.last().is_some_and(|name| SEQUENCE_FUNCTIONS.contains(&name.as_str()))
            && matches!(call.name.as_slice(), [_] | [.., _, _])
            && call
                .name
                .iter()
                .rev()
                .nth(1)
                .is_none_or(|schema| schema == "pg_catalog" || schema == "steeldb")
    });
    let changes = |kind: &StatementKind| match kind {
        StatementKind::Query { .. } | StatementKind::Modify | StatementKind::CopyOut { .. } => {
            modifies.iter().any(|name| found.statements.contains(name))
        }
        StatementKind::CopyIn
        | StatementKind::Ddl { .. }
        | StatementKind::Do
        | StatementKind::Call
        | StatementKind::Execute { .. } => true,
        StatementKind::DeclareCursor { .. } => modifies.iter().any(|name| found.statements.contains(name)),
        _ => false,
    };
    let (writes, wall) = match kind {
        StatementKind::Explain { analyze: true, explained } => {
            (changes(explained), matches!(**explained, StatementKind::Ddl { .. }))
        }
        kind => (changes(kind), matches!(kind, StatementKind::Ddl { .. })),
    };
    Flags {
        wall,
        locks: found.locks || matches!(kind, StatementKind::LockTable { .. }),
        sequences,
        writes,
        returns_rows: returns_rows(node, kind),
        maintenance: matches!(kind, StatementKind::Maintenance),
    }
}

fn returns_rows(node: &NodeEnum, kind: &StatementKind) -> Option<bool> {
    match (node, kind) {
        (NodeEnum::InsertStmt(insert), _) => Some(insert.returning_clause.is_some()),
        (NodeEnum::UpdateStmt(update), _) => Some(update.returning_clause.is_some()),
        (NodeEnum::DeleteStmt(delete), _) => Some(delete.returning_clause.is_some()),
        (NodeEnum::MergeStmt(merge), _) => Some(merge.returning_clause.is_some()),
        (
            _,
            StatementKind::Query { .. }
            | StatementKind::Show { .. }
            | StatementKind::Outcome { .. }
            | StatementKind::Explain { .. }
            | StatementKind::Fetch { .. },
        ) => Some(true),
        (_, StatementKind::Execute { .. } | StatementKind::Call) => None,
        _ => Some(false),
    }
}

fn inner(node: Option<&Node>, found: &Findings) -> StatementKind {
    match node.and_then(|node| node.node.as_ref()) {
        Some(node) => kind(node, found),
        None => StatementKind::Refused,
    }
}

fn named(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| name.to_owned())
}

/// Whether the outermost select of a query is sorted.
fn row_order(query: Option<&Node>) -> bool {
    matches!(query.and_then(|node| node.node.as_ref()), Some(NodeEnum::SelectStmt(select)) if !select.sort_clause.is_empty())
}

/// INTO stands in the leftmost select of a set operation.
fn select_into(select: &SelectStmt) -> bool {
    let mut leftmost = select;
    while let Some(left) = leftmost.larg.as_deref() {
        leftmost = left;
    }
    leftmost.into_clause.is_some()
}

/// Whether the option `name` is there and not turned off.
fn option(options: &[Node], name: &str) -> bool {
    let element = |node: &Node| match &node.node {
        Some(NodeEnum::DefElem(element)) if element.defname == name => Some(is_on(element)),
        _ => None,
    };
    options.iter().rev().find_map(element).unwrap_or(false)
}

fn is_on(element: &DefElem) -> bool {
    match element.arg.as_deref().and_then(constant) {
        None => true,
        Some(value) => boolean(&value).unwrap_or(true),
    }
}

fn transaction_kind(transaction: &TransactionStmt) -> StatementKind {
    use StatementKind as Kind;
    let name = || transaction.savepoint_name.clone();
    match transaction.kind() {
        TransactionStmtKind::TransStmtBegin | TransactionStmtKind::TransStmtStart => {
            Kind::Begin(TransactionModes::from_options(&transaction.options))
        }
        TransactionStmtKind::TransStmtCommit => Kind::Commit { chain: transaction.chain },
        TransactionStmtKind::TransStmtRollback => Kind::Rollback { chain: transaction.chain },
        TransactionStmtKind::TransStmtSavepoint => Kind::Savepoint(name()),
        TransactionStmtKind::TransStmtRelease => Kind::ReleaseSavepoint(name()),
        TransactionStmtKind::TransStmtRollbackTo => Kind::RollbackTo(name()),
        TransactionStmtKind::TransStmtPrepare => Kind::PrepareTransaction,
        TransactionStmtKind::TransStmtCommitPrepared => Kind::CommitPrepared,
        TransactionStmtKind::TransStmtRollbackPrepared => Kind::RollbackPrepared,
        TransactionStmtKind::Undefined => Kind::Refused,
    }
}

fn set_kind(set: &VariableSetStmt) -> StatementKind {
    use StatementKind as Kind;
    let name = set.name.to_lowercase();
    match set.kind() {
        VariableSetKind::VarSetMulti => match set.name.as_str() {
            "TRANSACTION" => Kind::SetTransaction(TransactionModes::from_options(&set.args)),
            "SESSION CHARACTERISTICS" => {
                Kind::SetSessionCharacteristics(TransactionModes::from_options(&set.args))
            }
            _ => Kind::Refused,
        },
        VariableSetKind::VarReset | VariableSetKind::VarSetDefault => Kind::Reset { name: Some(name) },
        VariableSetKind::VarResetAll => Kind::Reset { name: None },
        _ => {
            let mut modes = TransactionModes::default();
            let default = name.strip_prefix("default_");
            let value = set.args.first().and_then(constant).filter(|_| set.args.len() == 1);
            let consumed = value.as_ref().is_some_and(|value| modes.assign(default.unwrap_or(&name), value));
            let value = value.filter(|_| name.starts_with("steeldb."));
            match default {
                // An unacceptable value stays as it is: PostgreSQL's own error names the parameter.
                _ if !consumed => Kind::Set { name, local: set.is_local, value },
                None => Kind::SetTransaction(modes),
                // Locally it would end before a next transaction could begin.
                Some(_) if set.is_local => Kind::Set { name, local: true, value },
                Some(_) => Kind::SetSessionCharacteristics(modes),
            }
        }
    }
}

fn ddl(node: &NodeEnum, found: &Findings) -> StatementKind {
    let mut relations: Vec<String> = Vec::new();
    if let NodeEnum::DropStmt(drop) = node {
        relations = dropped(drop);
    }
    for relation in &found.relations {
        let name = match relation.schema.as_str() {
            "" => relation.name.clone(),
            schema => format!("{schema}.{}", relation.name),
        };
        if !relations.contains(&name) {
            relations.push(name);
        }
    }
    StatementKind::Ddl { relations }
}

/// The names that DROP lists, which are lists of strings.
fn dropped(drop: &DropStmt) -> Vec<String> {
    use pg_query::protobuf::ObjectType as Type;
    let kinds = [
        Type::ObjectTable,
        Type::ObjectView,
        Type::ObjectMatview,
        Type::ObjectIndex,
        Type::ObjectSequence,
        Type::ObjectTrigger,
        Type::ObjectRule,
        Type::ObjectPolicy,
    ];
    if !kinds.contains(&drop.remove_type()) {
        return Vec::new();
    }
    let on_table = [Type::ObjectTrigger, Type::ObjectRule, Type::ObjectPolicy].contains(&drop.remove_type());
    let name = |node: &Node| match &node.node {
        Some(NodeEnum::List(list)) => {
            let parts: Vec<_> = list.items.iter().filter_map(constant).collect();
            let kept = parts.len() - usize::from(on_table && !parts.is_empty());
            Some(parts[..kept].join("."))
        }
        _ => None,
    };
    drop.objects.iter().filter_map(name).collect()
}
