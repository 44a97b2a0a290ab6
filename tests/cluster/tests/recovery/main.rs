//! Replicas and servers that stop, crash and come back, on four real servers.

mod away;
mod definitions;
