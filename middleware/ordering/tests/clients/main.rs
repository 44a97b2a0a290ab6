//! Clients that join and leave: schedules by hand, and random ones judged by a model that shares nothing with the core.

mod cluster;
mod model;
mod random;
mod schedules;
