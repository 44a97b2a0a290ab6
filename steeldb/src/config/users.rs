//! The users file of a proxy: who may log in, by SCRAM verifier. No password is in it.

use super::{ConfigError, beside, keys};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

const HEADER: &str = "# Who may log in at the proxy, each with a SCRAM-SHA-256 verifier (as in PostgreSQL's pg_authid).\n\
    # Made by: steeldb proxy-password --users FILE USER\n\n";

/// Users and their verifiers.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Users {
    /// The verifier of each user.
    pub users: BTreeMap<String, String>,
}

/// The verifier of `password`: SCRAM-SHA-256 with a random salt, in PostgreSQL's notation.
pub fn verifier(password: &str) -> String {
    postgres_protocol::password::scram_sha_256(password.as_bytes())
}

impl Users {
    /// Reads a users file.
    ///
    /// # Errors
    /// [`ConfigError`]: unreadable, open to others than its owner, or not a verifier.
    pub fn read(file: &Path) -> Result<Users, ConfigError> {
        let text = keys::read_private(file, FILE_BYTES_MAX)?;
        let users: Users = toml::from_str(&text).map_err(|error| {
            // The line is left out: it may hold a verifier.
            ConfigError::KeyFile { file: file.to_path_buf(), reason: error.message().to_string() }
        })?;
        for (user, verifier) in &users.users {
            if !is_verifier(verifier) {
                let reason = "not a SCRAM-SHA-256 verifier: make it with steeldb proxy-password";
                return Err(ConfigError::value(file, format!("users.{user}"), reason));
            }
        }
        Ok(users)
    }

    /// Writes the file anew, mode 0600, in one step.
    ///
    /// # Errors
    /// [`ConfigError::Io`].
    pub fn write(&self, file: &Path) -> Result<(), ConfigError> {
        let io = |source| ConfigError::Io { what: "write", file: file.to_path_buf(), source };
        let body = toml::to_string(self).map_err(|error| io(std::io::Error::other(error)))?;
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
            .and_then(|mut opened| opened.write_all([HEADER, &body].concat().as_bytes()))
            .and_then(|()| std::fs::rename(&new, file))
            .map_err(io)
    }
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
        let file = dir.path().join("users.toml");
        let mut users = Users::default();
        users.users.insert("app".into(), verifier("open sesame"));
        users.users.insert("o'neil \"x\"".into(), verifier("päss"));
        users.write(&file).unwrap();
        assert_eq!(Users::read(&file).unwrap(), users);
        assert!(!std::fs::read_to_string(&file).unwrap().contains("sesame"));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        users.write(&file).unwrap();
    }

    #[test]
    fn a_password_in_place_of_a_verifier_is_refused_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("users.toml");
        Users { users: [("app".to_string(), "hunter2".to_string())].into() }.write(&file).unwrap();
        let error = Users::read(&file).unwrap_err().to_string();
        assert!(error.contains("users.app") && !error.contains("hunter2"), "{error}");
    }
}
