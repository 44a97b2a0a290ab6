//! Statements on a snapshot, one transaction alone: what each must give, computed anew.

use crate::sql::{DRIFTED, Key, Statement, Value};
use std::collections::BTreeMap;
use steeldb_types::Timestamp;

/// What a statement gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Given {
    /// Rows as text.
    pub rows: Vec<Vec<String>>,
    /// The command tag.
    pub tag: String,
    /// The SQLSTATE of an error.
    pub error: Option<String>,
}

/// A transaction on its snapshot.
pub struct Serial<'a> {
    snapshot: &'a BTreeMap<Key, Value>,
    timestamp: Timestamp,
    read_only: bool,
    /// Rows that it changed.
    pub writes: BTreeMap<Key, Option<Value>>,
    savepoints: Vec<(String, BTreeMap<Key, Option<Value>>)>,
    /// A statement failed.
    pub failed: bool,
}

impl<'a> Serial<'a> {
    /// A transaction that has done nothing.
    pub fn new(snapshot: &'a BTreeMap<Key, Value>, timestamp: Timestamp, read_only: bool) -> Serial<'a> {
        Serial {
            snapshot,
            timestamp,
            read_only,
            writes: BTreeMap::new(),
            savepoints: Vec::new(),
            failed: false,
        }
    }

    /// The row that it sees.
    pub fn sees(&self, key: Key) -> Option<Value> {
        match self.writes.get(&key) {
            Some(own) => own.clone(),
            None => self.snapshot.get(&key).cloned(),
        }
    }

    /// Whether a row is another one than the snapshot's.
    pub fn changes(&self, key: Key) -> bool {
        self.sees(key).as_ref() != self.snapshot.get(&key)
    }

    /// A statement that failed there for what others did: nothing of it stays.
    pub fn fail(&mut self) {
        self.failed = true;
    }

    /// What the next statement gives if nobody else is in its way.
    pub fn run(&mut self, statement: &Statement) -> Given {
        let given = self.give(statement);
        if given.error.is_some() {
            self.failed = true;
        }
        given
    }

    /// An INSERT of a key that the snapshot still sees, and that is free.
    pub fn insert(&mut self, statement: &Statement) -> Given {
        if let Statement::Insert { key, .. } = statement
            && !self.failed
            && !self.read_only
        {
            self.writes.insert(*key, None);
        }
        self.run(statement)
    }

    fn give(&mut self, statement: &Statement) -> Given {
        if let Statement::RollbackTo(name) = statement {
            let Some(at) = self.savepoints.iter().rposition(|(other, _)| other == name) else {
                return error("3B001");
            };
            self.writes = self.savepoints[at].1.clone();
            self.savepoints.truncate(at + 1);
            self.failed = false;
            return done(vec![], "ROLLBACK");
        }
        if self.failed {
            return error("25P02");
        }
        if self.read_only && !statement.only_reads() {
            return error("25006");
        }
        match statement {
            Statement::Clock => done(vec![vec![self.timestamp.0.to_string()]], "SELECT 1"),
            Statement::Select { from, to, .. } => {
                let seen = (*from..=*to).filter_map(|key| Some(row(key, &self.sees(key)?)));
                let rows: Vec<_> = seen.collect();
                let tag = format!("SELECT {}", rows.len());
                done(rows, &tag)
            }
            Statement::Update { from, to, append, token } => {
                let mut rows = Vec::new();
                for key in *from..=*to {
                    let Some(mut value) = self.sees(key) else { continue };
                    if !append {
                        value.clear();
                    }
                    value.push(*token);
                    rows.push(row(key, &value));
                    self.writes.insert(key, Some(value));
                }
                let tag = format!("UPDATE {}", rows.len());
                done(rows, &tag)
            }
            Statement::Drift { key, token } => {
                let Some(mut value) = self.sees(*key) else { return done(vec![], "UPDATE 0") };
                value.push(*token);
                self.writes.insert(*key, Some(value));
                done(vec![], "UPDATE 1")
            }
            Statement::Insert { key, token } => {
                if self.sees(*key).is_some() {
                    return error("23505");
                }
                self.writes.insert(*key, Some(vec![*token]));
                done(vec![], "INSERT 0 1")
            }
            Statement::Delete { from, to } => {
                let seen: Vec<Key> = (*from..=*to).filter(|key| self.sees(*key).is_some()).collect();
                let tag = format!("DELETE {}", seen.len());
                self.writes.extend(seen.into_iter().map(|key| (key, None)));
                done(vec![], &tag)
            }
            Statement::Savepoint(name) => {
                self.savepoints.push((name.clone(), self.writes.clone()));
                done(vec![], "SAVEPOINT")
            }
            Statement::Release(name) => {
                let Some(at) = self.savepoints.iter().rposition(|(other, _)| other == name) else {
                    return error("3B001");
                };
                self.savepoints.truncate(at);
                done(vec![], "RELEASE")
            }
            Statement::RollbackTo(_) => done(vec![], "ROLLBACK"),
        }
    }
}

/// A value without what came out differently on some replica.
pub fn settled(value: &Value) -> Value {
    value.iter().map(|token| token % DRIFTED).collect()
}

fn row(key: Key, value: &Value) -> Vec<String> {
    let tokens: Vec<String> = settled(value).iter().map(u32::to_string).collect();
    vec![key.to_string(), tokens.join(",")]
}

fn done(rows: Vec<Vec<String>>, tag: &str) -> Given {
    Given { rows, tag: tag.into(), error: None }
}

fn error(sqlstate: &str) -> Given {
    Given { rows: vec![], tag: String::new(), error: Some(sqlstate.into()) }
}

/// Reads what a client was shown: PostgreSQL's messages, read anew; nothing if they are no answer.
pub fn read(mut bytes: &[u8]) -> Option<Given> {
    let mut given = done(vec![], "");
    while let Some((tag, rest)) = bytes.split_first() {
        let length = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let body = rest.get(4..length)?;
        bytes = rest.get(length..)?;
        match tag {
            b'D' => given.rows.push(fields(body)?.into_iter().map(settled_text).collect()),
            b'C' => given.tag = text(body.strip_suffix(&[0])?)?,
            b'E' => {
                let code = body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"C"))?;
                given.error = Some(text(code)?);
                given.rows.clear();
            }
            _ => {}
        }
    }
    Some(given)
}

/// The same of a field.
fn settled_text(field: String) -> String {
    let settle =
        |token: &str| token.parse::<u32>().map_or(token.to_string(), |token| (token % DRIFTED).to_string());
    field.split(',').map(settle).collect::<Vec<_>>().join(",")
}

fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_string)
}

fn fields(body: &[u8]) -> Option<Vec<String>> {
    let count = u16::from_be_bytes(body.get(..2)?.try_into().ok()?);
    let mut rest = body.get(2..)?;
    let mut fields = Vec::new();
    for _ in 0..count {
        let length = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        fields.push(text(rest.get(4..4 + length)?)?);
        rest = rest.get(4 + length..)?;
    }
    Some(fields)
}
