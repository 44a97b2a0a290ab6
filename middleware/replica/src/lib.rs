//! The replica: an agent beside its own PostgreSQL server. [`scheduler`] decides (a deterministic state machine);
//! [`agent`] does (sockets, clocks, disks, PostgreSQL).

pub mod agent;
pub mod guard;
pub mod scheduler;
pub mod validity;
