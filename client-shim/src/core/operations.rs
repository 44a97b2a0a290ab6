//! Operations and their answers: what is sent when, what enters the transcript, what the master may answer.

use super::answer::Answer;
use super::resuming::{NotReproduced, Relayed};
use super::transaction::{Outstanding, Phase, Step, Unsent, shape};
use super::verification::Unverified;
use super::{Core, Event, NewOperation};
use crate::ShimError;
use bytes::Bytes;
use steeldb_types::{Digest, ReplicaId, Slot, TxId, limits};
use steeldb_wire::transaction::{
    ClientMessage, CopyDigest, Decision, Finish, Operation, OperationKind, Ordered, SignedFinish,
};

/// Unconsumed result bytes past which the master broke the window: it may pass the window by one frame.
const UNCONSUMED_BYTES_MAX: usize = limits::RESULT_WINDOW_BYTES + limits::FRAME_BYTES_MAX;

/// Consumed bytes are acknowledged in portions of this size.
const ACKNOWLEDGED_BYTES: usize = limits::RESULT_WINDOW_BYTES / 4;

const SPLIT: &str = "Split the work into several transactions.";

/// Told here, so that the transaction fails and not, at its replicas, the session.
fn too_large() -> ShimError {
    let max = limits::TRANSACTION_BYTES_MAX;
    ShimError::new(
        "54000",
        format!("the transaction is too large: its statements' parameters may take {max} bytes"),
    )
    .hint(SPLIT)
}

/// The same for COPY data.
fn too_much_data(max: u64) -> ShimError {
    ShimError::new("54000", format!("the transaction is too large: its COPY data may take {max} bytes"))
        .hint(SPLIT)
}

impl Core {
    /// Adds an operation to the transaction; its number. Several may be added before the first answer.
    pub fn operation(&mut self, operation: NewOperation) -> u32 {
        let Some(transaction) = self.transaction.as_mut() else {
            let error = ShimError::misuse("operation outside a transaction");
            self.events.push_back(Event::OperationFailed { number: 0, error });
            return 0;
        };
        transaction.operations.push((operation.text.clone(), operation.flags));
        let number = transaction.operations.len() as u32;
        if let Phase::Doomed { error } = &mut transaction.phase {
            let error = error.take().unwrap_or_else(ShimError::in_failed_transaction);
            self.events.push_back(Event::OperationFailed { number, error });
            return number;
        }
        transaction.bytes += operation.kind.size();
        let large = transaction.bytes > limits::TRANSACTION_BYTES_MAX;
        transaction.unsent.push_back(Unsent { number, operation });
        if number > limits::OPERATIONS_MAX || large {
            self.doom(match large {
                true => too_large(),
                false => ShimError::new("54000", "too many statements in one transaction").hint(SPLIT),
            });
            return number;
        }
        self.pump();
        number
    }

    /// Sends whatever may be sent now.
    pub(super) fn pump(&mut self) {
        let Some(transaction) = self.transaction.as_mut() else { return };
        if transaction.is_doomed() || transaction.unsent.is_empty() {
            return self.finish_if_answered();
        }
        if !transaction.started {
            if !self.is_usable() {
                self.waits += 1;
                return;
            }
            self.start();
        }
        while self.send_next() {}
    }

    /// The transaction's first message is about to leave: from now on its replicas are those that have the session.
    fn start(&mut self) {
        let session = self.config.session.session;
        let members = self.members();
        for statement in self.statements.trim() {
            self.send(members.clone(), ClientMessage::Forget { session, statement });
        }
        let Some(transaction) = self.transaction.as_mut() else { return };
        transaction.started = true;
        for replica in members {
            if let Some(word) = transaction.words.get_mut(usize::from(replica.0)) {
                word.reachable = true;
            }
        }
    }

    fn send_next(&mut self) -> bool {
        let session = self.config.session.session;
        let Some(transaction) = self.transaction.as_mut() else { return false };
        let Some(next) = transaction.unsent.front() else { return false };
        let leading = next.operation.flags.leading && transaction.begin.is_none();
        if !leading && transaction.begin.is_none() {
            // A10: the snapshot is fixed once the master holds the locks.
            if !transaction.outstanding.is_empty() {
                return false;
            }
            let (tx, modes) = (transaction.tx, transaction.modes);
            let (database, role) = (self.config.database.clone(), self.config.role.clone());
            let begin = Ordered::Begin { tx, database, role, modes, preamble: self.preamble };
            let sequence = self.request(&begin);
            self.waits += 1;
            if let Some(transaction) = self.transaction.as_mut() {
                transaction.begin = Some(sequence);
            }
        }
        let Some(transaction) = self.transaction.as_mut() else { return false };
        let Some(Unsent { number, operation }) = transaction.unsent.pop_front() else { return false };
        let NewOperation { text, keep, kind, flags } = operation;
        let statement = self.statements.resolve(&text, keep);
        let shape = shape(&kind);
        let operation = Operation {
            tx: transaction.tx,
            number,
            statement: statement.id,
            leading,
            row_order: flags.row_order,
            must_vote: flags.must_vote,
            verify: flags.verify && !leading,
            kind,
        };
        let step = match operation.kind {
            OperationKind::CopyIn { .. } => Step::Copying {
                operation: operation.clone(),
                statement: statement.digest,
                data: CopyDigest::default(),
            },
            _ => Step::Ready(operation.digest(statement.digest, None)),
        };
        let answer = Answer::new(shape, flags.row_order);
        let verify = operation.verify;
        transaction.outstanding.push_back(Outstanding {
            number,
            leading,
            answer,
            relayed: Relayed::default(),
            copying: false,
            cancelled: false,
            step,
            verify,
            held: Vec::new(),
            held_bytes: 0,
        });
        let members = self.members();
        if statement.new {
            let text = text.as_ref().clone();
            self.send_operation(
                members.clone(),
                ClientMessage::Define { session, statement: statement.id, text },
            );
        }
        if leading || verify {
            // Every replica takes a leading lock as it comes (A10), and starts at once on what waits for it.
            self.send(members, ClientMessage::Operation(operation));
        } else {
            self.send_operation(members, ClientMessage::Operation(operation));
        }
        true
    }

    /// COPY data for the operation that asked for them. Ignored once its answer has come to its end.
    pub fn copy_data(&mut self, chunk: &[u8]) {
        let Some(transaction) = self.transaction.as_mut() else { return };
        let tx = transaction.tx;
        let Some(outstanding) = transaction.outstanding.front_mut() else { return };
        let asks_for_data = outstanding.asks_for_data();
        let Step::Copying { data, .. } = &mut outstanding.step else { return };
        if !asks_for_data {
            return;
        }
        transaction.copied_bytes += chunk.len() as u64;
        if transaction.copied_bytes > self.config.bulk_bytes_max {
            return self.doom(too_much_data(self.config.bulk_bytes_max));
        }
        data.data(chunk);
        let (number, verify) = (outstanding.number, outstanding.verify);
        let to = self.members();
        self.send_copy(to, ClientMessage::CopyData { tx, number, data: chunk.to_vec() }, verify);
    }

    /// The end of the COPY data; `failure` is CopyFail's message.
    pub fn copy_end(&mut self, failure: Option<String>) {
        let Some(transaction) = self.transaction.as_mut() else { return };
        let tx = transaction.tx;
        let Some(outstanding) = transaction.outstanding.front_mut() else { return };
        if !outstanding.asks_for_data() {
            return;
        }
        let Step::Copying { operation, statement, data } = &outstanding.step else { return };
        let copy = data.clone().finish(failure.as_deref());
        outstanding.step = Step::Ready(operation.digest(*statement, Some(copy)));
        let (number, verify) = (outstanding.number, outstanding.verify);
        let to = self.members();
        self.send_copy(to, ClientMessage::CopyEnd { tx, number, failure }, verify);
    }

    fn send_copy(&mut self, to: Vec<ReplicaId>, message: ClientMessage, verify: bool) {
        match verify {
            true => self.send(to, message),
            false => self.send_operation(to, message),
        }
    }

    pub(super) fn begun(&mut self, from: ReplicaId, tx: TxId, slot: Slot) {
        if self.abandoned == Some(tx) {
            self.abandoned = None;
            self.request(&Ordered::Rollback { tx, slot });
            return;
        }
        let (view, master) = (self.config.view.clone(), self.config.master);
        let Some(transaction) = self.running(tx) else { return };
        if transaction.begin.is_none() || slot == Slot::default() {
            return;
        }
        if let Some(said) = transaction.slots.get_mut(usize::from(from.0)) {
            said.get_or_insert(slot);
        }
        let of_master = transaction.slots.get(usize::from(master.0)).copied().flatten();
        let agreed = transaction.agreed_slot(&view);
        if let (Some(of_master), Some(agreed)) = (of_master, agreed)
            && of_master != agreed
            && !matches!(transaction.phase, Phase::Finishing { sent: true, .. })
        {
            return self.master_misbehaved("it named another slot than others did");
        }
        // Its end may have been asked for between two masters: it waits for the new one's word on the slot.
        self.finish_if_answered();
    }

    /// A piece of the answer to an operation.
    pub(super) fn result(&mut self, from: ReplicaId, tx: TxId, number: u32, messages: Bytes) {
        if !self.is_master(from) {
            return;
        }
        let bytes = messages.len();
        self.unconsumed += bytes;
        if self.unconsumed > UNCONSUMED_BYTES_MAX {
            self.unconsumed -= bytes;
            return self.master_misbehaved("it sent more than the window allows");
        }
        let transaction = self.running(tx).filter(|transaction| !transaction.is_doomed());
        let waits = transaction.as_ref().is_some_and(|transaction| !transaction.unverified.is_empty());
        let outstanding = transaction
            .and_then(|transaction| transaction.outstanding.front_mut())
            .filter(|outstanding| outstanding.number == number);
        let Some(outstanding) = outstanding else {
            // Of a transaction that is given up: nobody will consume it, yet it took from the window.
            return self.acknowledge(bytes);
        };
        let hold = outstanding.verify || waits || !outstanding.held.is_empty();
        if let Err(error) = outstanding.answer.take(&messages) {
            self.acknowledge(bytes);
            return self.master_misbehaved(&error.to_string());
        }
        let failed_copy = outstanding.answer.failed()
            && outstanding.answer.copying()
            && matches!(outstanding.step, Step::Copying { .. });
        if hold {
            self.hold(messages);
        } else {
            match outstanding.relayed.take(messages) {
                Ok(messages) => {
                    // What the application has already, nobody will consume.
                    self.acknowledge(bytes - messages.len());
                    if !messages.is_empty() {
                        self.events.push_back(Event::Result { number, messages });
                    }
                }
                Err(NotReproduced) => return self.not_reproduced(),
            }
        }
        if failed_copy {
            // The master wants to know where the data end, to know what the operation was.
            self.copy_end(None);
        }
    }

    /// The application has taken this many bytes of results.
    pub fn consumed(&mut self, bytes: usize) {
        // An earlier master's come first, and it wants to know of them no more.
        let stale = self.stale.min(bytes);
        self.stale -= stale;
        let bytes = bytes - stale;
        let prepaid = bytes.min(self.prepaid);
        self.prepaid -= prepaid;
        self.acknowledge(bytes - prepaid);
    }

    /// The master may send this many bytes more.
    pub(super) fn acknowledge(&mut self, bytes: usize) {
        self.unconsumed = self.unconsumed.saturating_sub(bytes);
        self.unacknowledged += bytes;
        if self.unacknowledged >= ACKNOWLEDGED_BYTES && !self.over {
            let bytes = u32::try_from(self.unacknowledged).unwrap_or(u32::MAX);
            self.unacknowledged = 0;
            let (session, master) = (self.config.session.session, self.config.master);
            self.send(vec![master], ClientMessage::Acknowledge { session, bytes });
        }
    }

    /// An operation is done at the master.
    pub(super) fn executed(&mut self, from: ReplicaId, tx: TxId, number: u32, theirs: Digest, drew: bool) {
        if !self.is_master(from) {
            return;
        }
        let (view, master) = (self.config.view.clone(), self.config.master);
        let again = self.config.epoch > 0;
        let Some(transaction) = self.running(tx).filter(|transaction| !transaction.is_doomed()) else {
            return;
        };
        if again && number <= transaction.transcript.operations() {
            return; // answered by an earlier master
        }
        let slot = transaction.slot(&view, master);
        let fault = match transaction.outstanding.front() {
            Some(front) if front.number != number => Some("it answered operations out of turn"),
            None => Some("it answered an operation that was not sent"),
            Some(front) if !front.answer.ended() || front.relayed.is_owed() => {
                Some("it ended an answer that is not complete")
            }
            Some(front) if !front.leading && slot.is_none() => {
                Some("it executed an operation before its BEGIN")
            }
            Some(_) => None,
        };
        if let Some(fault) = fault {
            return self.master_misbehaved(fault);
        }
        let waits = !transaction.unverified.is_empty();
        let Some(done) = transaction.outstanding.pop_front() else { return };
        let Outstanding { verify, held, .. } = done;
        let step = match done.step {
            Step::Ready(digest) => digest,
            // The statement failed, or was no COPY after all, before it asked for data.
            Step::Copying { operation, statement, .. } => operation.digest(statement, None),
        };
        let failed = done.answer.failed();
        let described = done.answer.is_description();
        match done.answer.command() {
            Some("SET" | "RESET" | "DISCARD") => {
                if let Some(text) = transaction.text(number) {
                    let text = text.to_string();
                    transaction.settings.push(text);
                }
            }
            Some("ROLLBACK") => transaction.settings_lost |= !transaction.settings.is_empty(),
            _ => {}
        }
        let head = transaction.transcript.extend(slot.filter(|_| !done.leading), step, done.answer.digest());
        if failed {
            transaction.failed = true;
        } else if !described {
            // In a failed transaction nothing but ROLLBACK TO succeeds.
            transaction.failed = false;
        }
        if !done.leading && head != theirs {
            tracing::warn!(%tx, number, "the master's transcript is not that of its answers");
        }
        if verify || waits {
            return self.answered(Unverified { number, head, failed, drew, verify, held });
        }
        self.events.push_back(Event::Executed { number, failed, drew });
        self.pump();
    }

    /// Sends the Finish once all operations are answered and the slot is known.
    pub(super) fn finish_if_answered(&mut self) {
        let (view, master) = (self.config.view.clone(), self.config.master);
        let Some(transaction) = self.transaction.as_mut() else { return };
        let Phase::Finishing { decision, sent: false } = transaction.phase else { return };
        if !transaction.is_answered() {
            return;
        }
        let tx = transaction.tx;
        let shown = transaction.shown();
        let slot = match transaction.begin {
            Some(_) => transaction.slot(&view, master),
            // Leading LOCK TABLE statements alone, or nothing at all: there is nothing to keep, and without a slot
            // nothing to order. Slot 0 tells replicas to drop it.
            None => Some(Slot::default()),
        };
        let Some(slot) = slot else { return };
        let ordered = transaction.begin.is_some();
        if !ordered && shown.operations == 0 {
            return self.finish_with(Ok(completion(decision)));
        }
        let sent_decision = if ordered { decision } else { Decision::Rollback };
        transaction.phase = Phase::Finishing { decision, sent: true };
        let finish = Finish {
            tx,
            slot,
            decision: sent_decision,
            operations: shown.operations,
            transcript: shown.transcript,
        };
        let finish = SignedFinish::new(finish, &self.config.key);
        let to = self.members();
        self.send(to, ClientMessage::Finish(finish));
        self.waits += 1;
        if ordered {
            self.judge();
        } else {
            self.finish_with(Ok(completion(decision)));
        }
    }
}

fn completion(decision: Decision) -> super::Completion {
    match decision {
        Decision::Commit => super::Completion::Committed(None),
        Decision::Rollback => super::Completion::RolledBack,
    }
}
