//! The users file of a proxy: who may log in, by SCRAM verifier. No password is in it. A line per user: the name in
//! double quotes, then the verifier.

use super::{ConfigError, beside, keys};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

const HEADER: &str = "# Who may log in at the proxy, each with a SCRAM-SHA-256 verifier (as in PostgreSQL's pg_authid).\n\
    # Made by: steeldb proxy-password --users FILE USER\n";

/// Users and their verifiers.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Users {
    /// The verifier of each user.
    pub users: BTreeMap<String, String>,
}

/// The verifier of `password`: SCRAM-SHA-256 with a random salt, in PostgreSQL's notation.
pub fn verifier(password: &str) -> String {
    postgres_protocol::password::scram_sha_256(password.as_bytes())
}

/// Checks that `name` can stand in the file.
///
/// # Errors
/// Says why not.
pub fn check_user(name: &str) -> Result<(), String> {
    super::check_role(name)?;
    match name.contains('"') {
        true => Err(format!("the name {name:?} has a double quote in it")),
        false => Ok(()),
    }
}

impl Users {
    /// Reads a users file.
    ///
    /// # Errors
    /// [`ConfigError`]: unreadable, open to others than its owner, or a line that is no user; the line is not shown.
    pub fn read(file: &Path) -> Result<Users, ConfigError> {
        let text = keys::read_private(file, FILE_BYTES_MAX)?;
        let mut users = BTreeMap::new();
        for (line, number) in text.lines().map(str::trim).zip(1..) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((user, verifier)) = entry(line) else {
                let reason = "not a user and a SCRAM-SHA-256 verifier: make it with steeldb proxy-password";
                return Err(ConfigError::value(file, format!("line {number}"), reason));
            };
            users.insert(user.to_string(), verifier.to_string());
        }
        Ok(Users { users })
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let mut text = HEADER.to_string();
        for (user, verifier) in &self.users {
            let _ = writeln!(text, "\"{user}\" {verifier}");
        }
        text
    }

    /// Writes the file anew, mode 0600, in one step.
    ///
    /// # Errors
    /// [`ConfigError::Io`].
    pub fn write(&self, file: &Path) -> Result<(), ConfigError> {
        let io = |source| ConfigError::Io { what: "write", file: file.to_path_buf(), source };
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = beside(file, Path::new(&name));
        // One that an interrupted writer left would keep its mode.
        let _ = std::fs::remove_file(&new);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut opened| opened.write_all(self.text().as_bytes()))
            .and_then(|()| std::fs::rename(&new, file))
            .map_err(io)
    }
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.users.keys()).finish()
    }
}

/// A user and a verifier; the user in double quotes or without blanks.
fn entry(line: &str) -> Option<(&str, &str)> {
    let (user, verifier) = match line.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"')?,
        None => line.split_once(char::is_whitespace)?,
    };
    let verifier = verifier.trim();
    (!user.is_empty() && is_verifier(verifier)).then_some((user, verifier))
}

/// SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey.
fn is_verifier(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("SCRAM-SHA-256$") else { return false };
    let Some((salted, keys)) = rest.split_once('$') else { return false };
    let Some((iterations, salt)) = salted.split_once(':') else { return false };
    let Some((stored, server)) = keys.split_once(':') else { return false };
    iterations.parse::<u32>().is_ok_and(|count| count > 0)
        && !salt.is_empty()
        // 32 bytes in base64.
        && stored.len() == 44
        && server.len() == 44
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn users_survive_their_file_without_their_passwords() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("users");
        let mut users = Users::default();
        users.users.insert("app".into(), verifier("open sesame"));
        users.users.insert("o'neil junior".into(), verifier("päss"));
        users.write(&file).unwrap();
        assert_eq!(Users::read(&file).unwrap(), users);
        assert!(!std::fs::read_to_string(&file).unwrap().contains("sesame"));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        users.write(&file).unwrap();
    }

    #[test]
    fn a_password_in_place_of_a_verifier_is_refused_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("users");
        Users { users: [("app".to_string(), "hunter2".to_string())].into() }.write(&file).unwrap();
        let error = Users::read(&file).unwrap_err().to_string();
        assert!(error.contains("users: line 3: ") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn names_that_the_file_cannot_hold_are_refused() {
        assert!(check_user("o'neil").is_ok());
        for name in ["", "a\"b", "a\nb", "pg_monitor"] {
            assert!(check_user(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_proxy_reads_what_is_written() {
        let users = Users { users: [("o'neil junior".to_string(), verifier("secret"))].into() };
        assert!(steeldb_pg_proxy::Users::parse(&users.text(), "users").is_ok());
    }
}
