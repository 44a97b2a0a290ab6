//! A history: what clients asked for and what they were told, one transaction a line, as JSON.
//!
//! Times are microseconds of one monotonic clock: a history is recorded by one process, however many proxies its
//! clients use. Without that there is no real-time order to check.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufRead, Write};

/// A line that is longer is not a transaction of this workload.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A value; each is written once in a history.
pub type Value = u64;

/// The value of a register that nobody has set.
pub const UNSET: Value = 0;

/// What the client knows about a transaction's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// COMMIT was acknowledged.
    Committed,
    /// It certainly did not take effect: an error that says so, or no COMMIT was sent.
    Aborted,
    /// COMMIT was sent, and no answer says how it ended: it may or may not have taken effect.
    Unknown,
}

/// One step of a transaction, with what it answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Operation {
    /// Appends a value to a list.
    Append {
        /// The list.
        key: String,
        /// What is appended.
        value: Value,
    },
    /// Reads a list.
    Read {
        /// The list.
        key: String,
        /// All it held.
        values: Vec<Value>,
    },
    /// Reads a register.
    Get {
        /// The register.
        key: String,
        /// What it held.
        value: Value,
    },
    /// Writes a register, on the strength of what the transaction read from it before.
    Set {
        /// The register.
        key: String,
        /// What is written.
        value: Value,
    },
}

impl Operation {
    /// What it reads or writes.
    pub fn key(&self) -> &str {
        match self {
            Operation::Append { key, .. }
            | Operation::Read { key, .. }
            | Operation::Get { key, .. }
            | Operation::Set { key, .. } => key,
        }
    }
}

/// A transaction.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transaction {
    /// Its number, unique in the history.
    pub id: u64,
    /// Whose it was.
    pub client: u32,
    /// Just before its first statement was sent, microseconds.
    pub begin_us: u64,
    /// Just after the answer to its end had come, microseconds.
    pub end_us: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// What it did, in its order. Those that were answered; of an aborted one, also those that were not.
    pub operations: Vec<Operation>,
}

/// A checked history: numbers and values are unique, and a key is either a list or a register.
#[derive(Clone, Default, Debug)]
pub struct History {
    transactions: Vec<Transaction>,
}

/// Why a history was refused.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file cannot be read.
    #[error("line {line}: {source}")]
    Io {
        /// Counted from 1.
        line: usize,
        /// Why not.
        source: std::io::Error,
    },
    /// Not a transaction.
    #[error("line {line}: not a transaction: {reason}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A transaction that contradicts itself or others.
    #[error("transaction {id}: {reason}")]
    Transaction {
        /// Its number.
        id: u64,
        /// What is wrong.
        reason: String,
    },
}

impl History {
    /// Takes transactions.
    ///
    /// # Errors
    /// [`HistoryError::Transaction`] when they cannot be one history.
    pub fn new(transactions: Vec<Transaction>) -> Result<History, HistoryError> {
        check(&transactions)?;
        Ok(History { transactions })
    }

    /// Reads JSON lines.
    ///
    /// # Errors
    /// [`HistoryError`] names the line or the transaction.
    pub fn read(mut input: impl BufRead) -> Result<History, HistoryError> {
        let mut transactions = Vec::new();
        let mut text = String::new();
        for line in 1.. {
            text.clear();
            // One byte more than is allowed tells a line that is too long from one that just fits.
            let limit = LINE_BYTES_MAX as u64 + 1;
            let read = std::io::Read::take(&mut input, limit).read_line(&mut text);
            let bytes = read.map_err(|source| HistoryError::Io { line, source })?;
            if bytes == 0 {
                break;
            }
            if bytes > LINE_BYTES_MAX {
                let reason = format!("longer than {LINE_BYTES_MAX} bytes");
                return Err(HistoryError::Syntax { line, reason });
            }
            if text.trim().is_empty() {
                continue;
            }
            let transaction = serde_json::from_str(&text)
                .map_err(|error| HistoryError::Syntax { line, reason: error.to_string() })?;
            transactions.push(transaction);
        }
        History::new(transactions)
    }

    /// Writes JSON lines.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn write(&self, output: &mut impl Write) -> std::io::Result<()> {
        for transaction in &self.transactions {
            serde_json::to_writer(&mut *output, transaction)?;
            output.write_all(b"\n")?;
        }
        Ok(())
    }

    /// The transactions, in the order in which they were given.
    pub fn transactions(&self) -> &[Transaction] {
        &self.transactions
    }

    /// How many ended so.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.transactions.iter().filter(|transaction| transaction.outcome == outcome).count()
    }
}

fn check(transactions: &[Transaction]) -> Result<(), HistoryError> {
    let wrong = |id: u64, reason: String| HistoryError::Transaction { id, reason };
    let mut ids = BTreeMap::new();
    let mut values = BTreeMap::new();
    let mut lists: BTreeMap<&str, bool> = BTreeMap::new();
    for transaction in transactions {
        let id = transaction.id;
        if ids.insert(id, ()).is_some() {
            return Err(wrong(id, "there is another one with this number".into()));
        }
        if transaction.end_us < transaction.begin_us {
            return Err(wrong(id, "it ends before it begins".into()));
        }
        for operation in &transaction.operations {
            let key = operation.key();
            let is_list = matches!(operation, Operation::Append { .. } | Operation::Read { .. });
            if *lists.entry(key).or_insert(is_list) != is_list {
                return Err(wrong(id, format!("{key:?} is used as a list and as a register")));
            }
            if let Operation::Append { value, .. } | Operation::Set { value, .. } = operation {
                if *value == UNSET {
                    return Err(wrong(id, format!("{UNSET} is no value to be written: it means unset")));
                }
                if let Some(other) = values.insert((key, *value), id) {
                    let reason = format!("value {value} of {key:?} was written by transaction {other}, too");
                    return Err(wrong(id, reason));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"id":1,"client":2,"begin_us":3,"end_us":4,"outcome":"committed","operations":[{"append":{"key":"a","value":5}},{"read":{"key":"a","values":[5]}}]}"#;

    fn refused(text: &str) -> String {
        History::read(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_written_is_read() {
        let history = History::read(LINE.as_bytes()).unwrap();
        let mut text = Vec::new();
        history.write(&mut text).unwrap();
        assert_eq!(String::from_utf8(text).unwrap().trim_end(), LINE);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(refused("{\"id\":1}").starts_with("line 1: not a transaction: missing field"));
        assert!(refused(&format!("{LINE}\n\nnonsense")).starts_with("line 3"));
        assert!(refused(&format!("{LINE}\n{LINE}")).contains("another one with this number"));
        let second = LINE.replace("\"id\":1", "\"id\":9");
        assert!(
            refused(&format!("{LINE}\n{second}")).contains("value 5 of \"a\" was written by transaction 1")
        );
        assert!(refused(&LINE.replace("\"end_us\":4", "\"end_us\":2")).contains("ends before it begins"));
        assert!(refused(&LINE.replace("\"value\":5", "\"value\":0")).contains("means unset"));
        let both = LINE.replace("read", "get").replace("\"values\":[5]", "\"value\":5");
        assert!(refused(&both).contains("as a list and as a register"));
        assert!(refused(&"x".repeat(LINE_BYTES_MAX + 2)).contains("longer than"));
        assert!(History::read(&b"\xff\xff"[..]).is_err());
    }
}
