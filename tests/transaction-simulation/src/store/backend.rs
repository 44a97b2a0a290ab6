//! Backends: one per pid, with the commands that wait for it and its transaction block.

use super::write_set::WriteSet;
use super::{Pid, Prepared, Store, Xid};
use crate::sql::{Key, Value};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use steeldb_replica::scheduler::{BackendReport, Command, Completion};
use steeldb_types::{Timestamp, TxId};
use steeldb_wire::transaction::{SqlState, StatementId};

/// A backend.
pub(super) struct Backend {
    pub(super) queue: VecDeque<Command>,
    pub(super) statements: BTreeMap<StatementId, String>,
    pub(super) block: Option<Block>,
    /// Whose lock the statement at the queue's head waits for, and since when.
    pub(super) waits_for: Option<Xid>,
    pub(super) waits_since: u64,
    /// What waits is to fail with this.
    pub(super) interrupted: Option<&'static str>,
}

impl Backend {
    pub(super) fn xid(&self) -> Option<Xid> {
        self.block.as_ref().map(|block| block.xid)
    }
}

/// Rows that a transaction changed.
pub(super) type Writes = BTreeMap<Key, Option<Value>>;

/// A transaction block.
#[derive(Clone)]
pub(super) struct Block {
    pub(super) xid: Xid,
    pub(super) snapshot: Option<u64>,
    pub(super) timestamp: Timestamp,
    pub(super) read_only: bool,
    pub(super) writes: Writes,
    pub(super) locked: BTreeSet<Key>,
    pub(super) savepoints: Vec<(String, Writes, BTreeSet<Key>)>,
    pub(super) failed: bool,
    /// A transaction number was assigned.
    pub(super) wrote: bool,
}

/// What comes out of a backend.
#[derive(Debug)]
pub(crate) enum Output {
    /// A report to the scheduler.
    Report(BackendReport),
    /// An operation's answer: the report is made of it.
    Executed { tx: TxId, number: u32, sql: String, messages: Vec<u8>, status: u8, ordered: bool, show: bool },
    /// Decoding shows a prepared transaction.
    Decoded { gid: String, write_set: WriteSet },
    /// A block runs on a snapshot: of so many commits. `within`: another one was not ended.
    Snapshot { tx: TxId, commits: u64, within: bool },
}

/// What became of the command at the queue's head.
pub(crate) enum StepResult {
    /// There is none.
    Idle,
    Done(Vec<Output>),
    /// It waits for somebody's lock.
    Waits,
}

impl Store {
    /// Starts a backend.
    pub(crate) fn open(&mut self) -> Pid {
        self.processes += 1;
        let backend = Backend {
            queue: VecDeque::new(),
            statements: BTreeMap::new(),
            block: None,
            waits_for: None,
            waits_since: 0,
            interrupted: None,
        };
        self.backends.insert(self.processes, backend);
        self.processes
    }

    /// A backend dies: what is not prepared is rolled back.
    pub(crate) fn kill(&mut self, pid: Pid) {
        let Some(backend) = self.backends.remove(&pid) else { return };
        if let Some(xid) = backend.xid() {
            self.let_go(xid);
        }
    }

    /// A command for a backend; false if there is none.
    pub(crate) fn submit(&mut self, pid: Pid, command: Command) -> bool {
        let Some(backend) = self.backends.get_mut(&pid) else { return false };
        if command == Command::Cancel {
            if backend.waits_for.is_some() {
                backend.interrupted = Some("57014");
                self.woken.push(pid);
            }
            return true;
        }
        if matches!(command, Command::End { commit: false, .. }) && backend.waits_for.is_some() {
            // What still runs is cancelled.
            backend.interrupted = Some("57014");
            self.woken.push(pid);
        }
        backend.queue.push_back(command);
        true
    }

    /// A backend that waits in a cycle is to fail.
    pub(crate) fn break_deadlock(&mut self, pid: Pid) {
        if let Some(backend) = self.backends.get_mut(&pid) {
            backend.interrupted = Some("40P01");
        }
    }

    /// Whether a backend waits for a lock, and since when.
    pub(crate) fn waits_since(&self, pid: Pid) -> Option<u64> {
        let backend = self.backends.get(&pid)?;
        backend.waits_for.map(|_| backend.waits_since)
    }

    /// What a backend does next.
    pub(crate) fn next_command(&self, pid: Pid) -> Option<&Command> {
        self.backends.get(&pid)?.queue.front()
    }

    /// Runs the command at the head of a backend's queue.
    pub(crate) fn step(&mut self, pid: Pid, now_us: u64) -> StepResult {
        let Some(backend) = self.backends.get_mut(&pid) else { return StepResult::Idle };
        let Some(command) = backend.queue.front().cloned() else { return StepResult::Idle };
        let interrupted = backend.interrupted.take().filter(|_| backend.waits_for.is_some());
        let ending =
            backend.queue.iter().any(|command| matches!(command, Command::End { commit: false, .. }));
        let outputs = match command {
            Command::Execute { tx, number, statement, row_order, show, .. } => {
                let sql = backend.statements.get(&statement).cloned().unwrap_or_default();
                let interrupted = interrupted.or(ending.then_some("57014"));
                let Some(messages) = self.execute(pid, &sql, interrupted) else {
                    return self.wait(pid, now_us);
                };
                let status = self.status(pid);
                vec![Output::Executed { tx, number, sql, messages, status, ordered: row_order, show }]
            }
            other => self.command(pid, other),
        };
        if let Some(backend) = self.backends.get_mut(&pid) {
            backend.waits_for = None;
            backend.queue.pop_front();
        }
        StepResult::Done(outputs)
    }

    fn wait(&mut self, pid: Pid, now_us: u64) -> StepResult {
        if let Some(backend) = self.backends.get_mut(&pid)
            && backend.waits_since == 0
        {
            backend.waits_since = now_us;
        }
        StepResult::Waits
    }

    fn status(&mut self, pid: Pid) -> u8 {
        let Some(backend) = self.backends.get_mut(&pid) else { return b'I' };
        backend.waits_since = 0;
        match &backend.block {
            Some(block) if block.failed => b'E',
            Some(_) => b'T',
            None => b'I',
        }
    }

    fn command(&mut self, pid: Pid, command: Command) -> Vec<Output> {
        let report = |report| vec![Output::Report(report)];
        match command {
            // The store has no settings.
            Command::Restore(_) => vec![],
            Command::Define { statement, text } => {
                if let Some(backend) = self.backends.get_mut(&pid) {
                    backend.statements.insert(statement, text.sql);
                }
                vec![]
            }
            Command::Forget(statement) => {
                if let Some(backend) = self.backends.get_mut(&pid) {
                    backend.statements.remove(&statement);
                }
                vec![]
            }
            Command::BeginLeading { .. } => {
                self.begin(pid, None, Timestamp::default(), false);
                vec![]
            }
            Command::Begin { tx, snapshot, timestamp, modes, .. } => match self.import(&snapshot) {
                Some(commits) => {
                    let within = self.begin(pid, Some(commits), timestamp, modes.read_only);
                    vec![
                        Output::Snapshot { tx, commits, within },
                        Output::Report(BackendReport::Begun { tx }),
                    ]
                }
                None => {
                    self.begin(pid, None, timestamp, modes.read_only);
                    self.fail(pid);
                    report(BackendReport::NotBegun { tx, reason: "the snapshot is gone".into() })
                }
            },
            Command::BeginHere { tx, timestamp, modes, .. } => {
                let commits = self.rows.commits();
                self.begin(pid, Some(commits), timestamp, modes.read_only);
                // Behind leading locks, which no client of the simulation takes.
                vec![
                    Output::Snapshot { tx, commits, within: false },
                    Output::Report(BackendReport::Begun { tx }),
                ]
            }
            Command::Adopt { tx, number, sqlstate } => {
                self.fail(pid);
                report(BackendReport::Executed {
                    tx,
                    number,
                    result: steeldb_wire::transaction::ResultDigest::error(sqlstate.0),
                    sqlstate: Some(sqlstate),
                    status: b'E',
                    tag: steeldb_replica::scheduler::TagKind::Plain,
                    copy_started: false,
                    draws: steeldb_wire::transaction::Draws::NONE,
                })
            }
            Command::Complete { tx } => {
                let block = self.backends.get(&pid).and_then(|backend| backend.block.as_ref());
                let result = match block {
                    Some(block) if !block.failed => Ok(Completion {
                        wrote: block.wrote,
                        ddl: false,
                        temporary: false,
                        names: None,
                        rows: 0,
                    }),
                    _ => Err(SqlState::parse("25P02")),
                };
                report(BackendReport::Completed { tx, result })
            }
            Command::Prepare { tx, slot, operations, transcript, gid, .. } => {
                let record = WriteSet { tx, slot, operations, transcript, rows: BTreeMap::new() };
                self.prepare(pid, record, gid)
            }
            Command::End { tx, commit } => {
                self.end(pid, commit);
                report(BackendReport::Ended { tx })
            }
            Command::Close => {
                self.kill(pid);
                vec![]
            }
            // No statement asks for COPY data, and results are taken at once.
            Command::Acknowledge(_) | Command::Cancel | Command::Execute { .. } => vec![],
        }
    }

    /// Whether a block is open already: then it goes on in that.
    fn begin(&mut self, pid: Pid, snapshot: Option<u64>, timestamp: Timestamp, read_only: bool) -> bool {
        self.xids += 1;
        let xid = self.xids;
        let Some(backend) = self.backends.get_mut(&pid) else { return false };
        let within = backend.block.is_some();
        let block = backend.block.get_or_insert(Block {
            xid,
            snapshot: None,
            timestamp,
            read_only,
            writes: BTreeMap::new(),
            locked: BTreeSet::new(),
            savepoints: Vec::new(),
            failed: false,
            wrote: false,
        });
        block.snapshot = snapshot;
        block.timestamp = timestamp;
        block.read_only = read_only;
        within
    }

    fn fail(&mut self, pid: Pid) {
        let Some(mut block) = self.backends.get_mut(&pid).and_then(|backend| backend.block.take()) else {
            return;
        };
        self.abort(&mut block);
        if let Some(backend) = self.backends.get_mut(&pid) {
            backend.block = Some(block);
        }
    }

    fn prepare(&mut self, pid: Pid, mut write_set: WriteSet, gid: String) -> Vec<Output> {
        let tx = write_set.tx;
        let block = self.backends.get_mut(&pid).and_then(|backend| backend.block.take());
        let Some(block) = block.filter(|block| !block.failed) else {
            return vec![Output::Report(BackendReport::Prepared {
                tx,
                result: Err(SqlState::parse("25P02")),
            })];
        };
        write_set.rows = block
            .writes
            .into_iter()
            .map(|(key, after)| (key, (self.rows.latest(key).cloned(), after)))
            .filter(|(_, (before, after))| before != after)
            .collect();
        self.prepared.insert(gid.clone(), Prepared { xid: block.xid, write_set: write_set.clone() });
        vec![
            Output::Report(BackendReport::Prepared { tx, result: Ok(None) }),
            Output::Decoded { gid, write_set },
        ]
    }

    /// Ends a block that is not prepared: one that is committed has written nothing.
    fn end(&mut self, pid: Pid, _commit: bool) {
        let block = self.backends.get_mut(&pid).and_then(|backend| backend.block.take());
        if let Some(block) = block {
            self.let_go(block.xid);
        }
    }
}
