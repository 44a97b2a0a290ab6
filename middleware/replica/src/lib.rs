//! The replica: an agent beside its own PostgreSQL server. [`scheduler`] decides (a deterministic state machine);
//! [`agent`] does (sockets, clocks, disks, PostgreSQL).

pub mod agent;
pub mod certified;
pub mod effects;
pub mod guard;
pub mod promises;
pub mod reach;
pub mod receipt;
pub mod scheduler;
pub mod script;
pub mod spool;
pub mod validity;

/// Whether this build has replicas that lie or bugs that are planted; the command `steeldb` does not compile with it.
pub const IS_FOR_TESTS_ALONE: bool = cfg!(any(feature = "adversary", feature = "planted-bugs"));

// What measures the cost of signatures must never reach a replica with data.
const _: () = assert!(!steeldb_ordering::ORDERS_UNSIGNED_REQUESTS);
