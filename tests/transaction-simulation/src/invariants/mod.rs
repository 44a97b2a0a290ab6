//! The invariants, one file each. None uses the code it checks: what the order says is read again in [`model`], and what
//! statements give is computed again in [`serial`].

pub mod aborted;
pub mod acknowledged;
pub mod answers;
pub mod barriers;
pub mod certificates;
pub mod computed;
pub mod contents;
pub mod divergence;
pub mod effects;
pub mod in_time;
pub mod memory;
pub mod model;
pub mod outcomes;
pub mod questions;
pub mod real_time;
pub mod serial;
pub mod snapshots;
pub mod terms;
pub mod votes;

use crate::history::History;

/// An invariant: its name, and what it finds broken.
pub type Invariant = (&'static str, fn(&History) -> Result<(), String>);

/// What holds at every moment.
pub const SAFETY: [Invariant; 16] = [
    ("acknowledged commits", acknowledged::check),
    ("reported aborts", aborted::check),
    ("votes", votes::check),
    ("certificates", certificates::check),
    ("ordered outcomes", outcomes::check),
    ("effects", effects::check),
    ("snapshots", snapshots::check),
    ("barriers", barriers::check),
    ("terms", terms::check),
    ("questions", questions::check),
    ("answers", answers::check),
    ("computed answers", computed::check),
    ("real time", real_time::check),
    ("divergence", divergence::check),
    ("bounded memory", memory::check),
    ("in time", in_time::check),
];

/// What holds when everything has ended.
pub const END: [Invariant; 3] = [
    ("in time", in_time::check_all),
    ("contents", contents::check),
    ("acknowledged commits", acknowledged::check_all),
];
