//! What replicas do about checkpoints: write them, hand them out, take them over.

use super::{Happening, World};
use rand::Rng;
use steeldb_ordering::{Event, InstanceNumber};

impl World<'_> {
    pub(super) fn take_checkpoint(&mut self, at: usize, instance: InstanceNumber) {
        let node = &mut self.nodes[at];
        let (id, faulty, delivered) = (node.id, node.faulty, node.application.delivered());
        if delivered != instance {
            if faulty {
                return;
            }
            let what = format!("{id} is asked for its state at {instance}, and is at {delivered}");
            self.failure.get_or_insert(("checkpoints", what));
            return;
        }
        let state = node.application.snapshot();
        node.checkpoints.write(instance, &state);
        self.checkpoint_later(at, instance, false);
    }

    pub(super) fn install_checkpoint(&mut self, at: usize, instance: InstanceNumber, chunks: u32) {
        self.nodes[at].checkpoints.complete(instance, chunks);
        self.checkpoint_later(at, instance, true);
    }

    fn checkpoint_later(&mut self, at: usize, instance: InstanceNumber, fetched: bool) {
        let write_us = self.rng.random_range(50..self.scenario.power.disk_max_us);
        let life = self.nodes[at].life;
        self.at(self.now_us + write_us, Happening::Checkpointed { at, life, instance, fetched });
    }

    /// A state is durable; a fetched one takes the place of the application's.
    pub(super) fn checkpointed(&mut self, at: usize, life: u32, instance: InstanceNumber, fetched: bool) {
        let node = &mut self.nodes[at];
        if node.life != life || node.core.is_none() {
            return;
        }
        let (id, faulty) = (node.id, node.faulty);
        let written = node.checkpoints.flush(instance);
        if !fetched {
            let Some(chunks) = written else { return };
            self.note(&format!("{id} has its state at {instance}"));
            return self.handle(at, Event::CheckpointTaken { instance, chunks });
        }
        let state = node.checkpoints.state(instance).ok_or_else(|| "it is not there".to_string());
        match state.and_then(|state| node.application.restore(&state)) {
            Ok(()) => {
                self.note(&format!("{id} takes over the state at {instance}"));
                self.show_applied(at);
                self.handle(at, Event::CheckpointInstalled { instance });
            }
            Err(_) if faulty => {}
            Err(reason) => {
                let what = format!("{id} cannot take over the state at {instance}: {reason}");
                self.failure.get_or_insert(("checkpoints", what));
            }
        }
    }
}
