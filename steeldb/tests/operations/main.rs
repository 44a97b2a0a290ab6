//! Operating a cluster of real processes, as docs/operations.md says: what they tell over HTTP, `steeldb status`, SIGHUP,
//! SIGTERM, and a restart of one replica after the other under load.

mod processes;
mod reload;
mod rolling;
mod told;
