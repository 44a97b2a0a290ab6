//! Operations: what may run when (rules 4 and 5), and what their results add to the transcript.

use super::event::TagKind;
use super::transaction::{Buffered, CopyState, Issued, Phase, Transaction};
use super::{Command, Scheduler};
use crate::guard::Class;
use std::collections::VecDeque;
use steeldb_types::{Digest, TxId, limits};
use steeldb_wire::transaction::{
    CopyDigest, Executed, Operation, OperationKind, ReplicaMessage, SqlState, Transcript, VoteKind,
};

/// What the backend reported of an operation.
#[derive(Debug)]
pub(super) struct OperationResult {
    pub result: Digest,
    pub sqlstate: Option<SqlState>,
    pub status: u8,
    pub tag: TagKind,
    pub copy_started: bool,
}

/// Errors that come of timing: adopted from the master, never re-executed (B8).
const TIMING_ERRORS: [&str; 3] = ["40P01", "55P03", "57014"];

impl Scheduler {
    /// An operation arrives from its client.
    pub(super) fn operation(&mut self, operation: Operation) {
        let tx = operation.tx;
        let Some(session) = self.sessions.get_mut(&tx.session) else { return };
        if session.current != Some(tx) {
            if tx.counter <= session.counter && self.transactions.get(&tx).is_none() {
                return; // of a transaction that is over
            }
            session.counter = session.counter.max(tx.counter);
            let before = session.current.replace(tx);
            if let Some(before) = before {
                self.leave_behind(before);
            }
        }
        let now = self.now_us;
        let bytes = operation.size();
        let transaction = self.transactions.entry(tx).or_insert_with(|| Transaction::new(tx, now));
        if transaction.finish.is_some() {
            return; // the client has said that these are all
        }
        if operation.number != transaction.received + 1 || operation.number > limits::OPERATIONS_MAX {
            return self.drop_session(tx.session, "08P01", "operations out of sequence");
        }
        transaction.received = operation.number;
        transaction.active_at_us = now;
        transaction.must_vote |= operation.must_vote;
        let copy = CopyState::None;
        transaction
            .waiting
            .insert(operation.number, Buffered { operation, copy, data: VecDeque::new(), bytes: 0 });
        if self.account(tx, bytes) {
            self.advance(tx);
        }
    }

    /// COPY data arrive.
    pub(super) fn copy_data(&mut self, tx: TxId, number: u32, data: Vec<u8>) {
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        transaction.active_at_us = self.now_us;
        if let Some(issued) = transaction.issued.get_mut(&number) {
            if let Some(digest) = issued.copy.open() {
                digest.data(&data);
                self.backend(tx.session, Command::CopyData(data));
            }
        } else if let Some(buffered) = transaction.waiting.get_mut(&number)
            && let Some(digest) = buffered.copy.open()
        {
            digest.data(&data);
            let bytes = data.len();
            buffered.data.push_back(data);
            self.account(tx, bytes);
        }
    }

    /// COPY data end.
    pub(super) fn copy_end(&mut self, tx: TxId, number: u32, failure: Option<String>) {
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        if let Some(issued) = transaction.issued.get_mut(&number) {
            if issued.copy.end(failure.clone()) {
                let early = issued.early.take();
                self.backend(tx.session, Command::CopyEnd(failure));
                if let Some(early) = early {
                    self.executed(tx, number, early);
                }
            }
        } else if let Some(buffered) = transaction.waiting.get_mut(&number) {
            buffered.copy.end(failure);
            self.advance(tx);
        }
    }

    /// Entries of the master's stream arrive.
    pub(super) fn stream_entries(&mut self, entries: Vec<Executed>) {
        if self.is_master() {
            return;
        }
        for entry in entries {
            let (tx, now) = (entry.tx, self.now_us);
            // An entry may come before the client's own message, or after the transaction is over.
            let over = self.sessions.get(&tx.session).is_some_and(|session| {
                tx.counter < session.counter
                    || (tx.counter == session.counter && !self.transactions.contains_key(&tx))
            });
            if over || self.transactions.len() >= limits::PENDING_REQUESTS_MAX {
                continue;
            }
            let transaction = self.transactions.entry(tx).or_insert_with(|| Transaction::new(tx, now));
            if transaction.stream.len() <= limits::OPERATIONS_MAX as usize {
                transaction.stream.insert(entry.number, entry);
            }
            self.advance(tx);
        }
    }

    /// Sends to the backend whatever may run now.
    pub(super) fn advance(&mut self, tx: TxId) {
        self.begin_if_possible(tx);
        while self.issue_next(tx) {}
        self.check_finish(tx);
    }

    /// Starts the block on its snapshot once slot, anchor and backend are there.
    fn begin_if_possible(&mut self, tx: TxId) {
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        let Some(session) = self.sessions.get_mut(&tx.session) else { return };
        if transaction.begun || transaction.phase != Phase::Running || !session.ready {
            return;
        }
        let Some(slot) = transaction.slot else { return };
        let Some(snapshot) =
            transaction.anchor.and_then(|anchor| self.applying.snapshot(anchor)).map(str::to_string)
        else {
            return;
        };
        transaction.begun = true;
        let mut transcript = Transcript::begin(tx, session.preamble, transaction.modes);
        let leading = std::mem::take(&mut transaction.leading_results);
        for (operation, result) in leading {
            transaction.heads.push(transcript.extend(None, operation, result));
        }
        transaction.transcript = Some(transcript);
        let (modes, timestamp) = (transaction.modes, transaction.timestamp);
        let early: Vec<(u32, Digest)> = (1..).zip(transaction.heads.iter().copied()).collect();
        let seed = self.seed(tx, slot);
        self.backend(tx.session, Command::Begin { tx, modes, snapshot, timestamp, seed });
        if self.is_master() {
            self.reply(tx.session, ReplicaMessage::Begun { tx, slot, timestamp });
            for (number, transcript) in early {
                self.stream(tx, number, transcript, None);
            }
        }
    }

    /// HMAC(cluster key, slot, tx): known to the replicas, not to other clients (A14).
    fn seed(&self, tx: TxId, slot: steeldb_types::Slot) -> [u8; 32] {
        use hmac::Mac as _;
        let Ok(mut mac) = hmac::Hmac::<sha2::Sha256>::new_from_slice(&self.config.cluster_key) else {
            return [0; 32]; // HMAC takes keys of any length
        };
        mac.update(b"steeldb/seed");
        mac.update(&slot.0.to_le_bytes());
        mac.update(&steeldb_wire::codec::encode(&tx));
        mac.finalize().into_bytes().into()
    }

    /// Sends the next operation to the backend if rule 5 (or, at the master, its arrival) allows it.
    fn issue_next(&mut self, tx: TxId) -> bool {
        let master = self.is_master();
        let applied = self.applying.applied_upto();
        let others_run = self.others_run(tx);
        let drain_until = self.now_us + self.config.drain_timeout_us;
        let now = self.now_us;
        let Some(transaction) = self.transactions.get_mut(&tx) else { return false };
        let Some(session) = self.sessions.get(&tx.session) else { return false };
        if transaction.phase != Phase::Running || !session.ready || transaction.outcome_is_abort() {
            return false;
        }
        let number = transaction.sent + 1;
        let Some(buffered) = transaction.waiting.get(&number) else { return false };
        let Some(statement) = session.statements.get(&buffered.operation.statement) else {
            self.drop_session(tx.session, "26000", "an operation names a statement that is not defined");
            return false;
        };
        let leading_before_slot = master && buffered.operation.leading && !transaction.begun;
        if buffered.operation.leading && statement.class != Class::Lock {
            self.drop_session(tx.session, "08P01", "only LOCK TABLE may come before the snapshot");
            return false;
        }
        if !transaction.begun && !leading_before_slot {
            return false;
        }
        let mut adopted = None;
        if !master {
            // Deferred execution: once the client has finished, the master's entry is here and its barrier is reached.
            let Some(entry) = transaction.stream.get(&number) else { return false };
            let copy_incomplete = matches!(buffered.copy, CopyState::Open(_));
            if transaction.finish.is_none() || entry.barrier > applied || copy_incomplete {
                return false;
            }
            adopted = entry.adopted;
        } else if statement.class == Class::Ddl && others_run {
            // Rule 9: DDL starts once others have ended, or after a bounded wait.
            let until = *transaction.drain_until_us.get_or_insert(drain_until);
            if now < until {
                return false;
            }
        }
        transaction.drain_until_us = None;
        transaction.ran_ddl |= statement.class == Class::Ddl;
        transaction.must_vote |= statement.class == Class::Lock;
        let Some(buffered) = transaction.waiting.remove(&number) else { return false };
        transaction.sent = number;
        let begin_leading = leading_before_slot && !transaction.leading_begun;
        transaction.leading_begun |= leading_before_slot;
        let modes = transaction.modes;
        let Buffered { operation, mut copy, data, bytes } = buffered;
        if matches!(operation.kind, OperationKind::CopyIn { .. }) && matches!(copy, CopyState::None) && master
        {
            copy = CopyState::Open(CopyDigest::default());
        }
        let end = match &copy {
            CopyState::Ended { failure, .. } => Some(failure.clone()),
            // The master never asked for data: nor will this backend, or it fails.
            CopyState::None if !master => Some(Some("no data".to_string())),
            _ => None,
        };
        let is_copy = matches!(operation.kind, OperationKind::CopyIn { .. });
        let command = match adopted {
            Some(sqlstate) => Command::Adopt { tx, number, sqlstate },
            None => Command::Execute {
                tx,
                number,
                statement: operation.statement,
                row_order: operation.row_order,
                kind: operation.kind.clone(),
                show: master,
            },
        };
        transaction.issued.insert(number, Issued { operation, copy, early: None });
        self.release(tx, bytes);
        if begin_leading {
            self.backend(tx.session, Command::BeginLeading { tx, modes });
        }
        self.backend(tx.session, command);
        if is_copy && adopted.is_none() {
            for chunk in data {
                self.backend(tx.session, Command::CopyData(chunk));
            }
            if let Some(failure) = end {
                self.backend(tx.session, Command::CopyEnd(failure));
            }
        }
        true
    }

    /// Whether other transactions run operations at this replica.
    fn others_run(&self, tx: TxId) -> bool {
        self.transactions.values().any(|other| {
            other.tx != tx
                && (other.begun || other.leading_begun)
                && matches!(other.phase, Phase::Running | Phase::Completing)
                && !other.ran_ddl
                && other.drain_until_us.is_none()
        })
    }

    /// An operation's result.
    pub(super) fn executed(&mut self, tx: TxId, number: u32, result: OperationResult) {
        let master = self.is_master();
        let Some(transaction) = self.transactions.get_mut(&tx) else { return };
        let Some(mut issued) = transaction.issued.remove(&number) else { return };
        if result.tag == TagKind::BlockEnded {
            // A4: whatever it was, it ended the block. Nothing of this session can be vouched for.
            transaction.phase = Phase::GivenUp;
            self.cast_against(tx, VoteKind::Failed { sqlstate: SqlState::parse("2D000") });
            return self.drop_session(tx.session, "2D000", "a statement ended the transaction block");
        }
        if result.copy_started && master && matches!(issued.copy, CopyState::Open(_)) {
            // It failed early; the digest needs all that the client sends until it notices.
            issued.early = Some(result);
            transaction.issued.insert(number, issued);
            return;
        }
        let copy = match &issued.copy {
            CopyState::Ended { digest, .. } if result.copy_started || !master => Some(*digest),
            _ => None,
        };
        let statement = self
            .sessions
            .get(&tx.session)
            .and_then(|session| session.statements.get(&issued.operation.statement))
            .map(|statement| statement.digest)
            .unwrap_or_default();
        transaction.status = result.status;
        transaction.active_at_us = self.now_us;
        match result.tag {
            TagKind::Settings => transaction.changed_settings = true,
            TagKind::Ddl => transaction.ran_ddl = true,
            TagKind::Lock => transaction.must_vote = true,
            TagKind::Plain | TagKind::BlockEnded => {}
        }
        let digest = issued.operation.digest(statement, copy);
        let leading = issued.operation.leading;
        let slot = transaction.slot.filter(|_| !leading);
        let head = match &mut transaction.transcript {
            Some(transcript) => {
                let head = transcript.extend(slot, digest, result.result);
                transaction.heads.push(head);
                head
            }
            None => {
                transaction.leading_results.push((digest, result.result));
                Digest::default()
            }
        };
        let known = transaction.transcript.is_some();
        if master {
            let adopted = result.sqlstate.filter(|code| TIMING_ERRORS.contains(&code.as_str()));
            if known {
                self.stream(tx, number, head, adopted);
            }
            let message = ReplicaMessage::Executed { tx, number, transcript: head, status: result.status };
            self.reply(tx.session, message);
        }
        self.advance(tx);
    }

    /// Adds an entry to the master's stream. The barrier is the highest position issued by now: the result was read
    /// before, so it is at least what rule 4 asks for.
    pub(super) fn stream(&mut self, tx: TxId, number: u32, transcript: Digest, adopted: Option<SqlState>) {
        let barrier = self.applying.issued_upto();
        self.streamed.push(Executed { tx, number, transcript, barrier, adopted });
    }

    /// Notes that `bytes` more are buffered; false when that breaks a limit, and the session ends.
    fn account(&mut self, tx: TxId, bytes: usize) -> bool {
        let Some(transaction) = self.transactions.get_mut(&tx) else { return false };
        transaction.bytes += bytes;
        if let Some(buffered) = transaction.waiting.values_mut().next_back() {
            buffered.bytes += bytes;
        }
        let of_transaction = transaction.bytes;
        let of_client = self.bytes_by_client.entry(tx.session.client).or_default();
        *of_client += bytes;
        let of_client = *of_client;
        let of_all: usize = self.bytes_by_client.values().sum();
        if of_transaction > limits::TRANSACTION_BYTES_MAX
            || of_client > limits::CLIENT_BYTES_MAX
            || of_all > limits::REPLICA_BYTES_MAX
        {
            self.drop_session(
                tx.session,
                "54000",
                "the transaction is too large for its replicas' buffers; send the data in several transactions",
            );
            return false;
        }
        true
    }

    pub(super) fn release(&mut self, tx: TxId, bytes: usize) {
        if let Some(transaction) = self.transactions.get_mut(&tx) {
            transaction.bytes = transaction.bytes.saturating_sub(bytes);
        }
        if let Some(of_client) = self.bytes_by_client.get_mut(&tx.session.client) {
            *of_client = of_client.saturating_sub(bytes);
        }
    }
}

impl CopyState {
    /// The running digest, opened by the first chunk; none once ended.
    fn open(&mut self) -> Option<&mut CopyDigest> {
        if matches!(self, CopyState::None) {
            *self = CopyState::Open(CopyDigest::default());
        }
        match self {
            CopyState::Open(digest) => Some(digest),
            _ => None,
        }
    }

    /// Ends it; false if it was ended before.
    fn end(&mut self, failure: Option<String>) -> bool {
        let Some(digest) = self.open().map(|digest| digest.clone()) else { return false };
        *self = CopyState::Ended { digest: digest.finish(failure.as_deref()), failure };
        true
    }
}
