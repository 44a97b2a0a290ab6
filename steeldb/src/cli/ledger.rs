//! Flags of `steeldb ledger`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// The subcommands of `steeldb ledger`.
#[derive(Subcommand, Clone, Debug)]
pub enum LedgerCommand {
    /// Write a replica's decided batches and their proofs to a file
    #[command(after_help = "Example:
  steeldb ledger export --config replica.toml --out history.ledger

Runs on the replica's host, whether the replica runs or not. Every block is
checked on the way. A file that is there is checked and continued.")]
    Export(LedgerExportArgs),

    /// Check an exported file
    #[command(after_help = "Example:
  steeldb ledger verify --config proxy.toml history.ledger

Runs anywhere. The exit status is 0 if every block holds; else the first one
that does not is named. The last line is the tip: compare it with another copy's.")]
    Verify(LedgerVerifyArgs),

    /// Print blocks as a replica logs them, one JSON object per line
    #[command(after_help = "Example:
  steeldb ledger follow --config replica.toml --from 1000

Runs on the replica's host, beside the replica, until it is interrupted. Every
block is checked, those before --from too.")]
    Follow(LedgerFollowArgs),
}

/// Flags of `steeldb ledger export`.
#[derive(Args, Clone, Debug)]
pub struct LedgerExportArgs {
    /// replica.toml: whose log, and the genesis view
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,

    /// The file to write or to continue
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Flags of `steeldb ledger verify`.
#[derive(Args, Clone, Debug)]
pub struct LedgerVerifyArgs {
    /// replica.toml or proxy.toml: the genesis view with its public keys
    #[arg(long, value_name = "FILE", env = "STEELDB_PROXY_CONFIG")]
    pub config: PathBuf,

    /// The exported file
    #[arg(value_name = "ARCHIVE")]
    pub archive: PathBuf,
}

/// Flags of `steeldb ledger follow`.
#[derive(Args, Clone, Debug)]
pub struct LedgerFollowArgs {
    /// replica.toml: whose log, and the genesis view
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,

    /// The first block to print
    #[arg(long, value_name = "BLOCK", default_value_t = 1)]
    pub from: u64,
}
