//! The PostgreSQL face of SteelDB: what a client's driver talks to.

pub mod sql;
