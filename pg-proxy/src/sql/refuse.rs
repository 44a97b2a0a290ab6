//! What cannot be replicated and is refused up front (design, section 5), each with what to do instead.

use pg_query::NodeEnum;
use pg_query::protobuf::{Node, ObjectType, VariableSetKind};

use super::modes::{Isolation, boolean};
use super::outcome;
use super::rewrite::Source;
use super::statement::{Refusal, StatementKind};
use super::walk::{Findings, Literal};

const UNSUPPORTED: &str = "0A000";

/// Extensions whose functions do the same everywhere and keep nothing outside their tables: those that replicas allow,
/// in `steeldb.allowed_extension` (a test compares). Refused here, an answer can say what is supported; PostgreSQL's own
/// would ask for a superuser.
pub(super) const EXTENSIONS: [&str; 14] = [
    "btree_gin",
    "btree_gist",
    "citext",
    "cube",
    "dict_int",
    "fuzzystrmatch",
    "hstore",
    "intarray",
    "isn",
    "ltree",
    "pg_trgm",
    "plpgsql",
    "seg",
    "unaccent",
];

/// Languages of routines: those that cannot leave the server.
const LANGUAGES: [&str; 2] = ["sql", "plpgsql"];

const LARGE_OBJECT_FUNCTIONS: [&str; 18] = [
    "lo_close",
    "lo_creat",
    "lo_create",
    "lo_export",
    "lo_from_bytea",
    "lo_get",
    "lo_import",
    "lo_lseek",
    "lo_lseek64",
    "lo_open",
    "lo_put",
    "lo_tell",
    "lo_tell64",
    "lo_truncate",
    "lo_truncate64",
    "lo_unlink",
    "loread",
    "lowrite",
];

const DATABASES: &str = "Databases are configuration: name them in [[cluster.databases]] of every replica's and proxy's file and \
     restart the cluster, which creates what is missing.";
const DATABASE_SETTINGS: &str =
    "Give settings with SET, with options in the connection string, or with CREATE FUNCTION ... SET.";
const NO_DROP_DATABASE: &str = "Drop the schemas and tables in it instead.";
const FILES: &str = "Each replica keeps its files in its data_dir. Leave TABLESPACE out.";
const SERVER_SETTINGS: &str =
    "SteelDB sets what its servers need; what can be chosen is in each replica's configuration file.";
const NO_FOREIGN_DATA: &str = "Data outside the cluster is not replicated. Load it with COPY instead.";
const NO_REPLICATION: &str = "Replication belongs to SteelDB. Read changes from a table instead.";
const POLL: &str = "Use a table that readers poll, or a message broker.";
const OUTSIDE_BLOCK: &str = "Use the form without CONCURRENTLY.";
const ROLES: &str = "Roles are configuration: name them in [[cluster.clients]] of every replica's and proxy's file and restart the \
     cluster, which creates what is missing. Passwords are the proxy's: steeldb proxy-password.";

/// Statements that are always refused, by the kind of their node, at any depth.
const STATEMENTS: &[(&str, &str, &str)] = &[
    ("ListenStmt", "LISTEN", POLL),
    ("NotifyStmt", "NOTIFY", POLL),
    ("CreateRoleStmt", "CREATE ROLE", ROLES),
    ("AlterRoleStmt", "ALTER ROLE", ROLES),
    ("AlterRoleSetStmt", "ALTER ROLE", ROLES),
    ("DropRoleStmt", "DROP ROLE", ROLES),
    ("CreatedbStmt", "CREATE DATABASE", DATABASES),
    ("AlterDatabaseStmt", "ALTER DATABASE", DATABASE_SETTINGS),
    ("AlterDatabaseSetStmt", "ALTER DATABASE", DATABASE_SETTINGS),
    ("AlterDatabaseRefreshCollStmt", "ALTER DATABASE", DATABASE_SETTINGS),
    ("DropdbStmt", "DROP DATABASE", NO_DROP_DATABASE),
    ("CreateTableSpaceStmt", "CREATE TABLESPACE", FILES),
    ("AlterTableSpaceOptionsStmt", "ALTER TABLESPACE", FILES),
    ("AlterTableMoveAllStmt", "moving all objects of a tablespace", FILES),
    ("DropTableSpaceStmt", "DROP TABLESPACE", FILES),
    ("AlterSystemStmt", "ALTER SYSTEM", SERVER_SETTINGS),
    ("CheckPointStmt", "CHECKPOINT", "Each replica decides about its own checkpoints."),
    ("LoadStmt", "LOAD", "Shared libraries are not supported; use SQL or PL/pgSQL."),
    ("CreatePublicationStmt", "CREATE PUBLICATION", NO_REPLICATION),
    ("AlterPublicationStmt", "ALTER PUBLICATION", NO_REPLICATION),
    ("CreateSubscriptionStmt", "CREATE SUBSCRIPTION", NO_REPLICATION),
    ("AlterSubscriptionStmt", "ALTER SUBSCRIPTION", NO_REPLICATION),
    ("DropSubscriptionStmt", "DROP SUBSCRIPTION", NO_REPLICATION),
    (
        "CreateEventTrigStmt",
        "CREATE EVENT TRIGGER",
        "Event triggers belong to SteelDB. Use triggers on tables.",
    ),
    (
        "AlterEventTrigStmt",
        "ALTER EVENT TRIGGER",
        "Event triggers belong to SteelDB. Use triggers on tables.",
    ),
    ("CreateFdwStmt", "CREATE FOREIGN DATA WRAPPER", NO_FOREIGN_DATA),
    ("AlterFdwStmt", "ALTER FOREIGN DATA WRAPPER", NO_FOREIGN_DATA),
    ("CreateForeignServerStmt", "CREATE SERVER", NO_FOREIGN_DATA),
    ("AlterForeignServerStmt", "ALTER SERVER", NO_FOREIGN_DATA),
    ("CreateForeignTableStmt", "CREATE FOREIGN TABLE", NO_FOREIGN_DATA),
    ("CreateUserMappingStmt", "CREATE USER MAPPING", NO_FOREIGN_DATA),
    ("AlterUserMappingStmt", "ALTER USER MAPPING", NO_FOREIGN_DATA),
    ("DropUserMappingStmt", "DROP USER MAPPING", NO_FOREIGN_DATA),
    ("ImportForeignSchemaStmt", "IMPORT FOREIGN SCHEMA", NO_FOREIGN_DATA),
    ("SecLabelStmt", "SECURITY LABEL", "Use GRANT and row security policies."),
    ("CreateAmStmt", "CREATE ACCESS METHOD", "Use the access methods that PostgreSQL has."),
];

/// Why a statement is refused, if it is.
pub(super) fn refusal(
    source: &Source<'_>,
    node: &NodeEnum,
    kind: &StatementKind,
    found: &Findings,
) -> Option<Refusal> {
    for (name, title, hint) in STATEMENTS {
        if found.statements.contains(name) {
            return Some(unsupported(title, hint));
        }
    }
    by_node(node)
        .or_else(|| by_kind(kind))
        .or_else(|| by_object(found))
        .or_else(|| by_setting(source, found))
        .or_else(|| by_relation(source, found))
        .or_else(|| by_expression(source, kind, found))
}

fn unsupported(what: &str, hint: &str) -> Refusal {
    Refusal {
        sqlstate: UNSUPPORTED,
        message: format!("{what} is not supported by SteelDB"),
        hint: hint.into(),
        position: None,
    }
}

fn at(position: Option<usize>, refusal: Refusal) -> Refusal {
    Refusal { position, ..refusal }
}

fn by_kind(kind: &StatementKind) -> Option<Refusal> {
    const TWO_PHASE: &str = "SteelDB makes every COMMIT atomic on all replicas by itself. Use COMMIT.";
    match kind {
        StatementKind::PrepareTransaction => Some(unsupported("PREPARE TRANSACTION", TWO_PHASE)),
        StatementKind::CommitPrepared => Some(unsupported("COMMIT PREPARED", TWO_PHASE)),
        StatementKind::RollbackPrepared => Some(unsupported("ROLLBACK PREPARED", TWO_PHASE)),
        StatementKind::Begin(modes)
        | StatementKind::SetTransaction(modes)
        | StatementKind::SetSessionCharacteristics(modes)
            if modes.isolation == Some(Isolation::Serializable) =>
        {
            Some(unsupported(
                "isolation level SERIALIZABLE",
                "Use REPEATABLE READ, and SELECT ... FOR UPDATE where write skew matters.",
            ))
        }
        _ => None,
    }
}

fn by_node(node: &NodeEnum) -> Option<Refusal> {
    match node {
        NodeEnum::CopyStmt(copy) if copy.is_program => Some(unsupported(
            "COPY with PROGRAM",
            "Run the program at the client and use COPY FROM STDIN or TO STDOUT.",
        )),
        NodeEnum::CopyStmt(copy) if !copy.filename.is_empty() => Some(unsupported(
            "COPY with a file on the server",
            "Use COPY FROM STDIN or TO STDOUT, as psql's \\copy does.",
        )),
        NodeEnum::DeclareCursorStmt(cursor) if cursor.options & CURSOR_OPT_HOLD != 0 => {
            Some(unsupported("a WITH HOLD cursor", "Use a cursor without hold inside a transaction."))
        }
        NodeEnum::CreateExtensionStmt(create) if !EXTENSIONS.contains(&create.extname.as_str()) => {
            Some(unsupported(
                &format!("extension \"{}\"", create.extname),
                &format!("Supported, as steeldb.allowed_extension lists them: {}.", EXTENSIONS.join(", ")),
            ))
        }
        NodeEnum::CreatePlangStmt(create) if !LANGUAGES.contains(&create.plname.as_str()) => {
            Some(language(&create.plname))
        }
        NodeEnum::ClusterStmt(cluster) if cluster.relation.is_none() => {
            Some(unsupported("CLUSTER without a table", "Name one table: CLUSTER table_name."))
        }
        NodeEnum::ReindexStmt(reindex) if reindex.relation.is_none() => Some(unsupported(
            "REINDEX of a schema, database or system",
            "Reindex tables one by one: REINDEX TABLE table_name.",
        )),
        NodeEnum::VariableSetStmt(set) if set.name == "TRANSACTION SNAPSHOT" => Some(unsupported(
            "SET TRANSACTION SNAPSHOT",
            "The snapshot of a transaction is fixed by its place in the order. Read in one transaction.",
        )),
        NodeEnum::CreateFunctionStmt(create) if in_temporary_schema(&create.funcname) => {
            Some(temporary("creating temporary functions"))
        }
        _ => None,
    }
}

/// CURSOR_OPT_HOLD of PostgreSQL's parsenodes.h.
const CURSOR_OPT_HOLD: i32 = 0x0020;

fn in_temporary_schema(name: &[Node]) -> bool {
    matches!(name, [Node { node: Some(NodeEnum::String(schema)) }, _] if schema.sval == "pg_temp")
}

fn temporary(what: &str) -> Refusal {
    unsupported(what, "Use an ordinary table, or a WITH query.")
}

fn language(name: &str) -> Refusal {
    unsupported(&format!("language \"{name}\""), "Write the routine in SQL or PL/pgSQL.")
}

fn by_object(found: &Findings) -> Option<Refusal> {
    let title = |object: &ObjectType| match object {
        ObjectType::ObjectRole => Some(("renaming a role", ROLES)),
        ObjectType::ObjectDatabase => Some(("ALTER DATABASE", DATABASE_SETTINGS)),
        ObjectType::ObjectTablespace => Some(("ALTER TABLESPACE", FILES)),
        ObjectType::ObjectPublication => Some(("changing a publication", NO_REPLICATION)),
        ObjectType::ObjectSubscription => Some(("changing a subscription", NO_REPLICATION)),
        ObjectType::ObjectEventTrigger => {
            Some(("changing an event trigger", "Event triggers belong to SteelDB."))
        }
        ObjectType::ObjectFdw | ObjectType::ObjectForeignServer | ObjectType::ObjectForeignTable => {
            Some(("foreign data", NO_FOREIGN_DATA))
        }
        _ => None,
    };
    if let Some((title, hint)) = found.objects.iter().find_map(title) {
        return Some(unsupported(title, hint));
    }
    if found.concurrently {
        return Some(unsupported("CONCURRENTLY", OUTSIDE_BLOCK));
    }
    let routine = found.statements.iter().any(|name| matches!(*name, "CreateFunctionStmt" | "DoStmt"));
    let foreign = found.languages.iter().find(|name| !LANGUAGES.contains(&name.as_str()));
    foreign.filter(|_| routine).map(|name| language(name))
}

fn by_setting(source: &Source<'_>, found: &Findings) -> Option<Refusal> {
    let mut set = found.settings.iter().filter(|setting| setting.kind == VariableSetKind::VarSetValue as i32);
    let by_statement = set.find_map(|set| {
        let value = set.values.first();
        Some((setting(&set.name, value, false)?, value?))
    });
    let called = found.calls.iter().filter(|call| call.name.last().is_some_and(|name| name == "set_config"));
    let mut by_call = called.filter_map(|call| {
        let name = call.literals.first()?;
        Some((setting(&name.text.as_ref()?.to_lowercase(), call.literals.get(1), true)?, name))
    });
    let (refusal, place) = by_statement.or_else(|| by_call.next())?;
    Some(at(source.position(place.location), refusal))
}

fn setting(name: &str, value: Option<&Literal>, is_call: bool) -> Option<Refusal> {
    let text = value.and_then(|value| value.text.as_deref());
    let plain = name.strip_prefix("default_").unwrap_or(name);
    match plain {
        "session_replication_role" => Some(unsupported(
            "setting session_replication_role",
            "Use ALTER TABLE ... DISABLE TRIGGER, or deferrable constraints.",
        )),
        "standard_conforming_strings" if text.and_then(boolean) != Some(true) => {
            Some(unsupported("turning standard_conforming_strings off", "Write escape strings as E'...'."))
        }
        "session_authorization" => {
            Some(unsupported("SET SESSION AUTHORIZATION", "Connect as that role, or use SET ROLE."))
        }
        "steeldb.verify" if is_call => {
            Some(unsupported("set_config() of steeldb.verify", "Use SET steeldb.verify, or SET LOCAL."))
        }
        "transaction_isolation" if text.and_then(Isolation::parse) == Some(Isolation::Serializable) => {
            Some(unsupported("isolation level SERIALIZABLE", "Use REPEATABLE READ."))
        }
        "transaction_isolation" | "transaction_read_only" | "transaction_deferrable" if is_call => {
            Some(unsupported(
                &format!("set_config() of {name}"),
                "Use SET TRANSACTION or SET SESSION CHARACTERISTICS.",
            ))
        }
        _ => None,
    }
}

fn by_relation(source: &Source<'_>, found: &Findings) -> Option<Refusal> {
    const UNLOGGED: &str = "Unlogged tables are empty after a crash of one replica. Use an ordinary table.";
    if found.set_unlogged {
        return Some(unsupported("SET UNLOGGED", UNLOGGED));
    }
    let makes_type = found.statements.first() == Some(&"CompositeTypeStmt");
    found.relations.iter().find_map(|relation| {
        let refusal = match relation.persistence {
            'u' => unsupported("UNLOGGED", UNLOGGED),
            't' if !matches!(relation.schema.as_str(), "" | "pg_temp") => Refusal {
                sqlstate: "42P16",
                message: "cannot create temporary relation in non-temporary schema".into(),
                hint: "Leave the schema out.".into(),
                position: None,
            },
            _ if makes_type && relation.schema == "pg_temp" => temporary("creating temporary types"),
            _ => return None,
        };
        Some(at(source.position(relation.location), refusal))
    })
}

fn by_expression(source: &Source<'_>, kind: &StatementKind, found: &Findings) -> Option<Refusal> {
    if found.skip_locked {
        return Some(unsupported(
            "SKIP LOCKED",
            "Which rows are locked differs between replicas. Use FOR UPDATE or FOR UPDATE NOWAIT.",
        ));
    }
    for call in &found.calls {
        if outcome::is_named(&call.name) && !matches!(kind, StatementKind::Outcome { .. }) {
            let refusal = unsupported(
                "steeldb.outcome() inside another statement",
                "It stands alone: SELECT steeldb.outcome('...') or SELECT steeldb.outcome($1).",
            );
            return Some(at(source.position(call.location), refusal));
        }
        if let Some(refusal) = function(&call.name) {
            return Some(at(source.position(call.location), refusal));
        }
    }
    if let Some((location, name)) = found.system_columns.first() {
        let refusal = unsupported(
            &format!("system column \"{name}\""),
            "Physical positions and transaction numbers differ between replicas. Use a key, or a version column.",
        );
        return Some(at(source.position(*location), refusal));
    }
    found.moving_dates.first().map(|location| {
        let refusal = unsupported(
            "a relative date written as a string",
            "Its value is not replicated. Use now(), CURRENT_DATE, CURRENT_DATE + 1 or CURRENT_DATE - 1.",
        );
        at(source.position(*location), refusal)
    })
}

fn function(name: &[String]) -> Option<Refusal> {
    let (name, schema) = name.split_last()?;
    let named = || format!("function {name}()");
    if name == "dblink" || name.starts_with("dblink_") || name.starts_with("postgres_fdw_") {
        return Some(unsupported(&named(), NO_FOREIGN_DATA));
    }
    if schema.last().is_some_and(|schema| schema != "pg_catalog" && schema != "steeldb") {
        return None;
    }
    let hint = match name.as_str() {
        "pg_notify" => POLL,
        "pg_export_snapshot" => {
            "The snapshot of a transaction is fixed by its place in the order. Read in one transaction."
        }
        name if LARGE_OBJECT_FUNCTIONS.contains(&name) => {
            "Large objects are not replicated. Use a bytea column."
        }
        name if name.starts_with("pg_try_advisory_") || name.starts_with("pg_advisory_") => {
            "Advisory locks are not replicated. Lock a row with SELECT ... FOR UPDATE, or use LOCK TABLE."
        }
        _ => return None,
    };
    Some(unsupported(&named(), hint))
}
