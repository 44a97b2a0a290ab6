//! Flags of `steeldb status`.

use clap::Args;
use std::path::PathBuf;

/// Flags of `steeldb status`.
#[derive(Args, Clone, Debug)]
pub struct ClusterStatusArgs {
    /// proxy.toml: whom to ask, and with which key
    #[arg(long, value_name = "FILE", env = "STEELDB_PROXY_CONFIG")]
    pub config: PathBuf,

    /// For programs; with --watch one line each time
    #[arg(long)]
    pub json: bool,

    /// Again and again, until Ctrl-C; every 2 seconds unless given
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub watch: Option<u64>,

    /// How long to wait for replicas, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub patience: u64,
}
