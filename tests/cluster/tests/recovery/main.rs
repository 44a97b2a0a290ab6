//! Replicas and servers that stop, crash and come back, on four real servers.

mod away;
mod crashes;
mod definitions;
mod errors;
mod load;
mod lost;
