//! A ledger in a file: blocks with their headers and proofs, to be checked offline by whoever knows the genesis view.
//!
//! A mark at the end says how many blocks there are and what their tip is, so that a file that lost its end is told from a
//! whole one. An archive that was cut shorter on purpose, mark and all, is a true but older history: only a tip learned
//! elsewhere tells.

use borsh::{BorshDeserialize, BorshSerialize};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use steeldb_ordering::{BlockHeader, Decision, InstanceNumber, Ledger, LedgerError, Roster};
use steeldb_types::{Digest, limits};
use steeldb_wire::codec;

const MAGIC: &[u8; 16] = b"steeldb-ledger-1";

/// Where the end mark is, counted from the end: a length of zero, then the mark.
const END_BYTES: u64 = 4 + 8 + 32;

/// Why an archive is not to be believed, or cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file is no archive.
    #[error("not a ledger's archive")]
    NotAnArchive,
    /// A block that does not continue the chain.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A block that cannot be read.
    #[error("block {block} cannot be read: {reason}")]
    Malformed {
        /// Its number.
        block: u64,
        /// What is wrong.
        reason: String,
    },
    /// The file ends too early.
    #[error("the archive ends after block {after}, without its end mark")]
    Truncated {
        /// The last whole block.
        after: u64,
    },
    /// The end mark is another chain's.
    #[error("the end mark after block {after} says another {field}")]
    EndMark {
        /// The last block.
        after: u64,
        /// Which field.
        field: &'static str,
    },
    /// Something comes after the end mark.
    #[error("there is something after the end mark, which comes after block {after}")]
    Trailing {
        /// The last block.
        after: u64,
    },
}

#[derive(BorshSerialize, BorshDeserialize)]
struct Block {
    header: BlockHeader,
    decision: Arc<Decision>,
}

/// An archive being written.
pub struct Archive {
    file: BufWriter<File>,
    ledger: Ledger,
}

impl Archive {
    /// Creates the archive at `path`, or continues it after checking all of it.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn open(path: &Path, genesis: Roster) -> Result<Archive, ArchiveError> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let ledger = match file.metadata()?.len() {
            0 => {
                file.write_all(MAGIC)?;
                Ledger::new(genesis)
            }
            length => {
                let ledger = verify_archive(BufReader::new(&file), genesis, |_, _| {})?;
                let end = length - END_BYTES;
                file.set_len(end)?;
                file.seek(SeekFrom::Start(end))?;
                ledger
            }
        };
        Ok(Archive { file: BufWriter::with_capacity(1 << 20, file), ledger })
    }

    /// The number of the next block.
    pub fn next(&self) -> InstanceNumber {
        self.ledger.next()
    }

    /// Checks a decision and adds it.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn append(&mut self, decision: &Arc<Decision>) -> Result<BlockHeader, ArchiveError> {
        let header = self.ledger.append(decision)?;
        let bytes = codec::encode(&Block { header, decision: Arc::clone(decision) });
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.file.write_all(&length.to_le_bytes())?;
        self.file.write_all(&bytes)?;
        Ok(header)
    }

    /// Writes the end mark and makes all of it durable. How many blocks there are, and their tip.
    ///
    /// # Errors
    /// [`ArchiveError::Io`].
    pub fn finish(mut self) -> Result<(u64, Digest), ArchiveError> {
        let (blocks, tip) = (self.ledger.next().0 - 1, self.ledger.tip());
        self.file.write_all(&0u32.to_le_bytes())?;
        self.file.write_all(&blocks.to_le_bytes())?;
        self.file.write_all(&tip.0)?;
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        Ok((blocks, tip))
    }
}

/// Checks an archive to its end, block by block, in bounded memory. `seen` is called with each block that holds.
///
/// # Errors
/// [`ArchiveError`] names the block and what is wrong with it.
pub fn verify_archive(
    mut archive: impl Read,
    genesis: Roster,
    mut seen: impl FnMut(&BlockHeader, &Decision),
) -> Result<Ledger, ArchiveError> {
    let mut magic = [0u8; MAGIC.len()];
    archive.read_exact(&mut magic).map_err(|_| ArchiveError::NotAnArchive)?;
    if &magic != MAGIC {
        return Err(ArchiveError::NotAnArchive);
    }
    let mut ledger = Ledger::new(genesis);
    loop {
        let (block, after) = (ledger.next().0, ledger.next().0 - 1);
        let length = u32::from_le_bytes(take(&mut archive, after)?) as usize;
        if length == 0 {
            break;
        }
        let malformed = |reason: String| ArchiveError::Malformed { block, reason };
        if length > limits::FRAME_BYTES_MAX {
            return Err(malformed(format!("{length} bytes are more than a block may have")));
        }
        // Room for what is there, never for what is announced.
        let mut bytes = Vec::new();
        archive.by_ref().take(length as u64).read_to_end(&mut bytes)?;
        if bytes.len() < length {
            return Err(ArchiveError::Truncated { after });
        }
        let read: Block =
            codec::decode(&bytes, limits::FRAME_BYTES_MAX).map_err(|error| malformed(error.to_string()))?;
        ledger.append_with_header(&read.header, &read.decision)?;
        seen(&read.header, &read.decision);
    }
    let after = ledger.next().0 - 1;
    if u64::from_le_bytes(take(&mut archive, after)?) != after {
        return Err(ArchiveError::EndMark { after, field: "number of blocks" });
    }
    if Digest(take(&mut archive, after)?) != ledger.tip() {
        return Err(ArchiveError::EndMark { after, field: "tip" });
    }
    match archive.read(&mut [0u8; 1])? {
        0 => Ok(ledger),
        _ => Err(ArchiveError::Trailing { after }),
    }
}

fn take<const N: usize>(archive: &mut impl Read, after: u64) -> Result<[u8; N], ArchiveError> {
    let mut bytes = [0u8; N];
    match archive.read_exact(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(ArchiveError::Truncated { after }),
        Err(error) => Err(error.into()),
    }
}
