//! The `[cluster]` section: what all processes of a cluster know.

use super::text::{Text, list};
use super::{ConfigError, check_address};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;
use steeldb_ordering::{Member, Roster, RosterError};
use steeldb_types::{ClientId, Execution, FaultModel, ReplicaId, View, ViewNumber, limits};
use steeldb_wire::auth::PublicKey;

/// PostgreSQL's bound on names, bytes.
const NAME_BYTES_MAX: usize = 63;

/// The section as written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterFile {
    /// f: how many replicas may be faulty at once.
    pub faults: u16,
    /// What faulty replicas may do.
    pub fault_model: FaultModel,
    /// The replicas with the greater voting weight; empty: the first ones, if there are spare replicas.
    #[serde(default)]
    pub heavy: Vec<ReplicaId>,
    /// The replica that executes operations first and answers.
    pub master: ReplicaId,
    /// When the other replicas execute.
    #[serde(default)]
    pub execution: Execution,
    /// Whether COMMIT is answered when the order is bound to say so, before it has.
    #[serde(default)]
    pub tentative_replies: bool,
    /// Consensus instances in flight.
    #[serde(default = "default_window")]
    pub window: usize,
    /// The public keys of those who may change the membership.
    #[serde(default)]
    pub administrators: Vec<PublicKey>,
    /// How much COPY data one transaction may have, MiB.
    #[serde(default = "default_bulk_mb")]
    pub max_bulk_mb: u64,
    /// Time-outs.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// All replicas, ascending.
    pub replicas: Vec<ReplicaEntry>,
    /// All clients: proxies and tools.
    pub clients: Vec<ClientEntry>,
    /// The databases that every replica creates, with their owners.
    pub databases: Vec<DatabaseEntry>,
}

/// A replica.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaEntry {
    /// Its number, from 0.
    pub id: ReplicaId,
    /// host:port where the others reach it.
    pub address: String,
    /// Its public key.
    pub key: PublicKey,
}

/// A client of the replicas.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientEntry {
    /// Its number.
    pub id: ClientId,
    /// Its public key.
    pub key: PublicKey,
    /// The databases it may use.
    pub databases: Vec<String>,
    /// The roles it may act as.
    pub roles: Vec<String>,
}

/// A database to create.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseEntry {
    /// Its name.
    pub name: String,
    /// The role that owns it; created, too.
    pub owner: String,
}

/// Time-outs, milliseconds. What is left out has the design's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Until a request is forwarded to the leader; as long again until the leader is changed.
    pub request_timeout_ms: u64,
    /// Until a replica that has a Finish and no certificate votes Expired.
    pub vote_timeout_ms: u64,
    /// Until a transaction that sits idle is aborted.
    pub idle_in_transaction_timeout_ms: u64,
    /// How long DDL waits at the master for other transactions to end before it starts all the same.
    pub ddl_drain_timeout_ms: u64,
    /// How long a replica holds a commit, or a write that the master ran later, back for what the master ran before.
    pub soft_barrier_ms: u64,
    /// How long a master may be silent before it is accused.
    pub master_silence_ms: u64,
    /// How far the time of a transaction, which is the ordering leader's, may be from each replica's own clock.
    pub clock_tolerance_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Timeouts {
            request_timeout_ms: ms(limits::REQUEST_TIMEOUT),
            vote_timeout_ms: ms(limits::VOTE_TIMEOUT),
            idle_in_transaction_timeout_ms: ms(limits::IDLE_IN_TRANSACTION_TIMEOUT),
            ddl_drain_timeout_ms: ms(limits::DDL_DRAIN_TIMEOUT),
            soft_barrier_ms: ms(limits::SOFT_BARRIER),
            master_silence_ms: ms(limits::MASTER_SILENCE),
            clock_tolerance_ms: ms(limits::CLOCK_TOLERANCE),
        }
    }
}

/// A cluster section that can be.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The replicas' view 0.
    pub view: View,
    /// The replica that answers.
    pub master: ReplicaId,
    /// When the other replicas execute.
    pub execution: Execution,
    /// Whether COMMIT is answered when the order is bound to say so, before it has.
    pub tentative_replies: bool,
    /// Consensus instances in flight.
    pub window: usize,
    /// All replicas; the index is the number.
    pub replicas: Vec<ReplicaEntry>,
    /// All clients.
    pub clients: BTreeMap<ClientId, ClientEntry>,
    /// Who may change the membership.
    pub administrators: Vec<PublicKey>,
    /// The databases to create.
    pub databases: Vec<DatabaseEntry>,
    /// How much COPY data one transaction may have, bytes.
    pub bulk_bytes_max: u64,
    /// Time-outs.
    pub timeouts: Timeouts,
}

const MEBIBYTE: u64 = 1024 * 1024;

/// More than this is a mistake: 1 TiB.
const BULK_MB_MAX: u64 = MEBIBYTE;

pub(crate) fn default_bulk_mb() -> u64 {
    limits::BULK_BYTES_MAX / MEBIBYTE
}

impl Cluster {
    /// Reads the `[cluster]` section of any process's file, and nothing else of it.
    ///
    /// # Errors
    /// [`ConfigError`] names file and key.
    pub fn read(file: &Path) -> Result<Cluster, ConfigError> {
        #[derive(Deserialize)]
        struct Section {
            cluster: ClusterFile,
        }
        super::read::<Section>(file)?.cluster.check(file)
    }

    /// The genesis view and its members: what the verifiable history begins with.
    ///
    /// # Errors
    /// [`RosterError`]: two replicas share a key or an address.
    pub fn genesis(&self) -> Result<Roster, RosterError> {
        let member =
            |entry: &ReplicaEntry| Member { id: entry.id, key: entry.key, address: entry.address.clone() };
        Roster::new(self.view.clone(), self.replicas.iter().map(member).collect())
    }

    /// The roles to create: owners of databases, and whom clients may act as.
    pub fn roles(&self) -> BTreeSet<String> {
        let owners = self.databases.iter().map(|database| database.owner.clone());
        owners.chain(self.clients.values().flat_map(|client| client.roles.iter().cloned())).collect()
    }
}

/// As in the thesis.
fn default_window() -> usize {
    1
}

impl ClusterFile {
    /// Checks the section, found in `file`.
    ///
    /// # Errors
    /// [`ConfigError::Value`] names the key.
    pub fn check(&self, file: &Path) -> Result<Cluster, ConfigError> {
        let wrong = |key: String, reason: String| ConfigError::value(file, format!("cluster.{key}"), reason);
        let n = u16::try_from(self.replicas.len())
            .map_err(|_| wrong("replicas".into(), "more than 65535 replicas".into()))?;
        let view = View::new(ViewNumber(0), self.fault_model, n, self.faults, self.heavy.clone())
            .map_err(|error| wrong("faults".into(), error.to_string()))?;
        if !view.contains(self.master) {
            return Err(wrong("master".into(), format!("there is no replica {}", self.master.0)));
        }
        let mut seen = Seen::default();
        for (index, replica) in self.replicas.iter().enumerate() {
            let key = |name: &str| format!("replicas[{index}].{name}");
            if usize::from(replica.id.0) != index {
                let reason = format!("replicas are listed in order: {index} is expected here");
                return Err(wrong(key("id"), reason));
            }
            check_address(&replica.address).map_err(|reason| wrong(key("address"), reason))?;
            if !seen.addresses.insert(replica.address.clone()) {
                return Err(wrong(key("address"), format!("{} is used twice", replica.address)));
            }
            seen.key(replica.key).map_err(|reason| wrong(key("key"), reason))?;
        }
        for key in &self.administrators {
            seen.key(*key).map_err(|reason| wrong("administrators".into(), reason))?;
        }
        if self.databases.is_empty() {
            return Err(wrong("databases".into(), "there must be at least one".into()));
        }
        let mut names = BTreeSet::new();
        for (index, database) in self.databases.iter().enumerate() {
            let key = |name: &str| format!("databases[{index}].{name}");
            check_database(&database.name).map_err(|reason| wrong(key("name"), reason))?;
            check_role(&database.owner).map_err(|reason| wrong(key("owner"), reason))?;
            if !names.insert(database.name.clone()) {
                return Err(wrong(key("name"), format!("{:?} is listed twice", database.name)));
            }
        }
        let mut clients = BTreeMap::new();
        for (index, client) in self.clients.iter().enumerate() {
            let key = |name: &str| format!("clients[{index}].{name}");
            seen.key(client.key).map_err(|reason| wrong(key("key"), reason))?;
            if let Some(database) = client.databases.iter().find(|name| !names.contains(*name)) {
                return Err(wrong(key("databases"), format!("{database:?} is not in cluster.databases")));
            }
            for role in &client.roles {
                check_role(role).map_err(|reason| wrong(key("roles"), reason))?;
            }
            if clients.insert(client.id, client.clone()).is_some() {
                return Err(wrong(key("id"), format!("client {} is listed twice", client.id.0)));
            }
        }
        if clients.is_empty() {
            return Err(wrong("clients".into(), "there must be at least one: nobody could connect".into()));
        }
        if !(1..=limits::WINDOW_MAX).contains(&self.window) {
            let reason =
                format!("{}: 1 to {} consensus instances can be in flight", self.window, limits::WINDOW_MAX);
            return Err(wrong("window".into(), reason));
        }
        let least = limits::BULK_BYTES as u64 / MEBIBYTE;
        if !(least..=BULK_MB_MAX).contains(&self.max_bulk_mb) {
            return Err(wrong("max_bulk_mb".into(), format!("must be from {least} to {BULK_MB_MAX}")));
        }
        self.timeouts.check().map_err(|(key, reason)| wrong(format!("timeouts.{key}"), reason))?;
        Ok(Cluster {
            view,
            master: self.master,
            replicas: self.replicas.clone(),
            clients,
            administrators: self.administrators.clone(),
            databases: self.databases.clone(),
            execution: self.execution,
            tentative_replies: self.tentative_replies,
            window: self.window,
            bulk_bytes_max: self.max_bulk_mb * MEBIBYTE,
            timeouts: self.timeouts,
        })
    }

    /// Appends the section with its comments.
    pub(super) fn write(&self, text: &mut Text) {
        let model = match self.fault_model {
            FaultModel::Byzantine => "byzantine",
            FaultModel::Crash => "crash",
        };
        text.section("[cluster]", "The cluster: the same in the file of every replica and every proxy.");
        text.key(
            "How many replicas may be faulty at the same time (f), at least 1.",
            "faults",
            i64::from(self.faults),
        );
        text.key(
            "What a faulty replica may do: \"byzantine\" (anything; needs 3f+1 replicas) or \"crash\" (only stop; needs
             2f+1). Replicas above that number are spare ones and make quorums faster.",
            "fault_model",
            model,
        );
        let heavy: Vec<i64> = self.heavy.iter().map(|id| i64::from(id.0)).collect();
        text.key(
            "With spare replicas: the numbers of those with the greater voting weight, the best connected ones: 2f of
             them (byzantine) or f (crash). Empty: the first ones.",
            "heavy",
            heavy,
        );
        text.key(
            "The replica that answers operations at once; the others verify. Best not replica 0, which leads the ordering at
             first: if one host has both roles, its loss costs a change of the leader before that of the master.",
            "master",
            i64::from(self.master.0),
        );
        let execution = match self.execution {
            Execution::Speculative => "speculative",
            Execution::Deferred => "deferred",
        };
        text.key(
            "When the other replicas execute: \"speculative\" (as the master reports what it ran, so that little is left
             to do at COMMIT) or \"deferred\" (when COMMIT arrives: fewer messages, less done for nothing, slower
             commits).",
            "execution",
            execution,
        );
        text.key(
            "Whether COMMIT is answered as soon as nothing else can be decided any more, one message between replicas before it
             is (WHEAT's tentative replies). What is acknowledged is as safe; over a wide area it is sooner by up to a
             trip between sites, on one site it costs a message per replica and gains little.",
            "tentative_replies",
            self.tentative_replies,
        );
        text.key(
            "Consensus instances in flight, 1 to 8. With 1 what is to be ordered waits for what is being ordered; over a wide
             area 4 or so take that wait away, on one site they cost more messages than they gain. Stop all replicas
             in good order before you change it.",
            "window",
            i64::try_from(self.window).unwrap_or(i64::MAX),
        );
        let administrators: Vec<String> = self.administrators.iter().map(ToString::to_string).collect();
        text.key(
            "The public keys of those who may change the membership, weights, f and addresses while the cluster runs
             (steeldb cluster). What is written here about replicas is where the cluster began: later views are in
             its order.",
            "administrators",
            list(&administrators),
        );
        text.key(
            "How much COPY data one transaction may have, MiB. Above 64 it is a bulk transaction: one at a time, its data
             on each replica's disk until it ends. Past this it is ended everywhere (54000).",
            "max_bulk_mb",
            i64::try_from(self.max_bulk_mb).unwrap_or(i64::MAX),
        );
        self.timeouts.write(text);
        for (index, replica) in self.replicas.iter().enumerate() {
            let comment = "The replicas, in the order of their numbers from 0: where the others reach each one (host:port),
                           and its public key.";
            text.section("[[cluster.replicas]]", if index == 0 { comment } else { "" });
            text.pair("id", i64::from(replica.id.0));
            text.pair("address", replica.address.as_str());
            text.pair("key", replica.key.to_string());
        }
        for (index, client) in self.clients.iter().enumerate() {
            let comment = "The clients of the replicas (proxies and tools), each with its public key, the databases it may
                           use and the roles it may act as. A client can do no more than its roles, even if it is taken over.";
            text.section("[[cluster.clients]]", if index == 0 { comment } else { "" });
            text.pair("id", i64::from(client.id.0));
            text.pair("key", client.key.to_string());
            text.pair("databases", list(&client.databases));
            text.pair("roles", list(&client.roles));
        }
        for (index, database) in self.databases.iter().enumerate() {
            let comment = "The databases that every replica creates when it starts for the first time, and their owners. Roles
                           named here and above are created without special rights.";
            text.section("[[cluster.databases]]", if index == 0 { comment } else { "" });
            text.pair("name", database.name.as_str());
            text.pair("owner", database.owner.as_str());
        }
    }
}

impl Timeouts {
    /// For hosts that are far apart: what waits for replies waits for several of the slowest round trips between
    /// regions, some of them one after the other, and a leader or master is not taken for lost because a network is slow.
    pub(crate) fn wide_area() -> Timeouts {
        Timeouts {
            request_timeout_ms: 5_000,
            vote_timeout_ms: 15_000,
            master_silence_ms: 10_000,
            ..Timeouts::default()
        }
    }

    fn all(&self) -> [(&'static str, u64, &'static str); 7] {
        [
            (
                "request_timeout_ms",
                self.request_timeout_ms,
                "Until a request is forwarded to the leader, and as long again until the leader is replaced. Well above
                 the slowest round trip between replicas.",
            ),
            (
                "vote_timeout_ms",
                self.vote_timeout_ms,
                "Until a replica gives up on a transaction that the others do not vouch for.",
            ),
            (
                "idle_in_transaction_timeout_ms",
                self.idle_in_transaction_timeout_ms,
                "Until a transaction whose client says nothing is aborted.",
            ),
            (
                "ddl_drain_timeout_ms",
                self.ddl_drain_timeout_ms,
                "How long DDL waits for running transactions to end; then it starts, and its COMMIT ends them.",
            ),
            (
                "soft_barrier_ms",
                self.soft_barrier_ms,
                "How long a replica may hold back a commit, or a write that the master ran later, for what the master
                 ran before and this replica has not yet. Past it they go ahead, and the vote finds out if it mattered.",
            ),
            (
                "master_silence_ms",
                self.master_silence_ms,
                "How long the master may be silent before the other replicas accuse it; with f + 1 accusations the next
                 replica takes over. Longer than what a busy host may take a break for.",
            ),
            (
                "clock_tolerance_ms",
                self.clock_tolerance_ms,
                "How far the leader's clock, which gives transactions their time, may be from each replica's own. A
                 replica whose clock is farther off takes no part in deciding.",
            ),
        ]
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        const MAX_MS: u64 = 24 * 3600 * 1000;
        match self.all().into_iter().find(|(_, ms, _)| *ms == 0 || *ms > MAX_MS) {
            Some((key, ms, _)) => Err((key, format!("{ms} is not between 1 and {MAX_MS} (a day)"))),
            None => Ok(()),
        }
    }

    fn write(&self, text: &mut Text) {
        text.section("[cluster.timeouts]", "Time-outs in milliseconds.");
        for (key, ms, comment) in self.all() {
            text.key(comment, key, i64::try_from(ms).unwrap_or(i64::MAX));
        }
    }
}

/// What must not be listed twice.
#[derive(Default)]
struct Seen {
    addresses: BTreeSet<String>,
    keys: BTreeSet<PublicKey>,
}

impl Seen {
    fn key(&mut self, key: PublicKey) -> Result<(), String> {
        match self.keys.insert(key) {
            true => Ok(()),
            false => Err("this key is listed twice: every replica and every client needs its own".into()),
        }
    }
}

/// Checks that SteelDB may create a role of this name.
pub(crate) fn check_role(name: &str) -> Result<(), String> {
    check_name(name)?;
    if name.starts_with("pg_") || name == steeldb_postgres::AGENT_ROLE || name == "public" || name == "none" {
        return Err(format!("the name {name:?} is reserved"));
    }
    Ok(())
}

/// Checks that SteelDB may create a database of this name.
pub(crate) fn check_database(name: &str) -> Result<(), String> {
    check_name(name)?;
    if ["postgres", "template0", "template1"].contains(&name) {
        return Err(format!("the name {name:?} is reserved"));
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(format!("{name:?} is no name of 1 to {NAME_BYTES_MAX} bytes"));
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use steeldb_wire::auth::SecretKey;

    /// Four replicas, one client, one database.
    pub(in crate::config) fn sample() -> ClusterFile {
        let key = |seed: u8| SecretKey::from_seed(&[seed; 32]).public();
        ClusterFile {
            faults: 1,
            fault_model: FaultModel::Byzantine,
            heavy: vec![],
            master: ReplicaId(0),
            execution: Execution::default(),
            tentative_replies: false,
            window: 1,
            administrators: vec![key(200)],
            max_bulk_mb: default_bulk_mb(),
            timeouts: Timeouts::default(),
            replicas: (0..4)
                .map(|id| ReplicaEntry {
                    id: ReplicaId(id),
                    address: format!("db{id}.example.org:7400"),
                    key: key(id as u8 + 1),
                })
                .collect(),
            clients: vec![ClientEntry {
                id: ClientId(1),
                key: key(100),
                databases: vec!["app".into()],
                roles: vec!["app".into()],
            }],
            databases: vec![DatabaseEntry { name: "app".into(), owner: "app".into() }],
        }
    }

    #[test]
    fn a_sound_cluster_passes() {
        let cluster = sample().check(Path::new("f")).unwrap();
        assert_eq!((cluster.view.n(), cluster.view.f()), (4, 1));
        assert_eq!(cluster.roles().into_iter().collect::<Vec<_>>(), ["app"]);
    }

    #[test]
    fn what_cannot_be_is_refused_by_key() {
        type Change = fn(&mut ClusterFile);
        let changes: [(&str, Change); 24] = [
            ("cluster.faults", |c| c.faults = 0),
            ("cluster.faults", |c| c.faults = 2),
            ("cluster.faults", |c| c.heavy = vec![ReplicaId(0)]),
            ("cluster.master", |c| c.master = ReplicaId(4)),
            ("cluster.window", |c| c.window = 0),
            ("cluster.window", |c| c.window = limits::WINDOW_MAX + 1),
            ("cluster.replicas[2].id", |c| c.replicas[2].id = ReplicaId(1)),
            ("cluster.replicas[0].address", |c| c.replicas[0].address = "db0".into()),
            ("cluster.replicas[0].address", |c| c.replicas[0].address = "db0:70000".into()),
            ("cluster.replicas[1].address", |c| c.replicas[1].address = c.replicas[0].address.clone()),
            ("cluster.replicas[3].key", |c| c.replicas[3].key = c.replicas[0].key),
            ("cluster.clients[0].key", |c| c.clients[0].key = c.replicas[0].key),
            ("cluster.clients[0].databases", |c| c.clients[0].databases = vec!["other".into()]),
            ("cluster.clients[0].roles", |c| c.clients[0].roles = vec!["pg_read_all_data".into()]),
            ("cluster.clients", |c| c.clients.clear()),
            ("cluster.databases[0].name", |c| c.databases[0].name = "template1".into()),
            ("cluster.databases[0].owner", |c| c.databases[0].owner = "steeldb_agent".into()),
            ("cluster.max_bulk_mb", |c| c.max_bulk_mb = 63),
            ("cluster.max_bulk_mb", |c| c.max_bulk_mb = 1024 * 1024 + 1),
            ("cluster.timeouts.vote_timeout_ms", |c| c.timeouts.vote_timeout_ms = 0),
            ("cluster.timeouts.ddl_drain_timeout_ms", |c| c.timeouts.ddl_drain_timeout_ms = 0),
            ("cluster.timeouts.soft_barrier_ms", |c| c.timeouts.soft_barrier_ms = 0),
            ("cluster.timeouts.master_silence_ms", |c| c.timeouts.master_silence_ms = 0),
            ("cluster.timeouts.clock_tolerance_ms", |c| c.timeouts.clock_tolerance_ms = u64::MAX),
        ];
        for (key, change) in changes {
            let mut cluster = sample();
            change(&mut cluster);
            let error = cluster.check(Path::new("replica.toml")).unwrap_err().to_string();
            assert!(error.starts_with(&format!("replica.toml: {key}: ")), "{key}: {error}");
        }
    }
}
