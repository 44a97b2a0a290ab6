//! The command line: `steeldb bench lan | scale | geo | timeline`.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Comparisons that write tables and plots.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// TPC-C on one site: plain PostgreSQL, synchronous standbys, deferred and speculative execution
    #[command(after_help = "Examples:
  steeldb bench lan --out results
  steeldb bench lan --systems plain,speculative --runs 5 --seconds 60 --terminals 16
  steeldb bench lan --no-quota            (where control groups cannot be made)

Control groups are made under /sys/fs/cgroup, which takes root.")]
    Lan(LanArgs),

    /// TPC-C over numbers of replicas and of terminals
    #[command(after_help = "Examples:
  steeldb bench scale --out results
  steeldb bench scale --replicas 4,7 --over 1,4,16,64")]
    Scale(ScaleArgs),

    /// TPC-C over an emulated wide-area network, clients at the master's site
    #[command(after_help = "Examples:
  steeldb bench geo --out results
  steeldb bench geo --matrix my-network.toml --sites lisbon,paris,berlin,rome,oslo")]
    Geo(GeoArgs),

    /// Throughput second by second while hosts are killed and come back
    #[command(after_help = "Examples:
  steeldb bench timeline --out results
  steeldb bench timeline --victims master,replica --seconds 60")]
    Timeline(TimelineArgs),
}

/// What all comparisons have.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Where raw reports, tables and plots are written
    #[arg(long, value_name = "DIR", default_value = "docs/performance")]
    pub out: PathBuf,

    /// Runs of each point
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub runs: u32,

    /// Measured span of each run, seconds
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,

    /// Span before it that is left out, seconds
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub warmup: u64,

    /// TPC-C warehouses
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub warehouses: u32,

    /// Terminals
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub terminals: u32,

    /// CPUs that each node may use
    #[arg(long, value_name = "CPUS", default_value_t = 0.35, value_parser = cpus)]
    pub cpus: f64,

    /// Period of the quota, milliseconds: how finely a node's share is dealt out
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub period: u64,

    /// Let the systems share the CPUs as they come
    #[arg(long)]
    pub no_quota: bool,

    /// Load fewer items and customers than the specification's: for trying the command out
    #[arg(long)]
    pub small: bool,
}

impl Common {
    /// The measured span.
    pub fn measured(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// A share of the CPUs.
fn cpus(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(cpus) if (0.01..=1024.0).contains(&cpus) => Ok(cpus),
        _ => Err("write a number of CPUs such as 0.35 or 2".into()),
    }
}

/// The systems of the comparison on one site.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum LanSystem {
    /// One PostgreSQL server with the settings of the replicas' servers.
    Plain,
    /// A PostgreSQL primary and three standbys, any two of which must have the commit on disk.
    Synchronous,
    /// Four replicas that execute when COMMIT arrives.
    Deferred,
    /// Four replicas that execute as the master does.
    Speculative,
}

impl LanSystem {
    /// Its name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            LanSystem::Plain => "plain PostgreSQL",
            LanSystem::Synchronous => "3 synchronous standbys, ANY 2",
            LanSystem::Deferred => "SteelDB, deferred",
            LanSystem::Speculative => "SteelDB, speculative",
        }
    }
}

/// Flags of `bench lan`.
#[derive(Clone, Debug, Args)]
pub struct LanArgs {
    /// What all comparisons have.
    #[command(flatten)]
    pub common: Common,

    /// What is compared
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SYSTEM",
          default_values = ["plain", "synchronous", "deferred", "speculative"])]
    pub systems: Vec<LanSystem>,
}

/// Flags of `bench scale`.
#[derive(Clone, Debug, Args)]
pub struct ScaleArgs {
    /// What all comparisons have.
    #[command(flatten)]
    pub common: Common,

    /// Numbers of replicas
    #[arg(long, value_delimiter = ',', value_name = "N", default_values = ["4", "7"],
          value_parser = clap::value_parser!(u16).range(4..=64))]
    pub replicas: Vec<u16>,

    /// Numbers of terminals, instead of --terminals
    #[arg(long, value_delimiter = ',', value_name = "N", default_values = ["1", "4", "16", "64"],
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub over: Vec<u32>,
}

/// Flags of `bench geo`.
#[derive(Clone, Debug, Args)]
pub struct GeoArgs {
    /// What all comparisons have.
    #[command(flatten)]
    pub common: Common,

    /// Round trips between the sites [default: five EC2 regions]
    #[arg(long, value_name = "FILE")]
    pub matrix: Option<PathBuf>,

    /// Sites of the replicas by number; the first has master, leader and clients, the last the spare replica
    #[arg(long, value_delimiter = ',', value_name = "SITE",
          default_values = ["oregon", "ireland", "sydney", "sao-paulo", "virginia"])]
    pub sites: Vec<String>,

    /// Seed of the network's delays
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
}

/// Whose host is killed.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Victim {
    /// The master's.
    Master,
    /// The ordering leader's.
    Leader,
    /// One that is neither.
    Replica,
}

impl Victim {
    /// Its name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Victim::Master => "master",
            Victim::Leader => "leader",
            Victim::Replica => "replica",
        }
    }
}

/// Flags of `bench timeline`.
#[derive(Clone, Debug, Args)]
pub struct TimelineArgs {
    /// What all comparisons have.
    #[command(flatten)]
    pub common: Common,

    /// Whose hosts are killed, each in runs of its own
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHO", default_values = ["master", "leader", "replica"])]
    pub victims: Vec<Victim>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        command: BenchCommand,
    }

    #[test]
    fn lists_and_shares_are_checked() {
        let parse =
            |words: &[&str]| Cli::try_parse_from(std::iter::once("bench").chain(words.iter().copied()));
        let Ok(Cli { command: BenchCommand::Lan(args) }) = parse(&["lan", "--systems", "plain,deferred"])
        else {
            panic!("not lan");
        };
        assert_eq!(args.systems, [LanSystem::Plain, LanSystem::Deferred]);
        assert!(!args.common.no_quota);
        for wrong in ["0", "-1", "NaN", "two"] {
            assert!(parse(&["lan", "--cpus", wrong]).is_err(), "{wrong}");
        }
        assert!(parse(&["scale", "--replicas", "3"]).is_err());
        assert!(parse(&["lan", "--runs", "0"]).is_err());
    }
}
