//! Chaos: four replicas, their PostgreSQL servers and two proxies as processes, TPC-C, the isolation workload and a
//! ledger on them, and a seeded [`schedule`] of faults: processes killed and stopped, links cut, rows tampered with,
//! replicas that lie. Never more than one replica is faulty at a time. At the end everything heals; then no acknowledged
//! commit may be lost, all databases are equal, TPC-C's consistency conditions hold, and what clients were told has no
//! isolation anomaly.

pub mod cluster;
mod comparison;
pub mod faults;
pub mod ledger;
pub mod load;
pub mod process;
pub mod progress;
mod proxies;
pub mod report;
pub mod scenario;
pub mod schedule;
pub mod tpcc;
