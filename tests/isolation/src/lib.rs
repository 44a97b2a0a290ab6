//! Is the isolation that applications see what is promised? Clients run short transactions on lists that are only
//! appended to and on registers that are read, changed and written ([`workload`]); what they were told is a
//! [`history`]; the [`checker`] finds in it, without knowing anything of the database, whatever strong snapshot
//! isolation forbids.

pub mod checker;
pub mod history;
pub mod workload;

pub use checker::{Anomaly, Kind, Report, check};
pub use history::{History, HistoryError, Operation, Outcome, Transaction};
