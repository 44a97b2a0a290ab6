//! The invariants, one file each. None uses the code it checks: no quorum arithmetic of the view's, no verification
//! of the core's.

pub mod agreement;
pub mod integrity;
pub mod liveness;
pub mod proofs;
pub mod time;
pub mod total_order;

use crate::history::History;

/// An invariant: its name, and what it finds broken.
pub type Invariant = (&'static str, fn(&History) -> Result<(), String>);

/// What holds at every moment.
pub const SAFETY: [Invariant; 5] = [
    ("agreement", agreement::check),
    ("total order", total_order::check),
    ("integrity", integrity::check),
    ("time", time::check),
    ("decision proofs", proofs::check),
];

/// What holds some time after the faults.
pub const LIVENESS: Invariant = ("liveness", liveness::check);
