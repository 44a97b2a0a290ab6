//! The sorted digests of a write set, on disk, and which of them a row is.

use super::LEAP;
use crate::effects::{COUNT_BYTES, DIGEST_BYTES};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use steeldb_types::Digest;

/// The digests, on disk behind their number.
pub(super) struct List {
    pub entries: u64,
    /// Each [`LEAP`]th of them, from the first on.
    pub leaps: Vec<Digest>,
}

impl List {
    /// Where they end.
    pub(super) fn end(&self) -> u64 {
        COUNT_BYTES + self.entries * DIGEST_BYTES
    }

    /// The place of a digest that is not seen. Equal ones are seen in the order of their places. None: it is not there, or not
    /// that often.
    pub(super) fn free(&self, file: &File, digest: Digest, seen: &[u64]) -> io::Result<Option<u64>> {
        let after = self.leaps.partition_point(|leap| *leap <= digest);
        let Some(last) = after.checked_sub(1) else { return Ok(None) };
        let first = self.leaps.partition_point(|leap| *leap < digest).saturating_sub(1);
        let block = self.block(file, last)?;
        let end = last as u64 * LEAP + block.partition_point(|other| *other <= digest) as u64;
        let block = if first == last { block } else { self.block(file, first)? };
        let begin = first as u64 * LEAP + block.partition_point(|other| *other < digest) as u64;
        let is_seen = |place: u64| seen[(place / 64) as usize] & (1 << (place % 64)) != 0;
        let (mut from, mut upto) = (begin, end);
        while from < upto {
            let middle = from + (upto - from) / 2;
            if is_seen(middle) { from = middle + 1 } else { upto = middle }
        }
        Ok((from < end).then_some(from))
    }

    /// Those from one leap to the next.
    fn block(&self, file: &File, number: usize) -> io::Result<Vec<Digest>> {
        let from = number as u64 * LEAP;
        let mut bytes = vec![0; (LEAP.min(self.entries - from) * DIGEST_BYTES) as usize];
        file.read_exact_at(&mut bytes, COUNT_BYTES + from * DIGEST_BYTES)?;
        Ok(bytes.as_chunks::<32>().0.iter().map(|digest| Digest(*digest)).collect())
    }
}
