//! What is buffered for clients, in bytes, and what happens past the bounds (design, section 8).

use super::{Scheduler, bulk};
use steeldb_types::{ClientId, TxId, limits};

impl Scheduler {
    /// Notes that `bytes` more are buffered for operation `number`; false when that breaks a limit, and the session ends.
    /// A transaction's limit is on what it sent in all, so that it holds at the master too, which may keep less of it.
    pub(super) fn account(&mut self, tx: TxId, number: u32, bytes: usize) -> bool {
        let Some(transaction) = self.transactions.get_mut(&tx) else { return false };
        transaction.bytes += bytes;
        transaction.received_bytes += bytes;
        let of_operations = transaction.received_bytes - transaction.copied_bytes;
        if let Some(buffered) = transaction.waiting.get_mut(&number) {
            buffered.bytes += bytes;
        }
        let room = self.has_room(tx.session.client, bytes);
        self.hold(tx.session.client, bytes);
        if of_operations > limits::TRANSACTION_BYTES_MAX || !room {
            self.too_large(tx);
            return false;
        }
        true
    }

    /// Notes that `bytes` more of an operation's COPY data came; false when they are too many, and the transaction ends.
    pub(super) fn account_copy(&mut self, tx: TxId, number: u32, bytes: usize) -> bool {
        let Some(transaction) = self.transactions.get_mut(&tx) else { return false };
        transaction.received_bytes += bytes;
        transaction.copied_bytes += bytes;
        if transaction.copied_bytes as u64 > self.config.bulk_bytes_max {
            self.end_bulk(tx, bulk::TOO_LARGE);
            return false;
        }
        if transaction.copied_bytes > limits::BULK_BYTES {
            // One at a time, so that its bound is all that it can take beside the others'.
            return self.is_or_becomes_bulk(tx);
        }
        let Some(buffered) = transaction.waiting.get_mut(&number) else { return true };
        buffered.bytes += bytes;
        transaction.bytes += bytes;
        let room = self.has_room(tx.session.client, bytes);
        self.hold(tx.session.client, bytes);
        if !room {
            self.too_large(tx);
        }
        room
    }

    pub(super) fn too_large(&mut self, tx: TxId) {
        self.drop_session(
            tx.session,
            "54000",
            "the transaction is too large for its replicas' buffers; send the data in several transactions",
        );
    }

    /// Whether `bytes` more may be kept for a client.
    pub(super) fn has_room(&self, client: ClientId, bytes: usize) -> bool {
        let of_client = self.bytes_by_client.get(&client).copied().unwrap_or_default();
        let of_all: usize = self.bytes_by_client.values().sum();
        of_client + bytes <= limits::CLIENT_BYTES_MAX && of_all + bytes <= limits::REPLICA_BYTES_MAX
    }

    /// Notes that `bytes` more are kept for a client.
    pub(super) fn hold(&mut self, client: ClientId, bytes: usize) {
        *self.bytes_by_client.entry(client).or_default() += bytes;
    }

    /// Notes that `bytes` less are kept for a client.
    pub(super) fn let_go(&mut self, client: ClientId, bytes: usize) {
        if let Some(of_client) = self.bytes_by_client.get_mut(&client) {
            *of_client = of_client.saturating_sub(bytes);
        }
    }

    /// Notes that `bytes` less are buffered for a transaction.
    pub(super) fn release(&mut self, tx: TxId, bytes: usize) {
        if let Some(transaction) = self.transactions.get_mut(&tx) {
            transaction.bytes = transaction.bytes.saturating_sub(bytes);
        }
        self.let_go(tx.session.client, bytes);
    }
}
