//! Rule A4: which statements an operation may hold. Each replica enforces it, whatever the proxy did: PostgreSQL refuses
//! several statements in the extended protocol by itself (42601); transaction control is refused here, by its first
//! keywords, and what slips through is caught by the command tag.

use steeldb_types::is_temporary_schema;

/// What kind of statement the first keywords name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// An ordinary one: it may write.
    Plain,
    /// One that writes nothing and locks no rows, unless a function that it calls does.
    Read,
    /// Defines temporary relations.
    Temporary,
    /// DDL and what else raises the wall (rule 9).
    Ddl,
    /// LOCK TABLE.
    Lock,
}

/// A statement that no operation may hold.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{keywords} is transaction control or maintenance and cannot be an operation")]
pub struct Refused {
    /// The keywords found.
    pub keywords: String,
}

/// Whether a statement is a SET or RESET of a session's settings and an operation may hold it.
pub fn is_setting(sql: &str) -> bool {
    let first = Words { rest: sql }.next();
    matches!(first.as_deref(), Some("SET" | "RESET")) && check(sql).is_ok()
}

/// Classifies one statement by its first keywords.
///
/// # Errors
/// [`Refused`] for transaction control and for what needs a connection of its own.
pub fn check(sql: &str) -> Result<Class, Refused> {
    let mut words = Words { rest: sql };
    let first = words.next().unwrap_or_default();
    let second = words.next().unwrap_or_default();
    let refused = || Err(Refused { keywords: format!("{first} {second}").trim_end().to_string() });
    match (first.as_str(), second.as_str()) {
        ("ROLLBACK", "TO") => Ok(Class::Plain),
        ("ROLLBACK", "WORK" | "TRANSACTION") if words.next().as_deref() == Some("TO") => Ok(Class::Plain),
        ("BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT", _)
        | ("PREPARE", "TRANSACTION")
        | ("SET", "TRANSACTION")
        | ("VACUUM" | "LISTEN" | "NOTIFY" | "LOAD" | "CHECKPOINT", _)
        | ("ALTER", "SYSTEM") => refused(),
        // The agent's own prepared statements live in the same name space. A function can still reach them: the agent
        // must not believe what they say.
        ("DEALLOCATE" | "PREPARE" | "EXECUTE", _) if sql.to_ascii_lowercase().contains("steeldb_") => {
            refused()
        }
        ("SET", "SESSION" | "LOCAL")
            if matches!(
                words.next().as_deref(),
                Some("AUTHORIZATION" | "TRANSACTION" | "CHARACTERISTICS")
            ) =>
        {
            refused()
        }
        ("LOCK", _) => Ok(Class::Lock),
        ("SELECT" | "VALUES" | "TABLE" | "SHOW" | "FETCH" | "MOVE" | "CLOSE", _) if !locks_rows(sql) => {
            Ok(Class::Read)
        }
        ("CREATE" | "ALTER" | "DROP" | "TRUNCATE", _) if is_of_temporary(sql) => Ok(Class::Temporary),
        (
            "CREATE" | "ALTER" | "DROP" | "TRUNCATE" | "GRANT" | "REVOKE" | "COMMENT" | "REFRESH" | "REINDEX"
            | "CLUSTER" | "REASSIGN" | "SECURITY" | "IMPORT",
            _,
        ) => Ok(Class::Ddl),
        _ => Ok(Class::Plain),
    }
}

/// Whether a definition names, where its object stands, a schema of temporary relations: that makes no wall, and need not
/// wait for others. Whether it is the session's own, and all that is touched, is seen when the transaction is complete.
fn is_of_temporary(sql: &str) -> bool {
    let mut words = Words { rest: sql };
    let first = words.next().unwrap_or_default();
    let mut kind = words.find(|word| !matches!(word.as_str(), "OR" | "REPLACE" | "RECURSIVE" | "UNIQUE"));
    if first == "TRUNCATE" && kind.as_deref() != Some("TABLE") {
        // TABLE is only a noise word.
        words = Words { rest: sql };
        words.next();
        kind = Some("TABLE".into());
    }
    if first == "CREATE" && kind.as_deref() == Some("INDEX") {
        words.find(|word| word == "ON");
    }
    let name = words.find(|word| !matches!(word.as_str(), "IF" | "NOT" | "EXISTS" | "ONLY"));
    matches!(kind.as_deref(), Some("TABLE" | "VIEW" | "SEQUENCE" | "INDEX"))
        && name.is_some_and(|name| is_temporary_schema(&name.to_ascii_lowercase()))
}

/// Whether a query may have a locking clause: FOR as a word, wherever it is. FOR in a string costs no more than its order.
fn locks_rows(sql: &str) -> bool {
    sql.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).any(|word| word.eq_ignore_ascii_case("FOR"))
}

/// The leading words of a statement in upper case, past white space, comments and opening brackets.
struct Words<'a> {
    rest: &'a str,
}

impl Iterator for Words<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        loop {
            self.rest = self.rest.trim_start_matches(|c: char| c.is_whitespace() || c == '(' || c == ';');
            if let Some(comment) = self.rest.strip_prefix("--") {
                self.rest = comment.find(['\n', '\r']).map_or("", |end| &comment[end..]);
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                self.rest = after_block_comment(comment);
            } else {
                break;
            }
        }
        let end =
            self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!word.is_empty()).then(|| word.to_ascii_uppercase())
    }
}

/// Block comments nest in PostgreSQL.
fn after_block_comment(text: &str) -> &str {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (1usize, 0usize);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return &text[at..];
                }
            }
            b"/*" => {
                depth += 1;
                at += 2;
            }
            _ => at += 1,
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a4_transaction_control_is_no_operation_however_it_is_dressed() {
        for sql in [
            "commit",
            "  /* a /* nested */ b */ COMMIT",
            "-- x\nBegin isolation level serializable",
            "END",
            "abort",
            "rollback",
            "ROLLBACK WORK",
            "rollback and chain",
            "prepare transaction 'x'",
            "commit prepared 'x'",
            "ROLLBACK PREPARED 'x'",
            "start transaction",
            "set transaction isolation level read committed",
            "SET LOCAL transaction isolation level serializable",
            "set session characteristics as transaction read only",
            "set session authorization postgres",
            "vacuum t",
            "alter system set fsync = off",
            "DEALLOCATE steeldb_complete",
            "deallocate prepare \"steeldb_complete\"",
            "PREPARE steeldb_complete AS SELECT false",
        ] {
            assert!(check(sql).is_err(), "{sql}");
        }
    }

    #[test]
    fn ordinary_statements_pass() {
        for (sql, class) in [
            ("select 1", Class::Read),
            ("(select 1)", Class::Read),
            ("select * from t for no key update", Class::Plain),
            ("select * from t\nFor\tshare", Class::Plain),
            ("with a as (insert into t values (1) returning x) select x from a", Class::Plain),
            ("table t", Class::Read),
            ("rollback to savepoint a", Class::Plain),
            ("ROLLBACK WORK TO a", Class::Plain),
            ("savepoint a", Class::Plain),
            ("prepare p as select 1", Class::Plain),
            ("prepare p as select steeldb.now()", Class::Plain),
            ("deallocate p", Class::Plain),
            ("deallocate all", Class::Plain),
            ("set search_path = a", Class::Plain),
            ("set session statement_timeout = 1", Class::Plain),
            ("lock table t", Class::Lock),
            ("create table t ()", Class::Ddl),
            ("create table steeldb_temp_0123456789abcdef0123.t ()", Class::Temporary),
            ("create table if not exists steeldb_temp_0123456789abcdef0123.t as select 1", Class::Temporary),
            ("CREATE OR REPLACE VIEW steeldb_temp_0123456789abcdef0123 . v as select 1", Class::Temporary),
            ("create table steeldb_temp_t ()", Class::Ddl),
            ("drop table if exists steeldb_temp_0123456789abcdef0123.t", Class::Temporary),
            ("truncate steeldb_temp_0123456789abcdef0123.t", Class::Temporary),
            ("truncate table only steeldb_temp_0123456789abcdef0123.t", Class::Temporary),
            ("alter table steeldb_temp_0123456789abcdef0123.t add b int", Class::Temporary),
            ("create unique index i on steeldb_temp_0123456789abcdef0123.t (a)", Class::Temporary),
            ("create index on t (a)", Class::Ddl),
            ("truncate", Class::Ddl),
            ("create", Class::Ddl),
            ("grant all on steeldb_temp_0123456789abcdef0123.t to public", Class::Ddl),
            ("create function steeldb_temp_0123456789abcdef0123.f()", Class::Ddl),
            ("truncate t", Class::Ddl),
            ("commit_something", Class::Plain),
            ("", Class::Plain),
        ] {
            assert_eq!(check(sql), Ok(class), "{sql}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(sql: String) {
            let _ = check(&sql);
        }
    }
}
