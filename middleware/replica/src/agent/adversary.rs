//! A replica that lies, for chaos: only with the cargo feature `adversary`. The environment variable `STEELDB_ADVERSARY`
//! names a file; as long as that says how, the agent lies so, from one moment to the next and without a restart, as a host
//! does that is taken over. What it signs is signed rightly.
//!
//! One agent per process: what the file says is kept for all of it.

use crate::scheduler::Effect;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use steeldb_types::{Digest, Position};
use steeldb_wire::auth::SecretKey;
use steeldb_wire::transaction::{AbortReason, Outcome, ReplicaMessage, VoteBundle, VoteKind};

/// The environment variable.
const VARIABLE: &str = "STEELDB_ADVERSARY";

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// How it lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lie {
    /// It votes Mismatch on everything that it prepared.
    Mismatch = 1,
    /// Its votes, and what it tells clients, have wrong transcripts.
    Transcripts,
    /// It tells clients wrong outcomes.
    Outcomes,
    /// It shows clients other values than its server gave; what it says to replicas is true.
    Answers,
    /// It says nothing about transactions to anyone, and streams nothing.
    Silent,
}

const LIES: [(&str, Lie); 5] = [
    ("mismatch", Lie::Mismatch),
    ("transcripts", Lie::Transcripts),
    ("outcomes", Lie::Outcomes),
    ("answers", Lie::Answers),
    ("silent", Lie::Silent),
];

/// The lie of the moment; 0: none.
static LIE: AtomicU8 = AtomicU8::new(0);

fn lie() -> Option<Lie> {
    let number = LIE.load(Ordering::Relaxed);
    LIES.iter().map(|(_, lie)| *lie).find(|lie| *lie as u8 == number)
}

/// What twists effects.
pub(super) struct Adversary {
    key: SecretKey,
}

impl Adversary {
    /// Looks at the file from now on, if there is one to look at.
    pub(super) fn start(key: SecretKey) -> Adversary {
        if let Some(file) = std::env::var_os(VARIABLE) {
            tokio::spawn(watch(PathBuf::from(file)));
        }
        Adversary { key }
    }

    /// What becomes of an effect; nothing: it is withheld.
    pub(super) fn twist(&self, effect: Effect) -> Option<Effect> {
        let Some(lie) = lie() else { return Some(effect) };
        match (lie, effect) {
            (
                Lie::Silent,
                Effect::SendVotes(_)
                | Effect::ResendVotes { .. }
                | Effect::SendStream(_)
                | Effect::SendAccusation(_)
                | Effect::Submit(_)
                | Effect::Answer { .. }
                | Effect::Reply { .. },
            ) => None,
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

/// Reads the file again and again.
async fn watch(file: PathBuf) {
    let mut before = None;
    loop {
        let said = tokio::fs::read_to_string(&file).await.unwrap_or_default();
        let lie = LIES.iter().find(|(name, _)| *name == said.trim()).map(|(_, lie)| *lie);
        if lie != before {
            tracing::warn!(?lie, "this replica lies otherwise from now on");
            LIE.store(lie.map_or(0, |lie| lie as u8), Ordering::Relaxed);
            before = lie;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What a client is shown of a result: whole backend messages.
pub(super) fn twist_result(messages: &mut [u8]) {
    if lie() != Some(Lie::Answers) {
        return;
    }
    let mut rest = messages;
    // Tag, then a length that counts itself.
    while let Some(length) = rest.get(1..5).and_then(|bytes| Some(u32::from_be_bytes(bytes.try_into().ok()?)))
    {
        let end = (1 + length as usize).min(rest.len());
        let (message, others) = rest.split_at_mut(end);
        if let [b'D', .., last] = message
            && last.is_ascii_digit()
        {
            *last = if *last == b'9' { b'1' } else { *last + 1 };
        }
        rest = others;
    }
}

fn reply(lie: Lie, message: ReplicaMessage) -> ReplicaMessage {
    match (lie, message) {
        (Lie::Transcripts, ReplicaMessage::Executed { tx, number, transcript, status, drew }) => {
            ReplicaMessage::Executed { tx, number, transcript: wrong(transcript), status, drew }
        }
        (Lie::Transcripts, ReplicaMessage::Transcript { tx, operations, transcript, read_only, .. }) => {
            let (transcript, mismatch) = (wrong(transcript), None);
            ReplicaMessage::Transcript { tx, operations, transcript, read_only, mismatch }
        }
        (Lie::Outcomes, ReplicaMessage::Outcome { tx, outcome }) => {
            let outcome = match outcome {
                Outcome::Committed { .. } => Outcome::Aborted { reason: AbortReason::Client },
                Outcome::Aborted { .. } => Outcome::Committed { position: Position(1) },
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
