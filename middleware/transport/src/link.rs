//! One authenticated link while it lives.

use crate::arrivals::Arrivals;
use crate::frame::{FrameReader, HEADER_BYTES, write_frame, write_frames};
use crate::queue::{End, Queue};
use crate::tls::Stream;
use crate::traffic::Meter;
use crate::{LinkError, LinkOptions};
use bytes::Bytes;
use steeldb_types::limits;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Both directions of an authenticated connection.
pub(crate) struct Link {
    reader: FrameReader<ReadHalf<Stream>>,
    writer: WriteHalf<Stream>,
}

impl Link {
    /// The dialler's: waits for the welcome.
    ///
    /// # Errors
    /// [`LinkError::NotWelcome`], [`LinkError::BadWelcome`], or what the network says.
    pub(crate) async fn welcomed(stream: Stream, options: &LinkOptions) -> Result<Link, LinkError> {
        let mut link = Link::new(stream, options);
        match link.reader.next().await? {
            Some(frame) if frame.is_empty() => Ok(link),
            Some(_) => Err(LinkError::BadWelcome),
            None => Err(LinkError::NotWelcome),
        }
    }

    /// The listener's: says the welcome.
    ///
    /// # Errors
    /// What the network says.
    pub(crate) async fn welcome(stream: Stream, options: &LinkOptions) -> Result<Link, LinkError> {
        let mut link = Link::new(stream, options);
        write_frame(&mut link.writer, &[]).await?;
        link.writer.flush().await?;
        Ok(link)
    }

    fn new(stream: Stream, options: &LinkOptions) -> Link {
        let (reader, writer) = tokio::io::split(stream);
        Link { reader: FrameReader::new(reader, options.frame_bytes_max), writer }
    }

    /// Moves frames both ways until the link ends, and says why it ended. A consumer that is slow to take events slows
    /// the reading, not the writing.
    pub(crate) async fn run<E>(
        self,
        queue: &Queue,
        meter: &Meter,
        events: &mpsc::Sender<E>,
        arrivals: &Arrivals,
        event: impl Fn(Bytes) -> E,
        stop: &CancellationToken,
    ) -> LinkError {
        let Link { mut reader, writer } = self;
        meter.linked();
        let reading = async {
            loop {
                match reader.next().await {
                    Ok(Some(frame)) => {
                        meter.received(frame.len() + HEADER_BYTES);
                        let Some(frame) = arrivals.hold(frame).await else { return LinkError::ClosedHere };
                        if events.send(event(frame)).await.is_err() {
                            return LinkError::ClosedHere;
                        }
                    }
                    Ok(None) => return LinkError::ClosedByPeer,
                    Err(error) => return error,
                }
            }
        };
        let writing = write_frames(writer, queue, meter);
        tokio::pin!(reading, writing);
        let end = tokio::select! {
            error = &mut reading => return error,
            written = &mut writing => return match written {
                Ok(()) => queue.error(queue.end_reason().unwrap_or(End::Closing)),
                Err(error) => error,
            },
            () = stop.cancelled() => return LinkError::ClosedHere,
            () = events.closed() => return LinkError::ClosedHere,
            end = queue.ended() => end,
        };
        if end == End::Closing {
            // What was queued before the close still goes out, if the peer takes it in time.
            let _ = tokio::time::timeout(limits::LINK_LINGER, writing).await;
        }
        queue.error(end)
    }
}

/// Whether an I/O error is worth a line of its own: a peer that goes away is told by "down" alone.
pub(crate) fn is_misbehaviour(error: &LinkError) -> bool {
    matches!(
        error,
        LinkError::FrameTooLong { .. }
            | LinkError::Truncated
            | LinkError::BadWelcome
            | LinkError::QueueFull { .. }
            | LinkError::Unexpected(_)
    )
}
