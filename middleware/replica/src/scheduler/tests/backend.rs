//! A fake PostgreSQL: results are digests, PREPARE always succeeds, a write set is a digest of what was executed. It can
//! be told to hold answers back.

use super::super::*;
use crate::reach::Names;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use steeldb_types::{Digest, TxId};
use steeldb_wire::transaction::{Draws, OperationKind, SqlState, StatementId, StatementText};

/// The canonical result of operation `number`.
pub(super) fn result_of(number: u32) -> Digest {
    Digest::of("result", &[&number.to_le_bytes()])
}

/// The process of a session's backend.
pub(super) fn process_of(session: SessionKey) -> u32 {
    1000 + session.session.0 as u32
}

/// w of a transaction of so many operations.
pub(super) fn write_set_of(tx: TxId, operations: u32) -> Digest {
    Digest::of("write set", &[&steeldb_wire::codec::encode(&tx), &operations.to_le_bytes()])
}

/// A transaction block.
#[derive(Clone, Default)]
struct Block {
    operations: u32,
    wrote: bool,
    ddl: bool,
}

/// What may be held back: the test reports it by hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Held {
    Ready,
    Begun,
    Executed,
    Prepared,
    Decoded,
    Anchored,
    Applied,
    RolledBack,
    CaughtUp,
    Maintained,
}

#[derive(Default)]
pub(super) struct Backend {
    pub held: Vec<Held>,
    texts: BTreeMap<(SessionKey, StatementId), StatementText>,
    blocks: BTreeMap<TxId, Block>,
    /// Prepared and without an outcome, by gid.
    pub prepared: BTreeSet<String>,
    /// Write sets of what is prepared, by gid, and of what is applied.
    prepared_sets: BTreeMap<String, Digest>,
    pub effects: BTreeMap<TxId, Digest>,
    /// Applied, in the order in which they were: a transaction, and whether by a write set.
    pub applied: Vec<TxId>,
    /// Those of them that a snapshot taken now holds: a wave becomes visible bit by bit.
    visible: BTreeSet<TxId>,
    pub caught_up: Vec<TxId>,
    /// Executed again, each with the snapshot it was given.
    pub reexecuted: Vec<(TxId, Option<String>)>,
    /// The snapshot each transaction ran on: how many commits it holds.
    pub snapshots: BTreeMap<TxId, String>,
    pub sessions: BTreeSet<SessionKey>,
    /// Transactions whose write set differs here from elsewhere.
    pub differs: BTreeSet<TxId>,
    /// Operations that fail here, once each, and how.
    pub fails: BTreeMap<(TxId, u32), &'static str>,
    /// Transactions whose constraints' check fails here, once each.
    pub checks_fail: BTreeSet<TxId>,
    /// How many rows each transaction changes.
    pub rows: u64,
    /// What definitions may be reached by here, as the server says it.
    pub names: Option<String>,
    /// What definitions were prepared, by gid, and applied, with what is known to reach them; none: everything.
    defining: BTreeMap<String, Option<Arc<Names>>>,
    pub walls: Vec<(TxId, Option<Arc<Names>>)>,
    /// Transactions whose Commit is delivered here.
    decided: BTreeSet<TxId>,
    /// What is prepared truncates tables, too.
    pub truncates: bool,
    /// Transactions that turn out to have written nothing here.
    pub writes_nothing: BTreeSet<TxId>,
}

impl Backend {
    fn holds(&self, held: Held) -> bool {
        self.held.contains(&held)
    }

    /// Looks at what is reported to the scheduler.
    pub(super) fn see(&mut self, event: &Event) {
        if let Event::Applied { tx, result: Ok(()) } | Event::CaughtUp { tx, result: Ok(()) } = event {
            self.visible.insert(*tx);
        }
        if let Event::Delivered { payload: steeldb_wire::transaction::Ordered::Commit(certificate), .. } =
            event
        {
            self.decided.insert(certificate.tx);
        }
    }

    /// What it answers to an effect.
    pub(super) fn effect(&mut self, effect: &Effect) -> Vec<Event> {
        match effect {
            Effect::OpenBackend { session, .. } if !self.holds(Held::Ready) => {
                self.sessions.insert(*session);
                let report = BackendReport::Ready { parameters: vec![], process: process_of(*session) };
                vec![Event::Backend { session: *session, report }]
            }
            Effect::Backend { session, command } => self.command(*session, command),
            Effect::TakeAnchor { anchor, .. } if !self.holds(Held::Anchored) => {
                let snapshot = format!("{:?}", self.visible);
                vec![Event::Anchored { anchor: *anchor, snapshot: Ok(snapshot) }]
            }
            Effect::CommitPrepared { tx, gid, .. } => {
                assert!(self.prepared.remove(gid), "COMMIT PREPARED of {tx}, which is not prepared");
                self.applied.push(*tx);
                if let Some(names) = self.defining.remove(gid) {
                    self.walls.push((*tx, names));
                }
                if let Some(write_set) = self.prepared_sets.remove(gid) {
                    self.effects.insert(*tx, write_set);
                }
                if self.holds(Held::Applied) {
                    return vec![];
                }
                vec![Event::Applied { tx: *tx, result: Ok(()) }]
            }
            Effect::RollbackPrepared { gid, .. } => {
                self.prepared.remove(gid);
                if self.holds(Held::RolledBack) {
                    return vec![];
                }
                vec![Event::RolledBack { gid: gid.clone() }]
            }
            Effect::CatchUp { tx, slot, write_set, reexecution: Some(reexecution), .. }
                if !self.holds(Held::CaughtUp) =>
            {
                self.reexecuted.push((*tx, reexecution.snapshot.clone()));
                let gid = steeldb_postgres::transaction::gid(*tx, *slot);
                let digest = if self.differs.contains(tx) { Digest::of("another", &[]) } else { *write_set };
                self.prepared.insert(gid.clone());
                self.prepared_sets.insert(gid.clone(), digest);
                self.defining.insert(gid.clone(), None);
                let write_set = Ok(DecodedSet {
                    digest,
                    wall: steeldb_wire::transaction::Wall::Database,
                    truncates: false,
                    changes: 1,
                });
                vec![Event::Reexecuted { tx: *tx, result: Ok(None) }, Event::Decoded { gid, write_set }]
            }
            Effect::CatchUp { tx, write_set, database, .. } if !self.holds(Held::CaughtUp) => {
                assert_eq!(database, "app");
                self.applied.push(*tx);
                self.effects.insert(*tx, *write_set);
                self.caught_up.push(*tx);
                vec![Event::CaughtUp { tx: *tx, result: Ok(()) }]
            }
            Effect::Maintain { session, sequence, .. } if !self.holds(Held::Maintained) => {
                vec![Event::Maintained { session: *session, sequence: *sequence, messages: vec![] }]
            }
            _ => vec![],
        }
    }

    /// B9: nothing is executed on a snapshot of before a wall that is applied here and that it may reach. What is decided may
    /// be: it is compared with what was vouched for.
    fn check_walls(&self, tx: TxId, sql: &str) {
        let Some(snapshot) = self.snapshots.get(&tx).filter(|_| !self.decided.contains(&tx)) else { return };
        let reads = sql.starts_with("SELECT");
        for (by, names) in &self.walls {
            let passed = !snapshot.contains(&format!("{by:?}"));
            let reached = names.as_ref().is_none_or(|names| names.may_be_reached_by(sql, reads));
            assert!(!(passed && reached), "{tx} executes \"{sql}\" behind {by}");
        }
    }

    fn command(&mut self, session: SessionKey, command: &Command) -> Vec<Event> {
        let report = |report| vec![Event::Backend { session, report }];
        match command {
            Command::Define { statement, text } => {
                self.texts.insert((session, *statement), text.clone());
                vec![]
            }
            Command::Forget(statement) => {
                self.texts.remove(&(session, *statement));
                vec![]
            }
            Command::Begin { tx, snapshot, .. } => {
                self.blocks.insert(*tx, Block::default());
                self.snapshots.insert(*tx, snapshot.clone());
                if self.holds(Held::Begun) {
                    return vec![];
                }
                report(BackendReport::Begun { tx: *tx })
            }
            Command::BeginHere { tx, .. } => {
                self.blocks.insert(*tx, Block::default());
                self.snapshots.insert(*tx, format!("{:?}", self.applied));
                if self.holds(Held::Begun) {
                    return vec![];
                }
                report(BackendReport::Begun { tx: *tx })
            }
            Command::Execute { tx, number, statement, kind, .. } => {
                let text = self.texts.get(&(session, *statement)).expect("the statement is defined");
                let sql = text.sql.clone();
                self.check_walls(*tx, &sql);
                let block = self.blocks.entry(*tx).or_default();
                block.operations += 1;
                block.wrote |= ["UPDATE", "COPY", "CREATE"].iter().any(|word| sql.starts_with(word));
                block.ddl |= sql.starts_with("CREATE");
                let copy = matches!(kind, OperationKind::CopyIn { .. });
                let tag = match sql.split(' ').next() {
                    Some("LOCK") => TagKind::Lock,
                    Some("CREATE") => TagKind::Ddl,
                    Some("SET") => TagKind::Settings,
                    _ => TagKind::Plain,
                };
                if self.holds(Held::Executed) || copy {
                    return vec![];
                }
                let failure = self.fails.remove(&(*tx, *number)).map(SqlState::parse);
                report(BackendReport::Executed {
                    tx: *tx,
                    number: *number,
                    result: failure.map_or(result_of(*number), |state| {
                        steeldb_wire::transaction::ResultDigest::error(state.0)
                    }),
                    sqlstate: failure,
                    status: if failure.is_some() { b'E' } else { b'T' },
                    tag,
                    copy_started: false,
                    draws: Draws::NONE,
                })
            }
            Command::Adopt { tx, number, sqlstate } => report(BackendReport::Executed {
                tx: *tx,
                number: *number,
                result: steeldb_wire::transaction::ResultDigest::error(sqlstate.0),
                sqlstate: Some(*sqlstate),
                status: b'E',
                tag: TagKind::Plain,
                copy_started: false,
                draws: Draws::NONE,
            }),
            Command::Complete { tx } if self.checks_fail.remove(tx) => {
                let result = Err(SqlState::parse("23503"));
                report(BackendReport::Completed { tx: *tx, result })
            }
            Command::Complete { tx } => {
                let block = self.blocks.entry(*tx).or_default();
                let wrote = block.wrote && !self.writes_nothing.contains(tx);
                let names = self.names.as_deref().filter(|_| block.ddl).and_then(Names::parse).map(Arc::new);
                report(BackendReport::Completed {
                    tx: *tx,
                    result: Ok(Completion {
                        wrote,
                        ddl: block.ddl,
                        temporary: false,
                        names,
                        rows: self.rows,
                    }),
                })
            }
            Command::Prepare { tx, gid, .. } => {
                let block = self.blocks.remove(tx).unwrap_or_default();
                if block.ddl {
                    self.defining
                        .insert(gid.clone(), self.names.as_deref().and_then(Names::parse).map(Arc::new));
                }
                self.prepared.insert(gid.clone());
                let digest = match self.differs.contains(tx) {
                    true => Digest::of("another", &[]),
                    false => write_set_of(*tx, block.operations),
                };
                self.prepared_sets.insert(gid.clone(), digest);
                let mut events = Vec::new();
                if !self.holds(Held::Decoded) {
                    let write_set = Ok(DecodedSet {
                        digest,
                        wall: steeldb_wire::transaction::Wall::None,
                        truncates: self.truncates,
                        changes: 1,
                    });
                    events.push(Event::Decoded { gid: gid.clone(), write_set });
                }
                if !self.holds(Held::Prepared) {
                    events.extend(report(BackendReport::Prepared { tx: *tx, result: Ok(None) }));
                }
                events
            }
            Command::End { tx, .. } => {
                self.blocks.remove(tx);
                report(BackendReport::Ended { tx: *tx })
            }
            Command::Close => {
                self.sessions.remove(&session);
                self.texts.retain(|(of, _), _| *of != session);
                vec![]
            }
            _ => vec![],
        }
    }
}
