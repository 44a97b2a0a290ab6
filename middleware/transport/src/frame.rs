//! Frames: a big-endian u32 length, then as many bytes.

use crate::LinkError;
use crate::queue::Queue;
use crate::traffic::Meter;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter};

const READ_BYTES: usize = 64 * 1024;
const WRITE_BYTES: usize = 64 * 1024;
pub(crate) const HEADER_BYTES: usize = 4;

/// Reads frames through a buffer. Frames share the buffer's memory: none is copied.
pub(crate) struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    frame_bytes_max: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `stream` frames of at most `frame_bytes_max` bytes.
    pub(crate) fn new(stream: R, frame_bytes_max: usize) -> FrameReader<R> {
        FrameReader { stream, buffer: BytesMut::new(), frame_bytes_max }
    }

    /// The next frame; nothing at the end of the stream.
    ///
    /// # Errors
    /// [`LinkError::FrameTooLong`], [`LinkError::Truncated`] or what the stream says.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, LinkError> {
        loop {
            if let Some(frame) = take_frame(&mut self.buffer, self.frame_bytes_max)? {
                return Ok(Some(frame));
            }
            // Room for what arrives, never for what is announced: memory follows the bytes really sent.
            self.buffer.reserve(READ_BYTES);
            let read = match self.stream.read_buf(&mut self.buffer).await {
                // A peer that was killed says no TLS goodbye; frames have lengths, so nothing is cut unnoticed.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => 0,
                read => read?,
            };
            if read == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(LinkError::Truncated) };
            }
        }
    }
}

/// Takes the next frame of at most so many bytes off the front of `buffer`; nothing while it is not whole. A frame shares
/// the buffer's memory.
///
/// # Errors
/// [`LinkError::FrameTooLong`]; the buffer is as it was.
pub fn take_frame(buffer: &mut BytesMut, frame_bytes_max: usize) -> Result<Option<Bytes>, LinkError> {
    let Some((header, rest)) = buffer.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let length = u32::from_be_bytes(*header) as usize;
    if length > frame_bytes_max {
        return Err(LinkError::FrameTooLong { length, max: frame_bytes_max });
    }
    if rest.len() < length {
        return Ok(None);
    }
    buffer.advance(HEADER_BYTES);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// Writes what `queue` holds until it ends, then closes `stream`. All frames that wait go out together; the stream is
/// flushed only when none is left.
///
/// # Errors
/// What the stream says.
pub(crate) async fn write_frames<W: AsyncWrite + Unpin>(
    stream: W,
    queue: &Queue,
    meter: &Meter,
) -> Result<(), LinkError> {
    let mut stream = BufWriter::with_capacity(WRITE_BYTES, stream);
    let mut batch = VecDeque::new();
    while queue.take(&mut batch).await {
        loop {
            while let Some(frame) = batch.pop_front() {
                write_frame(&mut stream, &frame).await?;
                queue.written(&frame);
                meter.sent(frame.len() + HEADER_BYTES);
            }
            if !queue.try_take(&mut batch) {
                break;
            }
        }
        stream.flush().await?;
    }
    stream.shutdown().await?;
    Ok(())
}

/// Writes one frame; does not flush. Its length is known to be within bounds.
///
/// # Errors
/// What the stream says.
pub(crate) async fn write_frame<W: AsyncWrite + Unpin>(
    stream: &mut W,
    frame: &[u8],
) -> Result<(), LinkError> {
    stream.write_u32(frame.len() as u32).await?;
    stream.write_all(frame).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(bytes: &[u8], max: usize) -> (Vec<Bytes>, Result<(), LinkError>) {
        let mut reader = FrameReader::new(bytes, max);
        let mut frames = Vec::new();
        loop {
            match reader.next().await {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, Ok(())),
                Err(error) => return (frames, Err(error)),
            }
        }
    }

    #[tokio::test]
    async fn frames_survive_the_way() {
        let queue = Queue::new(1 << 20);
        let sent = [Bytes::from_static(b"one"), Bytes::new(), Bytes::from(vec![7; 200_000])];
        for frame in &sent {
            assert!(queue.push(frame.clone()));
        }
        queue.end(crate::queue::End::Closing);
        let mut bytes = Vec::new();
        write_frames(&mut bytes, &queue, &Meter::default()).await.unwrap();
        assert_eq!(queue.backlog(), 0);
        let (frames, end) = read_all(&bytes, 200_000).await;
        assert_eq!(frames, sent);
        assert!(end.is_ok());
    }

    #[tokio::test]
    async fn the_bound_is_exact_and_half_a_frame_is_an_error() {
        let mut bytes = 3u32.to_be_bytes().to_vec();
        bytes.extend_from_slice(b"abc");
        assert!(read_all(&bytes, 3).await.1.is_ok());
        assert!(matches!(read_all(&bytes, 2).await.1, Err(LinkError::FrameTooLong { length: 3, max: 2 })));
        for cut in 1..bytes.len() {
            assert!(matches!(read_all(&bytes[..cut], 3).await.1, Err(LinkError::Truncated)), "{cut}");
        }
    }
}
