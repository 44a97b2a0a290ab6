//! A replica's checkpoints: states of its application in chunks, on a disk of their own, and the chunks of one that is
//! being fetched.

use std::collections::BTreeMap;
use steeldb_ordering::{Checkpoint, InstanceNumber};
use steeldb_types::Digest;

/// Small, so that a state has several chunks.
const CHUNK_BYTES: usize = 160;

#[derive(Default)]
pub(crate) struct Checkpoints {
    /// By instance, what survives a power cut.
    durable: BTreeMap<InstanceNumber, Vec<Vec<u8>>>,
    /// Not wholly written yet.
    unsynced: BTreeMap<InstanceNumber, Vec<Vec<u8>>>,
    fetched: BTreeMap<(InstanceNumber, u32), Vec<u8>>,
}

impl Checkpoints {
    /// Begins to write a state.
    pub(crate) fn write(&mut self, instance: InstanceNumber, state: &[u8]) {
        self.unsynced.insert(instance, state.chunks(CHUNK_BYTES).map(<[u8]>::to_vec).collect());
    }

    /// A state is written: the digests of its chunks.
    pub(crate) fn flush(&mut self, instance: InstanceNumber) -> Option<Vec<Digest>> {
        let chunks = self.unsynced.remove(&instance)?;
        let digests = chunks.iter().map(|chunk| Checkpoint::chunk_digest(chunk)).collect();
        self.durable.insert(instance, chunks);
        Some(digests)
    }

    pub(crate) fn chunk(&self, instance: InstanceNumber, chunk: u32) -> Option<Vec<u8>> {
        self.durable.get(&instance)?.get(usize::try_from(chunk).ok()?).cloned()
    }

    /// Keeps a chunk of another replica's.
    pub(crate) fn store(&mut self, instance: InstanceNumber, chunk: u32, bytes: Vec<u8>) {
        self.fetched.insert((instance, chunk), bytes);
    }

    /// All chunks of a fetched state are there: begins to write it.
    pub(crate) fn complete(&mut self, instance: InstanceNumber, chunks: u32) {
        let fetched = (0..chunks).filter_map(|chunk| self.fetched.remove(&(instance, chunk)));
        let fetched: Vec<Vec<u8>> = fetched.collect();
        // What is here already may have been fetched before a restart.
        if fetched.len() == chunks as usize {
            self.unsynced.insert(instance, fetched);
        }
    }

    /// A state that is wholly written.
    pub(crate) fn state(&self, instance: InstanceNumber) -> Option<Vec<u8>> {
        self.durable.get(&instance).map(|chunks| chunks.concat())
    }

    /// The last one.
    pub(crate) fn last(&self) -> Option<InstanceNumber> {
        self.durable.last_key_value().map(|(instance, _)| *instance)
    }

    pub(crate) fn drop_before(&mut self, before: InstanceNumber) {
        self.durable = self.durable.split_off(&before);
        self.unsynced = self.unsynced.split_off(&before);
        self.fetched = self.fetched.split_off(&(before, 0));
    }

    /// Power is cut: what was not wholly written is gone.
    pub(crate) fn cut(&mut self) {
        self.unsynced.clear();
        self.fetched.clear();
    }

    /// Everything is gone.
    pub(crate) fn wipe(&mut self) {
        *self = Checkpoints::default();
    }
}
