//! A table of statements with all that is expected of each, and inputs made to break the analysis.

use proptest::prelude::*;

use super::*;

/// Shows a statement on one line: kind, flags in lower case, parameters, what was rewritten, what was refused.
fn show(statement: &Statement, original: &str) -> String {
    let mut line = match &statement.kind {
        StatementKind::Begin(modes) => format!("Begin{}", show_modes(modes)),
        StatementKind::SetTransaction(modes) => format!("SetTransaction{}", show_modes(modes)),
        StatementKind::SetSessionCharacteristics(modes) => format!("SetSession{}", show_modes(modes)),
        StatementKind::Set { name, local, .. } => format!("Set {{ name: {name}, local: {local} }}"),
        StatementKind::Ddl { relations } => format!("Ddl({})", relations.join(",")),
        kind => format!("{kind:?}").replace('"', ""),
    };
    let flags = &statement.flags;
    for (is_set, name) in [
        (flags.wall, "wall"),
        (flags.locks, "locks"),
        (flags.sequences, "sequences"),
        (flags.writes, "writes"),
        (flags.returns_rows == Some(true), "rows"),
        (flags.returns_rows.is_none(), "rows?"),
        (flags.maintenance, "maintenance"),
    ] {
        if is_set {
            line = format!("{line} {name}");
        }
    }
    if statement.parameters > 0 {
        line = format!("{line} ${}", statement.parameters);
    }
    if let Some(refusal) = &statement.refused {
        line = format!("{line} !{}", refusal.message.replace(" is not supported by SteelDB", ""));
        assert!(!refusal.hint.is_empty() && refusal.hint.ends_with('.'), "{original}");
        assert_eq!(refusal.sqlstate, "0A000", "{original}");
    }
    if statement.text != original {
        line = format!("{line} => {}", statement.text);
    }
    line
}

fn show_modes(modes: &TransactionModes) -> String {
    let mut text = String::new();
    if let Some(isolation) = modes.isolation {
        text = format!("{text} {isolation:?}");
    }
    if let Some(read_only) = modes.read_only {
        text = format!("{text} {}", if read_only { "ro" } else { "rw" });
    }
    if let Some(deferrable) = modes.deferrable {
        text = format!("{text} {}", if deferrable { "deferrable" } else { "prompt" });
    }
    text
}

/// Each line: a statement, ` | `, what is expected of it as [`show`] writes it. Lines with `#` are headings.
const TABLE: &str = include_str!("tests.txt");

#[test]
fn every_statement_of_the_table_is_understood() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (sql, expected) = line.rsplit_once(" | ").expect(line);
        let sql = sql.trim_end();
        let found = match analyze(sql) {
            Ok(statements) => match statements.as_slice() {
                [only] => show(only, sql),
                other => format!("{} statements", other.len()),
            },
            Err(error) => error.to_string(),
        };
        count += 1;
        if found != expected {
            wrong.push(format!("{sql} | {found}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count >= 150, "{count}");
}

fn one(sql: &str) -> Statement {
    let mut statements = analyze(sql).unwrap();
    assert_eq!(statements.len(), 1, "{sql}");
    statements.remove(0)
}

fn char_of(text: &str, needle: &str) -> usize {
    text[..text.find(needle).expect(needle)].chars().count() + 1
}

#[test]
fn positions_lead_back_to_the_query() {
    let sql = "SELECT 'ö'; -- ä\n  SELECT now(), Current_Date, fehlt FROM t; SELECT kaputt";
    let statements = analyze(sql).unwrap();
    assert_eq!(statements.len(), 3);
    let second = &statements[1];
    assert_eq!(second.text, "SELECT steeldb.now(), steeldb.\"current_date\"(), fehlt FROM t");
    assert!(second.is_rewritten() && !statements[0].is_rewritten());
    for (here, there) in [
        ("SELECT s", "SELECT now"),
        ("now", "now"),
        ("steeldb.\"", "Current"),
        ("fehlt", "fehlt"),
        ("t", "t"),
    ] {
        let found = second.map_position(char_of(&second.text, here));
        if here != "t" {
            assert_eq!(found, char_of(sql, there), "{here}");
        }
    }
    let third = &statements[2];
    assert_eq!(third.map_position(char_of(&third.text, "kaputt")), char_of(sql, "kaputt"));
    assert_eq!(third.map_position(0), third.offset + 1);
}

#[test]
fn statements_of_one_query_come_in_sequence() {
    let kinds: Vec<_> = analyze("BEGIN; UPDATE t SET a = 1;; COMMIT -- done").unwrap();
    let texts: Vec<_> = kinds.iter().map(|statement| statement.text.as_str()).collect();
    assert_eq!(texts, ["BEGIN", "UPDATE t SET a = 1", "COMMIT"]);
    assert!(analyze("").unwrap().is_empty() && analyze(" ;; \n-- x").unwrap().is_empty());
}

#[test]
fn refusals_point_at_their_place() {
    let refused = one("SELECT 'é', pg_notify('a', 'b')").refused.unwrap();
    assert_eq!(refused.position, Some(13));
    assert_eq!(refused.message, "function pg_notify() is not supported by SteelDB");
    assert_eq!(one("SELECT 1; ").refused, None);
    assert_eq!(one("  CREATE TEMP TABLE public.t ()").refused.unwrap().position, Some(21));
}

#[test]
fn syntax_errors_carry_message_and_position() {
    for (sql, message, position) in [
        ("SELEC 1", "syntax error at or near \"SELEC\"", 1),
        ("SELECT 1; SELECT é FROM FROM t", "syntax error at or near \"FROM\"", 25),
        ("SELECT a a a FROM t WHERE (a", "syntax error at or near \"a\"", 12),
        ("SELECT ((1)) ) ) FROM t", "syntax error at or near \")\"", 14),
        ("SELECT 1 WHERE ", "syntax error at end of input", 16),
        ("SELECT 'abc", "unterminated quoted string at or near \"'abc\"", 8),
        ("SELECT 1; SELECT \"abc", "unterminated quoted identifier at or near \"\"abc\"", 18),
        ("SELECT 1 /* x", "unterminated /* comment at or near \"/* x\"", 10),
        ("SELECT 1a", "trailing junk after numeric literal at or near \"1a\"", 8),
    ] {
        let error = analyze(sql).unwrap_err();
        assert_eq!(
            (error.sqlstate, error.message.as_str(), error.position),
            ("42601", message, Some(position)),
            "{sql}"
        );
        assert_eq!(sql[..error.byte.unwrap()].chars().count() + 1, position, "{sql}");
    }
    assert_eq!(analyze("SELECT '\0'").unwrap_err().sqlstate, "22021");
}

#[test]
fn long_texts_are_refused_at_the_limit() {
    let limit = steeldb_types::limits::STATEMENT_BYTES_MAX;
    let text = |length: usize| format!("SELECT '{}'", "x".repeat(length - 9));
    assert_eq!(analyze(&text(limit)).unwrap()[0].text.len(), limit);
    assert_eq!(analyze(&text(limit + 1)).unwrap_err().sqlstate, "54000");
}

#[test]
fn what_postgresql_accepts_in_depth_is_accepted() {
    let chain = |count: usize, term: &str, link: &str| vec![term; count].join(link);
    for (sql, rewritten) in [
        (format!("SELECT {}", chain(5_000, "a = now()", " OR ")), true),
        (format!("SELECT {}", chain(2_000, "'x'", " || ")), false),
        (format!("SELECT {}", chain(3_000, "1", " + ")), false),
        (chain(2_000, "SELECT 1", " UNION ALL "), false),
        (format!("INSERT INTO t VALUES {}", chain(20_000, "(1, 'a', now())", ", ")), true),
        (format!("SELECT * FROM {}", chain(500, "t", " NATURAL JOIN ")), false),
        (format!("SELECT {}1{}", "(".repeat(2_000), ")".repeat(2_000)), false),
        (format!("SELECT {}1{}", "f(".repeat(1_000), ")".repeat(1_000)), false),
        (format!("SELECT {}1{}", "(SELECT ".repeat(500), ")".repeat(500)), false),
    ] {
        let statement = one(&sql);
        assert_eq!(statement.is_rewritten(), rewritten, "{}", &sql[..40]);
        assert_eq!(statement.refused, None);
    }
}

#[test]
fn what_is_too_deep_is_refused_and_harms_nobody() {
    let limit = steeldb_types::limits::STATEMENT_BYTES_MAX;
    let nested = |open: &str, close: &str, count: usize| {
        let count = count.min((limit - 16) / (open.len() + close.len()));
        format!("SELECT {}1{}", open.repeat(count), close.repeat(count))
    };
    for sql in [
        nested("(", ")", 10_000),
        nested("(", ")", limit),
        nested("f(", ")", 9_000),
        nested("(SELECT ", ")", limit),
        nested("", "+1", limit),
        nested("", "||1", limit),
        nested("- ", "", limit),
        nested("NOT ", "", limit),
        nested("CASE WHEN ", " THEN 1 END", limit),
        nested("", "::int", limit),
        format!("SELECT a{}", "[1]".repeat(300_000)),
        format!("SELECT (a){}", ".b".repeat(300_000)),
        nested("", " IS NULL", limit),
        nested("", " UNION SELECT 1", limit),
        nested("", " UNION SELECT 1", 20_000),
        nested("ARRAY[", "]", limit),
    ] {
        match analyze(&sql) {
            Err(error) => assert_eq!(error.sqlstate, "54001", "{}: {error}", &sql[..40]),
            // Flat after all in the tree.
            Ok(statements) => assert_eq!(statements.len(), 1, "{}", &sql[..40]),
        }
    }
    // What is analysed on the caller's stack, at its deepest.
    for open in ["- ", "f(", "NOT ", "ARRAY["] {
        let _ = analyze(&nested(open, "", 500 / open.len()));
        let _ = analyze(&nested(open, if open.ends_with('(') { ")" } else { "" }, 160));
    }
    let chain = format!("SELECT 1{}", "+1".repeat(250));
    std::thread::Builder::new().stack_size(2 << 20).spawn(move || one(&chain)).unwrap().join().unwrap();
}

fn table() -> impl Iterator<Item = &'static str> {
    let lines = TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit_once(" | ").map(|(sql, _)| sql.trim_end()))
}

#[test]
fn rewriting_is_done_once_and_changes_nothing_else() {
    for sql in table() {
        for statement in analyze(sql).unwrap() {
            let again = one(&statement.text);
            assert_eq!(again.text, statement.text);
            assert!(!again.is_rewritten(), "{sql}");
            if again.text.contains(steeldb_types::TEMPORARY_SCHEMA_PLACEHOLDER) {
                continue; // it is not called temporary any more
            }
            assert_eq!((again.kind, again.flags), (statement.kind, statement.flags), "{sql}");
        }
    }
}

/// What must hold of any text at all.
fn check(sql: &str) {
    match analyze(sql) {
        Err(error) => {
            assert!(!error.message.is_empty());
            if let (Some(byte), Some(position)) = (error.byte, error.position) {
                assert_eq!(sql[..byte].chars().count() + 1, position);
            }
        }
        Ok(statements) => {
            let length = sql.chars().count();
            for statement in statements {
                let mut last = 0;
                for position in 1..=statement.text.chars().count() + 1 {
                    let mapped = statement.map_position(position);
                    assert!(last <= mapped && mapped <= length + 1, "{sql}: {position} -> {mapped}");
                    last = mapped;
                }
                if !statement.is_rewritten() {
                    assert!(sql.contains(&statement.text));
                }
                assert!(analyze(&statement.text).is_ok_and(|again| again.len() == 1), "{}", statement.text);
            }
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_answered(sql in ".{0,200}") {
        check(&sql);
    }

    #[test]
    fn mutated_statements_are_answered(
        first in 0..292usize,
        second in 0..292usize,
        cut in 0..100usize,
        from in 0..100usize,
        inserted in "[ -~é;$'\"(),/*-]{0,4}",
    ) {
        let part = |index: usize| table().nth(index).unwrap_or("SELECT now()");
        let head: String = part(first).chars().take(cut).collect();
        let tail: String = part(second).chars().skip(from).collect();
        check(&format!("{head}{inserted}{tail}"));
        check(&format!("{};{inserted};{}", part(first), part(second)));
    }

    #[test]
    fn words_in_any_order_are_answered(words in proptest::collection::vec(
        prop::sample::select(vec![
            "SELECT", "now()", "CURRENT_DATE", "FROM", "t", "(", ")", ",", "WHERE", "a", "=", "'now'", "::date", "SET",
            "search_path", "TO", "pg_catalog", ".", "COPY", "FREEZE", "WITH", "AS", "INSERT INTO", "VALUES", ";", "--",
            "\n", "/*", "*/", "$1", "CASE", "WHEN", "END", "UNION", "é", "U&'x'", "UESCAPE", "'!'", "E'\\'", "$$",
        ]), 0..14,
    )) {
        check(&words.join(" "));
    }
}

#[test]
fn the_extensions_are_those_that_replicas_allow() {
    let schema = include_str!("../../../migrations/0001_schema.sql");
    let rows = schema.split("INSERT INTO steeldb.allowed_extension VALUES").nth(1).unwrap();
    let allowed: Vec<&str> = rows.split(';').next().unwrap().split('\'').skip(1).step_by(2).collect();
    assert_eq!(allowed, super::refuse::EXTENSIONS);
}
