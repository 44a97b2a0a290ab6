//! SIGHUP: the configuration is read again, and what can be changed while a process runs is. What cannot is named.

use crate::config::ConfigError;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// A file's keys with their values; lists are values.
type Keys = BTreeMap<String, toml::Value>;

/// What a process runs with, to tell what a file changes.
pub(crate) struct Reloader {
    running: Keys,
    /// Keys that take effect at once, or sections, with a dot behind.
    changeable: &'static [&'static str],
}

impl Reloader {
    /// `file` is what the process was started with.
    pub(crate) fn new(file: &impl Serialize, changeable: &'static [&'static str]) -> Reloader {
        Reloader { running: keys(file), changeable }
    }

    /// Reads again: `read` gives the file and what is to be done with it, which is done if all of it is sound.
    pub(crate) fn reload<F: Serialize>(
        &mut self,
        path: &Path,
        read: impl FnOnce() -> Result<F, ConfigError>,
        apply: impl FnOnce(F) -> anyhow::Result<()>,
    ) {
        let file = match read() {
            Ok(file) => file,
            Err(error) => {
                return tracing::error!(%error, "the configuration is not reloaded: all stays as it is");
            }
        };
        let now = keys(&file);
        if let Err(error) = apply(file) {
            return tracing::error!(
                error = format!("{error:#}"),
                "the configuration is not reloaded: all stays as it is"
            );
        }
        let (applied, kept) = self.take(now);
        tracing::info!(file = %path.display(), changed = applied.join(", "), "configuration reloaded");
        if !kept.is_empty() {
            tracing::warn!(
                keys = kept.join(", "),
                "these keys have changed and take effect at the next start"
            );
        }
    }

    /// What differs from what runs: what has taken effect, and what waits for a start.
    fn take(&mut self, now: Keys) -> (Vec<String>, Vec<String>) {
        let names: std::collections::BTreeSet<String> =
            self.running.keys().chain(now.keys()).cloned().collect();
        let differing = names.into_iter().filter(|key| self.running.get(key) != now.get(key));
        let (applied, kept): (Vec<String>, Vec<String>) = differing.partition(|key| {
            self.changeable.iter().any(|one| key == one || one.ends_with('.') && key.starts_with(one))
        });
        for key in &applied {
            match now.get(key) {
                Some(value) => self.running.insert(key.clone(), value.clone()),
                None => self.running.remove(key),
            };
        }
        (applied, kept)
    }
}

fn keys(file: &impl Serialize) -> Keys {
    fn walk(prefix: &str, value: toml::Value, keys: &mut Keys) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    let path = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
                    walk(&path, value, keys);
                }
            }
            value => drop(keys.insert(prefix.to_string(), value)),
        }
    }
    let mut found = Keys::new();
    // What was read from TOML can be written as such.
    if let Ok(value) = toml::Value::try_from(file) {
        walk("", value, &mut found);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_told_from_what_waits_for_a_start_until_then() {
        let table = |text: &str| toml::from_str::<toml::Table>(text).unwrap();
        let mut reloader = Reloader::new(&table("a = 1\nb = 1\n[s]\nx = 1\ny = 1"), &["a", "t.", "s.x"]);
        let mut take = |text: &str| reloader.take(keys(&table(text)));
        let (applied, kept) = take("a = 2\nb = 2\n[s]\ny = 2\n[t]\nz = [1]");
        assert_eq!((applied.join(" "), kept.join(" ")), ("a s.x t.z".into(), "b s.y".into()));
        let (applied, kept) = take("a = 2\nb = 2\n[s]\ny = 1\n[t]\nz = [1]");
        assert_eq!((applied.join(" "), kept.join(" ")), (String::new(), "b".into()));
    }
}
