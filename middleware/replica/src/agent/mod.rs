//! The agent: drives the scheduler and the ordering core beside one PostgreSQL server. Sockets, clocks, disks and
//! PostgreSQL are here; decisions are not.

#[cfg(feature = "adversary")]
mod adversary;
mod anchors;
mod bulk_fetch;
mod catchup;
mod certifying;
mod committer;
mod config;
mod controls;
mod decoder;
mod fetching;
mod hook;
mod journal;
mod judge;
mod keeper;
mod maintenance;
mod membership;
mod metrics;
mod monitor;
mod peer;
mod performing;
mod reactor;
mod recovery;
mod reexecution;
mod round_trips;
mod rows;
mod run;
mod sequences;
mod setup;
mod temporary;
mod watching;
mod worker;

pub use config::{AgentConfig, DatabaseConfig};
pub use controls::{AgentSettings, Controls};
pub use hook::{Hook, Point};
pub use monitor::{Monitor, Standing};
pub use peer::PeerMessage;
pub use run::run;
