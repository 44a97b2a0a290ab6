//! Ordered work outside transactions: maintenance and table digests. Any client may ask for it, so only so much of it
//! runs at once: each takes a connection that sessions and snapshots need too.

use super::anchors::User;
use super::{Effect, Scheduler};
use std::collections::VecDeque;
use steeldb_types::{Position, SessionKey};
use steeldb_wire::transaction::{ReplicaMessage, TableDigest};

/// Maintenance statements that run at once.
const MAINTAINING_MAX: usize = 4;

/// Maintenance statements that wait. Past it: refused.
const WAITING_MAX: usize = 256;

/// Table digests taken at once. Past it: refused.
const VERIFYING_MAX: usize = 4;

/// A maintenance statement.
pub(super) struct Statement {
    pub session: SessionKey,
    pub sequence: u64,
    pub database: String,
    pub role: String,
    pub sql: String,
}

/// What is under way.
#[derive(Default)]
pub(super) struct Maintaining {
    running: usize,
    waiting: VecDeque<Statement>,
    verifying: usize,
}

impl Scheduler {
    /// A maintenance statement's turn has come.
    pub(super) fn maintain(&mut self, statement: Statement) {
        if self.maintaining.waiting.len() >= WAITING_MAX {
            let message = ReplicaMessage::Refused {
                session: statement.session.session,
                sequence: statement.sequence,
                reason: "too much maintenance waits already".into(),
            };
            return self.push(Effect::Answer { session: statement.session, message });
        }
        self.maintaining.waiting.push_back(statement);
        self.start_maintenance();
    }

    fn start_maintenance(&mut self) {
        while self.maintaining.running < MAINTAINING_MAX
            && let Some(statement) = self.maintaining.waiting.pop_front()
        {
            self.maintaining.running += 1;
            let Statement { session, sequence, database, role, sql } = statement;
            self.push(Effect::Maintain { session, sequence, database, role, sql });
        }
    }

    /// A maintenance statement is done.
    pub(super) fn maintained(&mut self, session: SessionKey, sequence: u64, messages: Vec<u8>) {
        let message = ReplicaMessage::Maintained { session: session.session, sequence, messages };
        self.push(Effect::Answer { session, message });
        self.maintaining.running = self.maintaining.running.saturating_sub(1);
        self.start_maintenance();
    }

    /// Whether another verification may start.
    pub(super) fn may_verify(&self) -> bool {
        self.maintaining.verifying < VERIFYING_MAX
    }

    /// Takes table digests on an anchor's snapshot.
    pub(super) fn verify(
        &mut self,
        anchor: super::AnchorId,
        session: SessionKey,
        sequence: u64,
        database: String,
        position: Position,
    ) {
        let Some(snapshot) = self.anchors.snapshot(anchor).map(str::to_string) else { return };
        self.maintaining.verifying += 1;
        self.anchors.hold(anchor, User::Verify(session, sequence));
        self.push(Effect::Verify { session, sequence, database, snapshot, position });
    }

    /// Table digests were taken, or could not be.
    pub(super) fn verified(
        &mut self,
        session: SessionKey,
        sequence: u64,
        position: Position,
        tables: Result<Vec<TableDigest>, String>,
    ) {
        if let Some(anchor) = self.anchors.verifying(session, sequence) {
            self.maintaining.verifying = self.maintaining.verifying.saturating_sub(1);
            self.release_anchor(anchor, User::Verify(session, sequence));
        }
        self.not_verified(session, sequence, position, tables);
    }

    /// Answers who asked for table digests.
    pub(super) fn not_verified(
        &mut self,
        session: SessionKey,
        sequence: u64,
        position: Position,
        tables: Result<Vec<TableDigest>, String>,
    ) {
        let message = ReplicaMessage::Verified { session: session.session, sequence, position, tables };
        self.push(Effect::Answer { session, message });
    }
}
