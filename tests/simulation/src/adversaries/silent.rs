//! Says nothing.

use super::{Adversary, Said, Stage};
use steeldb_ordering::Message;
use steeldb_types::ReplicaId;

pub(crate) struct Silent;

impl Adversary for Silent {
    fn twist(&mut self, _stage: &mut Stage<'_>, _to: ReplicaId, _message: Message) -> Vec<Said> {
        vec![]
    }
}
