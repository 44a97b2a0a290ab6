//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use steeldb_types::{Execution, FaultModel, limits};

mod cluster;
mod ledger;
mod master;
mod plan;
mod status;

pub use cluster::{ChangeArgs, ClusterCommand, NewReplicaArgs, StatusArgs};
pub use ledger::{LedgerCommand, LedgerExportArgs, LedgerFollowArgs, LedgerVerifyArgs};
pub use master::MasterCommand;
pub use plan::PlanArgs;
pub use status::ClusterStatusArgs;

/// Byzantine-fault-tolerant replication for PostgreSQL.
#[derive(Parser, Debug)]
#[command(name = "steeldb", version, disable_help_subcommand = true)]
#[command(after_help = "Examples:
  steeldb demo                                     a cluster on this machine
  steeldb demo --run 'psql -c \"SELECT now()\"'      the same for one command
  steeldb init --dir conf --host db1,db2,db3,db4   configuration for four hosts
  steeldb COMMAND --help                           more, with examples")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How to log.
    #[command(flatten)]
    pub logging: Logging,
}

/// How to log; to stderr.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logging (to standard error)")]
pub struct Logging {
    /// Lines for people or JSON for programs
    #[arg(long, global = true, value_enum, default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// error, warn, info, debug, trace, or a filter such as steeldb_replica=debug; goes before RUST_LOG
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// How log lines look.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a whole cluster on this machine
    #[command(after_help = "Examples:
  steeldb demo                       four replicas and a proxy, until Ctrl-C
  steeldb demo --dir ~/steeldb       data survive there and are taken up again
  steeldb demo --replicas 7          any two of them may be faulty
  steeldb demo --run 'pgbench -i'    one command, then everything stops

--run sets PGHOST, PGPORT, PGUSER and PGDATABASE, and STEELDB_PROXY_CONFIG and
STEELDB_ADMINISTRATOR_KEY for `steeldb verify` and `steeldb cluster`; the exit
status is the command's.

No container, no service: each replica runs a private PostgreSQL server. When
root starts them, the servers run as user postgres. Nothing is left running.")]
    Demo(DemoArgs),

    /// Write keys and configuration for a cluster
    #[command(after_help = "Examples:
  steeldb init --dir conf --host db1,db2,db3,db4
  steeldb init --dir conf --host db1:7000,db2:7000,db3:7000,db4 --proxies 2
  steeldb init --dir conf --local                  all on this machine

One folder per host is written; the output says which goes where. The files
explain every key.")]
    Init(InitArgs),

    /// Run one replica: an agent with its own PostgreSQL server
    #[command(after_help = "Examples:
  steeldb replica --config /etc/steeldb/replica.toml
  steeldb replica --config replica.toml --log-format json

A line `ready ...` on standard output says that clients can connect. SIGTERM
and SIGINT stop it in good order, SIGHUP has it read its configuration again.")]
    Replica(ReplicaArgs),

    /// Run a proxy: what applications connect to as to a PostgreSQL server
    #[command(after_help = "Examples:
  steeldb proxy --config /etc/steeldb/proxy.toml
  psql -h 127.0.0.1 -p 6432 -U app app

A line `ready ...` on standard output says that applications can connect.
SIGTERM and SIGINT stop it in good order, SIGHUP has it read its configuration
and its users file again.")]
    Proxy(ProxyArgs),

    /// Comparisons with PostgreSQL and among clusters: tables and plots
    #[command(after_help = "Examples:
  sudo steeldb bench lan --out results
  steeldb bench lan --no-quota --small --runs 1 --seconds 5 --systems plain,speculative
  sudo steeldb bench geo --out results --terminals 32

Systems run as processes of this machine, one after the other, each node with
the same share of its CPUs. Raw reports, a table and plots are written.")]
    Bench {
        /// Which comparison.
        #[command(subcommand)]
        command: steeldb_bench::BenchCommand,
    },

    /// TPC-C: load, run, check
    #[command(after_help = "Examples:
  steeldb demo --run 'steeldb tpcc load && steeldb tpcc run --duration 30s'
  steeldb tpcc run --url postgresql://app@127.0.0.1:6432/app --terminals 8

Works against any PostgreSQL server.")]
    Tpcc {
        /// What to do.
        #[command(subcommand)]
        command: steeldb_tpcc::TpccCommand,
    },

    /// Compare the tables of all replicas at one position in the order
    #[command(after_help = "Examples:
  steeldb verify --config proxy.toml
  steeldb verify --config proxy.toml --database app
  steeldb demo --run 'psql -f load.sql && steeldb verify'

`steeldb demo --run` sets STEELDB_PROXY_CONFIG. The exit status is 0 if all
replicas answered and hold the same, 1 if not.")]
    Verify(VerifyArgs),

    /// Show the whole cluster: replicas, master, leader, positions, lag, accusations
    #[command(after_help = "Examples:
  steeldb status --config proxy.toml
  steeldb status --config proxy.toml --watch
  steeldb status --config proxy.toml --json
  steeldb demo --run 'steeldb status'

Every replica speaks for itself; master, leader and position are what f + 1 of
them say. The exit status is 0 if a quorum answers, vouches for its data and
agrees on the master, 1 if not.")]
    Status(ClusterStatusArgs),

    /// Show who the replicas are, and change that while the cluster runs
    #[command(after_help = "Examples:
  steeldb cluster status --config proxy.toml
  steeldb cluster status --config proxy.toml --json
  steeldb cluster plan --config proxy.toml
  steeldb cluster weights --config proxy.toml --key administrator.key 2,3
  steeldb cluster leader --config proxy.toml --key administrator.key 2
  steeldb cluster remove --config proxy.toml --key administrator.key 4
  steeldb cluster address --config proxy.toml --key administrator.key 2 db9:7400

A change is a request that the administrator signs and the replicas order: it
takes effect everywhere at one place in the order. Transactions that are open
there end with 40001 and can be tried again.")]
    Cluster {
        /// What to do.
        #[command(subcommand)]
        command: ClusterCommand,
    },

    /// Show who the master is, and move it
    #[command(after_help = "Examples:
  steeldb master status --config proxy.toml
  steeldb master move --config proxy.toml --key administrator.key 2

Replicas change the master by themselves when f + 1 of them accuse it: of
silence, of showing results that it does not vote on, of results that differ.")]
    Master {
        /// What to do.
        #[command(subcommand)]
        command: MasterCommand,
    },

    /// The verifiable history: export it, check it offline, follow it
    #[command(after_help = "Examples:
  steeldb ledger export --config replica.toml --out history.ledger
  steeldb ledger verify --config cluster/replica-0/replica.toml history.ledger
  steeldb ledger follow --config replica.toml

Each decided batch is a block: number, hash of the block before, digest of the
batch, view, with signatures of a quorum. Checking needs the replicas' public
keys from the configuration and nothing else; whoever keeps one hash can tell
whether the history before it was changed.")]
    Ledger {
        /// What to do.
        #[command(subcommand)]
        command: LedgerCommand,
    },

    /// Set a user's password in a proxy's users file
    #[command(after_help = "Examples:
  steeldb proxy-password --users users app
  echo \"$PASSWORD\" | steeldb proxy-password --users users app

The file holds SCRAM-SHA-256 verifiers, no passwords. SIGHUP has the proxy read
it again.")]
    ProxyPassword(ProxyPasswordArgs),

    /// Become postgres; started by replicas
    #[command(hide = true, disable_help_flag = true)]
    ExecPostgres {
        /// As the postgres crate makes them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },

    /// Keep a command of `steeldb demo --run`
    #[command(hide = true)]
    RunCommand(RunCommandArgs),
}

impl Command {
    /// The process with which this one must end, if any.
    pub fn die_with_parent(&self) -> Option<u32> {
        match self {
            Command::Replica(args) => args.die_with_parent,
            Command::Proxy(args) => args.die_with_parent,
            _ => None,
        }
    }

    /// Whether it runs for long and its log is what one reads of it.
    pub fn is_server(&self) -> bool {
        matches!(self, Command::Replica(_) | Command::Proxy(_))
    }
}

/// Flags of `steeldb demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// Replicas, at least 4 [default: 4, or as many as DIR has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(4..=64))]
    pub replicas: Option<u16>,

    /// Where keys, configuration, data and logs are kept [default: a temporary folder, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// When replicas other than the master execute [default: speculative, or as in DIR]
    #[arg(long, value_enum, value_name = "WHEN")]
    pub execution: Option<ExecutionArg>,

    /// Answer COMMIT as soon as nothing else can be decided (WHEAT's tentative replies) [default: not, or as in DIR]
    #[arg(long)]
    pub tentative: bool,

    /// Where applications connect; port 0 for any free one [default: 127.0.0.1:6432, or as in DIR]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,

    /// Run this shell command against the cluster, then stop everything
    #[arg(long, value_name = "COMMAND")]
    pub run: Option<String>,
}

/// Flags of `steeldb init`.
#[derive(Args, Clone, Debug)]
pub struct InitArgs {
    /// Where to write; folders that exist are not touched
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,

    /// The replicas' hosts, in the order of their numbers, comma-separated; port 7400 unless given
    #[arg(long, value_name = "HOST[:PORT]", value_delimiter = ',', required_unless_present = "local")]
    pub host: Vec<String>,

    /// All on this machine, on free ports of 127.0.0.1
    #[arg(long, conflicts_with = "host")]
    pub local: bool,

    /// Replicas [default: one per host; 4 with --local]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(3..=1024))]
    pub replicas: Option<u16>,

    /// How many of them may be faulty at once [default: as many as possible]
    #[arg(long, value_name = "F", value_parser = clap::value_parser!(u16).range(1..))]
    pub faults: Option<u16>,

    /// What faulty replicas may do
    #[arg(long, value_enum, default_value = "byzantine", value_name = "MODEL")]
    pub fault_model: FaultModelArg,

    /// When replicas other than the master execute
    #[arg(long, value_enum, default_value = "speculative", value_name = "WHEN")]
    pub execution: ExecutionArg,

    /// Answer COMMIT as soon as nothing else can be decided (WHEAT's tentative replies): for replicas far apart
    #[arg(long)]
    pub tentative: bool,

    /// Consensus instances in flight: 4 or so for replicas far apart
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=limits::WINDOW_MAX as i64))]
    pub window: u8,

    /// Proxies: one per host with applications
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub proxies: u16,

    /// Where each proxy listens
    #[arg(long, value_name = "HOST:PORT", default_value = DEFAULT_LISTEN)]
    pub listen: String,

    /// Have every process tell metrics, health and readiness: replicas at 127.0.0.1:9400, proxies at 127.0.0.1:9401
    #[arg(long, conflicts_with = "local")]
    pub metrics: bool,

    /// Time-outs for hosts that are far apart, with round trips of hundreds of milliseconds
    #[arg(long)]
    pub wide_area: bool,

    /// The database to create
    #[arg(long, value_name = "NAME", default_value = "app")]
    pub database: String,

    /// The role that owns it, and that the proxies may act as
    #[arg(long, value_name = "ROLE", default_value = "app")]
    pub owner: String,
}

/// Where a proxy listens unless told otherwise.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:6432";

/// What faulty replicas may do.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultModelArg {
    /// Anything; needs 3f+1 replicas.
    Byzantine,
    /// Only stop; needs 2f+1 replicas.
    Crash,
}

impl From<FaultModelArg> for FaultModel {
    fn from(model: FaultModelArg) -> FaultModel {
        match model {
            FaultModelArg::Byzantine => FaultModel::Byzantine,
            FaultModelArg::Crash => FaultModel::Crash,
        }
    }
}

/// When replicas other than the master execute.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExecutionArg {
    /// As the master reports what it ran; little is left to do at COMMIT.
    Speculative,
    /// When COMMIT arrives.
    Deferred,
}

impl From<ExecutionArg> for Execution {
    fn from(execution: ExecutionArg) -> Execution {
        match execution {
            ExecutionArg::Speculative => Execution::Speculative,
            ExecutionArg::Deferred => Execution::Deferred,
        }
    }
}

/// Flags of `steeldb replica`.
#[derive(Args, Clone, Debug)]
pub struct ReplicaArgs {
    /// replica.toml, as written by `steeldb init`
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,

    /// End when this process, the parent, ends
    #[arg(long, hide = true, value_name = "PID")]
    pub die_with_parent: Option<u32>,
}

/// Flags of `steeldb proxy`.
#[derive(Args, Clone, Debug)]
pub struct ProxyArgs {
    /// proxy.toml, as written by `steeldb init`
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,

    /// End when this process, the parent, ends
    #[arg(long, hide = true, value_name = "PID")]
    pub die_with_parent: Option<u32>,
}

/// Flags of `steeldb verify`.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// proxy.toml: whom to ask, and with which key
    #[arg(long, value_name = "FILE", env = "STEELDB_PROXY_CONFIG")]
    pub config: PathBuf,

    /// The databases to compare [default: all that the proxy may use]
    #[arg(long, value_name = "NAME")]
    pub database: Vec<String>,

    /// How long to wait for replicas, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub patience: u64,
}

/// Flags of `steeldb proxy-password`.
#[derive(Args, Clone, Debug)]
pub struct ProxyPasswordArgs {
    /// The users file; created if it is not there
    #[arg(long, value_name = "FILE")]
    pub users: PathBuf,

    /// Remove the user instead
    #[arg(long)]
    pub remove: bool,

    /// The user: a role of the cluster
    #[arg(value_name = "USER")]
    pub user: String,
}

/// Flags of the hidden `steeldb run-command`.
#[derive(Args, Clone, Debug)]
pub struct RunCommandArgs {
    /// End when this process, the parent, ends.
    #[arg(long)]
    pub die_with_parent: u32,

    /// For `sh -c`.
    pub command: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(words: &[&str]) -> Result<Command, clap::Error> {
        Cli::try_parse_from(std::iter::once("steeldb").chain(words.iter().copied())).map(|cli| cli.command)
    }

    #[test]
    fn the_definitions_are_sound_and_every_subcommand_has_examples() {
        Cli::command().debug_assert();
        fn walk(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
                let path = format!("{path} {}", sub.get_name());
                let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example"), "{path} --help shows no example");
                walk(sub, &path);
            }
        }
        walk(&Cli::command(), "steeldb");
    }

    #[test]
    fn demo_takes_its_flags() {
        let Ok(Command::Demo(args)) = parse(&[
            "demo",
            "--replicas",
            "7",
            "--listen",
            "127.0.0.1:0",
            "--run",
            "exit 3",
            "--log-level",
            "debug",
        ]) else {
            panic!("not a demo");
        };
        assert_eq!((args.replicas, args.listen.as_deref()), (Some(7), Some("127.0.0.1:0")));
        assert_eq!((args.run.as_deref(), args.dir), (Some("exit 3"), None));
        assert!(parse(&["demo", "--replicas", "3"]).is_err());
        assert!(parse(&["demo", "extra"]).is_err());
    }

    #[test]
    fn init_needs_hosts_or_local() {
        assert!(parse(&["init", "--dir", "d"]).is_err());
        assert!(parse(&["init", "--dir", "d", "--local", "--host", "a,b,c,d"]).is_err());
        let Ok(Command::Init(args)) = parse(&["init", "--dir", "d", "--host", "a,b:1,c,d"]) else {
            panic!("not an init");
        };
        assert_eq!(args.host, ["a", "b:1", "c", "d"]);
        assert!(!args.wide_area, "only when asked for");
    }

    #[test]
    fn changes_of_the_membership_take_a_key_and_lists() {
        let words = ["cluster", "weights", "--config", "p.toml", "--key", "a.key", "2,3"];
        let Ok(Command::Cluster { command: ClusterCommand::Weights { heavy, change, leader: None } }) =
            parse(&words)
        else {
            panic!("not weights");
        };
        assert_eq!((heavy, change.key), (vec![2, 3], PathBuf::from("a.key")));
        assert!(parse(&["cluster", "remove", "--config", "p.toml", "4"]).is_err(), "no key");
        assert!(parse(&["cluster", "status", "--config", "p.toml", "--json"]).is_ok());
    }

    #[test]
    fn exec_postgres_takes_anything() {
        let Ok(Command::ExecPostgres { args }) =
            parse(&["exec-postgres", "7", "-", "-", "/bin/postgres", "-D", "/data", "--help"])
        else {
            panic!("not exec-postgres");
        };
        assert_eq!(args.len(), 7);
    }
}
