//! State transfer: a replica that lacks decisions which nobody keeps any more fetches a stable checkpoint.
//!
//! Invariants: nothing is asked for that is not certified, so what comes is bounded by what a correct replica signed;
//! every part is judged by its digest when it comes; who sends a wrong part or none in time is replaced by another.

use crate::checkpoint::{Checkpoint, CheckpointCertificate, StableCheckpoint};
use crate::config::PlantedBug;
use crate::core::{Context, Core};
use crate::effect::Effect;
use crate::message::{Message, Part};
use crate::record::Record;
use crate::{Decision, InstanceNumber};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use steeldb_types::{FaultModel, ReplicaId, limits};
use steeldb_wire::codec;

/// Chunks asked for at once.
const WINDOW: usize = 4;

/// Where a state transfer stands.
#[derive(Default)]
pub(crate) struct Transfer {
    /// By replica, the checkpoint it offered instead of the decisions that it was asked for.
    offers: BTreeMap<ReplicaId, Arc<CheckpointCertificate>>,
    fetching: Option<Fetching>,
    /// Decisions that made views, verified, by instance.
    views: BTreeMap<InstanceNumber, Arc<Decision>>,
    /// All parts are there, and the application is taking them over.
    installing: Option<Arc<StableCheckpoint>>,
}

struct Fetching {
    certificate: Arc<CheckpointCertificate>,
    checkpoint: Option<Checkpoint>,
    /// The core's chunks that have come.
    core: BTreeMap<u32, Vec<u8>>,
    missing: BTreeSet<u32>,
    asked: BTreeSet<u32>,
    sender: ReplicaId,
    /// When the sender is given up.
    due: u64,
}

impl Transfer {
    pub(crate) fn due(&self) -> Option<u64> {
        self.fetching.as_ref().map(|fetching| fetching.due)
    }

    pub(crate) fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.offers.is_empty() && self.fetching.is_none() && self.installing.is_none()
    }

    /// Decisions came after all.
    pub(crate) fn give_up(&mut self, last: InstanceNumber) {
        self.offers.retain(|_, offer| offer.instance > last);
        self.fetching.take_if(|fetching| fetching.certificate.instance <= last);
    }

    /// Starts from a checkpoint of this replica's own log that its application does not have.
    pub(crate) fn restore(&mut self, certificate: CheckpointCertificate, me: ReplicaId) {
        self.fetching = Some(Fetching::new(Arc::new(certificate), me));
    }
}

impl Fetching {
    fn new(certificate: Arc<CheckpointCertificate>, sender: ReplicaId) -> Fetching {
        Fetching {
            certificate,
            checkpoint: None,
            core: BTreeMap::new(),
            missing: BTreeSet::new(),
            asked: BTreeSet::new(),
            sender,
            due: 0,
        }
    }
}

impl Core {
    /// A peer does not keep the decisions it was asked for. Once that is true of a correct one, its checkpoint is
    /// fetched: one liar cannot make a replica that is a little behind fetch a whole state. In the crash model nobody
    /// lies, and there may be only one other that has not crashed.
    pub(crate) fn on_checkpoint_offer(
        &mut self,
        cx: &Context<'_>,
        from: ReplicaId,
        certificate: Arc<CheckpointCertificate>,
        views: &[Arc<Decision>],
    ) {
        let newest = self.transfer.fetching.as_ref().map(|fetching| fetching.certificate.instance);
        let wanted = newest.max(Some(self.last_decided())).unwrap_or_default();
        if self.transfer.is_installing() || certificate.instance <= wanted {
            // The sender does not have it any more.
            let soon = cx.now.monotonic_us.saturating_add(self.resend_us() / 4);
            if let Some(fetching) = self.transfer.fetching.as_mut().filter(|f| f.sender == from) {
                fetching.due = fetching.due.min(soon);
            }
            return;
        }
        let mut chain = self.membership.chain().clone();
        let followed = views.iter().try_for_each(|decision| chain.follow(decision).map(|_| ()));
        if !self.config.has(PlantedBug::CheckpointOfOne)
            && let Err(reason) = followed
                .and_then(|()| certificate.verify(&chain))
                .and_then(|()| self.check_proofs(&certificate))
        {
            self.effects.misbehaved(from, reason);
            return;
        }
        for decision in views {
            self.transfer.views.insert(decision.instance(), Arc::clone(decision));
        }
        self.transfer.offers.insert(from, certificate);
        let view = self.membership.view();
        if self.transfer.fetching.is_none()
            && view.model() == FaultModel::Byzantine
            && !view.has_correct(self.transfer.offers.keys().copied())
        {
            return self.fetch_from_next();
        }
        let newest = self.transfer.offers.iter().max_by_key(|(_, offer)| offer.instance);
        let Some((sender, offer)) = newest else { return };
        self.transfer.fetching = Some(Fetching::new(Arc::clone(offer), *sender));
        self.ask_for_parts(cx);
    }

    /// Whoever starts from a checkpoint shows as many proofs in its STOPDATA as others, or a new leader could not tell
    /// what is decided when all have started from checkpoints.
    fn check_proofs(&self, certificate: &CheckpointCertificate) -> Result<(), String> {
        let needed = (self.config.window as u64).min(certificate.instance.0);
        if (certificate.last.len() as u64) < needed {
            return Err(format!("a checkpoint with {} proofs of {needed}", certificate.last.len()));
        }
        Ok(())
    }

    /// Asks the sender for what is missing and was not asked for.
    fn ask_for_parts(&mut self, cx: &Context<'_>) {
        let due = cx.now.monotonic_us.saturating_add(self.resend_us().saturating_mul(4));
        let Some(fetching) = &mut self.transfer.fetching else { return };
        let (instance, sender) = (fetching.certificate.instance, fetching.sender);
        fetching.due = due;
        if fetching.checkpoint.is_none() {
            self.effects.send(sender, Message::FetchState { instance, part: Part::Contents });
            return;
        }
        let wanted: Vec<u32> = fetching.missing.difference(&fetching.asked).take(WINDOW).copied().collect();
        for chunk in wanted {
            if fetching.asked.len() >= WINDOW {
                break;
            }
            fetching.asked.insert(chunk);
            self.effects.send(sender, Message::FetchState { instance, part: Part::Chunk(chunk) });
        }
    }

    /// Asks the next replica for what is missing.
    fn change_sender(&mut self, cx: &Context<'_>) {
        let Some(fetching) = &mut self.transfer.fetching else { return };
        let after = self.membership.peers().find(|peer| *peer > fetching.sender);
        let Some(next) = after.or_else(|| self.membership.peers().next()) else { return };
        fetching.sender = next;
        fetching.asked.clear();
        self.ask_for_parts(cx);
    }

    /// The sender is silent, or decisions have come after all.
    pub(crate) fn on_transfer_timer(&mut self, cx: &Context<'_>) {
        if self.transfer.due().is_some_and(|due| due <= cx.now.monotonic_us) {
            self.change_sender(cx);
        }
    }

    pub(crate) fn on_state(
        &mut self,
        cx: &Context<'_>,
        from: ReplicaId,
        instance: InstanceNumber,
        part: Part,
        bytes: Vec<u8>,
    ) {
        let Some(fetching) = &mut self.transfer.fetching else { return };
        if fetching.certificate.instance != instance || fetching.sender != from {
            return;
        }
        let taken = match part {
            Part::Contents if fetching.checkpoint.is_some() => return,
            Part::Contents => fetching.take_contents(&bytes),
            Part::Chunk(chunk) if !fetching.asked.contains(&chunk) => return,
            Part::Chunk(chunk) => match fetching.judge_chunk(chunk, &bytes) {
                Ok(Some(application)) => {
                    self.effects.push(Effect::StoreChunk { instance, chunk: application, bytes });
                    Ok(())
                }
                Ok(None) => {
                    fetching.core.insert(chunk, bytes);
                    Ok(())
                }
                Err(reason) => Err(reason),
            },
        };
        match taken {
            Ok(()) => {
                self.ask_for_parts(cx);
                self.try_install();
            }
            Err(reason) => {
                self.effects.misbehaved(from, reason);
                self.change_sender(cx);
            }
        }
    }

    /// All parts are there: the application takes them over, once the checkpoint itself is durable.
    fn try_install(&mut self) {
        let Some(fetching) =
            self.transfer.fetching.take_if(|f| f.checkpoint.is_some() && f.missing.is_empty())
        else {
            return;
        };
        let Some(checkpoint) = fetching.checkpoint else { return };
        let certificate = CheckpointCertificate::clone(&fetching.certificate);
        let core = fetching.core.into_values().flatten().collect();
        let views = std::mem::take(&mut self.transfer.views).into_values().collect();
        let stable = Arc::new(StableCheckpoint { certificate, checkpoint, core, views });
        if stable.core_state().is_err() {
            // No correct replica signed such a thing: more than f replicas are faulty.
            return;
        }
        let instance = stable.certificate.instance;
        let chunks = stable.checkpoint.chunks.len() as u32 - stable.checkpoint.core_chunks;
        self.effects.persist(Record::Checkpoint(Arc::clone(&stable)));
        self.revoke();
        self.effects.push(Effect::InstallCheckpoint { instance, chunks });
        self.transfer.installing = Some(stable);
    }

    /// The application has taken over the checkpoint: the order goes on behind it.
    pub(crate) fn on_checkpoint_installed(&mut self, cx: &Context<'_>, instance: InstanceNumber) {
        let Some(stable) = self.transfer.installing.take_if(|stable| stable.certificate.instance == instance)
        else {
            return;
        };
        let Ok(state) = stable.core_state() else { return };
        self.transfer.offers.clear();
        // It may have been further, when it was this replica's log that was lost.
        self.delivered = instance;
        self.adopt_state(state, &stable);
        self.checkpoints.hold(stable, cx.now.monotonic_us);
        self.drop_before(cx.now.monotonic_us, instance);
        self.resend_at = None;
        self.read_own_decisions();
        self.fetch_from_next();
    }
}

impl Fetching {
    fn take_contents(&mut self, bytes: &[u8]) -> Result<(), String> {
        let checkpoint: Checkpoint =
            codec::decode(bytes, limits::FRAME_BYTES_MAX).map_err(|error| error.to_string())?;
        let certificate = &self.certificate;
        if checkpoint.digest() != certificate.digest
            || checkpoint.instance != certificate.instance
            || !checkpoint.is_well_formed()
        {
            return Err("sent another checkpoint than the certified one".into());
        }
        self.missing = (0..checkpoint.chunks.len() as u32).collect();
        self.checkpoint = Some(checkpoint);
        Ok(())
    }

    /// Whether a chunk that was asked for is the right one, and which of the application's it is; nothing: the core's.
    fn judge_chunk(&mut self, chunk: u32, bytes: &[u8]) -> Result<Option<u32>, String> {
        let Some(checkpoint) = &self.checkpoint else { return Err("a chunk before the contents".into()) };
        if bytes.len() > limits::CHECKPOINT_CHUNK_BYTES
            || checkpoint.chunks.get(chunk as usize) != Some(&Checkpoint::chunk_digest(bytes))
        {
            return Err(format!("sent a wrong chunk {chunk} of the checkpoint at {}", checkpoint.instance));
        }
        self.asked.remove(&chunk);
        self.missing.remove(&chunk);
        Ok(chunk.checked_sub(checkpoint.core_chunks))
    }
}
