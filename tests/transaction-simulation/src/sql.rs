//! The statements of the simulation: a tiny language over one table of keys and values, written as statement texts whose
//! first keywords tell replicas what they tell them in SQL.
//!
//! ```text
//! SELECT 3 5 [ORDERED] [FOR UPDATE]     the rows with keys 3 to 5
//! UPDATE 3 5 SET 17 | APPEND 17         each row of those becomes 17, or gets 17 at its end; RETURNING them
//! INSERT 3 17, DELETE 3 5
//! UPDATE 3 3 DRIFT 17                   its row gets 17, or something else on some replicas, and nobody is shown what (A2)
//! SELECT CLOCK                          the transaction's time
//! SAVEPOINT a, ROLLBACK TO a, RELEASE a
//! ```

use std::fmt;

/// The key of a row.
pub type Key = u32;

/// What a row holds: the tokens of the statements that wrote it, so that what was lost is seen.
pub type Value = Vec<u32>;

/// A statement.
#[allow(missing_docs, reason = "the module's text says what each holds")]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Statement {
    /// Reads rows, and locks them if `lock`.
    Select { from: Key, to: Key, ordered: bool, lock: bool },
    /// Changes rows; `append` to what is there.
    Update { from: Key, to: Key, append: bool, token: u32 },
    /// Changes a row to what need not be the same everywhere, and does not show it.
    Drift { key: Key, token: u32 },
    /// Adds a row.
    Insert { key: Key, token: u32 },
    /// Removes rows.
    Delete { from: Key, to: Key },
    /// The time of the transaction.
    Clock,
    /// Savepoints.
    Savepoint(String),
    /// Undoes what came after a savepoint.
    RollbackTo(String),
    /// Forgets a savepoint.
    Release(String),
}

/// What is added to a token that came out differently ([`Statement::Drift`]).
pub const DRIFTED: u32 = 50_000;

impl Statement {
    /// Reads a statement's text; nothing if it is none.
    pub fn parse(text: &str) -> Option<Statement> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let number = |index: usize| words.get(index)?.parse::<u32>().ok();
        let name = |index: usize| words.get(index).map(|name| name.to_string());
        Some(match (*words.first()?, words.get(1).copied().unwrap_or_default()) {
            ("SELECT", "CLOCK") => Statement::Clock,
            ("SELECT", _) => Statement::Select {
                from: number(1)?,
                to: number(2)?,
                ordered: words.contains(&"ORDERED"),
                lock: words.contains(&"FOR"),
            },
            ("UPDATE", _) if words.contains(&"DRIFT") => {
                Statement::Drift { key: number(1)?, token: number(4)? }
            }
            ("UPDATE", _) => Statement::Update {
                from: number(1)?,
                to: number(2)?,
                append: words.contains(&"APPEND"),
                token: number(4)?,
            },
            ("INSERT", _) => Statement::Insert { key: number(1)?, token: number(2)? },
            ("DELETE", _) => Statement::Delete { from: number(1)?, to: number(2)? },
            ("SAVEPOINT", _) => Statement::Savepoint(name(1)?),
            ("ROLLBACK", "TO") => Statement::RollbackTo(name(2)?),
            ("RELEASE", _) => Statement::Release(name(1)?),
            _ => return None,
        })
    }

    /// Whether rows are compared in sequence (A8).
    pub fn is_ordered(&self) -> bool {
        matches!(self, Statement::Select { ordered: true, .. })
    }

    /// Whether a READ ONLY transaction may run it.
    pub fn only_reads(&self) -> bool {
        use Statement::{Clock, Release, RollbackTo, Savepoint, Select};
        matches!(self, Select { lock: false, .. } | Clock | Savepoint(_) | RollbackTo(_) | Release(_))
    }

    /// Whether it takes explicit locks (A9).
    pub fn locks(&self) -> bool {
        matches!(self, Statement::Select { lock: true, .. })
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Statement::Select { from, to, ordered, lock } => {
                write!(f, "SELECT {from} {to}")?;
                f.write_str(if *ordered { " ORDERED" } else { "" })?;
                f.write_str(if *lock { " FOR UPDATE" } else { "" })
            }
            Statement::Update { from, to, append, token } => {
                write!(f, "UPDATE {from} {to} {} {token}", if *append { "APPEND" } else { "SET" })
            }
            Statement::Drift { key, token } => write!(f, "UPDATE {key} {key} DRIFT {token}"),
            Statement::Insert { key, token } => write!(f, "INSERT {key} {token}"),
            Statement::Delete { from, to } => write!(f, "DELETE {from} {to}"),
            Statement::Clock => f.write_str("SELECT CLOCK"),
            Statement::Savepoint(name) => write!(f, "SAVEPOINT {name}"),
            Statement::RollbackTo(name) => write!(f, "ROLLBACK TO {name}"),
            Statement::Release(name) => write!(f, "RELEASE {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_reads_as_it_is_written() {
        let all = [
            Statement::Select { from: 1, to: 4, ordered: true, lock: false },
            Statement::Select { from: 1, to: 1, ordered: false, lock: true },
            Statement::Update { from: 2, to: 3, append: true, token: 9 },
            Statement::Update { from: 2, to: 2, append: false, token: 9 },
            Statement::Drift { key: 7, token: 8 },
            Statement::Insert { key: 7, token: 8 },
            Statement::Delete { from: 7, to: 8 },
            Statement::Clock,
            Statement::Savepoint("a".into()),
            Statement::RollbackTo("a".into()),
            Statement::Release("a".into()),
        ];
        for statement in all {
            assert_eq!(Statement::parse(&statement.to_string()), Some(statement));
        }
        assert_eq!(Statement::parse("VACUUM"), None);
    }
}
