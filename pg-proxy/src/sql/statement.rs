//! What is known of one SQL statement after analysis.

use super::modes::TransactionModes;
use super::position::PositionMap;
use steeldb_types::TEMPORARY_SCHEMA_PLACEHOLDER;

/// One statement of a query string: what it is, what it may touch, and the text to run in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The statement alone, without its semicolon and surrounding comments, after rewriting.
    pub text: String,
    /// Where it begins in the query, in characters from 0.
    pub offset: usize,
    /// What kind of statement it is.
    pub kind: StatementKind,
    /// What it is seen to do anywhere in its tree.
    pub flags: Flags,
    /// The highest parameter number `$n` it refers to, 0 without any.
    pub parameters: u32,
    /// It makes a temporary relation: what is to become of it at the end of its transaction, in words of
    /// `steeldb.temporary`.
    pub temporary: Option<&'static str>,
    /// What it is if the objects that it names are temporary.
    pub(super) if_temporary: Option<IfTemporary>,
    /// Why it must not be run, if so.
    pub refused: Option<Refusal>,
    /// It is about temporary relations alone.
    pub(super) is_of_temporary: bool,
    pub(super) positions: PositionMap,
}

/// A statement whose objects are all temporary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IfTemporary {
    /// Their names.
    pub names: Vec<String>,
    pub text: String,
    pub positions: PositionMap,
}

impl Statement {
    /// The names of the objects that it defines anew, none of which it qualifies: temporary or permanent.
    pub fn unqualified(&self) -> Option<&[String]> {
        self.if_temporary.as_ref().map(|of| of.names.as_slice())
    }

    /// The same about the temporary relations of those names.
    pub fn of_temporary(&self) -> Statement {
        let mut statement = self.clone();
        if let Some(IfTemporary { text, positions, .. }) = statement.if_temporary.take() {
            statement.text = text;
            statement.positions = positions;
            statement.is_of_temporary = true;
        }
        statement
    }

    /// Turns a 1-based character position in [`Statement::text`] (field `P` of an ErrorResponse) into the
    /// 1-based character position in the user's query. Inside rewritten text it is where the original began.
    pub fn map_position(&self, position: usize) -> usize {
        self.offset + self.positions.original(position.saturating_sub(1)) + 1
    }

    /// [`Statement::text`] for the session whose temporary relations are in `schema`.
    pub fn text_for(&self, schema: &str) -> String {
        // Of the same length, so positions stay.
        match self.text.contains(TEMPORARY_SCHEMA_PLACEHOLDER) {
            true => self.text.replace(TEMPORARY_SCHEMA_PLACEHOLDER, schema),
            false => self.text.clone(),
        }
    }

    /// DISCARD ALL, TEMP or TEMPORARY.
    pub fn discards_temporary(&self) -> bool {
        let word = |text: &str| text.split_whitespace().nth(1).map(str::to_ascii_uppercase);
        matches!(self.kind, StatementKind::Discard { .. })
            && matches!(word(&self.text).as_deref(), Some("ALL" | "TEMP" | "TEMPORARY"))
    }

    /// Whether it defines what others see, too.
    pub fn is_wall(&self) -> bool {
        matches!(self.kind, StatementKind::Ddl { .. }) && self.temporary.is_none() && !self.is_of_temporary
    }

    /// Whether analysis changed the text.
    pub fn is_rewritten(&self) -> bool {
        !self.positions.is_empty()
    }
}

/// What a statement is seen to do, anywhere in its tree. Functions may do more than their callers show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Changes what older snapshots see (DDL, TRUNCATE, GRANT, REFRESH, ATTACH): needs the wall of rule 9.
    pub wall: bool,
    /// Takes explicit locks: LOCK TABLE, or FOR UPDATE/SHARE at any depth.
    pub locks: bool,
    /// Calls nextval, setval, currval or lastval by name.
    pub sequences: bool,
    /// Writes as far as syntax tells, data-modifying WITH included. False does not exclude a writing function.
    pub writes: bool,
    /// Whether it answers with rows; `None` where syntax cannot tell (EXECUTE, CALL).
    pub returns_rows: Option<bool>,
    /// Cannot run inside a transaction block: VACUUM and ANALYZE, an ordered request run by each replica itself.
    pub maintenance: bool,
}

/// The kinds of statement the proxy treats differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatementKind {
    /// SELECT, VALUES, TABLE.
    Query {
        /// An ORDER BY on the outermost select: results are compared in sequence, otherwise as a multiset.
        row_order: bool,
    },
    /// INSERT, UPDATE, DELETE, MERGE.
    Modify,
    /// COPY FROM STDIN.
    CopyIn,
    /// COPY TO STDOUT.
    CopyOut {
        /// An ORDER BY on the outermost select of the copied query.
        row_order: bool,
    },
    /// Any definition, TRUNCATE, GRANT and REVOKE, REFRESH, REINDEX, CLUSTER; SELECT INTO too.
    Ddl {
        /// Relations it names, as written (schema-qualified or not), without those in expressions of routines.
        relations: Vec<String>,
    },
    /// BEGIN, START TRANSACTION.
    Begin(TransactionModes),
    /// COMMIT, END.
    Commit {
        /// AND CHAIN.
        chain: bool,
    },
    /// ROLLBACK, ABORT.
    Rollback {
        /// AND CHAIN.
        chain: bool,
    },
    /// SAVEPOINT name.
    Savepoint(String),
    /// RELEASE SAVEPOINT name.
    ReleaseSavepoint(String),
    /// ROLLBACK TO SAVEPOINT name.
    RollbackTo(String),
    /// SET TRANSACTION, or SET of one of its parameters (`transaction_isolation`, ...).
    SetTransaction(TransactionModes),
    /// SET SESSION CHARACTERISTICS AS TRANSACTION, or SET of `default_transaction_...`.
    SetSessionCharacteristics(TransactionModes),
    /// PREPARE TRANSACTION (refused).
    PrepareTransaction,
    /// COMMIT PREPARED (refused).
    CommitPrepared,
    /// ROLLBACK PREPARED (refused).
    RollbackPrepared,
    /// SET of a parameter, its name in lower case.
    Set {
        /// Name of the parameter; `role`, `session_authorization`, `timezone` for the special forms.
        name: String,
        /// SET LOCAL.
        local: bool,
        /// The value, if it is one constant and the parameter is one of SteelDB's.
        value: Option<String>,
    },
    /// RESET, SET ... TO DEFAULT; `None` is RESET ALL.
    Reset {
        /// Name of the parameter, in lower case.
        name: Option<String>,
    },
    /// SET CONSTRAINTS.
    SetConstraints,
    /// DISCARD.
    Discard {
        /// DISCARD ALL, which cannot run inside a transaction block.
        all: bool,
    },
    /// SHOW of a parameter, its name in lower case.
    Show {
        /// Name of the parameter, or `all`.
        name: String,
    },
    /// LOCK TABLE.
    LockTable {
        /// In ACCESS SHARE MODE, the lock that every SELECT takes.
        access_share: bool,
    },
    /// VACUUM, ANALYZE.
    Maintenance,
    /// DECLARE CURSOR.
    DeclareCursor {
        /// Name of the cursor.
        name: String,
        /// An ORDER BY on the outermost select of its query.
        row_order: bool,
    },
    /// FETCH.
    Fetch {
        /// Name of the cursor.
        name: String,
    },
    /// MOVE.
    Move {
        /// Name of the cursor.
        name: String,
    },
    /// CLOSE; `None` is CLOSE ALL.
    CloseCursor {
        /// Name of the cursor.
        name: Option<String>,
    },
    /// PREPARE at SQL level.
    Prepare {
        /// Name of the prepared statement.
        name: String,
        /// The kind of what it prepares.
        prepared: Box<StatementKind>,
    },
    /// EXECUTE at SQL level.
    Execute {
        /// Name of the prepared statement.
        name: String,
    },
    /// DEALLOCATE; `None` is DEALLOCATE ALL.
    Deallocate {
        /// Name of the prepared statement.
        name: Option<String>,
    },
    /// EXPLAIN.
    Explain {
        /// EXPLAIN ANALYZE: the statement runs.
        analyze: bool,
        /// The kind of what it explains.
        explained: Box<StatementKind>,
    },
    /// DO.
    Do,
    /// CALL.
    Call,
    /// SELECT steeldb.outcome(...) alone: the proxy asks the order.
    Outcome {
        /// What it asks for.
        argument: Argument,
        /// The name of its column.
        column: String,
    },
    /// LISTEN (refused).
    Listen,
    /// NOTIFY (refused).
    Notify,
    /// UNLISTEN.
    Unlisten,
    /// A statement that exists in PostgreSQL and is always refused (CREATE DATABASE, CHECKPOINT, ...).
    Refused,
}

/// What `steeldb.outcome()` was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// A constant; none for NULL.
    Text(Option<String>),
    /// The statement's first parameter.
    Parameter,
}

/// Why a statement is not run, in PostgreSQL's manner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The SQLSTATE, mostly 0A000.
    pub sqlstate: &'static str,
    /// The primary message.
    pub message: String,
    /// What to do instead.
    pub hint: String,
    /// Where in the user's query, as a 1-based character position, if there is one place to show.
    pub position: Option<usize>,
}
