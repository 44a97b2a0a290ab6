//! COPY FROM STDIN: data from the client to the replicas.

use crate::error::Failure;
use crate::frontend::Message;
use crate::session::Session;
use bytes::BytesMut;
use steeldb_client_shim::Event;

/// Data sent on together: CopyData messages are often one row each.
const CHUNK_BYTES: usize = 256 * 1024;

impl Session {
    /// The replicas ask for data: passes them on until the client ends them, or the answer comes early. Gives the next
    /// event of the operation.
    pub(crate) async fn copy_in(&mut self) -> Result<Event, Failure> {
        self.release();
        self.client.flush().await?;
        let mut chunk = BytesMut::new();
        loop {
            // An error ends the copy; what the client sends until it notices is dropped.
            if let Some(event) = self.shim.try_event() {
                return Ok(event);
            }
            let next = match self.client.try_message()? {
                Some(message) => message,
                None => {
                    self.send_copy(&mut chunk).await;
                    tokio::select! {
                        message = self.client.message() => message?,
                        event = self.shim.event() => return Ok(event),
                    }
                }
            };
            let failure = match next {
                Message::CopyData { data } => {
                    chunk.extend_from_slice(&data);
                    if chunk.len() >= CHUNK_BYTES {
                        self.send_copy(&mut chunk).await;
                    }
                    continue;
                }
                Message::CopyDone => None,
                Message::CopyFail { reason } => Some(reason),
                // As PostgreSQL in copy mode.
                Message::Flush | Message::Sync => continue,
                Message::Terminate => return Err(Failure::Gone),
                _ => Some("unexpected message type during COPY from stdin".to_string()),
            };
            self.send_copy(&mut chunk).await;
            self.shim.copy_end(failure);
            return self.event().await;
        }
    }

    async fn send_copy(&mut self, chunk: &mut BytesMut) {
        for piece in chunk.chunks(CHUNK_BYTES) {
            self.shim.copy_data(piece);
        }
        if !chunk.is_empty() {
            chunk.clear();
            self.shim.room().await;
        }
    }
}
