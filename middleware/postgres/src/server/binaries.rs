//! Finding PostgreSQL.

use super::ServerError;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest major version with what we need of logical decoding (protocol version 3).
const MAJOR_MIN: u32 = 15;

/// The directory with initdb and postgres: `STEELDB_PG_BIN`, else `configured`, else the newest version under
/// /usr/lib/postgresql, else the PATH.
///
/// # Errors
/// [`ServerError::NotInstalled`] says where it looked.
pub fn find_binaries(configured: Option<&Path>) -> Result<PathBuf, ServerError> {
    let named = std::env::var_os("STEELDB_PG_BIN").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    // A directory that was named must hold what it is said to hold: taking another version silently would surprise.
    if let Some(dir) = named.or_else(|| configured.map(Path::to_path_buf)) {
        return match usable(&dir) {
            true => Ok(dir),
            false => Err(ServerError::NotInstalled { looked_in: dir.display().to_string() }),
        };
    }
    let debian = Path::new("/usr/lib/postgresql");
    let mut candidates: Vec<(u32, PathBuf)> = std::fs::read_dir(debian)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(major, _)| *major >= MAJOR_MIN)
        .collect();
    candidates.sort_by(|a, b| b.cmp(a));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = candidates.into_iter().map(|(_, dir)| dir).chain(std::env::split_paths(&path));
    dirs.into_iter().find(|dir| usable(dir)).ok_or_else(|| ServerError::NotInstalled {
        looked_in: "$STEELDB_PG_BIN, /usr/lib/postgresql/*/bin, $PATH".to_string(),
    })
}

fn usable(dir: &Path) -> bool {
    if !dir.join("initdb").is_file() || !dir.join("postgres").is_file() {
        return false;
    }
    let Ok(output) = Command::new(dir.join("postgres")).arg("--version").output() else { return false };
    major(&String::from_utf8_lossy(&output.stdout)).is_some_and(|major| major >= MAJOR_MIN)
}

/// The major version in `postgres (PostgreSQL) 15.4 (Debian ...)`.
fn major(version: &str) -> Option<u32> {
    let (_, rest) = version.split_once("(PostgreSQL) ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(major("postgres (PostgreSQL) 15.4 (Debian 15.4-0)"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 17devel"), Some(17));
        assert_eq!(major("something else"), None);
    }

    #[test]
    fn a_named_directory_without_postgres_is_an_error_that_names_it() {
        let error = find_binaries(Some(Path::new("/nonexistent"))).unwrap_err().to_string();
        assert!(error.contains("/nonexistent") && error.contains("apt-get install postgresql"), "{error}");
    }
}
