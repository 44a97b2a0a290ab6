//! The invariants, one file each. None uses the code it checks: no quorum arithmetic of the view's, no verification
//! of the core's.

pub mod accusations;
pub mod agreement;
pub mod durability;
pub mod exactly_once;
pub mod external_validity;
pub mod integrity;
pub mod liveness;
pub mod memory;
pub mod proofs;
pub mod state;
pub mod tentative;
pub mod time;
pub mod total_order;
pub mod view;

use crate::history::History;

/// An invariant: its name, and what it finds broken.
pub type Invariant = (&'static str, fn(&History) -> Result<(), String>);

/// What holds at every moment.
pub const SAFETY: [Invariant; 13] = [
    ("agreement", agreement::check),
    ("total order", total_order::check),
    ("state", state::check),
    ("integrity", integrity::check),
    ("external validity", external_validity::check),
    ("exactly once", exactly_once::check),
    ("durability", durability::check),
    ("tentative replies", tentative::check),
    ("view agreement", view::check),
    ("time", time::check),
    ("decision proofs", proofs::check),
    ("bounded memory", memory::check),
    ("accusations", accusations::check),
];

/// What holds some time after the faults.
pub const LIVENESS: Invariant = ("liveness", liveness::check);
