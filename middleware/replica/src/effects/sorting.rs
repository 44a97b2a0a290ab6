//! Digests sorted with bounded memory: each part of a transaction is a sorted run on disk, and the runs are merged.
//!
//! Two kinds are sorted: the entries of *w*, and the keys that changes touch, each with the change that does.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use steeldb_postgres::write_set::{LastTouches, Part, SortedDigests, Touch};
use steeldb_types::Digest;

/// Records of a run that are read at once.
const READ: usize = 1024;

/// Bytes of a digest.
const BYTES: usize = 32;

/// Runs of records of `N` digests, sorted by the first of them. Of those that are equal in it, the one that was added first
/// comes first.
struct Runs<const N: usize> {
    directory: PathBuf,
    /// Without a name: nothing of it is left, however the process ends.
    file: Option<File>,
    end: u64,
    runs: Vec<Run<N>>,
    len: u64,
}

/// A sorted run.
struct Run<const N: usize> {
    /// What is read of it and not taken, the next one last. All of it, where it could not be written.
    read: Vec<[Digest; N]>,
    /// Where the rest is on disk.
    at: u64,
    left: u64,
}

impl<const N: usize> Runs<N> {
    fn new(directory: &Path) -> Runs<N> {
        Runs { directory: directory.to_path_buf(), file: None, end: 0, runs: Vec::new(), len: 0 }
    }

    /// Adds a run. A disk that does not take it is no reason not to know what the transaction did: it stays in memory.
    fn add(&mut self, mut records: Vec<[Digest; N]>) {
        // Stable.
        records.sort_by_key(|record| record[0]);
        self.len += records.len() as u64;
        match self.write(&records) {
            Ok(run) => self.runs.push(run),
            Err(error) => {
                tracing::error!(%error, records = records.len(), "digests of a bulk transaction stay in memory");
                records.reverse();
                self.runs.push(Run { read: records, at: 0, left: 0 });
            }
        }
    }

    fn write(&mut self, records: &[[Digest; N]]) -> io::Result<Run<N>> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile_in(&self.directory)?),
        };
        let at = self.end;
        for records in records.chunks(8 * READ) {
            let bytes: Vec<u8> = records.as_flattened().iter().flat_map(|digest| digest.0).collect();
            file.write_all_at(&bytes, self.end)?;
            self.end += bytes.len() as u64;
        }
        Ok(Run { read: Vec::new(), at, left: records.len() as u64 })
    }

    /// Gives all of them in order.
    fn merge(mut self, mut each: impl FnMut([Digest; N]) -> io::Result<()>) -> io::Result<()> {
        let mut heap = BinaryHeap::with_capacity(self.runs.len());
        for number in 0..self.runs.len() {
            heap.extend(self.next(number)?.map(|record| Reverse((record[0], number, record))));
        }
        while let Some(Reverse((_, number, record))) = heap.pop() {
            each(record)?;
            heap.extend(self.next(number)?.map(|record| Reverse((record[0], number, record))));
        }
        Ok(())
    }

    fn next(&mut self, number: usize) -> io::Result<Option<[Digest; N]>> {
        let Some(run) = self.runs.get_mut(number) else { return Ok(None) };
        if run.read.is_empty()
            && run.left > 0
            && let Some(file) = &self.file
        {
            let records = READ.min(run.left as usize);
            let mut bytes = vec![0; records * N * BYTES];
            file.read_exact_at(&mut bytes, run.at)?;
            run.at += bytes.len() as u64;
            run.left -= records as u64;
            let digests: Vec<Digest> =
                bytes.as_chunks::<BYTES>().0.iter().map(|digest| Digest(*digest)).collect();
            run.read = digests.as_chunks::<N>().0.iter().rev().copied().collect();
        }
        Ok(run.read.pop())
    }
}

/// The keys that changes touch.
pub(crate) struct Touches(Runs<2>);

impl Touches {
    pub(crate) fn new(directory: &Path) -> Touches {
        Touches(Runs::new(directory))
    }

    /// Adds those of the changes that come next.
    pub(crate) fn add(&mut self, touches: &[Touch]) {
        if !touches.is_empty() {
            self.0.add(touches.iter().map(|touch| [touch.key, touch.change]).collect());
        }
    }

    /// The entries of *w* that say who touches keys last, in no order.
    ///
    /// # Errors
    /// The disk, or `each`.
    pub(crate) fn finish(self, mut each: impl FnMut(Digest) -> io::Result<()>) -> io::Result<()> {
        let mut last = LastTouches::default();
        self.0.merge(|[key, change]| last.follow(Touch { key, change }).map_or(Ok(()), &mut each))?;
        last.finish().map_or(Ok(()), each)
    }
}

/// The entries of *w*.
pub(super) struct Entries {
    runs: Runs<1>,
    touches: Touches,
}

impl Entries {
    pub(super) fn new(directory: &Path) -> Entries {
        Entries { runs: Runs::new(directory), touches: Touches::new(directory) }
    }

    /// How many there are so far.
    pub(super) fn len(&self) -> u64 {
        self.runs.len
    }

    /// Adds those of a part.
    pub(super) fn add(&mut self, part: Part) {
        self.touches.add(&part.touches);
        self.runs.add(part.entries.into_iter().map(|entry| [entry]).collect());
    }

    /// All of them, sorted.
    ///
    /// # Errors
    /// The disk.
    pub(super) fn finish(self) -> io::Result<Sorted> {
        let Entries { mut runs, touches } = self;
        let mut gathered = Vec::new();
        touches.finish(|entry| {
            gathered.push([entry]);
            if gathered.len() == GATHERED {
                runs.add(std::mem::take(&mut gathered));
            }
            Ok(())
        })?;
        runs.add(gathered);
        Ok(Sorted(runs))
    }
}

/// Entries of a run of those that come out of a merge.
const GATHERED: usize = 64 * READ;

/// The sorted entries of *w*.
pub(super) struct Sorted(Runs<1>);

impl Sorted {
    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.0.len
    }

    /// *w* of all of them; `each` is given them in ascending order.
    ///
    /// # Errors
    /// The disk.
    pub(super) fn merge(self, mut each: impl FnMut(Digest)) -> io::Result<Digest> {
        let disorder = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let mut sorted = SortedDigests::new(self.0.len);
        self.0.merge(|[entry]| {
            sorted.add(entry).map_err(disorder)?;
            each(entry);
            Ok(())
        })?;
        sorted.finish().map_err(disorder)
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

    fn entries(runs: &[Vec<Digest>], directory: &Path) -> Entries {
        let mut entries = Entries::new(directory);
        for run in runs {
            entries.add(Part { entries: run.clone(), ..Part::default() });
        }
        entries
    }

    /// Runs around what is read at once, none among them, with digests that come twice.
    #[test]
    fn runs_are_merged_to_what_sorting_in_memory_gives() {
        let dir = tempfile::tempdir().unwrap();
        for lengths in [vec![], vec![0], vec![1], vec![READ as u64, 0, READ as u64 + 1, READ as u64 - 1, 3]] {
            let run = |(run, length): (usize, &u64)| {
                digests((0..*length).map(|number| number * (1 + run as u64 % 2)))
            };
            let runs: Vec<Vec<Digest>> = lengths.iter().enumerate().map(run).collect();
            let mut all = runs.concat();
            all.sort_unstable();
            let mut merged = Vec::new();
            let sorted = entries(&runs, dir.path()).finish().unwrap();
            assert_eq!(sorted.len(), all.len() as u64);
            assert_eq!(sorted.merge(|digest| merged.push(digest)).unwrap(), w(&all));
            assert_eq!(merged, all);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn without_a_disk_they_are_merged_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let mut all = digests(0..3000);
        let entries = entries(&[all[..1000].to_vec(), all[1000..].to_vec()], &dir.path().join("missing"));
        all.sort_unstable();
        assert_eq!(entries.finish().unwrap().merge(|_| {}).unwrap(), w(&all));
    }

    /// The last touch of a key is the last that was added, whichever run it is in.
    #[test]
    fn touches_of_a_key_stay_in_the_order_of_their_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (keys, changes) = (digests(0..50), digests(1000..4000));
        let touch = |(at, change): (usize, &Digest)| Touch { key: keys[at * at % 50], change: *change };
        let touches: Vec<Touch> = changes.iter().enumerate().map(touch).collect();
        let mut expected: Vec<Digest> = keys
            .iter()
            .filter_map(|key| touches.iter().rfind(|touch| touch.key == *key))
            .map(|last| Digest::of("steeldb/last-touch/1", &[&last.key.0, &last.change.0]))
            .collect();
        expected.sort_unstable();
        for directory in [dir.path().to_path_buf(), dir.path().join("missing")] {
            let mut sorted = Touches::new(&directory);
            touches.chunks(700).for_each(|touches| sorted.add(touches));
            let mut found = Vec::new();
            sorted
                .finish(|entry| {
                    found.push(entry);
                    Ok(())
                })
                .unwrap();
            found.sort_unstable();
            assert_eq!(found, expected);
        }
    }
}
