//! The script of a transaction that ran DDL: what another replica needs to execute it again at its slot, since decoding
//! does not show what DDL does (A11).
//!
//! A peer's script is believed in what the certificate vouches for: the chain over operations and results must end in its
//! h_k *before* anything is executed. So a liar can neither add nor change a statement. What is not in that chain (what
//! was drawn, which errors came of timing, the session's settings) shows in the results and in w, or does nothing.

use crate::guard;
use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::BTreeMap;
use steeldb_types::{Digest, Slot, TxId, limits};
use steeldb_wire::codec;
use steeldb_wire::transaction::{
    CopyDigest, Draws, Modes, Operation, SqlState, StatementId, StatementText, Transcript, preamble,
};

/// One operation as it was executed.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Step {
    /// The operation.
    pub operation: Operation,
    /// Its COPY data, if any came.
    pub copy: Option<Copied>,
    /// An error that came of timing at the master: adopted, not executed (B8).
    pub adopted: Option<SqlState>,
    /// What it drew from sequences (A9).
    pub draws: Draws,
    /// Its canonical result.
    pub result: Digest,
}

/// COPY data.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Copied {
    /// The chunks.
    pub data: Vec<Vec<u8>>,
    /// CopyFail's message.
    pub failure: Option<String>,
}

impl Copied {
    fn digest(&self) -> Digest {
        let mut digest = CopyDigest::default();
        for chunk in &self.data {
            digest.data(chunk);
        }
        digest.finish(self.failure.as_deref())
    }
}

/// The session that a transaction ran in, as its backend was started and as its client had set it by then.
#[derive(Clone, PartialEq, Eq, Debug, Default, BorshSerialize, BorshDeserialize)]
pub struct SessionState {
    /// The database.
    pub database: String,
    /// The role.
    pub role: String,
    /// Start-up parameters.
    pub parameters: Vec<(String, String)>,
    /// Settings of the session, by name.
    pub settings: Vec<(String, String)>,
}

/// A whole transaction.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Script {
    /// Whose.
    pub tx: TxId,
    /// Its slot.
    pub slot: Slot,
    /// Its attributes.
    pub modes: Modes,
    /// Its session.
    pub session: SessionState,
    /// The statements that it runs.
    pub statements: BTreeMap<StatementId, StatementText>,
    /// Its operations.
    pub steps: Vec<Step>,
}

/// Why a script is not the one that the certificate names.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScriptError {
    /// It does not decode.
    #[error("it cannot be read: {0}")]
    Malformed(String),
    /// It is another transaction's.
    #[error("it is the script of another transaction")]
    Other,
    /// A statement is missing.
    #[error("operation {0} has no statement")]
    NoStatement(u32),
    /// A statement that no operation may be (A4).
    #[error("operation {0} is none: {1}")]
    Refused(u32, String),
    /// The chain does not end in h_k.
    #[error("its operations and results are not those that a quorum vouched for")]
    NotVouchedFor,
}

impl Script {
    /// Reads what a peer sent, and checks it against what the certificate says.
    ///
    /// # Errors
    /// [`ScriptError`]: the peer is asked in vain.
    pub fn open(
        bytes: &[u8],
        tx: TxId,
        slot: Slot,
        operations: u32,
        transcript: Digest,
    ) -> Result<Script, ScriptError> {
        let script: Script = codec::decode(bytes, limits::KEPT_RECORD_BYTES_MAX)
            .map_err(|error| ScriptError::Malformed(error.to_string()))?;
        if script.tx != tx || script.slot != slot {
            return Err(ScriptError::Other);
        }
        let head = script.transcript()?;
        if script.steps.len() != operations as usize || head != transcript {
            return Err(ScriptError::NotVouchedFor);
        }
        for (number, step) in (1..).zip(&script.steps) {
            let text = script.statement(number, step.operation.statement)?;
            guard::check(&text.sql).map_err(|refused| ScriptError::Refused(number, refused.to_string()))?;
        }
        Ok(script)
    }

    fn statement(&self, number: u32, statement: StatementId) -> Result<&StatementText, ScriptError> {
        self.statements.get(&statement).ok_or(ScriptError::NoStatement(number))
    }

    /// h_k of its operations and results.
    ///
    /// # Errors
    /// [`ScriptError`]: operations that are not its own or not numbered, or without their statement.
    pub fn transcript(&self) -> Result<Digest, ScriptError> {
        let SessionState { database, role, parameters, .. } = &self.session;
        let mut transcript = Transcript::begin(self.tx, preamble(database, role, parameters), self.modes);
        for (number, step) in (1..).zip(&self.steps) {
            if step.operation.number != number || step.operation.tx != self.tx {
                return Err(ScriptError::NotVouchedFor);
            }
            let text = self.statement(number, step.operation.statement)?;
            let copy = step.copy.as_ref().map(Copied::digest);
            let digest = step.operation.digest(text.digest(), copy);
            let slot = (!step.operation.leading).then_some(self.slot);
            transcript.extend(slot, digest, step.result);
        }
        Ok(transcript.head())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeldb_types::Position;
    use steeldb_wire::transaction::OperationKind;

    fn script() -> Script {
        let step = |number: u32, statement: u32| Step {
            operation: Operation {
                tx: TxId::default(),
                number,
                statement: StatementId(statement),
                leading: false,
                row_order: false,
                must_vote: false,
                verify: false,
                kind: OperationKind::Execute { bind: vec![0; 6] },
            },
            copy: None,
            adopted: None,
            draws: Draws::NONE,
            result: Digest([number as u8; 32]),
        };
        let text = |sql: &str| StatementText { sql: sql.into(), parameter_types: vec![] };
        let session = SessionState { database: "app".into(), role: "app".into(), ..SessionState::default() };
        Script {
            tx: TxId::default(),
            slot: Position(5),
            modes: Modes::default(),
            session,
            statements: [(StatementId(1), text("create table t ()")), (StatementId(2), text("select 1"))]
                .into(),
            steps: vec![step(1, 1), step(2, 2)],
        }
    }

    fn open(script: &Script, vouched: &Script) -> Result<Script, ScriptError> {
        let transcript = vouched.transcript().unwrap();
        let operations = vouched.steps.len() as u32;
        Script::open(&codec::encode(script), vouched.tx, vouched.slot, operations, transcript)
    }

    #[test]
    fn a11_a_script_is_believed_in_what_the_certificate_names() {
        let vouched = script();
        assert_eq!(open(&vouched, &vouched).as_ref(), Ok(&vouched));
        let changes: [fn(&mut Script); 7] = [
            |s| {
                drop(s.statements.insert(
                    StatementId(1),
                    StatementText { sql: "drop table t".into(), parameter_types: vec![] },
                ))
            },
            |s| s.steps.swap(0, 1),
            |s| drop(s.steps.pop()),
            |s| s.session.role = "other".into(),
            |s| s.session.parameters = vec![("search_path".into(), "other".into())],
            |s| s.steps[1].result = Digest([9; 32]),
            |s| s.steps[1].copy = Some(Copied { data: vec![], failure: None }),
        ];
        for (at, change) in changes.into_iter().enumerate() {
            let mut changed = vouched.clone();
            change(&mut changed);
            assert_eq!(open(&changed, &vouched), Err(ScriptError::NotVouchedFor), "{at}");
        }
        let mut changed = vouched.clone();
        changed.slot = Position(6);
        assert_eq!(open(&changed, &vouched), Err(ScriptError::Other));
        let mut changed = vouched.clone();
        changed.statements.clear();
        assert_eq!(open(&changed, &vouched), Err(ScriptError::NoStatement(1)));
        let bytes = &codec::encode(&vouched)[..20];
        let cut = Script::open(bytes, vouched.tx, vouched.slot, 2, Digest::default());
        assert!(matches!(cut, Err(ScriptError::Malformed(_))));
    }

    /// Even what a quorum vouched for is no operation if it controls transactions (A4).
    #[test]
    fn a4_a_script_holds_operations_alone() {
        let mut vouched = script();
        vouched
            .statements
            .insert(StatementId(2), StatementText { sql: "COMMIT".into(), parameter_types: vec![] });
        assert!(matches!(open(&vouched, &vouched), Err(ScriptError::Refused(2, _))));
    }
}
