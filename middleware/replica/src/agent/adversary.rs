//! A replica that lies, for tests: only with the cargo feature `adversary`, and only when the environment variable
//! `STEELDB_ADVERSARY` says how. What it signs is signed rightly: it lies as a replica that was taken over can.

use crate::scheduler::Effect;
use steeldb_types::Digest;
use steeldb_wire::auth::SecretKey;
use steeldb_wire::transaction::{AbortReason, Outcome, ReplicaMessage, VoteBundle, VoteKind};

/// The environment variable.
const VARIABLE: &str = "STEELDB_ADVERSARY";

/// How it lies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// It votes Mismatch on everything that it prepared.
    Mismatch,
    /// Its votes, and what it tells clients, have wrong transcripts.
    Transcripts,
    /// It tells clients wrong outcomes.
    Outcomes,
    /// It says nothing about transactions to anyone, and streams nothing.
    Silent,
}

/// A replica that lies, or does not.
pub(super) struct Adversary {
    lie: Option<Lie>,
    key: SecretKey,
}

impl Adversary {
    /// As the environment says.
    ///
    /// # Errors
    /// When it says something else than what is known here.
    pub(super) fn from_environment(key: SecretKey) -> anyhow::Result<Adversary> {
        let lie = match std::env::var(VARIABLE).as_deref() {
            Err(_) => None,
            Ok("mismatch") => Some(Lie::Mismatch),
            Ok("transcripts") => Some(Lie::Transcripts),
            Ok("outcomes") => Some(Lie::Outcomes),
            Ok("silent") => Some(Lie::Silent),
            Ok(other) => anyhow::bail!("{VARIABLE}: {other:?} is no lie that is known"),
        };
        if lie.is_some() {
            tracing::warn!("this replica lies: {VARIABLE} is set");
        }
        Ok(Adversary { lie, key })
    }

    /// What becomes of an effect; nothing: it is withheld.
    pub(super) fn twist(&self, effect: Effect) -> Option<Effect> {
        let Some(lie) = self.lie else { return Some(effect) };
        match (lie, effect) {
            (Lie::Silent, effect) => match effect {
                Effect::SendVotes(_)
                | Effect::ResendVotes { .. }
                | Effect::SendStream(_)
                | Effect::Submit(_)
                | Effect::Reply { .. } => None,
                other => Some(other),
            },
            (Lie::Mismatch | Lie::Transcripts, Effect::SendVotes(bundle)) => {
                self.votes(lie, bundle).map(Effect::SendVotes)
            }
            (Lie::Mismatch | Lie::Transcripts, Effect::ResendVotes { to, bundle }) => {
                self.votes(lie, bundle).map(|bundle| Effect::ResendVotes { to, bundle })
            }
            (Lie::Transcripts | Lie::Outcomes, Effect::Reply { connection, message }) => {
                Some(Effect::Reply { connection, message: reply(lie, message) })
            }
            (_, effect) => Some(effect),
        }
    }

    fn votes(&self, lie: Lie, bundle: VoteBundle) -> Option<VoteBundle> {
        let mut votes = bundle.votes;
        for (vote, _) in &mut votes {
            if let VoteKind::Prepared { transcript, .. } = &mut vote.kind {
                match lie {
                    Lie::Mismatch => vote.kind = VoteKind::Mismatch { operation: 1 },
                    _ => *transcript = wrong(*transcript),
                }
            }
        }
        VoteBundle::new(votes, &self.key)
    }
}

fn reply(lie: Lie, message: ReplicaMessage) -> ReplicaMessage {
    match (lie, message) {
        (Lie::Transcripts, ReplicaMessage::Executed { tx, number, transcript, status }) => {
            ReplicaMessage::Executed { tx, number, transcript: wrong(transcript), status }
        }
        (Lie::Transcripts, ReplicaMessage::Transcript { tx, operations, transcript, read_only, .. }) => {
            let (transcript, mismatch) = (wrong(transcript), None);
            ReplicaMessage::Transcript { tx, operations, transcript, read_only, mismatch }
        }
        (Lie::Outcomes, ReplicaMessage::Outcome { tx, outcome }) => {
            let outcome = match outcome {
                Outcome::Committed { .. } => Outcome::Aborted { reason: AbortReason::Client },
                Outcome::Aborted { .. } => Outcome::Committed { position: steeldb_types::Position(1) },
            };
            ReplicaMessage::Outcome { tx, outcome }
        }
        (_, message) => message,
    }
}

fn wrong(Digest(mut bytes): Digest) -> Digest {
    bytes[0] ^= 1;
    Digest(bytes)
}
