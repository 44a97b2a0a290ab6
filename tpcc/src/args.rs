//! The command line: `steeldb tpcc load | run | check`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Subcommand};

use crate::connection::Connection;
use crate::load::LoadOptions;
use crate::run::RunOptions;
use crate::scale::{SPECIFICATION_CUSTOMERS, SPECIFICATION_ITEMS, Scale};

/// TPC-C against any PostgreSQL server.
#[derive(Clone, Debug, Subcommand)]
pub enum TpccCommand {
    /// Create and fill the nine tables
    #[command(after_help = "Examples:
  steeldb tpcc load --url postgresql://app@localhost:5432/tpcc --warehouses 10
  PGHOST=/var/run/postgresql PGDATABASE=tpcc steeldb tpcc load --warehouses 1 --drop
  steeldb tpcc load --items 1000 --customers-per-district 30    (seconds, for tests)")]
    Load(LoadArgs),

    /// Run the transaction mix and report throughput and latencies
    #[command(after_help = "Examples:
  steeldb tpcc run --url postgresql://app@localhost:5432/tpcc --terminals 16 --duration 2m --warmup 30s
  steeldb tpcc run --keying-and-think-times --duration 30m --json report.json
  steeldb tpcc run --transactions 1000 --seed 7                 (the same inputs again)")]
    Run(RunArgs),

    /// Check the specification's consistency conditions
    #[command(after_help = "Examples:
  steeldb tpcc check --url postgresql://app@localhost:5432/tpcc
The exit status is 0 if all conditions hold, 1 if not.")]
    Check(CheckArgs),
}

/// Where the server is.
#[derive(Clone, Debug, Default, Args)]
pub struct ConnectionArgs {
    /// Server: postgresql://user:password@host:port/database, or "host=... dbname=...". What it leaves open
    /// is taken from PGHOST (a directory for a Unix socket), PGPORT, PGUSER, PGDATABASE, PGPASSWORD and
    /// PGAPPNAME
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

impl From<&ConnectionArgs> for Connection {
    fn from(args: &ConnectionArgs) -> Self {
        Self { url: args.url.clone() }
    }
}

/// Flags of `tpcc load`.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// Where the server is.
    #[command(flatten)]
    pub connection: ConnectionArgs,

    /// Warehouses, about 100 MB each
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    pub warehouses: i32,

    /// Drop existing TPC-C tables, with all their data, first
    #[arg(long)]
    pub drop: bool,

    /// Connections that load in parallel
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub connections: usize,

    /// Whether to add foreign keys
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    pub foreign_keys: bool,

    /// Leave out VACUUM ANALYZE at the end
    #[arg(long)]
    pub no_analyze: bool,

    /// Items; fewer than the specification's make a test load
    #[arg(long, value_name = "N", default_value_t = SPECIFICATION_ITEMS)]
    pub items: i32,

    /// Customers, and initial orders, per district; fewer than the specification's make a test load
    #[arg(long, value_name = "N", default_value_t = SPECIFICATION_CUSTOMERS)]
    pub customers_per_district: i32,

    /// Seed of the rows [default: random, printed]
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,

    /// Tries of a transaction that meets serialization failures or deadlocks
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub max_tries: u32,

    /// Also write the report as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl From<&LoadArgs> for LoadOptions {
    fn from(args: &LoadArgs) -> Self {
        Self {
            connection: Connection::from(&args.connection),
            scale: Scale {
                warehouses: args.warehouses,
                items: args.items,
                customers_per_district: args.customers_per_district,
            },
            connections: args.connections,
            drop: args.drop,
            foreign_keys: args.foreign_keys,
            analyze: !args.no_analyze,
            seed: args.seed,
            max_tries: args.max_tries,
            progress: true,
        }
    }
}

/// Flags of `tpcc run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Where the server is.
    #[command(flatten)]
    pub connection: ConnectionArgs,

    /// Warehouses to use [default: all that are loaded]
    #[arg(short, long, value_name = "N")]
    pub warehouses: Option<i32>,

    /// Terminals, each with its own connection [default: one per warehouse; ten with keying and think times]
    #[arg(short, long, value_name = "N")]
    pub terminals: Option<usize>,

    /// Measured span, such as 30s, 2m or 1h [default: 60s, or no bound with --transactions]
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,

    /// Span before it that is left out of the figures
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "0s")]
    pub warmup: Duration,

    /// End after this many transactions over all terminals, warm-up included
    #[arg(long, value_name = "N")]
    pub transactions: Option<u64>,

    /// Wait as the specification's terminals do (about 12.9 tpmC per warehouse at most)
    #[arg(long)]
    pub keying_and_think_times: bool,

    /// Send statements that do not need one another's answers together
    #[arg(long)]
    pub pipelining: bool,

    /// Tries of a transaction that meets serialization failures or deadlocks
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub max_tries: u32,

    /// Seed of the inputs [default: random, printed]
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,

    /// Also write the report as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl From<&RunArgs> for RunOptions {
    fn from(args: &RunArgs) -> Self {
        let default_duration = args.transactions.is_none().then_some(Duration::from_secs(60));
        Self {
            connection: Connection::from(&args.connection),
            warehouses: args.warehouses,
            terminals: args.terminals,
            duration: args.duration.or(default_duration),
            warmup: args.warmup,
            transactions: args.transactions,
            keying_and_think_times: args.keying_and_think_times,
            pipelining: args.pipelining,
            max_tries: args.max_tries,
            seed: args.seed,
            progress: true,
        }
    }
}

/// Flags of `tpcc check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Where the server is.
    #[command(flatten)]
    pub connection: ConnectionArgs,

    /// Also write the report as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// A number with one of the units ms, s, m, h; seconds without.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("unknown unit {unit:?}: write 500ms, 30s, 2m or 1h")),
    };
    let number: f64 =
        number.trim().parse().map_err(|_| "write a time such as 500ms, 30s, 2m or 1h".to_owned())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(subcommand)]
        command: TpccCommand,
    }

    fn parse(words: &[&str]) -> Result<TpccCommand, clap::Error> {
        Command::try_parse_from(std::iter::once("tpcc").chain(words.iter().copied()))
            .map(|parsed| parsed.command)
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("7"), Ok(Duration::from_secs(7)));
        for bad in ["", "s", "3d", "-1s", "1e300h", "NaN"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_flags_become_options() {
        let Ok(TpccCommand::Run(args)) =
            parse(&["run", "--url", "host=h", "--terminals", "4", "--transactions", "9"])
        else {
            panic!("not a run");
        };
        let options = RunOptions::from(&args);
        assert_eq!((options.terminals, options.transactions, options.duration), (Some(4), Some(9), None));
        let Ok(TpccCommand::Load(args)) = parse(&["load", "-w", "3", "--foreign-keys", "false", "--drop"])
        else {
            panic!("not a load");
        };
        let options = LoadOptions::from(&args);
        assert!(options.drop && !options.foreign_keys && options.scale == Scale::specification(3));
    }

    #[test]
    fn the_definitions_are_sound() {
        use clap::CommandFactory;
        Command::command().debug_assert();
        assert!(parse(&["run", "--duration", "soon"]).is_err());
    }
}
