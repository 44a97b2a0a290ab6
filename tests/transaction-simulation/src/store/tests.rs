//! The store does what PostgreSQL does, as far as it goes.

use super::*;
use steeldb_replica::scheduler::Command;
use steeldb_types::{ClientId, Digest, Position, SessionId, SessionKey, Timestamp};
use steeldb_wire::transaction::{Modes, OperationKind, StatementId, StatementText};

struct World {
    store: Store,
    anchors: u64,
    statements: u32,
    now_us: u64,
}

fn tx(number: Pid) -> TxId {
    let session = SessionKey { client: ClientId(1), session: SessionId(u64::from(number)) };
    TxId { session, counter: 1 }
}

impl World {
    fn new() -> World {
        let rows = (0..4).map(|key| (key, vec![key])).collect();
        World { store: Store::new(6, &rows), anchors: 0, statements: 0, now_us: 0 }
    }

    /// A backend in a block on a snapshot of now.
    fn begin(&mut self) -> Pid {
        self.anchors += 1;
        let snapshot = self.store.export(AnchorId(self.anchors));
        let pid = self.store.open();
        let (modes, timestamp) = (Modes::default(), Timestamp(7));
        let (seed, has_temporary) = ([0; 32], false);
        self.command(pid, Command::Begin { tx: tx(pid), modes, snapshot, timestamp, seed, has_temporary });
        pid
    }

    fn command(&mut self, pid: Pid, command: Command) {
        self.store.submit(pid, command);
        self.step(pid);
    }

    /// Runs what waits at a backend; the last answer's SQLSTATE or status, nothing if it waits.
    fn step(&mut self, pid: Pid) -> Option<String> {
        self.now_us += 1;
        let mut last = Some(String::new());
        loop {
            match self.store.step(pid, self.now_us) {
                StepResult::Idle => return last,
                StepResult::Waits => last = None,
                StepResult::Done(outputs) => {
                    for output in outputs {
                        if let Output::Executed { messages, .. } = output {
                            let body = split(&messages).pop().unwrap_or_default().1;
                            let code = steeldb_client_shim::message::error_field(&body, b'C');
                            let text = String::from_utf8_lossy(code.unwrap_or(&body));
                            last = Some(text.trim_end_matches('\0').to_string());
                        }
                    }
                    continue;
                }
            }
            return last;
        }
    }

    fn run(&mut self, pid: Pid, sql: &str) -> Option<String> {
        self.statements += 1;
        let statement = StatementId(self.statements);
        let text = StatementText { sql: sql.into(), parameter_types: vec![] };
        self.store.submit(pid, Command::Define { statement, text });
        self.store.submit(
            pid,
            Command::Execute {
                tx: tx(pid),
                number: self.statements,
                statement,
                row_order: false,
                kind: OperationKind::Describe,
                show: true,
                draws: None,
            },
        );
        self.step(pid)
    }

    fn prepare(&mut self, pid: Pid) -> String {
        let gid = format!("gid {pid}");
        let (slot, transcript) = (Position(1), Digest::default());
        let command = Command::Prepare {
            tx: tx(pid),
            slot,
            operations: 1,
            transcript,
            gid: gid.clone(),
            ddl: false,
            script: None,
            marks: Default::default(),
        };
        self.command(pid, command);
        gid
    }

    fn commit(&mut self, pid: Pid) {
        let gid = self.prepare(pid);
        assert!(self.store.commit_prepared(&gid).is_some());
    }
}

fn ok(tag: &str) -> Option<String> {
    Some(tag.to_string())
}

#[test]
fn the_first_who_changed_a_row_wins_and_the_others_wait_for_it() {
    let mut world = World::new();
    let (first, second, third) = (world.begin(), world.begin(), world.begin());
    assert_eq!(world.run(first, "UPDATE 1 1 APPEND 10"), ok("UPDATE 1"));
    assert_eq!(world.run(second, "UPDATE 1 1 APPEND 20"), None);
    assert_eq!(world.run(third, "UPDATE 2 2 APPEND 30"), ok("UPDATE 1"), "another row");
    world.commit(first);
    assert_eq!(world.store.take_woken(), [second]);
    assert_eq!(world.step(second), ok("40001"));
    assert_eq!(world.run(second, "SELECT 1 1"), ok("25P02"));
    assert_eq!(world.store.rows.latest(1), Some(&vec![1, 10]));
}

#[test]
fn who_waited_goes_on_when_the_first_is_undone() {
    let mut world = World::new();
    let (first, second) = (world.begin(), world.begin());
    world.run(first, "UPDATE 0 1 APPEND 10");
    assert_eq!(world.run(second, "UPDATE 0 2 APPEND 20"), None);
    let gid = world.prepare(first);
    assert_eq!(world.step(second), None, "what is prepared keeps its locks");
    world.store.rollback_prepared(&gid);
    assert_eq!(world.step(second), ok("UPDATE 3"));
    world.commit(second);
    assert_eq!(world.store.rows.latest(0), Some(&vec![0, 20]), "once, though it was run again");
}

#[test]
fn a_key_is_unique_whatever_the_snapshot_sees() {
    let mut world = World::new();
    let (first, second, late) = (world.begin(), world.begin(), world.begin());
    assert_eq!(world.run(first, "INSERT 9 1"), ok("INSERT 0 1"));
    assert_eq!(world.run(second, "INSERT 9 2"), None);
    world.commit(first);
    assert_eq!(world.step(second), ok("23505"));
    assert_eq!(world.run(late, "SELECT 9 9"), ok("SELECT 0"));
    assert_eq!(world.run(late, "INSERT 9 3"), ok("23505"));
}

#[test]
fn a_savepoint_gives_back_rows_and_locks() {
    let mut world = World::new();
    let (first, second) = (world.begin(), world.begin());
    world.run(first, "UPDATE 1 1 APPEND 10");
    world.run(first, "SAVEPOINT a");
    world.run(first, "UPDATE 2 2 APPEND 10");
    assert_eq!(world.run(second, "UPDATE 2 2 APPEND 20"), None);
    assert_eq!(world.run(first, "INSERT 1 5"), ok("23505"));
    assert_eq!(world.run(first, "ROLLBACK TO a"), ok("ROLLBACK"));
    assert_eq!(world.step(second), ok("UPDATE 1"));
    assert_eq!(world.run(second, "UPDATE 1 1 APPEND 20"), None, "the lock from before is still there");
    world.commit(first);
    assert_eq!(world.store.rows.latest(2), Some(&vec![2]));
}

#[test]
fn a_circle_of_waiting_is_seen_and_broken() {
    let mut world = World::new();
    let (first, second) = (world.begin(), world.begin());
    world.run(first, "UPDATE 1 1 APPEND 10");
    world.run(second, "UPDATE 2 2 APPEND 20");
    assert_eq!(world.run(first, "UPDATE 2 2 APPEND 10"), None);
    assert!(!world.store.is_deadlocked(first));
    assert_eq!(world.store.blockers(first), [second]);
    assert_eq!(world.run(second, "UPDATE 1 1 APPEND 20"), None);
    assert!(world.store.is_deadlocked(first) && world.store.is_deadlocked(second));
    world.store.break_deadlock(second);
    assert_eq!(world.step(second), ok("40P01"));
}

#[test]
fn a_crash_leaves_what_is_committed_and_what_is_prepared() {
    let mut world = World::new();
    let (committed, prepared, running) = (world.begin(), world.begin(), world.begin());
    world.run(committed, "UPDATE 1 1 APPEND 10");
    world.commit(committed);
    world.run(prepared, "UPDATE 2 2 APPEND 20");
    let gid = world.prepare(prepared);
    world.run(running, "UPDATE 3 3 APPEND 30");
    world.store.crash();
    assert_eq!(world.store.backends(), 0);
    let other = world.begin();
    assert_eq!(world.run(other, "UPDATE 3 3 APPEND 40"), ok("UPDATE 1"), "what ran holds nothing");
    assert_eq!(world.run(other, "UPDATE 2 2 APPEND 40"), None, "what is prepared does");
    world.store.commit_prepared(&gid);
    assert_eq!(world.step(other), ok("40001"));
    assert_eq!(world.store.rows.latest(1), Some(&vec![1, 10]));
}

#[test]
fn a_write_set_applies_once_where_it_fits() {
    let mut here = World::new();
    let mut there = World::new();
    let pid = there.begin();
    there.run(pid, "UPDATE 1 1 APPEND 10");
    let gid = there.prepare(pid);
    let write_set = there.store.commit_prepared(&gid).unwrap();
    let blocker = here.begin();
    here.run(blocker, "UPDATE 1 1 APPEND 20");
    assert_eq!(here.store.apply(&write_set), Err(ApplyError::Locked));
    here.command(blocker, Command::End { tx: tx(blocker), commit: false });
    assert_eq!(here.store.apply(&write_set), Ok(true));
    assert_eq!(here.store.apply(&write_set), Ok(false));
    let other = WriteSet { tx: tx(99), ..write_set };
    assert!(matches!(here.store.apply(&other), Err(ApplyError::DoesNotFit(_))));
}
