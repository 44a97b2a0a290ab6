//! What clients are told of ends that are not so.

use super::{Adversary, Stage};
use rand::Rng;
use std::collections::BTreeSet;
use steeldb_types::{Digest, Position, TxId};
use steeldb_wire::transaction::{AbortReason, Outcome, ReplicaMessage, SignedFinish, TransactionState};

/// Says of every transaction something about its end, early or late, true or not.
#[derive(Default)]
pub(crate) struct OutcomeForger {
    said: BTreeSet<TxId>,
}

impl Adversary for OutcomeForger {
    fn to_client(&mut self, stage: &mut Stage<'_>, _: usize, message: ReplicaMessage) -> Vec<ReplicaMessage> {
        let tx = match &message {
            ReplicaMessage::Told { session, sequence, .. } => {
                let state = match stage.rng.random_range(0..4) {
                    0 => TransactionState::Committed { position: Position(stage.rng.random_range(1..60)) },
                    1 => TransactionState::Aborted,
                    2 => TransactionState::NoChanges,
                    _ => TransactionState::InProgress,
                };
                return vec![ReplicaMessage::Told { session: *session, sequence: *sequence, state }];
            }
            ReplicaMessage::Outcome { tx, .. } => *tx,
            ReplicaMessage::Tentative { tx, position, view, claim } => {
                let (tx, view) = (*tx, *view);
                let (position, claim) = match stage.rng.random_range(0..4) {
                    // That it is decided.
                    0 => {
                        let outcome = Outcome::Committed { position: *position };
                        return vec![ReplicaMessage::Outcome { tx, outcome }];
                    }
                    1 => (Position(position.0 + 1), *claim),
                    2 => (*position, Digest([4; 32])),
                    _ => (*position, *claim),
                };
                return vec![ReplicaMessage::Tentative { tx, position, view, claim }];
            }
            ReplicaMessage::Transcript { tx, operations, transcript, mismatch, .. } => {
                let mut transcript = *transcript;
                if stage.rng.random_bool(0.3) {
                    transcript = Digest([3; 32]);
                }
                // That it wrote nothing, whatever it did.
                return vec![ReplicaMessage::Transcript {
                    tx: *tx,
                    operations: *operations,
                    transcript,
                    read_only: true,
                    mismatch: *mismatch,
                }];
            }
            ReplicaMessage::Begun { tx, slot, timestamp } if stage.rng.random_bool(0.2) => {
                let slot = Position(slot.0 + 1);
                return vec![ReplicaMessage::Begun { tx: *tx, slot, timestamp: *timestamp }];
            }
            _ => return vec![message],
        };
        if !self.said.insert(tx) {
            return vec![message];
        }
        let outcome = match stage.rng.random_range(0..4) {
            0 => Outcome::Committed { position: Position(stage.rng.random_range(1..60)) },
            1 => Outcome::Aborted { reason: AbortReason::Expired },
            2 => Outcome::Aborted { reason: AbortReason::Mismatch { operation: 1 } },
            _ => return vec![message],
        };
        vec![ReplicaMessage::Outcome { tx, outcome }]
    }

    /// That it wrote nothing, at once, with the very transcript that its client signed.
    fn finish(&mut self, stage: &mut Stage<'_>, finish: &SignedFinish) -> Vec<ReplicaMessage> {
        if stage.rng.random_bool(0.5) {
            return vec![];
        }
        let finish = &finish.finish;
        vec![ReplicaMessage::Transcript {
            tx: finish.tx,
            operations: finish.operations,
            transcript: finish.transcript,
            read_only: true,
            mismatch: None,
        }]
    }
}
