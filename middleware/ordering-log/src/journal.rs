//! A log with a thread of its own, which commits whatever has gathered at once.

use crate::{Disk, Log, LogError, Options, Reader, Recovered};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use steeldb_ordering::{InstanceNumber, Record};

/// Records taken into one commit at most.
const GROUP_MAX: usize = 4096;

enum Command {
    Append(u64, Record),
    Truncate(InstanceNumber),
}

/// An open log behind a channel.
pub struct Journal {
    sender: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<()>>,
    reader: Reader,
}

impl Journal {
    /// Opens or creates a log and says what it held. `persisted` is called, on the journal's thread, with the highest
    /// sequence that is durable, or with the error that ends the journal.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        persisted: impl Fn(Result<u64, LogError>) + Send + 'static,
    ) -> Result<(Journal, Recovered), LogError> {
        Journal::open_watched(disk, options, persisted, |_, _| {})
    }

    /// As [`Journal::open`]; `committed` is called, on the journal's thread, with how many records were committed at once
    /// and how long that took.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn open_watched(
        disk: Arc<dyn Disk>,
        options: Options,
        persisted: impl Fn(Result<u64, LogError>) + Send + 'static,
        committed: impl Fn(usize, Duration) + Send + 'static,
    ) -> Result<(Journal, Recovered), LogError> {
        let name = disk.name();
        let (mut log, recovered) = Log::open(disk, options)?;
        let reader = log.reader();
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || {
                if let Err(error) = write(&mut log, &receiver, &persisted, &committed) {
                    persisted(Err(error));
                }
            })
            .map_err(|error| LogError::io(name, error))?;
        Ok((Journal { sender: Some(sender), thread: Some(thread), reader }, recovered))
    }

    /// Appends a record; `persisted` will say when it is durable.
    pub fn append(&self, sequence: u64, record: Record) {
        self.send(Command::Append(sequence, record));
    }

    /// Lets go of decisions before an instance.
    pub fn truncate(&self, before: InstanceNumber) {
        self.send(Command::Truncate(before));
    }

    /// A reader of the decisions.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    fn send(&self, command: Command) {
        if let Some(sender) = &self.sender {
            // The thread ends only after it has reported why.
            let _ = sender.send(command);
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write(
    log: &mut Log,
    commands: &mpsc::Receiver<Command>,
    persisted: &dyn Fn(Result<u64, LogError>),
    committed: &dyn Fn(usize, Duration),
) -> Result<(), LogError> {
    let mut upto = 0;
    loop {
        let mut next = match commands.try_recv() {
            Ok(command) => Some(command),
            Err(mpsc::TryRecvError::Disconnected) => return Ok(()),
            Err(mpsc::TryRecvError::Empty) => {
                log.confirm()?;
                match commands.recv() {
                    Ok(command) => Some(command),
                    Err(mpsc::RecvError) => return Ok(()),
                }
            }
        };
        let (mut appended, mut truncate) = (0, None);
        while let Some(command) = next {
            match command {
                Command::Append(sequence, record) => {
                    log.append(&record)?;
                    (appended, upto) = (appended + 1, sequence);
                }
                Command::Truncate(before) => truncate = Some(before),
            }
            next = if appended < GROUP_MAX { commands.try_recv().ok() } else { None };
        }
        if appended > 0 {
            let since = Instant::now();
            log.commit()?;
            committed(appended, since.elapsed());
            persisted(Ok(upto));
        }
        if let Some(before) = truncate {
            log.truncate(before)?;
        }
    }
}
