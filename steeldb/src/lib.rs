//! The command.

pub mod config;
