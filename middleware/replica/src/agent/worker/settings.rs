//! What a session's client has set: part of a script, since what DDL does depends on it (search_path above all). Asked for
//! in transactions that run DDL alone.

use std::collections::BTreeSet;
use steeldb_postgres::quote;

/// Settings of extensions' kind that are remembered by name. Past it new ones are not.
const NAMES_MAX: usize = 64;

/// Names that PostgreSQL does not list among a session's settings.
#[derive(Default)]
pub(super) struct Names(BTreeSet<String>);

impl Names {
    /// Looks at a statement: SET of a name with a dot, or of the role.
    pub(super) fn note(&mut self, sql: &str) {
        let mut words = sql.split(|c: char| c.is_whitespace() || c == '=').filter(|word| !word.is_empty());
        if !words.next().is_some_and(|word| word.eq_ignore_ascii_case("set")) {
            return;
        }
        let scope = |word: &&str| ["session", "local"].iter().any(|scope| word.eq_ignore_ascii_case(scope));
        let Some(name) = words.find(|word| !scope(word)) else { return };
        let name = name.to_ascii_lowercase();
        let listed = !name.contains('.') && name != "role";
        if !listed && !name.starts_with("steeldb.") && self.0.len() < NAMES_MAX {
            self.0.insert(name);
        }
    }

    /// The query for names and values, as one text of hexadecimal pairs. Every name in it is qualified: it runs in the
    /// client's session.
    pub(super) fn sql(&self) -> String {
        let mut sql = String::from(
            "SELECT pg_catalog.string_agg(pg_catalog.encode(pg_catalog.convert_to(s.name, 'UTF8'), 'hex') \
             OPERATOR(pg_catalog.||) '=' OPERATOR(pg_catalog.||) \
             pg_catalog.encode(pg_catalog.convert_to(pg_catalog.current_setting(s.name, true), 'UTF8'), 'hex'), ',') \
             FROM (SELECT name FROM pg_catalog.pg_settings \
             WHERE source OPERATOR(pg_catalog.=) 'session' AND context OPERATOR(pg_catalog.=) 'user' \
             AND pg_catalog.strpos(name, 'transaction_') OPERATOR(pg_catalog.<>) 1",
        );
        for name in &self.0 {
            sql.push_str(" UNION ALL SELECT ");
            quote::push_literal(&mut sql, name);
            sql.push_str("::pg_catalog.text");
        }
        sql.push_str(") AS s WHERE pg_catalog.current_setting(s.name, true) IS NOT NULL");
        sql
    }
}

/// What the query answers.
pub(super) fn parse(text: &str) -> Vec<(String, String)> {
    let decode = |hex: &str| String::from_utf8(hex::decode(hex).ok()?).ok();
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        Some((decode(name)?, decode(value)?))
    };
    text.split(',').filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_postgresql_does_not_list_is_remembered_by_name() {
        let mut names = Names::default();
        for sql in [
            "SET search_path = a",
            "set  Session app.User = 'x'",
            "SET LOCAL app.two='y'",
            "SET ROLE someone",
            "SET steeldb.now = 'never'",
            "SELECT 1",
            "SET",
        ] {
            names.note(sql);
        }
        let known: Vec<&str> = names.0.iter().map(String::as_str).collect();
        assert_eq!(known, ["app.two", "app.user", "role"]);
        assert_eq!(
            parse("61=62,63="),
            [("a".to_string(), "b".to_string()), ("c".to_string(), String::new())]
        );
        assert_eq!(parse(""), []);
    }
}
