//! `steeldb init`: keys and configuration, one folder per host.

use crate::cli::InitArgs;
use crate::config::{
    CatchUpFile, ClientEntry, ClusterFile, DatabaseEntry, PostgresFile, ProxyFile, ProxyMetricsFile,
    ReplicaEntry, ReplicaFile, ReplicaMetricsFile, Timeouts, check_database, check_role, default_bulk_mb,
    is_loopback, random_seed, write_seed,
};
use crate::ports;
use anyhow::{Context as _, ensure};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use steeldb_types::{ClientId, Execution, FaultModel, ReplicaId, limits};
use steeldb_wire::auth::SecretKey;
use zeroize::Zeroizing;

/// Where a replica listens unless told otherwise.
const DEFAULT_PORT: u16 = 7400;

/// Replicas of a local cluster unless told otherwise.
const LOCAL_REPLICAS: u16 = 4;

/// What is to be written.
#[derive(Clone, Debug)]
pub(crate) struct Blueprint {
    /// Where the replicas are, by number.
    pub(crate) addresses: Vec<String>,
    /// f; the most that `addresses` allow unless given.
    pub(crate) faults: Option<u16>,
    /// What faulty replicas may do.
    pub(crate) fault_model: FaultModel,
    /// When replicas other than the master execute.
    pub(crate) execution: Execution,
    /// Whether COMMIT is answered when the order is bound to say so.
    pub(crate) tentative_replies: bool,
    /// Consensus instances in flight.
    pub(crate) window: usize,
    /// How many proxies.
    pub(crate) proxies: u16,
    /// Where each of them listens.
    pub(crate) listen: String,
    /// The database.
    pub(crate) database: String,
    /// Its owner.
    pub(crate) owner: String,
    /// The mode of each folder.
    pub(crate) folder_mode: u32,
    /// Whether the processes tell how they are, each at the port of its kind.
    pub(crate) metrics: bool,
    /// How long the processes wait for each other.
    pub(crate) timeouts: Timeouts,
}

/// The folders written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    /// By replica number.
    pub(crate) replicas: Vec<PathBuf>,
    /// By client number, from 1.
    pub(crate) proxies: Vec<PathBuf>,
    /// The administrator's key.
    pub(crate) administrator: PathBuf,
}

/// Writes a cluster and says what goes where.
///
/// # Errors
/// When the flags contradict each other or files cannot be written.
pub(crate) fn execute(args: InitArgs) -> anyhow::Result<ExitCode> {
    let blueprint = Blueprint {
        addresses: addresses(&args)?,
        faults: args.faults,
        fault_model: args.fault_model.into(),
        execution: args.execution.into(),
        tentative_replies: args.tentative,
        window: usize::from(args.window),
        proxies: args.proxies,
        listen: args.listen,
        database: args.database,
        owner: args.owner,
        folder_mode: 0o700,
        metrics: args.metrics,
        timeouts: if args.wide_area { Timeouts::wide_area() } else { Timeouts::default() },
    };
    let layout = blueprint.write(&args.dir)?;
    print!("{}", blueprint.summary(&args.dir, &layout)?);
    Ok(ExitCode::SUCCESS)
}

fn addresses(args: &InitArgs) -> anyhow::Result<Vec<String>> {
    if args.local {
        let count = usize::from(args.replicas.unwrap_or(LOCAL_REPLICAS));
        let ports = ports::free(count, &BTreeSet::new())?;
        return Ok(ports.into_iter().map(|port| format!("127.0.0.1:{port}")).collect());
    }
    if let Some(replicas) = args.replicas {
        let hosts = args.host.len();
        ensure!(
            hosts == usize::from(replicas),
            "--replicas {replicas} needs as many hosts; --host names {hosts}"
        );
    }
    Ok(args.host.iter().map(|host| with_port(host.trim())).collect())
}

fn with_port(host: &str) -> String {
    // What follows the last colon of a bare IPv6 address is no port: such an address is written in brackets.
    match host.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => host.to_string(),
        _ => format!("{host}:{DEFAULT_PORT}"),
    }
}

impl Blueprint {
    /// Writes the folders into `dir`.
    ///
    /// # Errors
    /// When the cluster cannot be, a folder exists, or something cannot be written.
    pub(crate) fn write(&self, dir: &Path) -> anyhow::Result<Layout> {
        check_database(&self.database).map_err(anyhow::Error::msg).context("--database")?;
        check_role(&self.owner).map_err(anyhow::Error::msg).context("--owner")?;
        let layout = self.layout(dir);
        let (folders, key) = (layout.replicas.iter().chain(&layout.proxies), &layout.administrator);
        for folder in folders.chain([key]) {
            ensure!(!folder.exists(), "{} exists: nothing is overwritten", folder.display());
        }
        let seeds = |count| (0..count).map(|_| random_seed()).collect::<Result<Vec<_>, _>>();
        let replica_seeds = seeds(self.addresses.len()).context("no randomness for keys")?;
        let proxy_seeds = seeds(usize::from(self.proxies)).context("no randomness for keys")?;
        let cluster_seed = random_seed().context("no randomness for keys")?;
        let administrator = random_seed().context("no randomness for keys")?;
        let cluster = self.cluster(&replica_seeds, &proxy_seeds, &administrator);
        cluster.check(dir)?;
        for (id, (folder, seed)) in (0u16..).zip(layout.replicas.iter().zip(&replica_seeds)) {
            self.make(folder)?;
            write_seed(&folder.join("replica.key"), seed)?;
            write_seed(&folder.join("cluster.key"), &cluster_seed)?;
            let file = ReplicaFile {
                id: ReplicaId(id),
                listen: None,
                key_file: "replica.key".into(),
                cluster_key_file: "cluster.key".into(),
                data_dir: "data".into(),
                log_level: None,
                stop_timeout_s: limits::STOP_TIMEOUT.as_secs(),
                threads: 0,
                postgres: PostgresFile::default(),
                metrics: ReplicaMetricsFile {
                    listen: self.metrics.then(|| ReplicaMetricsFile::LISTEN.into()),
                    ..ReplicaMetricsFile::default()
                },
                catch_up: CatchUpFile::default(),
                cluster: cluster.clone(),
            };
            file.write(&folder.join("replica.toml"))?;
        }
        for (id, (folder, seed)) in (1u32..).zip(layout.proxies.iter().zip(&proxy_seeds)) {
            self.make(folder)?;
            write_seed(&folder.join("proxy.key"), seed)?;
            let mut file = ProxyFile::new(self.listen.clone(), ClientId(id), cluster.clone());
            file.metrics.listen = self.metrics.then(|| ProxyMetricsFile::LISTEN.into());
            file.write(&folder.join("proxy.toml"))?;
        }
        write_seed(&layout.administrator, &administrator)?;
        Ok(layout)
    }

    fn layout(&self, dir: &Path) -> Layout {
        Layout {
            replicas: (0..self.addresses.len()).map(|id| dir.join(format!("replica-{id}"))).collect(),
            proxies: (1..=self.proxies).map(|id| dir.join(format!("proxy-{id}"))).collect(),
            administrator: dir.join("administrator.key"),
        }
    }

    fn make(&self, folder: &Path) -> anyhow::Result<()> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(self.folder_mode);
        builder.create(folder).with_context(|| format!("cannot create {}", folder.display()))
    }

    fn cluster(
        &self,
        replicas: &[Zeroizing<[u8; 32]>],
        proxies: &[Zeroizing<[u8; 32]>],
        administrator: &Zeroizing<[u8; 32]>,
    ) -> ClusterFile {
        let public = |seed: &Zeroizing<[u8; 32]>| SecretKey::from_seed(seed).public();
        ClusterFile {
            faults: self.faults.unwrap_or_else(|| most_faults(self.addresses.len(), self.fault_model)),
            fault_model: self.fault_model,
            execution: self.execution,
            tentative_replies: self.tentative_replies,
            window: self.window,
            heavy: Vec::new(),
            // Not replica 0, which leads the ordering at first: the loss of a host is then the loss of one of the two.
            master: ReplicaId(1),
            administrators: vec![public(administrator)],
            max_bulk_mb: default_bulk_mb(),
            timeouts: self.timeouts,
            replicas: (0u16..)
                .zip(self.addresses.iter().zip(replicas))
                .map(|(id, (address, seed))| ReplicaEntry {
                    id: ReplicaId(id),
                    address: address.clone(),
                    key: public(seed),
                })
                .collect(),
            clients: (1u32..)
                .zip(proxies)
                .map(|(id, seed)| ClientEntry {
                    id: ClientId(id),
                    key: public(seed),
                    databases: vec![self.database.clone()],
                    roles: vec![self.owner.clone()],
                })
                .collect(),
            databases: vec![DatabaseEntry { name: self.database.clone(), owner: self.owner.clone() }],
        }
    }

    fn summary(&self, dir: &Path, layout: &Layout) -> anyhow::Result<String> {
        let faults = self.faults.unwrap_or_else(|| most_faults(self.addresses.len(), self.fault_model));
        let what = match self.fault_model {
            FaultModel::Byzantine => "lie, corrupt data or stop",
            FaultModel::Crash => "stop",
        };
        let mut text = String::new();
        writeln!(
            text,
            "{}: a cluster of {} replicas, any {faults} of which may {what}.\n",
            dir.display(),
            self.addresses.len()
        )?;
        for (folder, address) in layout.replicas.iter().zip(&self.addresses) {
            let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
            writeln!(text, "  {}  to host {host} (listens on {address})", folder.display())?;
        }
        for folder in &layout.proxies {
            let host = "to a host with applications";
            writeln!(text, "  {}  {host} (they connect to {})", folder.display(), self.listen)?;
        }
        writeln!(text, "  {}  to whoever changes the membership", layout.administrator.display())?;
        writeln!(
            text,
            "\nEach folder holds secret keys: copy it to its host alone (scp -rp keeps the modes), then delete it here.\n\
             On each host, in its folder:\n\n\
             \x20 steeldb replica --config replica.toml\n\
             \x20 steeldb proxy --config proxy.toml\n\n\
             Replicas, weights and addresses are changed with administrator.key (steeldb cluster --help): keep it off\n\
             the hosts above."
        )?;
        if !is_loopback(&self.listen) {
            writeln!(
                text,
                "\nThe proxies listen beyond their own host: set method = \"scram-sha-256\" in proxy.toml, and\n\
                 make its users file: steeldb proxy-password --users users {}",
                self.owner
            )?;
        }
        Ok(text)
    }
}

/// The greatest f that `replicas` allow; at least 1, so that too few replicas are refused with what f = 1 needs.
pub(crate) fn most_faults(replicas: usize, model: FaultModel) -> u16 {
    let divisor = match model {
        FaultModel::Byzantine => 3,
        FaultModel::Crash => 2,
    };
    u16::try_from(replicas.saturating_sub(1) / divisor).unwrap_or(u16::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn blueprint(replicas: usize) -> Blueprint {
        Blueprint {
            addresses: (0..replicas).map(|id| format!("db{id}.example.org:7400")).collect(),
            faults: None,
            fault_model: FaultModel::Byzantine,
            execution: Execution::default(),
            tentative_replies: true,
            window: 4,
            proxies: 2,
            listen: "127.0.0.1:6432".into(),
            database: "shop".into(),
            owner: "clerk".into(),
            folder_mode: 0o700,
            metrics: true,
            timeouts: Timeouts::wide_area(),
        }
    }

    #[test]
    fn every_folder_loads_and_holds_its_own_key_alone() {
        let dir = tempfile::tempdir().unwrap();
        let layout = blueprint(5).write(dir.path()).unwrap();
        assert_eq!((layout.replicas.len(), layout.proxies.len()), (5, 2));
        let mut cluster_keys = BTreeSet::new();
        for (id, folder) in layout.replicas.iter().enumerate() {
            let config = ReplicaFile::load(&folder.join("replica.toml")).unwrap();
            assert_eq!(usize::from(config.id.0), id);
            assert_eq!((config.cluster.view.f(), config.cluster.view.spare()), (1, 1));
            assert!(config.cluster.tentative_replies);
            assert_eq!(config.cluster.window, 4);
            assert_ne!(config.cluster.master, config.cluster.view.first_leader(), "one host, one role");
            assert_eq!(config.cluster.timeouts, Timeouts::wide_area());
            assert_eq!(config.listen, format!("db{id}.example.org:7400"));
            cluster_keys.insert(*config.cluster_key);
            let mut files: Vec<_> = folder
                .read_dir()
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            files.sort();
            assert_eq!(files, ["cluster.key", "replica.key", "replica.toml"]);
            assert_eq!(std::fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
        }
        assert_eq!(cluster_keys.len(), 1);
        let mode = std::fs::metadata(&layout.administrator).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let administrator = SecretKey::from_seed(&crate::config::read_seed(&layout.administrator).unwrap());
        let config = ReplicaFile::load(&layout.replicas[0].join("replica.toml")).unwrap();
        assert_eq!(config.cluster.administrators, [administrator.public()]);
        for folder in &layout.proxies {
            let config = ProxyFile::load(&folder.join("proxy.toml")).unwrap();
            let client = &config.cluster.clients[&config.client];
            assert_eq!(
                (&client.databases[..], &client.roles[..]),
                (&["shop".into()][..], &["clerk".into()][..])
            );
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let layout = blueprint(4).write(dir.path()).unwrap();
        let before = std::fs::read_to_string(layout.replicas[0].join("replica.toml")).unwrap();
        let error = blueprint(4).write(dir.path()).unwrap_err().to_string();
        assert!(error.contains("replica-0 exists"), "{error}");
        assert_eq!(std::fs::read_to_string(layout.replicas[0].join("replica.toml")).unwrap(), before);
    }

    #[test]
    fn a_cluster_that_cannot_be_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("conf");
        let few = blueprint(3);
        let wrong_owner = Blueprint { owner: "pg_monitor".into(), ..blueprint(4) };
        let wrong_faults = Blueprint { faults: Some(2), ..blueprint(4) };
        let wrong_address = Blueprint { addresses: vec!["db".into(); 4], ..blueprint(4) };
        for (wrong, said) in [
            (few, "at least 4"),
            (wrong_owner, "reserved"),
            (wrong_faults, "at least 7"),
            (wrong_address, "host:port"),
        ] {
            let error = format!("{:#}", wrong.write(&target).unwrap_err());
            assert!(error.contains(said), "{said}: {error}");
            assert!(!target.exists());
        }
    }

    #[test]
    fn the_summary_names_every_folder_and_host() {
        let dir = Path::new("conf");
        let blueprint = Blueprint { listen: "0.0.0.0:6432".into(), ..blueprint(4) };
        let text = blueprint.summary(dir, &blueprint.layout(dir)).unwrap();
        for id in 0..4 {
            assert!(text.contains(&format!("conf/replica-{id}  to host db{id}.example.org")), "{text}");
        }
        assert!(text.contains("conf/proxy-2") && text.contains("any 1 of which may lie"), "{text}");
        assert!(text.contains("proxy-password"), "{text}");
    }

    #[test]
    fn ports_are_added_where_there_is_none() {
        assert_eq!(with_port("db1"), "db1:7400");
        assert_eq!(with_port("db1:1"), "db1:1");
        assert_eq!(with_port("[::1]"), "[::1]:7400");
        assert_eq!(with_port("[::1]:5"), "[::1]:5");
    }
}
