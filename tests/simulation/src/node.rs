//! One process of the simulated cluster: its core, disk, clocks and application. Twins are two of them with one
//! identity, so nodes are numbered by themselves.

use crate::adversaries::Adversary;
use crate::application::Application;
use crate::checkpoints::Checkpoints;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::workload::Judge;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use steeldb_ordering::{Config, Core, Effect, Event, Record, Restored};
use steeldb_types::ReplicaId;

pub(crate) struct Node {
    /// Who it says it is.
    pub(crate) id: ReplicaId,
    pub(crate) config: Config,
    /// Nothing while it is down.
    pub(crate) core: Option<Core>,
    /// Whether it is one of the f.
    pub(crate) faulty: bool,
    pub(crate) adversaries: Vec<Box<dyn Adversary>>,
    pub(crate) disk: Disk,
    pub(crate) application: Application,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) clock: Clock,
    /// Counts the starts: what was meant for an earlier life is void.
    pub(crate) life: u32,
    /// When the next tick is set, virtual microseconds.
    pub(crate) tick_at: Option<u64>,
}

impl Node {
    pub(crate) fn new(
        config: Config,
        faulty: bool,
        adversaries: Vec<Box<dyn Adversary>>,
        clock: Clock,
    ) -> Node {
        Node {
            id: config.me,
            config,
            core: None,
            faulty,
            adversaries,
            disk: Disk::default(),
            application: Application::default(),
            checkpoints: Checkpoints::default(),
            clock,
            life: 0,
            tick_at: None,
        }
    }

    /// Starts, or starts again, from what is durable.
    pub(crate) fn start(&mut self) -> Result<(), String> {
        self.life += 1;
        self.tick_at = None;
        let records = self.disk.recover();
        self.catch_up_with(&records)?;
        let restored = Restored::new(self.application.delivered(), records);
        self.core = Some(Core::new(self.config.clone(), restored).map_err(|error| error.to_string())?);
        Ok(())
    }

    /// An application that lost more than its last checkpoint holds begins with that one.
    fn catch_up_with(&mut self, records: &[Record]) -> Result<(), String> {
        let Some(Record::Checkpoint(stable)) = records.first() else { return Ok(()) };
        let instance = stable.certificate.instance;
        match self.checkpoints.state(instance) {
            Some(state) if self.application.delivered() < instance => self.application.restore(&state),
            _ => Ok(()),
        }
    }

    /// Power is cut: of what the disk had not confirmed some survives, of what the application did last some is lost, now
    /// and then all since its last checkpoint.
    pub(crate) fn crash(&mut self, rng: &mut ChaCha8Rng) -> Result<(), String> {
        self.core = None;
        self.disk.cut(rng);
        self.checkpoints.cut();
        self.application.lose_last(rng.random_range(0..3));
        let saved = self.checkpoints.last().and_then(|last| self.checkpoints.state(last));
        match saved.filter(|_| rng.random_bool(0.3)) {
            Some(state) => self.application.restore(&state),
            None => Ok(()),
        }
    }

    /// The machine is replaced by an empty one.
    pub(crate) fn wipe(&mut self) {
        self.disk.wipe();
        self.checkpoints.wipe();
        self.application = Application::default();
    }

    pub(crate) fn handle(&mut self, now_us: u64, event: Event) {
        if let Some(core) = &mut self.core {
            core.handle(self.clock.read(now_us), event, &Judge);
        }
    }

    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        self.core.as_mut()?.poll_effect()
    }

    /// When the next tick is due, virtual time.
    pub(crate) fn due_us(&self) -> Option<u64> {
        let local_us = self.core.as_ref()?.next_timeout()?;
        Some(self.clock.virtual_us(local_us))
    }
}
