//! COPY data: their digest here, themselves in the spool, and how they end.

use super::transaction::{CopyState, Transaction};
use super::{Effect, Scheduler};
use bytes::Bytes;
use steeldb_types::TxId;
use steeldb_wire::transaction::{CopyDigest, Operation, OperationKind, SqlState};

impl Scheduler {
    /// COPY data arrive.
    pub(super) fn copy_data(&mut self, tx: TxId, number: u32, data: Bytes) {
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        transaction.active_at_us = self.now_us;
        let (open, wanted) = if let Some(issued) = transaction.issued.get_mut(&number) {
            // Of one that has failed already only the digest is wanted.
            (issued.copy.open(&issued.operation), issued.early.is_none())
        } else if let Some(buffered) = transaction.waiting.get_mut(&number) {
            (buffered.copy.open(&buffered.operation), true)
        } else {
            return;
        };
        let Some(digest) = open else { return };
        digest.data(&data);
        transaction.has_copies = true;
        if self.account_copy(tx, number, data.len()) && wanted {
            self.push(Effect::KeepCopy { tx, number, data });
        }
    }

    /// COPY data that were kept here are lost. At the master the statement fails, as its backend says; elsewhere the
    /// transaction cannot be executed.
    pub(super) fn copy_lost(&mut self, tx: TxId) {
        let shows = |transaction: &Transaction| transaction.issued.values().any(|issued| issued.shown);
        if self.transactions.get(&tx).is_some_and(|transaction| !shows(transaction)) {
            self.end_bulk(tx, SqlState(*b"53100"));
        }
    }

    /// The COPY data of a transaction are needed no more.
    pub(super) fn drop_copies(&mut self, tx: TxId) {
        if let Some(transaction) = self.transactions.get_mut(&tx)
            && std::mem::take(&mut transaction.has_copies)
        {
            self.push(Effect::DropCopies { tx, number: None });
        }
    }

    /// COPY data end.
    pub(super) fn copy_end(&mut self, tx: TxId, number: u32, failure: Option<String>) {
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        if let Some(issued) = transaction.issued.get_mut(&number) {
            if issued.copy.end(&issued.operation, failure.clone()) {
                match issued.early.take() {
                    Some(early) => self.executed(tx, number, early),
                    None => self.end_copy(tx, number, failure),
                }
            }
        } else if let Some(buffered) = transaction.waiting.get_mut(&number) {
            if buffered.copy.end(&buffered.operation, failure.clone()) {
                self.end_copy(tx, number, failure);
            }
            self.advance(tx);
        }
    }

    pub(super) fn end_copy(&mut self, tx: TxId, number: u32, failure: Option<String>) {
        if let Some(transaction) = self.transactions.get_mut(&tx) {
            transaction.has_copies = true;
            self.push(Effect::EndCopy { tx, number, failure });
        }
    }
}

impl CopyState {
    /// The running digest, opened by the first chunk; none once ended, or when the operation is no COPY.
    fn open(&mut self, operation: &Operation) -> Option<&mut CopyDigest> {
        let is_copy = matches!(operation.kind, OperationKind::CopyIn { .. });
        if matches!(self, CopyState::None) && is_copy {
            *self = CopyState::Open(CopyDigest::default());
        }
        match self {
            CopyState::Open(digest) => Some(digest),
            _ => None,
        }
    }

    /// Ends it; false if it was ended before.
    fn end(&mut self, operation: &Operation, failure: Option<String>) -> bool {
        let Some(digest) = self.open(operation).map(|digest| digest.clone()) else { return false };
        *self = CopyState::Ended { digest: digest.finish(failure.as_deref()), failure };
        true
    }
}
