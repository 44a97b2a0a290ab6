//! Statements.

use super::backend::{Block, Writes};
use super::messages::Answer;
use super::{Pid, Store, Xid};
use crate::sql::{DRIFTED, Key, Statement, Value};
use std::collections::BTreeSet;

/// Why a statement stops.
enum Stop {
    Error(&'static str),
    /// Somebody holds a row that it needs.
    Waits(Xid),
}

impl Store {
    /// Runs a statement; nothing if it waits for a lock, unless it is to fail with `interrupted` instead.
    pub(super) fn execute(
        &mut self,
        pid: Pid,
        sql: &str,
        interrupted: Option<&'static str>,
    ) -> Option<Vec<u8>> {
        let mut block = self.backends.get_mut(&pid)?.block.take();
        let before = block.as_ref().map(|block| block.writes.clone());
        let result = match &mut block {
            Some(block) => self.run(block, sql),
            None => Err(Stop::Error("25P01")),
        };
        let answered = match result {
            Ok(answer) => Some(answer.bytes()),
            Err(Stop::Waits(xid)) if interrupted.is_none() => {
                // It is run again from its start; the locks that it has it keeps.
                if let (Some(block), Some(writes)) = (&mut block, before) {
                    block.writes = writes;
                }
                self.backends.get_mut(&pid)?.waits_for = Some(xid);
                None
            }
            Err(stop) => {
                let sqlstate = match stop {
                    Stop::Error(sqlstate) => sqlstate,
                    Stop::Waits(_) => interrupted.unwrap_or("57014"),
                };
                // As in PostgreSQL an error undoes at once what came after the innermost savepoint, locks and all.
                if let Some(block) = &mut block {
                    self.abort(block);
                }
                let mut answer = Answer::default();
                answer.error(sqlstate);
                Some(answer.bytes())
            }
        };
        self.backends.get_mut(&pid)?.block = block;
        answered
    }

    fn run(&mut self, block: &mut Block, sql: &str) -> Result<Answer, Stop> {
        let statement = Statement::parse(sql).ok_or(Stop::Error("42601"))?;
        let mut answer = Answer::default();
        if let Statement::RollbackTo(name) = &statement {
            self.rollback_to(block, name)?;
            answer.no_columns().tag("ROLLBACK");
            return Ok(answer);
        }
        if block.failed {
            return Err(Stop::Error("25P02"));
        }
        if block.read_only && !statement.only_reads() {
            return Err(Stop::Error("25006"));
        }
        let snapshot = block.snapshot.ok_or(Stop::Error("25000"))?;
        match statement {
            Statement::Clock => {
                answer.columns(&[("now", 25)]).data(&[block.timestamp.0.to_string()]).tag("SELECT 1");
            }
            Statement::Select { from, to, lock, .. } => {
                answer.row_columns();
                let mut rows = 0;
                for key in from..=to {
                    if lock && self.visible(block, key, snapshot).is_some() {
                        self.take(block, key, snapshot)?;
                    }
                    if let Some(value) = self.visible(block, key, snapshot) {
                        answer.row(key, &value);
                        rows += 1;
                    }
                }
                answer.tag(&format!("SELECT {rows}"));
            }
            Statement::Update { from, to, append, token } => {
                answer.row_columns();
                let mut rows = 0;
                for key in from..=to {
                    if self.visible(block, key, snapshot).is_none() {
                        continue;
                    }
                    self.take(block, key, snapshot)?;
                    let mut value = self.visible(block, key, snapshot).filter(|_| append).unwrap_or_default();
                    value.push(token);
                    answer.row(key, &value);
                    block.writes.insert(key, Some(value));
                    rows += 1;
                }
                answer.tag(&format!("UPDATE {rows}"));
            }
            Statement::Drift { key, token } => {
                let mut rows = 0;
                if self.visible(block, key, snapshot).is_some() {
                    self.take(block, key, snapshot)?;
                    let mut value = self.visible(block, key, snapshot).unwrap_or_default();
                    value.push(if self.drifts(token) { token + DRIFTED } else { token });
                    block.writes.insert(key, Some(value));
                    rows = 1;
                }
                answer.no_columns().tag(&format!("UPDATE {rows}"));
            }
            Statement::Insert { key, token } => {
                self.insert(block, key, token)?;
                answer.no_columns().tag("INSERT 0 1");
            }
            Statement::Delete { from, to } => {
                let mut rows = 0;
                for key in from..=to {
                    if self.visible(block, key, snapshot).is_none() {
                        continue;
                    }
                    self.take(block, key, snapshot)?;
                    block.writes.insert(key, None);
                    rows += 1;
                }
                answer.no_columns().tag(&format!("DELETE {rows}"));
            }
            Statement::Savepoint(name) => {
                block.savepoints.push((name, block.writes.clone(), block.locked.clone()));
                answer.no_columns().tag("SAVEPOINT");
            }
            Statement::Release(name) => {
                let at = savepoint(block, &name)?;
                block.savepoints.truncate(at);
                answer.no_columns().tag("RELEASE");
            }
            Statement::RollbackTo(_) => {}
        }
        Ok(answer)
    }

    /// Whether a statement that need not do the same everywhere does something else here: on one replica, on every other
    /// one, or on none.
    fn drifts(&self, token: u32) -> bool {
        match token % 7 {
            one @ 0..4 => one == self.number,
            4 | 5 => self.number % 2 == 1,
            _ => false,
        }
    }

    fn visible(&self, block: &Block, key: Key, snapshot: u64) -> Option<Value> {
        match block.writes.get(&key) {
            Some(own) => own.clone(),
            None => self.rows.at(key, snapshot).cloned(),
        }
    }

    /// Takes a row that the snapshot sees: the first who changed it wins.
    fn take(&mut self, block: &mut Block, key: Key, snapshot: u64) -> Result<(), Stop> {
        self.lock(key, block.xid).map_err(Stop::Waits)?;
        block.locked.insert(key);
        block.wrote = true;
        let own = block.writes.contains_key(&key);
        if !own && self.rows.changed_since(key, snapshot) {
            return Err(Stop::Error("40001"));
        }
        Ok(())
    }

    fn insert(&mut self, block: &mut Block, key: Key, token: u32) -> Result<(), Stop> {
        self.lock(key, block.xid).map_err(Stop::Waits)?;
        block.locked.insert(key);
        block.wrote = true;
        // A unique key is one for all, whatever the snapshot sees.
        let taken = match block.writes.get(&key) {
            Some(own) => own.is_some(),
            None => self.rows.latest(key).is_some(),
        };
        if taken {
            return Err(Stop::Error("23505"));
        }
        block.writes.insert(key, Some(vec![token]));
        Ok(())
    }

    /// A block fails: what came after its innermost savepoint is undone, and its rows are let go.
    pub(super) fn abort(&mut self, block: &mut Block) {
        let (writes, locked) = match block.savepoints.last() {
            Some((_, writes, locked)) => (writes.clone(), locked.clone()),
            None => Default::default(),
        };
        block.failed = true;
        self.go_back(block, writes, locked);
    }

    /// A block goes back to earlier changes and locks.
    fn go_back(&mut self, block: &mut Block, writes: Writes, locked: BTreeSet<Key>) {
        let free: BTreeSet<Key> = block.locked.difference(&locked).copied().collect();
        (block.writes, block.locked) = (writes, locked);
        self.locks.retain(|key, _| !free.contains(key));
        self.wake(block.xid);
    }

    /// Undoes what came after a savepoint; the rows locked since are let go.
    fn rollback_to(&mut self, block: &mut Block, name: &str) -> Result<(), Stop> {
        let at = savepoint(block, name)?;
        let Some((_, writes, locked)) = block.savepoints.get(at).cloned() else { return Ok(()) };
        block.savepoints.truncate(at + 1);
        block.failed = false;
        self.go_back(block, writes, locked);
        Ok(())
    }
}

fn savepoint(block: &Block, name: &str) -> Result<usize, Stop> {
    let at = block.savepoints.iter().rposition(|(other, ..)| other == name);
    at.ok_or(Stop::Error("3B001"))
}
