//! Sites, what is between them, and what follows for the latency of a commit.
//!
//! [`Matrix`] is the form in which round trips are written down; the WAN emulator of the tests makes them true.
//! [`predict`] walks the message steps of a transaction over them, and [`rank`] does so for every choice of leader,
//! master and weights. Both are functions of their input: no clock, no socket.

mod choices;
mod matrix;
mod predict;

pub use choices::{Choice, ChoicesError, Members, Ranked, rank};
pub use matrix::{Conditions, Matrix, MatrixError};
pub use predict::{Distances, Prediction, Replies, Step, Transaction, predict};

/// Round trips between five regions of Amazon EC2: Oregon, Ireland, Sydney, São Paulo, Virginia.
pub const EC2: &str = include_str!("../matrices/ec2.toml");
