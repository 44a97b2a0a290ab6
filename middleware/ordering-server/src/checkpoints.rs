//! Checkpoints of the application on disk: one file each, written, read and fetched on a thread of its own.
//!
//! A file says nothing about itself. What it must hold is in the log's record of the stable checkpoint, which is durable
//! after the file where this replica took the checkpoint, and before it where the state was fetched. So a file counts
//! only if its chunks have the record's digests, whatever it went through; else the state is fetched from others.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use steeldb_ordering::{Checkpoint, InstanceNumber, StableCheckpoint};
use steeldb_ordering_log::Disk;
use steeldb_types::{Digest, limits};

/// What takes the digests of a checkpoint's chunks once it is durable; nothing when it could not be written.
pub type TakeDigests = Box<dyn FnOnce(Option<Vec<Digest>>) + Send>;
/// What takes a chunk; nothing when it is not there.
pub type TakeChunk = Box<dyn FnOnce(Option<Vec<u8>>) + Send>;
/// What takes a whole state that is durable, or why there is none.
pub type TakeState = Box<dyn FnOnce(Result<Vec<u8>, String>) + Send>;

enum Command {
    Write(InstanceNumber, Vec<u8>, TakeDigests),
    ReadChunk(InstanceNumber, u32, TakeChunk),
    StoreChunk(InstanceNumber, u32, Vec<u8>),
    Complete(InstanceNumber, u32, TakeState),
    DropBefore(InstanceNumber),
}

/// The application's part of checkpoints. What is asked for is done in order.
pub struct CheckpointStore {
    sender: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl CheckpointStore {
    /// A store in the files of `disk`, which holds nothing else.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn open(disk: Arc<dyn Disk>) -> io::Result<CheckpointStore> {
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new().name("checkpoints".into()).spawn(move || {
            let mut files = Files { disk, fetching: None };
            while let Ok(command) = receiver.recv() {
                files.run(command);
            }
        })?;
        Ok(CheckpointStore { sender: Some(sender), thread: Some(thread) })
    }

    /// Writes a checkpoint of this replica's own.
    pub fn write(&self, instance: InstanceNumber, state: Vec<u8>, answer: TakeDigests) {
        self.send(Command::Write(instance, state, answer));
    }

    /// Reads a chunk of one.
    pub fn read_chunk(&self, instance: InstanceNumber, chunk: u32, answer: TakeChunk) {
        self.send(Command::ReadChunk(instance, chunk, answer));
    }

    /// Keeps a chunk of one that is being fetched.
    pub fn store_chunk(&self, instance: InstanceNumber, chunk: u32, bytes: Vec<u8>) {
        self.send(Command::StoreChunk(instance, chunk, bytes));
    }

    /// Makes one that was fetched durable, and reads it.
    pub fn complete(&self, instance: InstanceNumber, chunks: u32, answer: TakeState) {
        self.send(Command::Complete(instance, chunks, answer));
    }

    /// Removes those before an instance.
    pub fn drop_before(&self, before: InstanceNumber) {
        self.send(Command::DropBefore(before));
    }

    fn send(&self, command: Command) {
        if let Some(sender) = &self.sender {
            // The thread ends with the sender alone.
            let _ = sender.send(command);
        }
    }
}

impl Drop for CheckpointStore {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads the state of a stable checkpoint, if it is all there and as it was certified.
pub fn load(disk: &dyn Disk, stable: &StableCheckpoint) -> Option<Vec<u8>> {
    let checkpoint = &stable.checkpoint;
    let state = disk.read(&file_of(stable.certificate.instance)).ok()?;
    let certified = checkpoint.chunks.get(checkpoint.core_chunks as usize..)?;
    digests(&state).eq(certified.iter().copied()).then_some(state)
}

fn file_of(instance: InstanceNumber) -> String {
    format!("checkpoint-{:012}", instance.0)
}

fn instance_of(file: &str) -> Option<InstanceNumber> {
    file.strip_prefix("checkpoint-")?.parse().ok().map(InstanceNumber)
}

fn digests(state: &[u8]) -> impl Iterator<Item = Digest> {
    state.chunks(limits::CHECKPOINT_CHUNK_BYTES).map(Checkpoint::chunk_digest)
}

struct Files {
    disk: Arc<dyn Disk>,
    /// The one being fetched, and why not all of its chunks could be kept.
    fetching: Option<(InstanceNumber, io::Result<()>)>,
}

impl Files {
    fn run(&mut self, command: Command) {
        match command {
            Command::Write(instance, state, answer) => {
                let chunks: Vec<Digest> = digests(&state).collect();
                let written = self.write(instance, &state);
                if let Err(error) = &written {
                    tracing::error!(%error, "the checkpoint after {instance} cannot be written; the log is not cut");
                }
                answer(written.is_ok().then_some(chunks));
            }
            Command::ReadChunk(instance, chunk, answer) => {
                let read = self.read_chunk(instance, chunk);
                answer(
                    read.inspect_err(|error| tracing::warn!(%error, "no chunk {chunk} of {instance}")).ok(),
                );
            }
            Command::StoreChunk(instance, chunk, bytes) => {
                let so_far = match self.fetching.take() {
                    Some((known, so_far)) if known == instance => so_far,
                    _ => self.remove(instance),
                };
                let offset = u64::from(chunk) * limits::CHECKPOINT_CHUNK_BYTES as u64;
                let kept = so_far.and_then(|()| self.disk.write_at(&file_of(instance), offset, &bytes));
                self.fetching = Some((instance, kept));
            }
            Command::Complete(instance, chunks, answer) => answer(self.complete(instance, chunks)),
            Command::DropBefore(before) => {
                if let Err(error) = self.drop_before(before) {
                    tracing::warn!(%error, "old checkpoints cannot be removed");
                }
            }
        }
    }

    fn write(&self, instance: InstanceNumber, state: &[u8]) -> io::Result<()> {
        self.remove(instance)?;
        let file = file_of(instance);
        self.disk.write_at(&file, 0, state)?;
        self.disk.sync(&file)?;
        self.disk.sync_names()
    }

    /// One may be left of an earlier life, and longer.
    fn remove(&self, instance: InstanceNumber) -> io::Result<()> {
        match self.disk.remove(&file_of(instance)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn read_chunk(&self, instance: InstanceNumber, chunk: u32) -> io::Result<Vec<u8>> {
        const BYTES: u64 = limits::CHECKPOINT_CHUNK_BYTES as u64;
        let (file, offset) = (file_of(instance), u64::from(chunk) * BYTES);
        let end = self.disk.length(&file)?;
        self.disk.read_at(&file, offset, end.saturating_sub(offset).min(BYTES) as usize)
    }

    fn complete(&mut self, instance: InstanceNumber, chunks: u32) -> Result<Vec<u8>, String> {
        let file = file_of(instance);
        let kept = match self.fetching.take() {
            Some((known, kept)) if known == instance => kept,
            // Nothing came: an empty state.
            _ => self.remove(instance).and_then(|()| self.disk.write_at(&file, 0, &[])),
        };
        let read = || {
            self.disk.sync(&file)?;
            self.disk.sync_names()?;
            self.disk.read(&file)
        };
        let state = kept.and_then(|()| read());
        let whole = state.and_then(|state| match digests(&state).count() == chunks as usize {
            true => Ok(state),
            false => Err(io::Error::other("chunks are missing")),
        });
        whole.map_err(|error| format!("{}/{file}: {error}", self.disk.name()))
    }

    fn drop_before(&self, before: InstanceNumber) -> io::Result<()> {
        for file in self.disk.list()? {
            if instance_of(&file).is_some_and(|instance| instance < before) {
                self.disk.remove(&file)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeldb_ordering_log::SimulatedDisk;

    const CHUNK: usize = limits::CHECKPOINT_CHUNK_BYTES;
    const AT: InstanceNumber = InstanceNumber(7);

    fn store() -> (SimulatedDisk, CheckpointStore) {
        let disk = SimulatedDisk::new();
        (disk.clone(), CheckpointStore::open(Arc::new(disk)).unwrap())
    }

    /// Runs a question and waits for its answer.
    fn ask<T: Send + 'static>(question: impl FnOnce(Box<dyn FnOnce(T) + Send>)) -> T {
        let (sender, receiver) = mpsc::channel();
        question(Box::new(move |answer| sender.send(answer).unwrap()));
        receiver.recv().unwrap()
    }

    fn state() -> Vec<u8> {
        (0..CHUNK + 10).map(|at| (at / 1000) as u8).collect()
    }

    #[test]
    fn what_one_writes_another_fetches_in_any_order() {
        let ((_, from), (_, to)) = (store(), store());
        let digests = ask(|answer| from.write(AT, state(), answer)).unwrap();
        assert_eq!(digests.len(), 2);
        for chunk in [1, 0] {
            let bytes: Vec<u8> = ask(|answer| from.read_chunk(AT, chunk, answer)).unwrap();
            assert_eq!(Checkpoint::chunk_digest(&bytes), digests[chunk as usize]);
            to.store_chunk(AT, chunk, bytes);
        }
        assert!(ask(|answer| to.complete(AT, 2, answer)).unwrap() == state());
        to.drop_before(AT.next());
        assert_eq!(ask(|answer| to.read_chunk(AT, 0, answer)), None);
    }

    #[test]
    fn a_full_disk_leaves_a_checkpoint_out_and_fails_one_that_is_fetched() {
        let (disk, store) = store();
        disk.set_capacity(Some(100));
        assert_eq!(ask(|answer| store.write(AT, state(), answer)), None);
        store.store_chunk(AT, 0, vec![0; 1000]);
        assert!(ask(|answer| store.complete(AT, 1, answer)).is_err());
        disk.set_capacity(None);
        assert_eq!(ask(|answer| store.write(AT, vec![1; 50], answer)).unwrap().len(), 1);
        assert_eq!(
            ask(|answer| store.read_chunk(AT, 0, answer)),
            Some(vec![1; 50]),
            "nothing of the first try"
        );
    }

    #[test]
    fn an_empty_state_is_a_state() {
        let (_, store) = store();
        assert_eq!(ask(|answer| store.write(AT, Vec::new(), answer)), Some(vec![]));
        assert_eq!(ask(|answer| store.complete(AT.next(), 0, answer)).unwrap(), Vec::<u8>::new());
    }
}
