//! Portals: bound statements, and rows of theirs that the client has not asked for yet.

use crate::statement::Prepared;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// A bound statement.
#[derive(Debug)]
pub(crate) struct Portal {
    pub prepared: Arc<Prepared>,
    /// The rest of the Bind message.
    pub bind: Bytes,
    /// Describe was asked for and not answered yet: the execution's own description answers it.
    pub describe: bool,
    pub progress: Progress,
}

/// How far a portal was executed.
#[derive(Debug, Default)]
pub(crate) enum Progress {
    /// Not at all.
    #[default]
    Bound,
    /// In part: rows left, and the answer after them.
    Suspended { rows: VecDeque<Bytes>, completion: Bytes },
    /// To the end; and whether it gave rows, so that it may be executed again for none.
    Done { rows: bool },
}

/// A session's portals. They end with their transaction.
#[derive(Debug, Default)]
pub(crate) struct Portals(HashMap<String, Portal>);

impl Portals {
    pub(crate) fn insert(&mut self, name: String, portal: Portal) {
        self.0.insert(name, portal);
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Portal> {
        self.0.get_mut(name)
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<Portal> {
        self.0.remove(name)
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
