//! One replica of the simulated cluster: its core, its disk, its application.

use crate::adversary::Adversary;
use steeldb_ordering::{Config, Core, Delivery, InstanceNumber, Record, Restored};
use steeldb_types::ReplicaId;

pub(crate) struct Node {
    pub(crate) id: ReplicaId,
    pub(crate) config: Config,
    /// Nothing while it is down.
    pub(crate) core: Option<Core>,
    pub(crate) adversary: Option<Adversary>,
    /// What survives a power cut.
    pub(crate) durable: Vec<Record>,
    /// Handed to the disk, not yet durable, with their sequences.
    pub(crate) unsynced: Vec<(u64, Record)>,
    /// What the application has executed.
    pub(crate) applied: Vec<Delivery>,
    /// Counts the starts: what was meant for an earlier life is void.
    pub(crate) life: u32,
    /// The wall clock's error, microseconds.
    pub(crate) skew_us: i64,
    /// When the next tick is set.
    pub(crate) tick_at: Option<u64>,
}

impl Node {
    /// Starts, or starts again, from what is durable.
    pub(crate) fn start(&mut self) -> Result<(), String> {
        self.life += 1;
        self.tick_at = None;
        let delivered = InstanceNumber(self.applied.len() as u64);
        let restored = Restored::new(delivered, self.durable.clone());
        self.core = Some(Core::new(self.config.clone(), restored).map_err(|error| error.to_string())?);
        Ok(())
    }

    /// Power is cut: of what the disk had not confirmed some survives, of what the application did last some is lost.
    pub(crate) fn crash(&mut self, survivors: usize, applications_lost: usize) {
        self.core = None;
        let kept = self.unsynced.drain(..).take(survivors).map(|(_, record)| record);
        self.durable.extend(kept);
        self.unsynced.clear();
        let kept = self.applied.len().saturating_sub(applications_lost);
        self.applied.truncate(kept);
    }

    /// The disk confirms everything up to `upto`.
    pub(crate) fn flush(&mut self, upto: u64) {
        let (done, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.unsynced).into_iter().partition(|(sequence, _)| *sequence <= upto);
        self.unsynced = waiting;
        self.durable.extend(done.into_iter().map(|(_, record)| record));
    }
}
