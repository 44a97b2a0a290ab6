//! Where tests stop an agent: exactly before or after a step of the protocol. An agent that is not under test has none.

use std::fmt;
use std::sync::Arc;

/// A step on the way of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Point {
    /// PREPARE TRANSACTION is about to be sent.
    BeforePrepare,
    /// It has returned, and nobody knows yet.
    Prepared,
    /// A Prepared vote was handed to the links.
    VoteSent,
    /// Its client was told that it will be committed, and the order has not decided so yet (A7).
    Bound,
    /// A Commit is delivered by the order, and nothing is done about it yet.
    Decided,
    /// COMMIT PREPARED is about to be sent.
    BeforeCommit,
    /// It has returned, and nobody knows yet.
    Committed,
    /// The server has ended by itself and is about to be started again.
    BeforeRestart,
}

/// Called at each step; true: the agent goes no further there.
#[derive(Clone, Default)]
pub struct Hook(Option<Arc<dyn Fn(Point) -> bool + Send + Sync>>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Hook" } else { "no hook" })
    }
}

impl Hook {
    /// A hook.
    pub fn new(at: impl Fn(Point) -> bool + Send + Sync + 'static) -> Hook {
        Hook(Some(Arc::new(at)))
    }

    /// Whether the agent stops at this step.
    pub(super) fn stops(&self, point: Point) -> bool {
        self.0.as_ref().is_some_and(|at| at(point))
    }

    /// Goes no further if the agent stops at this step.
    pub(super) async fn pass(&self, point: Point) {
        if self.stops(point) {
            std::future::pending::<()>().await;
        }
    }
}
