//! Writing configuration files: every key with what it means.

use std::fmt::{Display, Write as _};

/// A commented TOML file in the making.
pub(super) struct Text(String);

impl Text {
    /// Begins with lines of comment.
    pub(super) fn new(comment: &str) -> Text {
        let mut text = Text(String::new());
        text.comment(comment);
        text.0.push('\n');
        text
    }

    /// Begins a section such as `[cluster]`.
    pub(super) fn section(&mut self, header: &str, comment: &str) {
        if !self.0.ends_with("\n\n") {
            self.0.push('\n');
        }
        self.comment(comment);
        let _ = writeln!(self.0, "{header}");
    }

    /// A key.
    pub(super) fn key(&mut self, comment: &str, key: &str, value: impl Into<toml::Value>) {
        self.comment(comment);
        self.pair(key, value);
        self.0.push('\n');
    }

    /// A key that may be left out; then an example of it stands there as a comment.
    pub(super) fn optional<V: Into<toml::Value>>(
        &mut self,
        comment: &str,
        key: &str,
        value: Option<V>,
        example: impl Display,
    ) {
        self.comment(comment);
        match value {
            Some(value) => self.pair(key, value),
            None => {
                let _ = writeln!(self.0, "#{key} = {example}");
            }
        }
        self.0.push('\n');
    }

    /// A key that needs no words.
    pub(super) fn pair(&mut self, key: &str, value: impl Into<toml::Value>) {
        let _ = writeln!(self.0, "{key} = {}", value.into());
    }

    /// The whole text.
    pub(super) fn finish(self) -> String {
        self.0
    }

    fn comment(&mut self, comment: &str) {
        for line in comment.lines() {
            let _ = writeln!(self.0, "# {}", line.trim());
        }
    }
}

/// A list of strings.
pub(super) fn list(values: &[String]) -> toml::Value {
    toml::Value::Array(values.iter().map(|value| toml::Value::String(value.clone())).collect())
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    /// The paths of all keys in a TOML document; lists of tables count once.
    pub(in crate::config) fn keys(text: &str) -> BTreeSet<String> {
        fn walk(prefix: &str, value: &toml::Value, keys: &mut BTreeSet<String>) {
            match value {
                toml::Value::Table(table) => {
                    for (key, value) in table {
                        walk(&format!("{prefix}.{key}"), value, keys);
                    }
                }
                toml::Value::Array(list) if list.iter().any(toml::Value::is_table) => {
                    list.iter().for_each(|value| walk(prefix, value, keys));
                }
                _ => {
                    keys.insert(prefix.to_string());
                }
            }
        }
        let mut found = BTreeSet::new();
        walk("", &toml::Value::Table(toml::from_str(text).unwrap()), &mut found);
        found
    }
}
