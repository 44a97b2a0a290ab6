//! A wide-area network between processes of one machine, where the kernel has no `tc netem`.
//!
//! Processes are told that their peers listen at relays. A relay passes on what it is sent as the directed pair of
//! sites it stands for would: after the pair's latency with its jitter, not faster than its bandwidth, later still where
//! a segment would have been lost (TCP sends it again, so that loss is delay), and not at all while the pair is cut.
//! Bytes of one connection stay in order.
//!
//! All of it can be changed while it runs, through [`Emulator`] or the control port of `steeldb-wan`.

mod control;
mod emulator;
mod line;
mod relay;

pub use control::serve as serve_control;
pub use emulator::{Emulator, Pair, UnknownSite};
pub use line::pass_on;
pub use relay::{Relay, RelayConfig};
pub use steeldb_sites::{Conditions, EC2, Matrix, MatrixError};
