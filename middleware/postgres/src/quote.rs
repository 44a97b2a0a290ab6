//! Quoting of identifiers and literals for commands that take no parameters.

/// `name` as a quoted identifier: `a"b` becomes `"a""b"`.
pub fn identifier(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len() + 2);
    push_identifier(&mut quoted, name);
    quoted
}

/// Appends `name` as a quoted identifier.
pub fn push_identifier(sql: &mut String, name: &str) {
    sql.push('"');
    for c in name.chars() {
        if c == '"' {
            sql.push('"');
        }
        sql.push(c);
    }
    sql.push('"');
}

/// `value` as a string literal. Backslashes are written in the `E''` form, so that the meaning does not depend on
/// `standard_conforming_strings`. A NUL byte cannot occur in a PostgreSQL text; it is left out.
pub fn literal(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 3);
    push_literal(&mut quoted, value);
    quoted
}

/// Appends `value` as a string literal; see [`literal`].
pub fn push_literal(sql: &mut String, value: &str) {
    sql.push_str(if value.contains('\\') { " E'" } else { "'" });
    for c in value.chars() {
        match c {
            '\'' => sql.push_str("''"),
            '\\' => sql.push_str("\\\\"),
            '\0' => {}
            c => sql.push(c),
        }
    }
    sql.push('\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_are_doubled() {
        assert_eq!(identifier(r#"a"b"#), r#""a""b""#);
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\'b"), r" E'a\\''b'");
        assert_eq!(literal("a\0b"), "'ab'");
    }
}
