//! Flags of `steeldb cluster`.

use super::PlanArgs;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// What `steeldb cluster` does.
#[derive(Subcommand, Clone, Debug)]
pub enum ClusterCommand {
    /// Show view, members, weights, leader and positions, as each replica says
    #[command(after_help = "Examples:
  steeldb cluster status --config proxy.toml
  steeldb demo --run 'steeldb cluster status --json'

The exit status is 0 if all members answered, know the view and trust their
data, 1 if not.")]
    Status(StatusArgs),

    /// Add a replica (ordering only: a database replica is refused)
    #[command(after_help = "Examples:
  steeldb cluster add --config proxy.toml --key administrator.key \\
      --public-key 8f3c... --address db5:7400

Replicas with databases refuse: nothing transfers the database to a new
replica yet.")]
    Add {
        /// Who joins.
        #[command(flatten)]
        replica: NewReplicaArgs,
        /// How.
        #[command(flatten)]
        change: ChangeArgs,
    },

    /// Remove replicas; at least 3f+1 (crash model: 2f+1) must stay
    #[command(after_help = "Examples:
  steeldb cluster remove --config proxy.toml --key administrator.key 4

If the master is removed, the next replica takes over. Stop the removed one
afterwards.")]
    Remove {
        /// Their numbers, comma-separated
        #[arg(value_name = "ID", required = true, value_delimiter = ',')]
        replicas: Vec<u16>,
        /// How.
        #[command(flatten)]
        change: ChangeArgs,
    },

    /// Replace a replica by a new one under a new number (ordering only)
    #[command(after_help = "Examples:
  steeldb cluster replace --config proxy.toml --key administrator.key 2 \\
      --public-key 8f3c... --address db5:7400

Replicas with databases refuse: nothing transfers the database to a new
replica yet. A replica that moves with its data and its key: cluster address.")]
    Replace {
        /// Who leaves
        #[arg(value_name = "ID")]
        id: u16,
        /// Who joins.
        #[command(flatten)]
        replica: NewReplicaArgs,
        /// How.
        #[command(flatten)]
        change: ChangeArgs,
    },

    /// Say where a replica is now: it moved, with its data and its key
    #[command(after_help = "Examples:
  steeldb cluster address --config proxy.toml --key administrator.key 2 db9:7400")]
    Address {
        /// Which
        #[arg(value_name = "ID")]
        id: u16,
        /// Where the others reach it
        #[arg(value_name = "HOST:PORT")]
        address: String,
        /// How.
        #[command(flatten)]
        change: ChangeArgs,
    },

    /// Give the greater voting weight to other replicas, the best connected ones
    #[command(after_help = "Examples:
  steeldb cluster weights --config proxy.toml --key administrator.key 2,3

Needs spare replicas (more than 3f+1); 2f of them carry V_max, f in the crash
model.")]
    Weights {
        /// Their numbers, comma-separated
        #[arg(value_name = "ID", required = true, value_delimiter = ',')]
        heavy: Vec<u16>,
        /// Who leads the ordering from there on [default: who leads now]
        #[arg(long, value_name = "ID")]
        leader: Option<u16>,
        /// How.
        #[command(flatten)]
        change: ChangeArgs,
    },

    /// Have another replica lead the ordering
    #[command(after_help = "Examples:
  steeldb cluster leader --config proxy.toml --key administrator.key 2

A leader that fails is replaced by the replicas themselves.")]
    Leader {
        /// Which
        #[arg(value_name = "ID")]
        id: u16,
        /// How.
        #[command(flatten)]
        change: ChangeArgs,
    },

    /// Predict commit latencies for each choice of leader, master and weights
    #[command(after_help = "Examples:
  steeldb cluster plan --config proxy.toml
  steeldb cluster plan --config proxy.toml --statements 30 --top 5
  steeldb cluster plan --matrix ec2.toml --client oregon \\
      --sites oregon,ireland,sydney,sao-paulo,virginia

From the round trips that the replicas measure between themselves, and those
from where it runs; or from a matrix. Nothing is changed: it prints the commands
that would. Measured round trips are hints: a replica that lies can make itself
look far away.")]
    Plan(PlanArgs),

    /// Change f: how many replicas may be faulty at once
    #[command(after_help = "Examples:
  steeldb cluster faults --config proxy.toml --key administrator.key 2")]
    Faults {
        /// f
        #[arg(value_name = "F", value_parser = clap::value_parser!(u16).range(1..))]
        faults: u16,
        /// How.
        #[command(flatten)]
        change: ChangeArgs,
    },
}

/// Flags of `steeldb cluster status`.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// proxy.toml: whom to ask, and with which key
    #[arg(long, value_name = "FILE", env = "STEELDB_PROXY_CONFIG")]
    pub config: PathBuf,

    /// For programs
    #[arg(long)]
    pub json: bool,

    /// How long to wait for replicas, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub patience: u64,
}

/// Flags of every change of the membership.
#[derive(Args, Clone, Debug)]
pub struct ChangeArgs {
    /// proxy.toml: through whose links the request goes
    #[arg(long, value_name = "FILE", env = "STEELDB_PROXY_CONFIG")]
    pub config: PathBuf,

    /// administrator.key, as written by `steeldb init`
    #[arg(long, value_name = "FILE", env = "STEELDB_ADMINISTRATOR_KEY")]
    pub key: PathBuf,

    /// How long to wait for replicas, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub patience: u64,
}

/// A replica that is to join.
#[derive(Args, Clone, Debug)]
pub struct NewReplicaArgs {
    /// Its public key, 64 hexadecimal digits
    #[arg(long, value_name = "KEY")]
    pub public_key: String,

    /// Where the others reach it
    #[arg(long, value_name = "HOST:PORT")]
    pub address: String,
}
