//! A replica's file.

use super::text::Text;
use super::{
    Cluster, ClusterFile, ConfigError, ReplicaMetricsFile, beside, check_address, check_log_level, read,
    read_seed, write,
};
use crate::threads::THREADS_MAX;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;
use steeldb_types::{ReplicaId, limits};
use steeldb_wire::auth::SecretKey;
use zeroize::Zeroizing;

/// `replica.toml` as written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaFile {
    /// Which replica this is.
    pub id: ReplicaId,
    /// host:port to listen on; its address in the cluster unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// Its secret key.
    pub key_file: PathBuf,
    /// The replicas' shared secret.
    pub cluster_key_file: PathBuf,
    /// Where its data go.
    pub data_dir: PathBuf,
    /// What is logged, unless the command line or RUST_LOG says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
    /// How long it goes on for what clients have finished when it is to stop, seconds.
    #[serde(default = "default_stop_timeout_s")]
    pub stop_timeout_s: u64,
    /// Threads that it runs on; 0: as the CPUs are.
    #[serde(default)]
    pub threads: u32,
    /// Its PostgreSQL.
    #[serde(default)]
    pub postgres: PostgresFile,
    /// Where it tells how it is.
    #[serde(default)]
    pub metrics: ReplicaMetricsFile,
    /// What it keeps for replicas that were away.
    #[serde(default)]
    pub catch_up: CatchUpFile,
    /// The cluster.
    pub cluster: ClusterFile,
}

/// The `[catch_up]` section.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CatchUpFile {
    /// Effects of transactions kept on disk, MiB.
    pub kept_mb: u64,
    /// How long they are kept, hours.
    pub kept_hours: u64,
}

impl Default for CatchUpFile {
    fn default() -> Self {
        CatchUpFile {
            kept_mb: limits::KEPT_BYTES / (1024 * 1024),
            kept_hours: limits::KEPT_AGE.as_secs() / 3600,
        }
    }
}

/// The `[postgres]` section.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresFile {
    /// The directory with initdb and postgres; searched for unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binaries: Option<PathBuf>,
    /// Whom to run postgres as when started by root.
    pub user: String,
    /// The buffer cache, MiB.
    pub shared_buffers_mb: u32,
    /// Whether commits survive a power failure.
    pub fsync: bool,
    /// Client sessions at once.
    pub max_sessions: u32,
    /// How long postgres may take to start, crash recovery included, seconds.
    pub start_timeout_s: u64,
}

impl Default for PostgresFile {
    fn default() -> Self {
        PostgresFile {
            binaries: None,
            user: "postgres".into(),
            shared_buffers_mb: 128,
            fsync: true,
            max_sessions: limits::SESSIONS_PER_CLIENT_MAX as u32,
            start_timeout_s: 300,
        }
    }
}

/// A replica's configuration, checked.
pub struct ReplicaConfig {
    /// Which replica this is.
    pub id: ReplicaId,
    /// host:port to listen on.
    pub listen: String,
    /// Its secret key.
    pub key: SecretKey,
    /// The replicas' shared secret.
    pub cluster_key: Zeroizing<[u8; 32]>,
    /// Where its data go.
    pub data_dir: PathBuf,
    /// What is logged, unless the command line or RUST_LOG says.
    pub log_level: Option<String>,
    /// How long it goes on for what clients have finished when it is to stop.
    pub stop_timeout: Duration,
    /// Its PostgreSQL.
    pub postgres: PostgresFile,
    /// Where it tells how it is.
    pub metrics: ReplicaMetricsFile,
    /// What it keeps for replicas that were away.
    pub catch_up: CatchUpFile,
    /// The cluster.
    pub cluster: Cluster,
}

impl ReplicaFile {
    /// Reads `replica.toml`.
    ///
    /// # Errors
    /// [`ConfigError`] names file and key.
    pub fn read(file: &Path) -> Result<ReplicaFile, ConfigError> {
        read(file)
    }

    /// Reads `replica.toml` and the key files that it names, and checks everything.
    ///
    /// # Errors
    /// [`ConfigError`] names file and key.
    pub fn load(file: &Path) -> Result<ReplicaConfig, ConfigError> {
        ReplicaFile::read(file)?.check(file)
    }

    /// Where the replica keeps its data, `file` being where this was read.
    pub fn data_dir(&self, file: &Path) -> PathBuf {
        beside(file, &self.data_dir)
    }

    pub(crate) fn check(self, file: &Path) -> Result<ReplicaConfig, ConfigError> {
        let wrong = |key: &str, reason: String| ConfigError::value(file, key, reason);
        let cluster = self.cluster.check(file)?;
        let Some(entry) = cluster.replicas.get(usize::from(self.id.0)) else {
            return Err(wrong("id", format!("there is no replica {} in cluster.replicas", self.id.0)));
        };
        let listen = self.listen.unwrap_or_else(|| entry.address.clone());
        check_address(&listen).map_err(|reason| wrong("listen", reason))?;
        let key = SecretKey::from_seed(&*read_seed(&beside(file, &self.key_file))?);
        if key.public() != entry.key {
            let reason = format!(
                "{} holds the key of {}, but replica {} has {} in cluster.replicas",
                self.key_file.display(),
                key.public(),
                self.id.0,
                entry.key
            );
            return Err(wrong("key_file", reason));
        }
        let cluster_key = read_seed(&beside(file, &self.cluster_key_file))?;
        let mut postgres = self.postgres;
        postgres.check().map_err(|(key, reason)| wrong(key, reason))?;
        self.catch_up.check().map_err(|(key, reason)| wrong(key, reason))?;
        self.metrics.check(&listen).map_err(|(key, reason)| wrong(key, reason))?;
        check_stop_timeout(self.stop_timeout_s).map_err(|(key, reason)| wrong(key, reason))?;
        check_threads(self.threads).map_err(|(key, reason)| wrong(key, reason))?;
        check_log_level(self.log_level.as_deref()).map_err(|reason| wrong("log_level", reason))?;
        postgres.binaries = postgres.binaries.map(|path| beside(file, &path));
        let data_dir = beside(file, &self.data_dir);
        Ok(ReplicaConfig {
            id: self.id,
            listen,
            key,
            cluster_key,
            data_dir,
            log_level: self.log_level,
            stop_timeout: Duration::from_secs(self.stop_timeout_s),
            postgres,
            metrics: self.metrics,
            catch_up: self.catch_up,
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
        let path = |path: &Path| path.display().to_string();
        let mut text = Text::new(
            "A SteelDB replica. Start it with: steeldb replica --config FILE
             Paths are seen from this file's folder. Unknown keys are refused.",
        );
        text.key("Which replica of the cluster this is.", "id", i64::from(self.id.0));
        text.optional(
            "Where to listen, host:port. Unless given: this replica's address in the cluster below.",
            "listen",
            self.listen.clone(),
            "\"0.0.0.0:7400\"",
        );
        text.key(
            "This replica's secret key, mode 0600. Never leaves this host.",
            "key_file",
            path(&self.key_file),
        );
        text.key(
            "The secret that the replicas share and nobody else knows, mode 0600.",
            "cluster_key_file",
            path(&self.cluster_key_file),
        );
        text.key("Where this replica keeps its PostgreSQL and its logs.", "data_dir", path(&self.data_dir));
        text.optional(
            "What is logged: error, warn, info, debug, trace, or a filter. Unless given: info. --log-level and RUST_LOG go before.",
            "log_level",
            self.log_level.clone(),
            "\"info\"",
        );
        text.key(
            "When it is to stop: how long it goes on for transactions that clients have finished, seconds.",
            "stop_timeout_s",
            i64::try_from(self.stop_timeout_s).unwrap_or(i64::MAX),
        );
        text.key(
            "Threads that it runs on; 0: one where the process may use two CPUs or fewer, else one for each CPU.",
            "threads",
            i64::from(self.threads),
        );
        self.postgres.write(&mut text);
        self.metrics.write(&mut text);
        self.catch_up.write(&mut text);
        self.cluster.write(&mut text);
        text.finish()
    }
}

pub(super) fn default_stop_timeout_s() -> u64 {
    limits::STOP_TIMEOUT.as_secs()
}

pub(super) fn check_stop_timeout(seconds: u64) -> Result<(), (&'static str, String)> {
    range("stop_timeout_s", seconds, 0, 24 * 3600)
}

pub(super) fn check_threads(threads: u32) -> Result<(), (&'static str, String)> {
    range("threads", u64::from(threads), 0, u64::from(THREADS_MAX))
}

pub(super) fn range(key: &'static str, value: u64, min: u64, max: u64) -> Result<(), (&'static str, String)> {
    match (min..=max).contains(&value) {
        true => Ok(()),
        false => Err((key, format!("{value} is not between {min} and {max}"))),
    }
}

impl CatchUpFile {
    fn check(&self) -> Result<(), (&'static str, String)> {
        range("catch_up.kept_mb", self.kept_mb, 16, 1024 * 1024)?;
        range("catch_up.kept_hours", self.kept_hours, 1, 10 * 365 * 24)
    }

    /// Bytes kept.
    pub fn kept_bytes(&self) -> u64 {
        self.kept_mb * 1024 * 1024
    }

    /// How long they are kept.
    pub fn kept_age(&self) -> Duration {
        Duration::from_secs(self.kept_hours * 3600)
    }

    fn write(&self, text: &mut Text) {
        text.section(
            "[catch_up]",
            "What this replica keeps on disk of committed transactions, for replicas that were away.",
        );
        text.key(
            "At most so much, MiB; the oldest go first. Small transactions take about 3% of it in memory as well.",
            "kept_mb",
            i64::try_from(self.kept_mb).unwrap_or(i64::MAX),
        );
        text.key(
            "For so long, hours. A replica that was away for longer has to be rebuilt.",
            "kept_hours",
            i64::try_from(self.kept_hours).unwrap_or(i64::MAX),
        );
    }
}

impl PostgresFile {
    fn check(&self) -> Result<(), (&'static str, String)> {
        range("postgres.shared_buffers_mb", u64::from(self.shared_buffers_mb), 1, 1 << 20)?;
        range("postgres.max_sessions", u64::from(self.max_sessions), 1, 10_000)?;
        range("postgres.start_timeout_s", self.start_timeout_s, 1, 24 * 3600)?;
        match self.user.is_empty() {
            true => Err(("postgres.user", "a user's name is needed".into())),
            false => Ok(()),
        }
    }

    /// How long postgres may take to start.
    pub fn start_timeout(&self) -> Duration {
        Duration::from_secs(self.start_timeout_s)
    }

    fn write(&self, text: &mut Text) {
        text.section(
            "[postgres]",
            "This replica's own PostgreSQL server; SteelDB creates, configures and runs it.",
        );
        text.optional(
            "The directory with initdb and postgres. Unless given: the newest installed version (15 or later).",
            "binaries",
            self.binaries.as_ref().map(|path| path.display().to_string()),
            "\"/usr/lib/postgresql/15/bin\"",
        );
        text.key(
            "Whom to run it as when the replica is started by root (PostgreSQL refuses to run as root).",
            "user",
            self.user.as_str(),
        );
        text.key(
            "Its buffer cache, MiB: about a quarter of the host's memory.",
            "shared_buffers_mb",
            i64::from(self.shared_buffers_mb),
        );
        text.key(
            "Whether commits survive a power failure. false only for tests: a replica that forgets what it voted for
             counts as faulty.",
            "fsync",
            self.fsync,
        );
        text.key(
            "Client sessions at once, over all proxies. Each is a server process of about 10 MB.",
            "max_sessions",
            i64::from(self.max_sessions),
        );
        text.key(
            "How long it may take to start, recovery after a crash included, seconds.",
            "start_timeout_s",
            i64::try_from(self.start_timeout_s).unwrap_or(i64::MAX),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::cluster::tests::sample as cluster;
    use super::super::text::tests::keys;
    use super::super::write_seed;
    use super::*;

    fn sample() -> ReplicaFile {
        ReplicaFile {
            id: ReplicaId(2),
            listen: Some("0.0.0.0:7400".into()),
            key_file: "replica.key".into(),
            cluster_key_file: "cluster.key".into(),
            data_dir: "data".into(),
            log_level: Some("debug".into()),
            stop_timeout_s: 7,
            threads: 2,
            postgres: PostgresFile { binaries: Some("/opt/pg".into()), ..PostgresFile::default() },
            metrics: ReplicaMetricsFile { listen: Some("127.0.0.1:9400".into()), ready_lag_max: 10 },
            catch_up: CatchUpFile { kept_mb: 500, kept_hours: 24 },
            cluster: cluster(),
        }
    }

    /// A folder with a replica's file and its keys.
    fn folder(file: &ReplicaFile) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        write_seed(&dir.path().join("replica.key"), &[3; 32]).unwrap();
        write_seed(&dir.path().join("cluster.key"), &[9; 32]).unwrap();
        let path = dir.path().join("replica.toml");
        file.write(&path).unwrap();
        (dir, path)
    }

    #[test]
    fn what_is_written_is_read_and_every_key_is_there_with_a_comment() {
        let file = sample();
        let text = file.text();
        assert_eq!(toml::from_str::<ReplicaFile>(&text).unwrap(), file);
        assert_eq!(keys(&text), keys(&toml::to_string(&file).unwrap()));
        let shortest = ReplicaFile { listen: None, postgres: PostgresFile::default(), ..file };
        assert_eq!(toml::from_str::<ReplicaFile>(&shortest.text()).unwrap(), shortest);
        assert!(shortest.text().contains("\n#listen = "));
    }

    #[test]
    fn paths_are_seen_from_the_files_folder_and_keys_are_read() {
        let (dir, path) = folder(&sample());
        let config = ReplicaFile::load(&path).unwrap();
        assert_eq!(config.data_dir, dir.path().join("data"));
        assert_eq!(config.key.public(), SecretKey::from_seed(&[3; 32]).public());
        assert_eq!(*config.cluster_key, [9; 32]);
        assert_eq!(config.listen, "0.0.0.0:7400");
        let (_dir, path) = folder(&ReplicaFile { listen: None, ..sample() });
        assert_eq!(ReplicaFile::load(&path).unwrap().listen, "db2.example.org:7400");
    }

    #[test]
    fn the_key_of_another_replica_is_refused() {
        let (_dir, path) = folder(&ReplicaFile { id: ReplicaId(1), ..sample() });
        let error = ReplicaFile::load(&path).err().unwrap().to_string();
        assert!(error.contains("replica.toml: key_file: "), "{error}");
        let (_dir, path) = folder(&ReplicaFile { id: ReplicaId(9), ..sample() });
        let error = ReplicaFile::load(&path).err().unwrap().to_string();
        assert!(error.contains("replica.toml: id: "), "{error}");
    }

    #[test]
    fn unknown_keys_missing_keys_and_bad_values_are_named_with_file_and_line() {
        let text = sample().text();
        let cases = [
            (text.replace("data_dir", "data_dri"), "data_dri"),
            (text.replace("[postgres]", "[postgres]\nfsink = true"), "fsink"),
            (text.replace("faults = 1", "faults = 1\nfault = 1"), "unknown field `fault`"),
            (text.replace("data_dir = \"data\"\n", ""), "missing field `data_dir`"),
            (text.replace("fsync = true", "fsync = \"yes\""), "fsync = \"yes\""),
            (text.replace("max_sessions = 200", "max_sessions = -1"), "max_sessions = -1"),
            (text.replace("\"byzantine\"\n", "\"evil\"\n"), "fault_model = \"evil\""),
            (text.replace("id = 2\n", "id = 2\nid = 3\n"), "duplicate key"),
            (text.replace("id = 2\n", "id = = 2\n"), "id = = 2"),
            (text.replacen("key = \"", "key = \"zz", 1), "64 hexadecimal digits"),
        ];
        let (_dir, path) = folder(&sample());
        for (changed, named) in cases {
            assert_ne!(changed, text, "{named}");
            std::fs::write(&path, &changed).unwrap();
            let error = ReplicaFile::load(&path).err().unwrap().to_string();
            assert!(error.contains("replica.toml, line ") && error.contains(named), "{named}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn a_port_is_not_for_replicas_and_metrics_at_once() {
        let at = |metrics: &str, listen: Option<&str>| {
            let mut file = ReplicaFile { listen: listen.map(String::from), ..sample() };
            file.metrics.listen = Some(metrics.into());
            let (_dir, path) = folder(&file);
            ReplicaFile::load(&path).map(|_| ()).map_err(|error| error.to_string())
        };
        for (metrics, listen) in [("0.0.0.0:7400", Some("0.0.0.0:7400")), ("db2.example.org:7400", None)] {
            let error = at(metrics, listen).unwrap_err();
            assert!(
                error.contains(&format!("replica.toml: metrics.listen: {metrics} is `listen`")),
                "{error}"
            );
        }
        assert_eq!(at("0.0.0.0:9400", Some("0.0.0.0:7400")), Ok(()));
    }

    #[test]
    fn sizes_out_of_range_are_named() {
        let mut file = sample();
        file.catch_up.kept_mb = 15;
        let (_dir, path) = folder(&file);
        let error = ReplicaFile::load(&path).err().unwrap().to_string();
        assert!(error.contains("catch_up.kept_mb: 15 is not between 16 and"), "{error}");
        let (_dir, path) = folder(&ReplicaFile { threads: 1025, ..sample() });
        let error = ReplicaFile::load(&path).err().unwrap().to_string();
        assert!(error.contains("replica.toml: threads: 1025 is not between 0 and 1024"), "{error}");
        let mut file = sample();
        file.postgres.max_sessions = 0;
        let (_dir, path) = folder(&file);
        let error = ReplicaFile::load(&path).err().unwrap().to_string();
        assert!(error.contains("replica.toml: postgres.max_sessions: 0 is not between 1 and"), "{error}");
    }
}
