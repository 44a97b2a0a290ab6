//! Taking checkpoints, agreeing on them, and handing their parts to replicas that are behind.
//!
//! Invariants: a replica signs only what it computed from the order itself, after its application has made it durable;
//! the log is cut only behind a checkpoint that this replica holds, is stable, and is durable in the log.

use crate::checkpoint::{
    Checkpoint, CheckpointCertificate, CoreState, StableCheckpoint, core_chunks, sign_vote, verify_vote,
};
use crate::config::PlantedBug;
use crate::core::{Context, Core};
use crate::effect::Effect;
use crate::message::{Message, Part};
use crate::proof::Proof;
use crate::record::Record;
use crate::{InstanceNumber, Regency};
use std::collections::BTreeMap;
use std::sync::Arc;
use steeldb_types::{Digest, ReplicaId, limits};
use steeldb_wire::auth::Signature;
use steeldb_wire::codec;

/// Checkpoints that the application has not answered for: past it, the next ones are left out.
const UNANSWERED_MAX: usize = 2;
/// Own checkpoints that wait for others' signatures: the oldest are forgotten.
const UNSTABLE_MAX: usize = 4;
/// Signed digests remembered of one replica: the oldest are forgotten.
const VOTES_PER_REPLICA_MAX: usize = 4;
/// Stable checkpoints held for others that are fetching them.
const HELD_MAX: usize = 3;
/// Chunks of the application's that one peer may have asked for at once.
const READS_PER_PEER_MAX: u32 = 8;

/// What this replica knows of checkpoints.
#[derive(Default)]
pub(crate) struct Checkpoints {
    /// Own ones that are not stable, by instance.
    own: BTreeMap<InstanceNumber, Own>,
    /// By replica and instance, what it signed.
    votes: BTreeMap<ReplicaId, BTreeMap<InstanceNumber, CheckpointVote>>,
    /// Stable ones that this replica holds, with the time that a part was last served.
    held: BTreeMap<InstanceNumber, (Arc<StableCheckpoint>, u64)>,
    /// Chunks that the application is reading, by the peer that wants them.
    reading: BTreeMap<ReplicaId, u32>,
    /// Where this replica's state is known to differ from what others signed.
    differs_at: Option<InstanceNumber>,
}

#[derive(Clone, Copy)]
struct CheckpointVote {
    digest: Digest,
    signature: Signature,
    /// Not before this replica has got there itself: only then does it know whose signatures count.
    verified: bool,
}

struct Own {
    state: CoreState,
    last: Vec<Proof>,
    /// Nothing until the application has answered.
    checkpoint: Option<Checkpoint>,
}

impl Checkpoints {
    /// The last stable one that this replica holds.
    pub(crate) fn stable(&self) -> Option<&Arc<StableCheckpoint>> {
        self.held.last_key_value().map(|(_, (stable, _))| stable)
    }

    /// Reads a stable checkpoint back; older ones are not needed any more.
    pub(crate) fn restore(&mut self, stable: Arc<StableCheckpoint>) {
        self.held.clear();
        self.hold(stable, 0);
    }

    /// Takes in a stable checkpoint that this replica's state is built on.
    pub(crate) fn hold(&mut self, stable: Arc<StableCheckpoint>, now: u64) {
        let instance = stable.certificate.instance;
        self.own = self.own.split_off(&instance.next());
        for votes in self.votes.values_mut() {
            *votes = votes.split_off(&instance.next());
        }
        self.held.insert(instance, (stable, now));
    }

    /// Forgets old ones that nobody fetches any more; says before which instance all are forgotten.
    fn forget(&mut self, now: u64, patience: u64) -> InstanceNumber {
        while self.held.len() > 1
            && let Some(oldest) = self.held.first_entry()
            && (oldest.get().1.saturating_add(patience) < now || self.held.len() > HELD_MAX)
        {
            self.held.pop_first();
        }
        self.held.first_key_value().map_or(InstanceNumber(0), |(instance, _)| *instance)
    }
}

impl Core {
    /// Asks the application for a checkpoint when one is due after `instance`, the last one.
    pub(crate) fn take_checkpoint(&mut self, instance: InstanceNumber) {
        let interval = self.config.checkpoint_interval;
        if interval == 0 || !instance.0.is_multiple_of(interval) {
            return;
        }
        let last = self.log.last_proofs();
        let own = &mut self.checkpoints.own;
        if own.values().filter(|own| own.checkpoint.is_none()).count() >= UNANSWERED_MAX {
            return;
        }
        let state = CoreState {
            instance,
            position: self.log.position(),
            timestamp: self.log.last_timestamp(),
            history: self.log.history(),
            clients: self.clients.clone(),
            views: self.membership.views(),
        };
        own.insert(instance, Own { state, last, checkpoint: None });
        if own.len() > UNSTABLE_MAX {
            own.pop_first();
        }
        self.effects.push(Effect::TakeCheckpoint { instance });
    }

    pub(crate) fn on_checkpoint_taken(&mut self, instance: InstanceNumber, chunks: Vec<Digest>) {
        let me = self.config.me;
        let Some(own) = self.checkpoints.own.get_mut(&instance) else { return };
        if own.checkpoint.is_some() || chunks.len() + core_chunks_max() > limits::CHECKPOINT_CHUNKS_MAX {
            return;
        }
        let view = own.state.view();
        let checkpoint = Checkpoint::new(&own.state, &codec::encode(&own.state), chunks);
        let digest = checkpoint.digest();
        own.checkpoint = Some(checkpoint);
        if self.membership.roster_of(view).is_none_or(|roster| roster.key(me).is_none()) {
            // Who was removed, or has yet to join, has no say.
            return;
        }
        let signature = sign_vote(view, instance, digest, &self.config.key);
        let votes = self.checkpoints.votes.entry(me).or_default();
        votes.insert(instance, CheckpointVote { digest, signature, verified: true });
        if votes.len() > VOTES_PER_REPLICA_MAX {
            votes.pop_first();
        }
        self.effects.broadcast(Message::Checkpoint { instance, digest, signature });
    }

    pub(crate) fn on_checkpoint(
        &mut self,
        cx: &Context<'_>,
        from: ReplicaId,
        instance: InstanceNumber,
        digest: Digest,
        signature: Signature,
    ) {
        let interval = self.config.checkpoint_interval;
        if interval == 0
            || !instance.0.is_multiple_of(interval)
            || self.checkpoints.stable().is_some_and(|stable| instance <= stable.certificate.instance)
        {
            return;
        }
        let votes = self.checkpoints.votes.entry(from).or_default();
        if votes.contains_key(&instance) {
            return;
        }
        votes.insert(instance, CheckpointVote { digest, signature, verified: false });
        if votes.len() > VOTES_PER_REPLICA_MAX {
            votes.pop_first();
        }
        self.note_ahead(cx, from, instance, Regency::default());
    }

    /// A checkpoint of this replica's that replicas of more than the faulty weight signed is stable.
    pub(crate) fn try_stabilize(&mut self, cx: &Context<'_>) -> bool {
        let own: Vec<InstanceNumber> = self.checkpoints.own.keys().rev().copied().collect();
        own.into_iter().any(|instance| self.stabilize(cx, instance))
    }

    fn stabilize(&mut self, cx: &Context<'_>, instance: InstanceNumber) -> bool {
        let Some(own) = self.checkpoints.own.get(&instance) else { return false };
        let Some(checkpoint) = &own.checkpoint else { return false };
        let digest = checkpoint.digest();
        let Some(roster) = self.membership.roster_of(own.state.view()) else { return false };
        let view = roster.view();
        let mut signers: BTreeMap<Digest, Vec<(ReplicaId, Signature)>> = BTreeMap::new();
        for (replica, votes) in &mut self.checkpoints.votes {
            let Some(vote) = votes.get_mut(&instance).filter(|_| view.contains(*replica)) else { continue };
            if !vote.verified
                && let Err(reason) = verify_vote(instance, vote.digest, *replica, &vote.signature, roster)
            {
                self.effects.misbehaved(*replica, reason);
                votes.remove(&instance);
                continue;
            }
            vote.verified = true;
            signers.entry(vote.digest).or_default().push((*replica, vote.signature));
        }
        let one_is_enough = self.config.has(PlantedBug::CheckpointOfOne);
        let mut enough = signers.into_iter().filter(|(_, signatures)| {
            one_is_enough || view.exceeds_faulty_weight(signatures.iter().map(|(replica, _)| *replica))
        });
        let Some((agreed, signatures)) = enough.next() else { return false };
        if agreed != digest {
            // A correct replica computed something else: the state here is not what the order makes of it.
            if self.checkpoints.differs_at.is_none() {
                self.checkpoints.differs_at = Some(instance);
                self.effects.push(Effect::StateDiffers { instance });
            }
            return false;
        }
        let certificate = CheckpointCertificate {
            view: view.number(),
            instance,
            digest,
            signatures,
            last: own.last.clone(),
        };
        let core = codec::encode(&own.state);
        let views = self.membership.chain().certificates_upto(certificate.view);
        let stable = Arc::new(StableCheckpoint { certificate, checkpoint: checkpoint.clone(), core, views });
        self.checkpoints.hold(Arc::clone(&stable), cx.now.monotonic_us);
        self.effects.persist(Record::Checkpoint(stable));
        self.drop_before(cx.now.monotonic_us, instance);
        true
    }

    /// Lets go of what a stable checkpoint makes superfluous. Runs once the checkpoint's record is durable.
    pub(crate) fn drop_before(&mut self, now_us: u64, instance: InstanceNumber) {
        let kept = instance.0.saturating_sub(self.config.decisions_kept);
        self.effects.push(Effect::Truncate { before: InstanceNumber(kept).next() });
        let before = self.checkpoints.forget(now_us, self.checkpoint_patience_us());
        self.effects.push(Effect::DropCheckpoints { before });
    }

    /// How long an old checkpoint is held after a part of it was served.
    fn checkpoint_patience_us(&self) -> u64 {
        self.timeout_us().saturating_mul(8)
    }

    /// Shows the last stable checkpoint to a replica that wants decisions which are not kept any more.
    pub(crate) fn offer_checkpoint(&mut self, peer: ReplicaId) {
        if let Some(stable) = self.checkpoints.stable() {
            let (certificate, views) = (Arc::new(stable.certificate.clone()), stable.views.clone());
            self.effects.send(peer, Message::CheckpointOffer { certificate, views });
        }
    }

    pub(crate) fn on_fetch_state(
        &mut self,
        cx: &Context<'_>,
        peer: ReplicaId,
        instance: InstanceNumber,
        part: Part,
    ) {
        let Some((stable, served_at)) = self.checkpoints.held.get_mut(&instance) else {
            return self.offer_checkpoint(peer);
        };
        *served_at = cx.now.monotonic_us;
        let bytes = match part {
            Part::Contents => codec::encode(&stable.checkpoint),
            Part::Chunk(chunk) if chunk < stable.checkpoint.core_chunks => {
                core_chunks(&stable.core).nth(chunk as usize).unwrap_or_default().to_vec()
            }
            Part::Chunk(chunk) if (chunk as usize) < stable.checkpoint.chunks.len() => {
                let chunk = chunk - stable.checkpoint.core_chunks;
                let reading = self.checkpoints.reading.entry(peer).or_default();
                if *reading < READS_PER_PEER_MAX {
                    *reading += 1;
                    self.effects.push(Effect::ReadChunk { peer, instance, chunk });
                }
                return;
            }
            Part::Chunk(chunk) => {
                self.effects.misbehaved(peer, format!("asked for chunk {chunk} of {instance}"));
                return;
            }
        };
        self.effects.send(peer, Message::State { instance, part, bytes });
    }

    pub(crate) fn on_chunk_read(
        &mut self,
        peer: ReplicaId,
        instance: InstanceNumber,
        chunk: u32,
        bytes: Option<Vec<u8>>,
    ) {
        if let Some(reading) = self.checkpoints.reading.get_mut(&peer) {
            *reading = reading.saturating_sub(1);
        }
        let held = self.checkpoints.held.get(&instance).zip(bytes);
        let Some(((stable, _), bytes)) = held else { return self.offer_checkpoint(peer) };
        let part = Part::Chunk(stable.checkpoint.core_chunks.saturating_add(chunk));
        self.effects.send(peer, Message::State { instance, part, bytes });
    }

    /// Sends this replica's last own checkpoint again.
    pub(crate) fn resend_checkpoint(&mut self, peer: ReplicaId) {
        let votes = self.checkpoints.votes.get(&self.config.me);
        if let Some((instance, vote)) = votes.and_then(|votes| votes.last_key_value()) {
            let (instance, digest, signature) = (*instance, vote.digest, vote.signature);
            self.effects.send(peer, Message::Checkpoint { instance, digest, signature });
        }
    }
}

/// Room left for the core's own chunks.
fn core_chunks_max() -> usize {
    limits::CHECKPOINT_CHUNKS_MAX / 16
}
