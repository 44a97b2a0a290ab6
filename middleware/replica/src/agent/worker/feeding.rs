//! Feeding COPY data to a backend from where they are kept, as fast as it takes them; whatever else is wanted of it
//! meanwhile is heard.

use super::writer::Writer;
use super::{Input, lock};
use crate::scheduler::Command;
use crate::script::Step;
use crate::spool::{Next, Reader};
use steeldb_postgres::{BackendError, message};
use steeldb_types::{TxId, limits};

/// A COPY whose data are being written.
pub(super) struct Feeding {
    pub(super) tx: TxId,
    pub(super) number: u32,
    /// Where they come from, once that is known.
    pub(super) reader: Option<Reader>,
}

/// Whether it does not wait for the end of data that are being written.
fn is_urgent(input: &Input) -> bool {
    match input {
        Input::NoCopy { .. } | Input::UnexpectedCopy => true,
        Input::Command(command) => matches!(
            command,
            Command::End { commit: false, .. } | Command::Cancel | Command::Acknowledge(_) | Command::Close
        ),
        Input::Feed(_) | Input::Copies(_) => false,
    }
}

impl Writer {
    pub(super) fn is_feeding(&self) -> bool {
        self.feeding.as_ref().is_some_and(|feeding| feeding.reader.is_some())
    }

    pub(super) fn start_feeding(&mut self, reader: Reader) {
        if let Some(feeding) = &mut self.feeding {
            feeding.reader = Some(reader);
        }
    }

    /// The backend did not ask for an operation's data: its Sync is still to come.
    pub(super) fn no_copy(&mut self, tx: TxId, number: u32) {
        if self.feeding.as_ref().is_some_and(|feeding| (feeding.tx, feeding.number) == (tx, number)) {
            self.feeding = None;
            message::sync(&mut self.out);
        }
    }

    /// The block is to be rolled back: of what waits for the data's end nothing of the transaction is wanted any more.
    pub(super) fn forget_deferred(&mut self) {
        self.deferred.retain(|input| {
            !matches!(
                input,
                Input::Feed(_)
                    | Input::Copies(_)
                    | Input::Command(
                        Command::Execute { .. }
                            | Command::Adopt { .. }
                            | Command::Complete { .. }
                            | Command::Prepare { .. }
                    )
            )
        });
    }

    /// Writes some data, or gives what does not wait for their end. None within: nobody wants the backend any more.
    pub(super) async fn feed(&mut self) -> Result<Option<Option<Input>>, BackendError> {
        let Some(reader) = self.feeding.as_mut().and_then(|feeding| feeding.reader.as_mut()) else {
            return Ok(None);
        };
        let next = tokio::select! {
            input = self.inputs.recv() => {
                return Ok(match input {
                    Some(input) if !is_urgent(&input) => {
                        self.deferred.push_back(input);
                        None
                    }
                    input => Some(input),
                });
            }
            () = self.expects.closed() => return Err(BackendError::Closed),
            sent = self.writer.send_all(&mut self.out), if !self.out.is_empty() => {
                sent?;
                return Ok(None);
            }
            next = reader.next(), if self.out.is_empty() => next,
        };
        let failure = match next {
            Next::Bytes(bytes) => {
                message::copy_data(&bytes, &mut self.out)?;
                return Ok(None);
            }
            Next::End(failure) => failure,
            Next::Lost(lost) => {
                let reason = lost.reason.clone();
                *lock(&self.shared.lost) = Some(lost);
                Some(reason)
            }
        };
        self.feeding = None;
        match failure {
            None => message::copy_done(&mut self.out),
            Some(reason) => message::copy_fail(&reason, &mut self.out)?,
        }
        message::sync(&mut self.out);
        self.writer.send_all(&mut self.out).await?;
        Ok(None)
    }

    /// The steps of a script with their COPY data. None when these are lost or too many to be kept, so that there is no
    /// script: a replica that misses the transaction cannot execute it again.
    pub(super) async fn with_copies(&mut self, mut steps: Vec<Step>) -> Option<Vec<Step>> {
        let copies = std::mem::take(&mut self.copies);
        let mut total = 0;
        for (number, step) in (1..).zip(&mut steps) {
            let (Some(copied), Some(data)) = (&mut step.copy, copies.get(&number)) else { continue };
            let mut reader = data.reader(false);
            loop {
                match reader.next().await {
                    Next::Bytes(bytes) => {
                        total += bytes.len();
                        if total > limits::KEPT_RECORD_BYTES_MAX {
                            tracing::warn!(
                                "a transaction's script is too large to be kept for replicas that miss it"
                            );
                            return None;
                        }
                        copied.data.push(bytes.to_vec());
                    }
                    Next::End(_) => break,
                    Next::Lost(_) => return None,
                }
            }
        }
        Some(steps)
    }
}
