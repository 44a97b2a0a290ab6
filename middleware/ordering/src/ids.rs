//! The two counters of the protocol.

use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;

/// Counts leaders' terms from 0: the leader of regency r is replica r mod n (Mod-SMaRt, section 4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize)]
pub struct Regency(pub u64);

/// Numbers consensus instances from 1; 0 is before all. Instance i decides the i-th batch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize)]
pub struct InstanceNumber(pub u64);

impl Regency {
    /// The regency after this one.
    pub fn next(self) -> Regency {
        Regency(self.0.saturating_add(1))
    }
}

impl InstanceNumber {
    /// The instance after this one.
    pub fn next(self) -> InstanceNumber {
        InstanceNumber(self.0.saturating_add(1))
    }
}

impl fmt::Display for Regency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "regency {}", self.0)
    }
}

impl fmt::Display for InstanceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "instance {}", self.0)
    }
}

impl fmt::Debug for Regency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "R{}", self.0)
    }
}

impl fmt::Debug for InstanceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{}", self.0)
    }
}
