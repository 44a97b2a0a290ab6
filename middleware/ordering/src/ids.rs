//! The two counters of the protocol.

use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;
use steeldb_types::ViewNumber;

/// A leader's term (Mod-SMaRt, section 4). Each view counts its own from 0, so a term of a later view comes after all of
/// earlier ones, whatever was suspected there; the leader of the r-th is the r-th member from the view's first leader on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize)]
pub struct Regency {
    /// In which view.
    pub view: ViewNumber,
    /// Which of its terms, from 0.
    pub number: u64,
}

/// Numbers consensus instances from 1; 0 is before all. Instance i decides the i-th batch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize)]
pub struct InstanceNumber(pub u64);

impl Regency {
    /// A regency of a view.
    pub const fn new(view: u64, number: u64) -> Regency {
        Regency { view: ViewNumber(view), number }
    }

    /// The regency that a view begins with.
    pub const fn first(view: ViewNumber) -> Regency {
        Regency { view, number: 0 }
    }

    /// The regency after this one, in the same view.
    pub fn next(self) -> Regency {
        Regency { number: self.number.saturating_add(1), ..self }
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
        write!(f, "regency {}.{}", self.view.0, self.number)
    }
}

impl fmt::Display for InstanceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "instance {}", self.0)
    }
}

impl fmt::Debug for Regency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "R{}.{}", self.view.0, self.number)
    }
}

impl fmt::Debug for InstanceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{}", self.0)
    }
}
