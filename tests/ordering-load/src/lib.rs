//! The ordering server as it runs in production, but for its application: n processes on loopback TCP. For measuring
//! ([`load`], [`scenario`]) and for faults done to real processes (the tests).

pub mod acknowledged;
pub mod application;
pub mod cluster;
pub mod cpu;
pub mod geo;
pub mod identity;
pub mod liar;
pub mod load;
pub mod node;
pub mod report;
pub mod scenario;
