//! Stores at work: backends and their commands, snapshots, outcomes.

use super::{Happening, Within, World};
use crate::node::{Lane, Running};
use crate::scenario::{Fault, Step};
use crate::store::{Output, Pid, StepResult, WriteSet};
use rand::Rng;
use steeldb_client_shim::message::messages;
use steeldb_replica::scheduler::{AnchorId, BackendReport, Command, DecodedSet, Event, TagKind};
use steeldb_types::{SessionKey, TxId};
use steeldb_wire::transaction::{Draws, ReplicaMessage, ResultDigest, SqlState};

/// How long a command takes a store at most, microseconds.
const COMMAND_US: u64 = 800;
/// How long a statement waits before it is looked whether it waits for itself.
const DEADLOCK_TIMEOUT_US: u64 = 150_000;

impl World<'_> {
    pub(super) fn open_backend(&mut self, at: usize, session: SessionKey) {
        let node = &mut self.nodes[at];
        let pid = node.store.open();
        if let Some(running) = &mut node.running {
            running.workers.insert(session, pid);
        }
        if node.store_down {
            return self.backend_lost(at, session, pid);
        }
        self.on_lane(at, Lane::Backend(pid), 5_000, Within::Opened { session, pid });
    }

    pub(super) fn backend_opened(&mut self, at: usize, session: SessionKey, pid: Pid) {
        let parameters = vec![("server_version".to_string(), "15".to_string())];
        self.report(at, session, pid, BackendReport::Ready { parameters, process: pid });
    }

    /// A report to the scheduler, unless the session has a newer backend.
    fn report(&mut self, at: usize, session: SessionKey, pid: Pid, report: BackendReport) {
        let Some(running) = &self.nodes[at].running else { return };
        if running.workers.get(&session).is_none_or(|current| *current == pid) {
            self.event(at, Event::Backend { session, report });
        }
    }

    /// A backend is dead, and its session hears of it.
    pub(super) fn backend_lost(&mut self, at: usize, session: SessionKey, pid: Pid) {
        self.nodes[at].store.kill(pid);
        let report =
            BackendReport::Lost { sqlstate: SqlState::parse("57P01"), message: "the backend is gone".into() };
        self.on_lane(
            at,
            Lane::Backend(pid),
            2_000,
            Within::Output { session, pid, output: Output::Report(report) },
        );
        self.wake_backends(at);
    }

    pub(super) fn kill_backend(&mut self, at: usize) {
        let Some(running) = &self.nodes[at].running else { return };
        let workers: Vec<(SessionKey, Pid)> =
            running.workers.iter().map(|(session, pid)| (*session, *pid)).collect();
        if workers.is_empty() {
            return;
        }
        let (session, pid) = workers[self.rng.random_range(0..workers.len())];
        let id = self.nodes[at].id;
        self.note(&format!("{id} loses the backend of {session}"));
        self.backend_lost(at, session, pid);
    }

    /// Sets the next step of a backend.
    pub(super) fn set_step(&mut self, at: usize, pid: Pid) {
        let Some(running) = &mut self.nodes[at].running else { return };
        if running.stepping.insert(pid) {
            let after_us = self.takes(at, COMMAND_US);
            self.later(at, after_us, Within::Step(pid));
        }
    }

    /// Backends go on whose locks were let go.
    pub(super) fn wake_backends(&mut self, at: usize) {
        for pid in self.nodes[at].store.take_woken() {
            self.set_step(at, pid);
        }
    }

    pub(super) fn step_backend(&mut self, at: usize, pid: Pid) {
        let now_us = self.now_us;
        let node = &mut self.nodes[at];
        let Some(running) = &mut node.running else { return };
        running.stepping.remove(&pid);
        if node.store_down {
            return;
        }
        let step = match node.store.next_command(pid) {
            Some(Command::Execute { .. }) => Some(Step::Execute),
            Some(Command::Prepare { .. }) => Some(Step::Prepare),
            _ => None,
        };
        if step.is_some_and(|step| self.reaches(at, step)) {
            return;
        }
        self.note_start(at, pid);
        match self.nodes[at].store.step(pid, now_us) {
            StepResult::Idle => {}
            StepResult::Waits => {
                let since = self.nodes[at].store.waits_since(pid).unwrap_or(now_us);
                if since == now_us {
                    let id = self.nodes[at].id;
                    self.note(&format!("{id}: backend {pid} waits for a lock"));
                    self.later(at, DEADLOCK_TIMEOUT_US, Within::Deadlock { pid, since });
                }
            }
            StepResult::Done(outputs) => {
                let prepared = step == Some(Step::Prepare);
                self.note_prepared(at, &outputs);
                if prepared {
                    let id = self.nodes[at].id;
                    self.note(&format!("{id}: backend {pid} prepares"));
                }
                if prepared && self.reaches(at, Step::Prepared) {
                    return;
                }
                for output in outputs {
                    self.leaves(at, pid, output);
                }
                self.wake_backends(at);
                self.set_step(at, pid);
            }
        }
        self.wake_backends(at);
    }

    /// An operation runs now, unless it only waited; one that its replica began as the master, behind no barrier.
    fn note_start(&mut self, at: usize, pid: Pid) {
        let node = &self.nodes[at];
        if let Some(Command::Execute { tx, number, .. }) = node.store.next_command(pid)
            && node.store.waits_since(pid).is_none()
            && !node.faulty
            && node.running.as_ref().is_some_and(|running| !running.led.contains(&(*tx, *number)))
        {
            let (id, tx, number) = (node.id, *tx, *number);
            self.history.started(id, tx, number);
        }
    }

    fn note_prepared(&mut self, at: usize, outputs: &[Output]) {
        let node = &self.nodes[at];
        for output in outputs {
            if let Output::Decoded { write_set, .. } = output
                && !node.faulty
            {
                self.history.prepared(node.id, write_set);
            }
        }
    }

    /// Something comes out of a backend.
    fn leaves(&mut self, at: usize, pid: Pid, output: Output) {
        let Some(running) = &self.nodes[at].running else { return };
        let session = running.workers.iter().find(|(_, of)| **of == pid).map(|(session, _)| *session);
        match output {
            Output::Decoded { gid, write_set } => {
                self.on_lane(at, Lane::Decoder, 5_000, Within::Decoded { gid, write_set });
            }
            Output::Snapshot { tx, commits, within } => {
                let id = self.nodes[at].id;
                if !self.nodes[at].faulty {
                    self.history.snapshot(id, tx, commits, within);
                }
            }
            output => {
                if let Some(session) = session {
                    self.on_lane(at, Lane::Backend(pid), 500, Within::Output { session, pid, output });
                }
            }
        }
    }

    pub(super) fn output(&mut self, at: usize, session: SessionKey, pid: Pid, output: Output) {
        match output {
            Output::Report(report) => self.report(at, session, pid, report),
            Output::Executed { .. } => self.executed(at, session, pid, output),
            Output::Decoded { .. } | Output::Snapshot { .. } => {}
        }
    }

    /// An operation's answer: shown where its client waits for it, and reported.
    fn executed(&mut self, at: usize, session: SessionKey, pid: Pid, output: Output) {
        let Output::Executed { tx, number, sql, messages: answer, status, ordered, show, .. } = output else {
            return;
        };
        let id = self.nodes[at].id;
        let mut answer = answer;
        self.each_adversary(at, |adversary, stage| {
            answer = adversary.answer(stage, std::mem::take(&mut answer));
        });
        let mut digest = ResultDigest::new(ordered);
        for message in messages(&answer).flatten() {
            let _ = digest.message(message.tag, message.body);
        }
        let sqlstate = digest.sqlstate().map(SqlState::parse);
        let result = digest.finish();
        self.note(&format!("{id}: {tx} operation {number} {sql:?}: {result:?} {sqlstate:?}"));
        if !self.nodes[at].faulty {
            self.history.executed(id, tx, number, &sql, result);
        }
        let Some(running) = &self.nodes[at].running else { return };
        if show && let Some(connection) = running.scheduler.connection(session) {
            self.answer(at, connection.0, ReplicaMessage::Result { tx, number, messages: answer });
        }
        let report = BackendReport::Executed {
            tx,
            number,
            result,
            sqlstate,
            status,
            tag: TagKind::Plain,
            copy_started: false,
            draws: Draws::NONE,
        };
        self.report(at, session, pid, report);
    }

    pub(super) fn look_for_deadlock(&mut self, at: usize, pid: Pid, since: u64) {
        let store = &mut self.nodes[at].store;
        if store.waits_since(pid) != Some(since) {
            return;
        }
        if store.is_deadlocked(pid) {
            store.break_deadlock(pid);
            let id = self.nodes[at].id;
            self.note(&format!("{id}: backend {pid} waits for itself"));
            self.set_step(at, pid);
        } else {
            self.later(at, DEADLOCK_TIMEOUT_US, Within::Deadlock { pid, since });
        }
    }

    pub(super) fn decoded(&mut self, at: usize, gid: String, write_set: WriteSet) {
        if self.nodes[at].store_down {
            return;
        }
        self.nodes[at].write_sets.insert(gid.clone(), write_set.clone());
        if self.reaches(at, Step::Decoded) {
            return;
        }
        let set = DecodedSet {
            digest: write_set.digest(),
            wall: steeldb_wire::transaction::Wall::None,
            truncates: false,
            changes: write_set.rows.len(),
        };
        self.event(at, Event::Decoded { gid, write_set: Ok(set) });
    }

    pub(super) fn take_anchor(&mut self, at: usize, anchor: AnchorId) {
        let node = &mut self.nodes[at];
        let snapshot = match node.store_down {
            true => Err("the store is down".to_string()),
            false => Ok(node.store.export(anchor)),
        };
        if self.reaches(at, Step::Anchored) {
            return;
        }
        self.on_lane(at, Lane::Anchors, 1_000, Within::Event(Event::Anchored { anchor, snapshot }));
    }

    /// COMMIT PREPARED.
    pub(super) fn commit(&mut self, at: usize, tx: TxId, gid: &str) {
        if self.reaches(at, Step::Commit) {
            return;
        }
        let node = &mut self.nodes[at];
        let id = node.id;
        let committed = if node.store_down { None } else { node.store.commit_prepared(gid) };
        let result = match &committed {
            Some(_) => Ok(()),
            None => Err("there is no such transaction".to_string()),
        };
        if let Some(write_set) = committed {
            self.note(&format!("{id} commits {tx}"));
            if !self.nodes[at].faulty {
                let commits = self.nodes[at].store.rows.commits();
                self.history.unprepared(id, &write_set, true);
                self.history.committed(id, &write_set, commits);
            }
        }
        self.wake_backends(at);
        if self.reaches(at, Step::Committed) {
            return;
        }
        let after_us = self.takes(at, 1_000);
        self.later(at, after_us, Within::Event(Event::Applied { tx, result }));
    }

    /// ROLLBACK PREPARED.
    pub(super) fn rollback(&mut self, at: usize, gid: &str) {
        if self.nodes[at].store_down {
            return;
        }
        self.rolled_back(at, gid);
        if !self.reaches(at, Step::RolledBack) {
            let after_us = self.takes(at, 1_000);
            self.later(at, after_us, Within::Event(Event::RolledBack { gid: gid.to_string() }));
        }
    }

    pub(super) fn blockers(&mut self, at: usize, tx: TxId, pid: Pid) {
        let blockers = self.nodes[at].store.blockers(pid);
        self.event(at, Event::Blockers { tx, blockers });
    }

    /// A crash lets some of what backends were told already still happen.
    pub(super) fn finish_what_runs(&mut self, at: usize, running: &Running) {
        if self.nodes[at].store_down {
            return;
        }
        let now_us = self.now_us;
        for pid in running.workers.values() {
            while self.rng.random_bool(0.5) {
                let StepResult::Done(outputs) = self.nodes[at].store.step(*pid, now_us) else { break };
                self.note_prepared(at, &outputs);
                for output in outputs {
                    // Decoding may get to the disk, or not; after the restart it is there again.
                    if let Output::Decoded { gid, write_set } = output {
                        self.nodes[at].write_sets.insert(gid, write_set);
                    }
                }
            }
        }
        self.nodes[at].store.take_woken();
    }

    /// A row of a faulty replica's store changes behind everybody's back.
    pub(super) fn tamper(&mut self, at: usize) {
        let key = self.rng.random_range(0..self.scenario.clients.keys);
        self.nodes[at].store.rows.tamper(key, vec![666]);
        let id = self.nodes[at].id;
        self.note(&format!("row {key} of {id} is tampered with"));
    }

    pub(super) fn schedule_tampering(&mut self) {
        for (replica, faults) in self.scenario.faulty.clone() {
            if faults.contains(&Fault::TamperedRow) {
                for _ in 0..2 {
                    let at_us = self.rng.random_range(0..self.scenario.faults_us);
                    self.at(at_us, Happening::Tamper { at: usize::from(replica.0) });
                }
            }
        }
    }
}
