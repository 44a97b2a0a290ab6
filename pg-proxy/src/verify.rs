//! `steeldb.verify`: when results are verified. The setting itself lives in the backends, as any other; here is what the
//! proxy has seen of it, through transactions and savepoints as PostgreSQL keeps settings.
//!
//! Invariant: where it cannot be known what holds, eager does.

use crate::error::{Failure, PgError};
use crate::session::Session;
use crate::sql::{Statement, StatementKind};
use crate::transaction::Block;
use serde::{Deserialize, Serialize};

/// The parameter's name.
pub(crate) const PARAMETER: &str = "steeldb.verify";

/// When a result is verified (rule 11).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// At the end of its transaction: until then it is the master's word.
    #[default]
    Commit,
    /// Before it is shown.
    Eager,
}

impl Verify {
    /// From a parameter's value.
    pub(crate) fn parse(value: &str) -> Option<Verify> {
        match value.to_ascii_lowercase().as_str() {
            "commit" => Some(Verify::Commit),
            "eager" => Some(Verify::Eager),
            _ => None,
        }
    }

    /// As a parameter's value.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Verify::Commit => "commit",
            Verify::Eager => "eager",
        }
    }
}

/// The parameter in a session.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct VerifySetting {
    /// What RESET goes back to.
    start: Verify,
    /// Outside of transactions.
    session: Verify,
    block: InBlock,
    savepoints: Vec<(String, InBlock)>,
}

/// What the open transaction has set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct InBlock {
    set: Option<Verify>,
    local: Option<Verify>,
}

impl VerifySetting {
    pub(crate) fn new(start: Verify) -> VerifySetting {
        VerifySetting { start, session: start, ..VerifySetting::default() }
    }

    /// What holds now.
    pub(crate) fn current(&self) -> Verify {
        self.block.local.or(self.block.set).unwrap_or(self.session)
    }

    /// A statement has succeeded.
    pub(crate) fn ran(&mut self, kind: &StatementKind) {
        match kind {
            StatementKind::Set { name, local, value } if name == PARAMETER => {
                // What is not a value was refused before.
                let value = value.as_deref().and_then(Verify::parse).unwrap_or(Verify::Eager);
                match local {
                    true => self.block.local = Some(value),
                    false => self.block = InBlock { set: Some(value), local: None },
                }
            }
            StatementKind::Reset { name } if name.as_deref().is_none_or(|name| name == PARAMETER) => {
                self.block = InBlock { set: Some(self.start), local: None };
            }
            StatementKind::Discard { all: true } => {
                self.block = InBlock { set: Some(self.start), local: None };
            }
            StatementKind::Savepoint(name) => self.savepoints.push((name.clone(), self.block)),
            StatementKind::ReleaseSavepoint(name) => {
                if let Some(at) = self.savepoints.iter().rposition(|(other, _)| other == name) {
                    self.savepoints.truncate(at);
                }
            }
            StatementKind::RollbackTo(name) => {
                if let Some(at) = self.savepoints.iter().rposition(|(other, _)| other == name) {
                    self.block = self.savepoints[at].1;
                    self.savepoints.truncate(at + 1);
                }
            }
            _ => {}
        }
    }

    /// The transaction is over. `committed`: none if that is not known.
    pub(crate) fn ended(&mut self, committed: Option<bool>) {
        let set = self.block.set.unwrap_or(self.session);
        self.session = match committed {
            Some(true) => set,
            Some(false) => self.session,
            None if set == self.session => set,
            None => Verify::Eager,
        };
        self.block = InBlock::default();
        self.savepoints.clear();
    }
}

impl Session {
    /// Whether results are verified before they are shown.
    pub(crate) fn is_eager(&self) -> bool {
        self.verify.current() == Verify::Eager
    }

    /// What cannot be verified before it is shown. A definition is executed by one replica after the other only when its
    /// transaction is finished, so it must be all of its transaction, whose outcome its answer waits for.
    pub(crate) fn check_verify(&self, statement: &Statement, shared: bool) -> Result<(), Failure> {
        if let StatementKind::Set { name, value, .. } = &statement.kind
            && name == PARAMETER
            && value.as_deref().and_then(Verify::parse).is_none()
        {
            let value = value.as_deref().unwrap_or_default();
            return Err(PgError::new(
                "22023",
                format!("invalid value for parameter \"{PARAMETER}\": \"{value}\""),
            )
            .hint("Available values: commit, eager.")
            .into());
        }
        if self.transaction.unverified_definition {
            return Err(not_alone());
        }
        let definition = statement.is_wall();
        if definition && self.is_eager() && (shared || self.transaction.block == Block::Explicit) {
            return Err(not_alone());
        }
        Ok(())
    }
}

/// The error for a definition that shares its transaction with others.
pub(crate) fn not_alone() -> Failure {
    PgError::new(
        "0A000",
        "a definition cannot be verified before its transaction ends, as steeldb.verify = 'eager' asks",
    )
    .hint("Run it by itself, outside a transaction block, or SET LOCAL steeldb.verify = 'commit' before it.")
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::analyze;

    fn run(setting: &mut VerifySetting, sql: &str) {
        for statement in analyze(sql).unwrap() {
            match statement.kind {
                StatementKind::Commit { .. } => setting.ended(Some(true)),
                StatementKind::Rollback { .. } => setting.ended(Some(false)),
                kind => setting.ran(&kind),
            }
        }
    }

    #[test]
    fn it_goes_through_transactions_and_savepoints_as_in_postgresql() {
        let cases = [
            ("set steeldb.verify = 'eager'", Verify::Eager),
            ("set \"steeldb.verify\" to EAGER; commit", Verify::Eager),
            ("set steeldb.verify = 'eager'; rollback", Verify::Commit),
            ("set local steeldb.verify = 'eager'", Verify::Eager),
            ("set local steeldb.verify = 'eager'; commit", Verify::Commit),
            ("set local steeldb.verify = 'eager'; set steeldb.verify = commit", Verify::Commit),
            ("set steeldb.verify = 'eager'; set local steeldb.verify = commit; commit", Verify::Eager),
            ("set steeldb.verify = 'eager'; commit; reset steeldb.verify", Verify::Commit),
            ("set steeldb.verify = 'eager'; commit; set steeldb.verify to default; rollback", Verify::Eager),
            ("set steeldb.verify = 'eager'; commit; reset all; commit", Verify::Commit),
            ("set steeldb.verify = 'eager'; commit; discard all; commit", Verify::Commit),
            ("set steeldb.verify = 'eager'; commit; reset work_mem; set work_mem = '1MB'", Verify::Eager),
            ("savepoint a; set steeldb.verify = 'eager'; rollback to a", Verify::Commit),
            ("savepoint a; set steeldb.verify = 'eager'; release a", Verify::Eager),
            (
                "savepoint a; savepoint b; set steeldb.verify = eager; release b; rollback to a",
                Verify::Commit,
            ),
            (
                "set steeldb.verify = eager; savepoint a; reset all; rollback to a; rollback to a",
                Verify::Eager,
            ),
        ];
        for (sql, expected) in cases {
            let mut setting = VerifySetting::default();
            run(&mut setting, sql);
            assert_eq!(setting.current(), expected, "{sql}");
        }
    }

    #[test]
    fn the_start_is_what_reset_goes_back_to_and_doubt_is_eager() {
        let mut setting = VerifySetting::new(Verify::Eager);
        run(&mut setting, "set steeldb.verify = 'commit'; commit");
        assert_eq!(setting.current(), Verify::Commit);
        run(&mut setting, "reset steeldb.verify");
        assert_eq!(setting.current(), Verify::Eager);
        setting.ended(None);
        assert_eq!(setting.current(), Verify::Eager);
        let mut setting = VerifySetting::new(Verify::Eager);
        run(&mut setting, "set steeldb.verify = 'commit'");
        setting.ended(None);
        assert_eq!(setting.current(), Verify::Eager);
    }
}
