//! What a wall is about, by name, and whether a statement may reach it (rule 9).
//!
//! The server says what a transaction's definitions may be reached by (`migrations/0013_named.sql`). Here is the other half:
//! [`Names::may_be_reached_by`] is false only of a statement that is one of the plain kinds, whose text, strings and comments
//! included, holds none of the names as a word, and that calls nothing but functions and syntax known to read no tables and
//! no catalogs. What is not recognised may reach everything. Nothing is parsed: a word is a word wherever it stands.

use std::collections::BTreeSet;

/// How statements begin that do no more than their text says.
const PLAIN: &[&str] = &[
    "copy",
    "delete",
    "insert",
    "lock",
    "release",
    "reset",
    "rollback",
    "savepoint",
    "select",
    "set",
    "show",
    "table",
    "update",
    "values",
    "with",
];

/// What may stand before an opening bracket: PostgreSQL's keywords and types, and built-in functions that compute from their
/// arguments, the clock and the seed alone. A function of such a name that a client has made is among the names. Sorted.
#[rustfmt::skip]
const BEFORE_BRACKETS: &[&str] = &[
    "abs", "age", "all", "and", "any", "array", "array_agg", "array_append", "array_length", "as", "asc",
    "avg", "between", "bit", "bool_and", "bool_or", "bpchar", "btrim", "by", "cardinality", "case", "cast",
    "ceil", "ceiling", "char", "char_length", "character", "clock_timestamp", "coalesce", "concat",
    "concat_ws", "conflict", "convert_from", "convert_to", "count", "cross", "cume_dist", "current_date",
    "current_time", "current_timestamp", "date_part", "date_trunc", "dec", "decimal", "decode", "default",
    "delete", "dense_rank", "desc", "distinct", "do", "else", "encode", "every", "except", "exists", "exp",
    "extract", "filter", "first_value", "float", "floor", "for", "from", "full", "gen_random_uuid",
    "generate_series", "greatest", "group", "groups", "having", "ilike", "in", "initcap", "inner",
    "intersect", "interval", "is", "join", "json_agg", "json_build_array", "json_build_object", "jsonb_agg",
    "jsonb_build_array", "jsonb_build_object", "jsonb_set", "key", "lag", "last_value", "lateral", "lead",
    "least", "left", "length", "like", "limit", "ln", "localtime", "localtimestamp", "lower", "lpad", "ltrim",
    "make_date", "make_interval", "materialized", "max", "md5", "min", "mod", "natural", "not", "now",
    "ntile", "null", "nullif", "numeric", "octet_length", "offset", "on", "only", "or", "order", "outer",
    "over", "overlay", "partition", "percent_rank", "pg_sleep", "position", "power", "random", "range",
    "rank", "repeat", "replace", "returning", "reverse", "right", "round", "row", "row_number", "rows",
    "rpad", "rtrim", "select", "set", "sets", "sha256", "sign", "similar", "some", "split_part", "sqrt",
    "statement_timestamp", "stddev", "string_agg", "strpos", "substr", "substring", "sum", "then", "time",
    "timeofday", "timestamp", "timestamptz", "timetz", "to", "to_char", "to_date", "to_number",
    "to_timestamp", "transaction_timestamp", "trim", "trunc", "union", "unnest", "upper", "using", "values",
    "varbit", "varchar", "varying", "when", "where", "window", "with", "within",
];

/// What is longer PostgreSQL takes for a name that is shorter.
const NAME_BYTES_MAX: usize = 63;

/// Types whose values are names of what is in the catalogs.
const NAMING_TYPES: &[&str] = &[
    "regclass",
    "regcollation",
    "regconfig",
    "regdictionary",
    "regnamespace",
    "regoper",
    "regoperator",
    "regproc",
    "regprocedure",
    "regrole",
    "regtype",
];

/// Names of relations, types and functions, without schemas, in lower case.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Names {
    /// Who names one of these reaches what they stand for.
    read: BTreeSet<String>,
    /// One of these, who writes.
    written: BTreeSet<String>,
}

impl Names {
    /// Reads what `steeldb.ddl_reach()` gives. None: it may be reached by anything.
    pub fn parse(text: &str) -> Option<Names> {
        let mut names = Names::default();
        for item in text.split(',') {
            let (kind, digits) = item.split_at_checked(1)?;
            let mut name = String::from_utf8(hex::decode(digits).ok()?).ok()?;
            name.make_ascii_lowercase();
            // In a statement its quotes would be doubled.
            if name.is_empty() || name.contains('"') {
                return None;
            }
            match kind {
                "r" => names.read.insert(name),
                "w" => names.written.insert(name),
                _ => return None,
            };
        }
        Some(names)
    }

    /// Whether a statement may reach what is named. `reads`: it writes nothing.
    pub fn may_be_reached_by(&self, sql: &str, reads: bool) -> bool {
        // As PostgreSQL folds names: ASCII alone.
        let text = sql.to_ascii_lowercase();
        let words = words(&text);
        let is_named = |name: &String| match name.chars().all(is_part) {
            true => words.iter().any(|word| word.text == name),
            false => text.contains(name.as_str()),
        };
        self.read.iter().any(is_named)
            || !reads && self.written.iter().any(is_named)
            || !is_plain(&text, &words)
    }
}

/// A run of letters, digits and the like, wherever it stands.
struct Word<'a> {
    text: &'a str,
    /// What stands between the word before it and itself.
    gap: &'a str,
    /// What follows it, past a quotation mark and white space.
    rest: &'a str,
}

fn is_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

fn words(text: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_part) {
        let (gap, from) = rest.split_at(start);
        let (word, after) = from.split_at(from.find(|c| !is_part(c)).unwrap_or(from.len()));
        let behind = after.strip_prefix('"').unwrap_or(after).trim_start();
        words.push(Word { text: word, gap, rest: behind });
        rest = after;
    }
    words
}

/// Whether a statement, in lower case, does no more than its text says and calls nothing that is not known.
fn is_plain(text: &str, words: &[Word<'_>]) -> bool {
    let Some(first) = words.first() else { return text.trim().is_empty() };
    let has = |word: &str| words.iter().any(|other| other.text == word);
    // SELECT INTO defines. A name with escapes is not seen, nor is where a line's comment ends.
    if PLAIN.binary_search(&first.text).is_err()
        || !first.gap.chars().all(|c| c.is_whitespace() || c == '(')
        || has("into") && !has("insert")
        || text.contains("u&\"")
        || text.contains("--")
    {
        return false;
    }
    // INSERT INTO table (columns), COPY table (columns): what stands there is no call.
    let (mut begins, mut goes_on) = (false, false);
    words.iter().all(|word| {
        let gap: String = word.gap.chars().filter(|c| !c.is_whitespace()).collect();
        let is_name =
            begins && ["", "\""].contains(&&*gap) || goes_on && [".", "\".", ".\"", "\".\""].contains(&&*gap);
        begins = matches!(word.text, "into" | "copy");
        goes_on = is_name && word.rest.starts_with('.');
        let brackets = ["(", "/*"].iter().any(|open| word.rest.starts_with(open));
        let catalogs = word.text.starts_with("pg_") && !["pg_catalog", "pg_sleep"].contains(&word.text);
        let may_be_call = brackets
            && !is_name
            && !word.text.starts_with(|c: char| c.is_ascii_digit())
            && BEFORE_BRACKETS.binary_search(&word.text).is_err();
        !may_be_call
            && !catalogs
            && word.text.len() <= NAME_BYTES_MAX
            && word.text != "information_schema"
            && NAMING_TYPES.binary_search(&word.text).is_err()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(items: &[&str]) -> Names {
        let text: Vec<String> =
            items.iter().map(|item| format!("{}{}", &item[..1], hex::encode(&item[1..]))).collect();
        Names::parse(&text.join(",")).unwrap()
    }

    fn reaches(names: &Names, sql: &str) -> bool {
        let reads = crate::guard::check(sql) == Ok(crate::guard::Class::Read);
        names.may_be_reached_by(sql, reads)
    }

    #[test]
    fn lists_are_sorted() {
        for list in [PLAIN, BEFORE_BRACKETS, NAMING_TYPES] {
            assert!(list.is_sorted(), "{list:?}");
        }
    }

    #[test]
    fn g6_what_names_other_tables_alone_reaches_nothing() {
        let named = names(&["rt", "r_t", "wu"]);
        for sql in [
            "SELECT count(*), max(b.id) FROM a JOIN b ON (a.id = b.id) WHERE a.id IN (1, $1) ORDER BY 1 LIMIT 3",
            "select * from tt where note = 'to'",
            "select * from u where id = 1",
            "insert into a (id, n) values (1, 2) on conflict (id) do update set n = a.n + 1",
            "insert into public.a (id) values (1)",
            "insert into \"a\" (id) values (1)",
            "insert into public . \"a\" (id) values (1)",
            "update a set n = round(n * 1.5, 2)::numeric(10, 2), at = steeldb.now() where id = $1",
            "delete from a where id = 3 returning *",
            "with x as (select id from a) select sum(id) from x",
            "copy a (id, n) from stdin",
            "savepoint s",
            "rollback to s",
            "set local lock_timeout = '1s'",
            "select pg_sleep(1)",
            "select pg_catalog.lower('A') /* c */",
            "select 1 /* (of no call) */",
            "(select 1) union (values (2))",
            "",
        ] {
            assert!(!reaches(&named, sql), "{sql}");
        }
    }

    #[test]
    fn b9_what_names_a_wall_s_table_reaches_it_however_it_is_dressed() {
        let named = names(&["rt", "wu", "rsome thing", "r\u{e4}"]);
        for sql in [
            "select * from t",
            "select * from public.t",
            "SELECT 1 FROM \"T\"",
            "select * from a, t x",
            "select * from a where exists (select 1 from/**/t)",
            "insert into a select id from t",
            "insert into u values (1)",
            "select * from u for update",
            "copy t from stdin",
            "copy (select * from t) to stdout",
            "lock table t in share mode",
            "select 't'",
            "select x::t from a",
            "select * from \"some thing\"",
            "select * from \u{e4}",
        ] {
            assert!(reaches(&named, sql), "{sql}");
        }
    }

    /// What they reach is not in their text.
    #[test]
    fn b9_what_may_read_by_itself_reaches_everything() {
        let named = names(&["rt"]);
        for sql in [
            "select f(1)",
            "select \"f\"(1)",
            "select public.f (1)",
            "select f/**/(1)",
            "select query_to_xml('select * from ' || 'x', true, true, '')",
            "select 'into', query_to_xml('x')",
            "select app.\"into\".f(1)",
            "insert into a.b values (f(1))",
            "select -- into\n query_to_xml('x')",
            "insert into a select query_to_xml('x')",
            "select 'a'::regclass",
            "select to_regclass('a')",
            "select relname from pg_class",
            "select * from information_schema.tables",
            "select nextval('s')",
            "select * into b from a",
            "select * from U&\"\\0074\"",
            "fetch 1 from c",
            "execute p",
            "declare c cursor for select 1",
            "do $$ begin end $$",
            "call p()",
            "explain select 1",
            "create table b ()",
            "/* */ select 1",
            "select a operator(public.+) b from c",
        ] {
            assert!(reaches(&named, sql), "{sql}");
        }
    }

    #[test]
    fn b9_a_name_that_is_cut_off_reaches_what_is_left_of_it() {
        let name = "t".repeat(NAME_BYTES_MAX);
        assert!(!reaches(&names(&["rt"]), &format!("select * from {name}")));
        assert!(reaches(&names(&["rt"]), &format!("select * from {name}t")));
    }

    #[test]
    fn what_is_no_list_of_names_is_everything() {
        for text in ["", "r", "x74", "r7", "rzz", "r74,", "r22", "rff"] {
            assert_eq!(Names::parse(text), None, "{text}");
        }
        assert_eq!(Names::parse("r54,w75"), Some(names(&["rt", "wu"])));
    }

    proptest! {
        #[test]
        fn no_text_hides_a_name(before: String, after: String) {
            let sql = format!("{before} t {after}");
            prop_assert!(names(&["rt"]).may_be_reached_by(&sql, true));
        }

        #[test]
        fn no_text_makes_it_panic(text: String, sql: String) {
            let _ = Names::parse(&text);
            let _ = names(&["rt"]).may_be_reached_by(&sql, false);
        }
    }
}
