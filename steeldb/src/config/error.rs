//! What is wrong with a configuration, where.

use std::path::{Path, PathBuf};

/// Why a configuration is refused. Each is one line that names the file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read or written.
    #[error("cannot {what} {}: {source}", file.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Which file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, a key that is missing, or a value of the wrong type.
    #[error("{}, line {line} ({excerpt}): {reason}", file.display())]
    Syntax {
        /// Which file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What stands there.
        excerpt: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A value that cannot be.
    #[error("{}: {key}: {reason}", file.display())]
    Value {
        /// Which file.
        file: PathBuf,
        /// The key, with its section.
        key: String,
        /// What is wrong with its value.
        reason: String,
    },
    /// A key file that cannot be used.
    #[error("key file {}: {reason}", file.display())]
    KeyFile {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it; never what it holds.
        reason: String,
    },
}

impl ConfigError {
    pub(super) fn value(file: &Path, key: impl Into<String>, reason: impl ToString) -> ConfigError {
        ConfigError::Value { file: file.to_path_buf(), key: key.into(), reason: reason.to_string() }
    }

    pub(super) fn syntax(file: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
        const EXCERPT_CHARS: usize = 60;
        let start = error.span().map_or(0, |span| span.start).min(text.len());
        let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count();
        let excerpt = text.lines().nth(line).unwrap_or_default().trim();
        ConfigError::Syntax {
            file: file.to_path_buf(),
            line: line + 1,
            excerpt: excerpt.chars().take(EXCERPT_CHARS).collect(),
            reason: error.message().replace('\n', " "),
        }
    }
}
