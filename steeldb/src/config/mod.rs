//! Configuration: one TOML file per process, key files beside it.
//!
//! A `...File` is what is written; a `...Config` is what it means once checked: paths resolved against the file's
//! folder, keys read, the cluster's view built. Unknown keys are refused by name, and every error names file and key.
//!
//! The `[cluster]` section is the same in every file of a cluster, so that there is no shared file to forget.

mod cluster;
mod error;
mod keys;
mod metrics;
mod proxy;
mod replica;
mod text;
mod users;

pub use cluster::{ClientEntry, Cluster, ClusterFile, DatabaseEntry, ReplicaEntry, Timeouts};
pub(crate) use cluster::{check_database, check_role, default_bulk_mb};
pub use error::ConfigError;
pub use keys::{random_seed, read_seed, write_seed};
pub use metrics::{ProxyMetricsFile, ReplicaMetricsFile};
pub(crate) use proxy::is_loopback;
pub use proxy::{Authentication, AuthenticationFile, Method, ProxyConfig, ProxyFile};
pub use replica::{CatchUpFile, PostgresFile, ReplicaConfig, ReplicaFile};
pub use users::{Users, check_user, verifier};

use std::path::{Path, PathBuf};

/// Reads a TOML file into `T`.
fn read<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(file).map_err(|source| ConfigError::Io {
        what: "read",
        file: file.to_path_buf(),
        source,
    })?;
    toml::from_str(&text).map_err(|error| ConfigError::syntax(file, &text, &error))
}

/// Writes a file in one step: whoever reads it sees the old text or the new one.
fn write(file: &Path, text: &str) -> Result<(), ConfigError> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    std::fs::write(&beside, text)
        .and_then(|()| std::fs::rename(&beside, file))
        .map_err(|source| ConfigError::Io { what: "write", file: file.to_path_buf(), source })
}

/// `path` as seen from the folder of `file`.
fn beside(file: &Path, path: &Path) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(path)
}

/// Checks that `filter` says what is to be logged.
fn check_log_level(filter: Option<&str>) -> Result<(), String> {
    match filter.map(tracing_subscriber::EnvFilter::try_new) {
        None | Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(format!("{:?} is not a log filter: {error}", filter.unwrap_or_default())),
    }
}

/// Checks that `address` is host:port.
pub(crate) fn check_address(address: &str) -> Result<(), String> {
    let parts = address.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>()));
    match parts {
        Some((host, Ok(port))) if !host.is_empty() && port > 0 => Ok(()),
        _ => Err(format!("{address:?} is not host:port, such as \"db1.example.org:7400\"")),
    }
}
