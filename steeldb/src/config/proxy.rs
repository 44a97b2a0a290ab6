//! A proxy's file.

use super::replica::{check_stop_timeout, check_threads, default_stop_timeout_s};
use super::text::Text;
use super::{
    Cluster, ClusterFile, ConfigError, ProxyMetricsFile, Users, beside, check_address, check_log_level, read,
    read_seed, write,
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use steeldb_pg_proxy::Verify;
use steeldb_types::{ClientId, limits};
use steeldb_wire::auth::SecretKey;

/// `proxy.toml` as written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyFile {
    /// host:port where applications connect.
    pub listen: String,
    /// Which client of the cluster this proxy is.
    pub client: ClientId,
    /// Its secret key.
    pub key_file: PathBuf,
    /// Sessions of applications at once.
    #[serde(default = "default_max_sessions")]
    pub max_sessions: u32,
    /// How often a statement is run at most that conflicts with others.
    #[serde(default = "default_statement_tries")]
    pub statement_tries: u32,
    /// When results are verified, unless a session says otherwise.
    #[serde(default)]
    pub verify: Verify,
    /// What is logged, unless the command line or RUST_LOG says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
    /// How long transactions may take to end when it is to stop, seconds.
    #[serde(default = "default_stop_timeout_s")]
    pub stop_timeout_s: u64,
    /// Threads that it runs on; 0: as the CPUs are.
    #[serde(default)]
    pub threads: u32,
    /// How applications show who they are.
    pub authentication: AuthenticationFile,
    /// Where it tells how it is.
    #[serde(default)]
    pub metrics: ProxyMetricsFile,
    /// The cluster.
    pub cluster: ClusterFile,
}

/// The `[authentication]` section.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthenticationFile {
    /// How.
    pub method: Method,
    /// The users and their verifiers, with `scram-sha-256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users_file: Option<PathBuf>,
}

/// How applications show who they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// They are believed.
    Trust,
    /// By password.
    #[serde(rename = "scram-sha-256")]
    Scram,
}

/// How applications show who they are, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Authentication {
    /// They are believed: whoever can reach the loopback address is on this host.
    Trust,
    /// SCRAM-SHA-256 against these verifiers.
    Scram(Users),
}

/// A proxy's configuration, checked.
pub struct ProxyConfig {
    /// host:port where applications connect.
    pub listen: String,
    /// Which client of the cluster this proxy is.
    pub client: ClientId,
    /// Its secret key.
    pub key: SecretKey,
    /// Sessions of applications at once.
    pub max_sessions: u32,
    /// How often a statement is run at most that conflicts with others.
    pub statement_tries: u32,
    /// When results are verified, unless a session says otherwise.
    pub verify: Verify,
    /// What is logged, unless the command line or RUST_LOG says.
    pub log_level: Option<String>,
    /// How long transactions may take to end when it is to stop.
    pub stop_timeout: Duration,
    /// How applications show who they are.
    pub authentication: Authentication,
    /// Where it tells how it is.
    pub metrics: ProxyMetricsFile,
    /// The cluster.
    pub cluster: Cluster,
}

fn default_max_sessions() -> u32 {
    limits::SESSIONS_PER_CLIENT_MAX as u32
}

fn default_statement_tries() -> u32 {
    steeldb_pg_proxy::STATEMENT_TRIES
}

impl ProxyFile {
    /// A proxy that trusts whoever reaches its loopback address.
    pub fn new(listen: String, client: ClientId, cluster: ClusterFile) -> ProxyFile {
        let authentication = AuthenticationFile { method: Method::Trust, users_file: None };
        let max_sessions = default_max_sessions();
        let statement_tries = default_statement_tries();
        let verify = Verify::default();
        ProxyFile {
            listen,
            client,
            key_file: "proxy.key".into(),
            max_sessions,
            statement_tries,
            verify,
            log_level: None,
            stop_timeout_s: default_stop_timeout_s(),
            threads: 0,
            authentication,
            metrics: ProxyMetricsFile::default(),
            cluster,
        }
    }

    /// Reads `proxy.toml`.
    ///
    /// # Errors
    /// [`ConfigError`] names file and key.
    pub fn read(file: &Path) -> Result<ProxyFile, ConfigError> {
        read(file)
    }

    /// Reads `proxy.toml` and the files that it names, and checks everything.
    ///
    /// # Errors
    /// [`ConfigError`] names file and key.
    pub fn load(file: &Path) -> Result<ProxyConfig, ConfigError> {
        ProxyFile::read(file)?.check(file)
    }

    pub(crate) fn check(self, file: &Path) -> Result<ProxyConfig, ConfigError> {
        let wrong = |key: &str, reason: String| ConfigError::value(file, key, reason);
        let cluster = self.cluster.check(file)?;
        check_address(&self.listen).map_err(|reason| wrong("listen", reason))?;
        let Some(entry) = cluster.clients.get(&self.client) else {
            return Err(wrong("client", format!("there is no client {} in cluster.clients", self.client.0)));
        };
        let key = SecretKey::from_seed(&*read_seed(&beside(file, &self.key_file))?);
        if key.public() != entry.key {
            let reason = format!(
                "{} holds the key of {}, but client {} has {} in cluster.clients",
                self.key_file.display(),
                key.public(),
                self.client.0,
                entry.key
            );
            return Err(wrong("key_file", reason));
        }
        let most = default_max_sessions();
        if self.max_sessions == 0 || self.max_sessions > most {
            let reason = format!("{} is not between 1 and {most}", self.max_sessions);
            return Err(wrong("max_sessions", reason));
        }
        let most = limits::STATEMENT_TRIES_MAX;
        if self.statement_tries == 0 || self.statement_tries > most {
            let reason = format!("{} is not between 1 and {most}", self.statement_tries);
            return Err(wrong("statement_tries", reason));
        }
        check_stop_timeout(self.stop_timeout_s).map_err(|(key, reason)| wrong(key, reason))?;
        check_threads(self.threads).map_err(|(key, reason)| wrong(key, reason))?;
        check_log_level(self.log_level.as_deref()).map_err(|reason| wrong("log_level", reason))?;
        self.metrics.check(&self.listen).map_err(|(key, reason)| wrong(key, reason))?;
        let authentication = match (self.authentication.method, &self.authentication.users_file) {
            (Method::Trust, _) if !is_loopback(&self.listen) => {
                let reason = format!(
                    "\"trust\" lets anybody in who reaches {}: listen on a loopback address, or use \"scram-sha-256\"",
                    self.listen
                );
                return Err(wrong("authentication.method", reason));
            }
            (Method::Trust, _) => Authentication::Trust,
            (Method::Scram, Some(users)) => Authentication::Scram(Users::read(&beside(file, users))?),
            (Method::Scram, None) => {
                let reason = "is needed for \"scram-sha-256\": make it with steeldb proxy-password";
                return Err(wrong("authentication.users_file", reason.into()));
            }
        };
        let ProxyFile { listen, client, max_sessions, statement_tries, verify, log_level, metrics, .. } =
            self;
        Ok(ProxyConfig {
            listen,
            client,
            key,
            max_sessions,
            statement_tries,
            verify,
            log_level,
            stop_timeout: Duration::from_secs(self.stop_timeout_s),
            authentication,
            metrics,
            cluster,
        })
    }

    /// Writes the file with a comment on every key.
    ///
    /// # Errors
    /// [`ConfigError::Io`].
    pub fn write(&self, file: &Path) -> Result<(), ConfigError> {
        write(file, &self.text())
    }

    fn text(&self) -> String {
        let mut text = Text::new(
            "A SteelDB proxy: it runs beside the application, which connects to it as to a PostgreSQL server.
             Start it with: steeldb proxy --config FILE
             Paths are seen from this file's folder. Unknown keys are refused.",
        );
        text.key("Where applications connect, host:port.", "listen", self.listen.as_str());
        text.key("Which client of the cluster this proxy is.", "client", i64::from(self.client.0));
        text.key("Its secret key, mode 0600.", "key_file", self.key_file.display().to_string());
        text.key(
            "Sessions of applications at once; more are refused with 53300.",
            "max_sessions",
            i64::from(self.max_sessions),
        );
        text.key(
            "How often a statement is run at most that stands alone, conflicts with others (40001, 40P01), has shown
             nothing and drew from no sequence; 1: never again.",
            "statement_tries",
            i64::from(self.statement_tries),
        );
        let verify = match self.verify {
            Verify::Commit => "commit",
            Verify::Eager => "eager",
        };
        text.key(
            "When results are verified, unless a session sets steeldb.verify: \"commit\" (at the end of the
             transaction) or \"eager\" (before they are shown).",
            "verify",
            verify,
        );
        text.optional(
            "What is logged: error, warn, info, debug, trace, or a filter. Unless given: info. --log-level and RUST_LOG go before.",
            "log_level",
            self.log_level.clone(),
            "\"info\"",
        );
        text.key(
            "When it is to stop: how long transactions may take to end before their sessions are broken off, seconds.",
            "stop_timeout_s",
            i64::try_from(self.stop_timeout_s).unwrap_or(i64::MAX),
        );
        text.key(
            "Threads that it runs on; 0: one where the process may use two CPUs or fewer, else one for each CPU.",
            "threads",
            i64::from(self.threads),
        );
        text.section("[authentication]", "How applications show who they are.");
        let method = match self.authentication.method {
            Method::Trust => "trust",
            Method::Scram => "scram-sha-256",
        };
        text.key(
            "\"trust\" (they are believed; only on a loopback address) or \"scram-sha-256\" (by password).",
            "method",
            method,
        );
        text.optional(
            "With \"scram-sha-256\": the users and their verifiers, mode 0600, made by
             steeldb proxy-password --users FILE USER",
            "users_file",
            self.authentication.users_file.as_ref().map(|path| path.display().to_string()),
            "\"users\"",
        );
        self.metrics.write(&mut text);
        self.cluster.write(&mut text);
        text.finish()
    }
}

/// Whether only this host can reach `address`.
pub(crate) fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::super::cluster::tests::sample as cluster;
    use super::super::text::tests::keys;
    use super::super::{verifier, write_seed};
    use super::*;

    fn sample() -> ProxyFile {
        ProxyFile::new("127.0.0.1:6432".into(), ClientId(1), cluster())
    }

    fn load(file: &ProxyFile) -> Result<ProxyConfig, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        write_seed(&dir.path().join("proxy.key"), &[100; 32]).unwrap();
        let users = Users { users: [("app".to_string(), verifier("secret"))].into() };
        users.write(&dir.path().join("users")).unwrap();
        let path = dir.path().join("proxy.toml");
        file.write(&path).unwrap();
        ProxyFile::load(&path)
    }

    #[test]
    fn what_is_written_is_read_and_every_key_is_there() {
        let mut file = sample();
        assert_eq!(toml::from_str::<ProxyFile>(&file.text()).unwrap(), file);
        file.verify = Verify::Eager;
        file.log_level = Some("debug".into());
        file.threads = 3;
        file.metrics.listen = Some(ProxyMetricsFile::LISTEN.into());
        file.authentication = AuthenticationFile { method: Method::Scram, users_file: Some("u".into()) };
        assert_eq!(toml::from_str::<ProxyFile>(&file.text()).unwrap(), file);
        assert_eq!(keys(&file.text()), keys(&toml::to_string(&file).unwrap()));
    }

    #[test]
    fn trust_is_for_loopback_alone() {
        assert!(load(&sample()).is_ok());
        for listen in ["localhost:6432", "[::1]:6432", "127.8.9.1:1"] {
            assert!(load(&ProxyFile { listen: listen.into(), ..sample() }).is_ok(), "{listen}");
        }
        for listen in ["0.0.0.0:6432", "[::]:6432", "db.example.org:6432"] {
            let error = load(&ProxyFile { listen: listen.into(), ..sample() }).err().unwrap().to_string();
            assert!(error.contains("proxy.toml: authentication.method: "), "{error}");
        }
    }

    #[test]
    fn passwords_need_a_users_file() {
        let scram = |users_file| ProxyFile {
            listen: "0.0.0.0:6432".into(),
            authentication: AuthenticationFile { method: Method::Scram, users_file },
            ..sample()
        };
        let error = load(&scram(None)).err().unwrap().to_string();
        assert!(error.contains("proxy.toml: authentication.users_file: "), "{error}");
        let config = load(&scram(Some("users".into()))).unwrap();
        assert!(
            matches!(config.authentication, Authentication::Scram(users) if users.users.contains_key("app"))
        );
    }

    #[test]
    fn a_client_that_is_not_the_clusters_is_refused() {
        let error = load(&ProxyFile { client: ClientId(2), ..sample() }).err().unwrap().to_string();
        assert!(error.contains("proxy.toml: client: "), "{error}");
        let mut file = sample();
        file.cluster.clients[0].key = SecretKey::from_seed(&[55; 32]).public();
        let error = load(&file).err().unwrap().to_string();
        assert!(error.contains("proxy.toml: key_file: "), "{error}");
        let error = load(&ProxyFile { max_sessions: 0, ..sample() }).err().unwrap().to_string();
        assert!(error.contains("proxy.toml: max_sessions: "), "{error}");
        let error = load(&ProxyFile { threads: 1025, ..sample() }).err().unwrap().to_string();
        assert!(error.contains("proxy.toml: threads: 1025 is not between 0 and 1024"), "{error}");
        let mut file = sample();
        file.metrics.listen = Some(file.listen.clone());
        let error = load(&file).err().unwrap().to_string();
        assert!(error.contains("proxy.toml: metrics.listen: "), "{error}");
        let file = ProxyFile { log_level: Some("=,=".into()), ..sample() };
        let error = load(&file).err().unwrap().to_string();
        assert!(error.contains("proxy.toml: log_level: "), "{error}");
        for statement_tries in [0, limits::STATEMENT_TRIES_MAX + 1] {
            let error = load(&ProxyFile { statement_tries, ..sample() }).err().unwrap().to_string();
            assert!(error.contains("proxy.toml: statement_tries: "), "{error}");
        }
    }
}
