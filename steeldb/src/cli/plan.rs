//! Flags of `steeldb cluster plan`.

use super::FaultModelArg;
use clap::Args;
use std::path::PathBuf;

/// Flags of `steeldb cluster plan`.
#[derive(Args, Clone, Debug)]
pub struct PlanArgs {
    /// proxy.toml: the cluster to plan for
    #[arg(long, value_name = "FILE", env = "STEELDB_PROXY_CONFIG", required_unless_present = "matrix")]
    pub config: Option<PathBuf>,

    /// Round trips between sites, TOML [default: what the replicas of --config measure]
    #[arg(long, value_name = "FILE", requires_all = ["sites", "client"])]
    pub matrix: Option<PathBuf>,

    /// With --matrix: the sites of the replicas in the order of their numbers, comma-separated
    #[arg(long, value_name = "SITE", value_delimiter = ',', requires = "matrix")]
    pub sites: Vec<String>,

    /// With --matrix: the site of the applications and their proxy
    #[arg(long, value_name = "SITE", requires = "matrix")]
    pub client: Option<String>,

    /// How many replicas may be faulty at once [default: those of --config, else as many as possible]
    #[arg(long, value_name = "F", requires = "matrix", value_parser = clap::value_parser!(u16).range(1..))]
    pub faults: Option<u16>,

    /// What faulty replicas may do [default: that of --config, else byzantine]
    #[arg(long, value_enum, value_name = "MODEL", requires = "matrix")]
    pub fault_model: Option<FaultModelArg>,

    /// Statements of a transaction; each one after the first is a round trip to the master
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub statements: u32,

    /// As if COMMIT were answered before the decision (WHEAT) [default: as the cluster of --config does]
    #[arg(long)]
    pub tentative: bool,

    /// How many choices to show; --json has all
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub top: u32,

    /// For programs
    #[arg(long)]
    pub json: bool,

    /// How long to wait for replicas, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub patience: u64,
}
