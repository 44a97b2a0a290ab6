//! Flags of `steeldb master`.

use super::{ChangeArgs, StatusArgs};
use clap::Subcommand;

/// What `steeldb master` does.
#[derive(Subcommand, Clone, Debug)]
pub enum MasterCommand {
    /// Show who the master is, since which epoch, and who accuses it of what
    #[command(after_help = "Examples:
  steeldb master status --config proxy.toml
  steeldb demo --run 'steeldb master status --json'

The exit status is 0 if f + 1 replicas agree on the master and none accuses it,
1 if not.")]
    Status(StatusArgs),

    /// Make another replica the master
    #[command(after_help = "Examples:
  steeldb master move --config proxy.toml --key administrator.key 2

Clients see a pause: what runs goes on at the new master. Do it before the
master's host is stopped.")]
    Move {
        /// Which
        #[arg(value_name = "REPLICA")]
        id: u16,
        /// How.
        #[command(flatten)]
        change: ChangeArgs,
    },
}
