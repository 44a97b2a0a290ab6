//! Reading COPY data back, block by block, while more of them come.

use super::{Block, Copied, Lost, lock};
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// What comes next of a COPY's data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// More of them.
    Bytes(Bytes),
    /// They end; with CopyFail's message.
    End(Option<String>),
    /// They are lost.
    Lost(Lost),
}

/// Reads the data of one COPY.
pub struct Reader {
    copied: Arc<Copied>,
    at: u64,
    consume: bool,
}

enum Found {
    Now(Next),
    OnDisk { file: Arc<File>, at: u64, length: usize, checksum: u32 },
    NotYet,
}

impl Reader {
    pub(super) fn new(copied: Arc<Copied>, consume: bool) -> Reader {
        Reader { copied, at: 0, consume }
    }

    /// What comes next; waits for it. Cancel safe.
    pub async fn next(&mut self) -> Next {
        loop {
            let copied = Arc::clone(&self.copied);
            let changed = copied.changed.notified();
            match self.look() {
                Found::Now(next) => {
                    self.at += u64::from(matches!(next, Next::Bytes(_)));
                    return next;
                }
                Found::OnDisk { file, at, length, checksum } => {
                    let read = move || read(&file, at, length, checksum);
                    // Joining fails only if reading panics, which it does not, or the process ends.
                    let read = tokio::task::spawn_blocking(read)
                        .await
                        .unwrap_or_else(|error| Err(io::Error::other(error)));
                    return match read {
                        Ok(bytes) => {
                            self.at += 1;
                            Next::Bytes(bytes)
                        }
                        Err(error) => {
                            let lost = Lost::of("read from", &error);
                            self.copied.lose(lost.clone());
                            Next::Lost(lost)
                        }
                    };
                }
                Found::NotYet => changed.await,
            }
        }
    }

    fn look(&self) -> Found {
        let mut state = lock(&self.copied.state);
        if let Some(lost) = &state.lost {
            return Found::Now(Next::Lost(lost.clone()));
        }
        if self.consume {
            self.copied.let_go(&mut state, self.at);
        }
        if self.at == state.first + state.blocks.len() as u64 && !state.tail.is_empty() {
            // Less than a block, but whoever reads waits for it.
            let tail = std::mem::take(&mut state.tail);
            self.copied.memory.fetch_add(tail.len(), std::sync::atomic::Ordering::Relaxed);
            state.blocks.push_back(Block::Memory(tail.into()));
        }
        let file = state.file.clone();
        match (state.block(self.at), file) {
            (Some(Block::Memory(bytes) | Block::Waiting(bytes)), _) => Found::Now(Next::Bytes(bytes.clone())),
            (Some(Block::Disk { at, length, checksum }), Some(file)) => {
                Found::OnDisk { file, at: *at, length: *length, checksum: *checksum }
            }
            (Some(Block::Disk { .. }), None) => Found::NotYet, // a block on disk has a file
            (None, _) => match &state.end {
                Some(failure) => Found::Now(Next::End(failure.clone())),
                None => Found::NotYet,
            },
        }
    }
}

fn read(file: &File, at: u64, length: usize, checksum: u32) -> io::Result<Bytes> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at)?;
    if crc32fast::hash(&bytes) != checksum {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "they are not what was written"));
    }
    Ok(bytes.into())
}
