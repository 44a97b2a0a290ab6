//! Crashes at exact steps of the protocol.

use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use steeldb_replica::agent::{Hook, Point};
use tokio::sync::oneshot;

/// What crashes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// The agent, with all that it had in memory.
    Agent,
    /// Its PostgreSQL, by SIGKILL.
    Server,
    /// Both.
    Host,
    /// Those of all replicas.
    AllHosts,
}

/// Traps by replica.
#[derive(Clone, Default)]
pub(crate) struct Traps(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    traps: BTreeMap<u16, Trap>,
    sprung: BTreeMap<u16, oneshot::Sender<()>>,
    /// Agents that are about to end: they do nothing for their servers any more.
    down: BTreeSet<u16>,
}

/// What happens at a point.
pub(crate) struct Trap {
    pub(crate) point: Point,
    /// Whose servers are killed.
    pub(crate) pid_files: Vec<PathBuf>,
    /// Which agents go no further; the test ends them.
    pub(crate) agents: Vec<u16>,
}

impl Traps {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a trap for a replica; resolves when it has sprung.
    pub(crate) fn set(&self, id: u16, trap: Trap) -> oneshot::Receiver<()> {
        let (sprung, receiver) = oneshot::channel();
        let mut state = self.state();
        state.traps.insert(id, trap);
        state.sprung.insert(id, sprung);
        receiver
    }

    /// An agent is about to be ended.
    pub(crate) fn down(&self, id: u16) {
        self.state().down.insert(id);
    }

    /// It is started again.
    pub(crate) fn up(&self, id: u16) {
        self.state().down.remove(&id);
    }

    /// What an agent calls at each point.
    pub(crate) fn hook(&self, id: u16) -> Hook {
        let traps = self.clone();
        Hook::new(move |point| {
            let mut state = traps.state();
            if state.down.contains(&id) {
                return true;
            }
            if state.traps.get(&id).is_none_or(|trap| trap.point != point) {
                return false;
            }
            let Some(trap) = state.traps.remove(&id) else { return false };
            state.down.extend(&trap.agents);
            trap.pid_files.iter().for_each(|file| kill(pid(file)));
            if let Some(sprung) = state.sprung.remove(&id) {
                // The test may be over.
                let _ = sprung.send(());
            }
            state.down.contains(&id)
        })
    }
}

/// The postmaster that a file names.
pub(crate) fn pid(pid_file: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(pid_file).unwrap_or_default();
    text.lines().next()?.trim().parse().ok().map(Pid::from_raw)
}

/// Kills a postmaster.
pub(crate) fn kill(pid: Option<Pid>) {
    if let Some(pid) = pid {
        let _ = send(pid, Signal::SIGKILL);
    }
}
