//! Digests sorted with bounded memory: each part of a transaction is a sorted run on disk, and the runs are merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use steeldb_postgres::write_set::SortedDigests;
use steeldb_types::Digest;

/// Digests of a run that are read at once.
const READ: usize = 1024;

/// Runs of digests.
pub(super) struct Runs {
    directory: PathBuf,
    /// Without a name: nothing of it is left, however the process ends.
    file: Option<File>,
    end: u64,
    runs: Vec<Run>,
    len: u64,
}

/// A sorted run.
struct Run {
    /// What is read of it and not taken, the next one last. All of it, where it could not be written.
    read: Vec<Digest>,
    /// Where the rest is on disk.
    at: u64,
    left: u64,
}

impl Runs {
    pub(super) fn new(directory: &Path) -> Runs {
        Runs { directory: directory.to_path_buf(), file: None, end: 0, runs: Vec::new(), len: 0 }
    }

    /// How many digests there are.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Adds a run. A disk that does not take it is no reason not to know what the transaction did: it stays in memory.
    pub(super) fn add(&mut self, mut digests: Vec<Digest>) {
        digests.sort_unstable();
        self.len += digests.len() as u64;
        match self.write(&digests) {
            Ok(run) => self.runs.push(run),
            Err(error) => {
                tracing::error!(%error, digests = digests.len(), "digests of a bulk transaction stay in memory");
                digests.reverse();
                self.runs.push(Run { read: digests, at: 0, left: 0 });
            }
        }
    }

    fn write(&mut self, digests: &[Digest]) -> io::Result<Run> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile_in(&self.directory)?),
        };
        let at = self.end;
        for digests in digests.chunks(8 * READ) {
            let bytes: Vec<u8> = digests.iter().flat_map(|digest| digest.0).collect();
            file.write_all_at(&bytes, self.end)?;
            self.end += bytes.len() as u64;
        }
        Ok(Run { read: Vec::new(), at, left: digests.len() as u64 })
    }

    /// *w* of all of them; `each` is given them in ascending order.
    pub(super) fn merge(mut self, mut each: impl FnMut(Digest)) -> io::Result<Digest> {
        let disorder = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let mut sorted = SortedDigests::new(self.len);
        let mut heap = BinaryHeap::with_capacity(self.runs.len());
        for number in 0..self.runs.len() {
            heap.extend(self.next(number)?.map(|digest| Reverse((digest, number))));
        }
        while let Some(Reverse((digest, number))) = heap.pop() {
            sorted.add(digest).map_err(disorder)?;
            each(digest);
            heap.extend(self.next(number)?.map(|digest| Reverse((digest, number))));
        }
        sorted.finish().map_err(disorder)
    }

    fn next(&mut self, number: usize) -> io::Result<Option<Digest>> {
        let Some(run) = self.runs.get_mut(number) else { return Ok(None) };
        if run.read.is_empty()
            && run.left > 0
            && let Some(file) = &self.file
        {
            let mut bytes = vec![0; READ.min(run.left as usize) * 32];
            file.read_exact_at(&mut bytes, run.at)?;
            run.at += bytes.len() as u64;
            run.left -= bytes.len() as u64 / 32;
            run.read = bytes.as_chunks::<32>().0.iter().rev().map(|digest| Digest(*digest)).collect();
        }
        Ok(run.read.pop())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(numbers: impl Iterator<Item = u64>) -> Vec<Digest> {
        numbers.map(|number| Digest::of("test", &[&number.to_le_bytes()])).collect()
    }

    fn w(digests: &[Digest]) -> Digest {
        let mut sorted = SortedDigests::new(digests.len() as u64);
        digests.iter().for_each(|digest| sorted.add(*digest).unwrap());
        sorted.finish().unwrap()
    }

    /// Runs around what is read at once, none among them, with digests that come twice.
    #[test]
    fn runs_are_merged_to_what_sorting_in_memory_gives() {
        let dir = tempfile::tempdir().unwrap();
        for lengths in [vec![], vec![0], vec![1], vec![READ as u64, 0, READ as u64 + 1, READ as u64 - 1, 3]] {
            let mut runs = Runs::new(dir.path());
            let mut all = Vec::new();
            for (run, length) in lengths.iter().enumerate() {
                let run = digests((0..*length).map(|number| number * (1 + run as u64 % 2)));
                all.extend(run.iter().copied());
                runs.add(run);
            }
            all.sort_unstable();
            let mut merged = Vec::new();
            assert_eq!(runs.len(), all.len() as u64);
            assert_eq!(runs.merge(|digest| merged.push(digest)).unwrap(), w(&all));
            assert_eq!(merged, all);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn without_a_disk_they_are_merged_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let mut runs = Runs::new(&dir.path().join("missing"));
        let mut all = digests(0..3000);
        runs.add(all[..1000].to_vec());
        runs.add(all[1000..].to_vec());
        all.sort_unstable();
        assert_eq!(runs.merge(|_| {}).unwrap(), w(&all));
    }
}
