//! A replica's disk: frames of records, of which a power cut keeps a part and tears the next, and which may rot. What a
//! checkpoint makes superfluous is let go of.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::VecDeque;
use steeldb_ordering::{InstanceNumber, Record};
use steeldb_types::Hasher;

const SUM_BYTES: usize = 8;
const LENGTH_BYTES: usize = 4;

#[derive(Default)]
pub(crate) struct Disk {
    /// What survives a power cut.
    durable: Vec<u8>,
    /// Written, not yet confirmed: sequence and frame.
    unsynced: VecDeque<(u64, Vec<u8>)>,
}

impl Disk {
    /// Takes a record; it is durable once [`Disk::flush`] says so.
    pub(crate) fn write(&mut self, sequence: u64, record: &Record) {
        self.unsynced.push_back((sequence, frame(&record.encode())));
    }

    /// Everything up to `upto` is durable.
    pub(crate) fn flush(&mut self, upto: u64) {
        while self.unsynced.front().is_some_and(|(sequence, _)| *sequence <= upto) {
            let Some((_, frame)) = self.unsynced.pop_front() else { break };
            self.durable.extend(frame);
        }
    }

    /// Power is cut: some whole frames survive, and some bytes of the next one.
    pub(crate) fn cut(&mut self, rng: &mut ChaCha8Rng) {
        let survivors = rng.random_range(0..=self.unsynced.len());
        for (index, (_, frame)) in self.unsynced.drain(..).enumerate() {
            if index < survivors {
                self.durable.extend(frame);
            } else {
                let torn = rng.random_range(0..frame.len());
                self.durable.extend(&frame[..torn]);
                break;
            }
        }
    }

    /// One bit flips.
    pub(crate) fn rot(&mut self, rng: &mut ChaCha8Rng) {
        if !self.durable.is_empty() {
            let at = rng.random_range(0..self.durable.len());
            self.durable[at] ^= 1 << rng.random_range(0..8);
        }
    }

    /// Everything is gone.
    pub(crate) fn wipe(&mut self) {
        *self = Disk::default();
    }

    /// The records up to the first damaged frame, which is cut off with all behind it; the last checkpoint first, without
    /// the decisions that it contains.
    pub(crate) fn recover(&mut self) -> Vec<Record> {
        self.unsynced.clear();
        let (mut records, end) = read(&self.durable);
        self.durable.truncate(end);
        let checkpoints = records.iter().filter(|record| matches!(record, Record::Checkpoint(_)));
        let Some(last) = checkpoints.max_by_key(|record| ends_at(record)).cloned() else { return records };
        records.retain(|record| match record {
            Record::Checkpoint(_) => false,
            Record::Decision(decision) => decision.instance() > ends_at(&last),
            _ => true,
        });
        records.insert(0, last);
        records
    }

    /// Lets go of decisions and votes before an instance, and of all checkpoints but the last.
    pub(crate) fn drop_before(&mut self, before: InstanceNumber) {
        let (records, end) = read(&self.durable);
        let checkpoints = records.iter().filter(|record| matches!(record, Record::Checkpoint(_)));
        let last = checkpoints.map(ends_at).max();
        let kept = records.iter().filter(|record| match record {
            Record::Checkpoint(_) => Some(ends_at(record)) == last,
            Record::Regency(_) | Record::Passive { .. } => true,
            _ => ends_at(record) >= before,
        });
        let mut durable: Vec<u8> = kept.flat_map(|record| frame(&record.encode())).collect();
        durable.extend(&self.durable[end..]);
        self.durable = durable;
    }

    /// All records, those not yet confirmed included.
    pub(crate) fn records(&self) -> Vec<Record> {
        let (mut records, _) = read(&self.durable);
        records.extend(self.unsynced.iter().flat_map(|(_, frame)| read(frame).0));
        records
    }
}

/// The instance that a record is about.
fn ends_at(record: &Record) -> InstanceNumber {
    match record {
        Record::Regency(_) => InstanceNumber(0),
        Record::Write { proposal, .. } => proposal.instance,
        Record::Accept { instance, .. } => *instance,
        Record::Decision(decision) => decision.instance(),
        Record::Checkpoint(stable) => stable.certificate.instance,
        Record::Passive { upto } => *upto,
    }
}

fn frame(record: &[u8]) -> Vec<u8> {
    let length = record.len() as u32;
    let mut frame = length.to_le_bytes().to_vec();
    frame.extend(sum(record));
    frame.extend(record);
    frame
}

fn sum(record: &[u8]) -> [u8; SUM_BYTES] {
    let mut hasher = Hasher::new("simulation/disk");
    hasher.part(record);
    let mut sum = [0; SUM_BYTES];
    sum.copy_from_slice(&hasher.finish().0[..SUM_BYTES]);
    sum
}

/// The records of all good frames, and where they end.
fn read(bytes: &[u8]) -> (Vec<Record>, usize) {
    let (mut records, mut end) = (Vec::new(), 0);
    while let Some((record, length)) = first(&bytes[end..]) {
        records.push(record);
        end += length;
    }
    (records, end)
}

fn first(bytes: &[u8]) -> Option<(Record, usize)> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    let (expected, rest) = rest.split_first_chunk::<SUM_BYTES>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let body = rest.get(..length)?;
    if sum(body) != *expected {
        return None;
    }
    Some((Record::decode(body).ok()?, LENGTH_BYTES + SUM_BYTES + length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;
    use steeldb_ordering::Regency;

    #[test]
    fn a_cut_keeps_a_prefix_and_rot_ends_it_earlier() {
        for seed in 0..200 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut disk = Disk::default();
            let records: Vec<Record> =
                (1..=5).map(|number| Record::Regency(Regency::new(0, number))).collect();
            for (sequence, record) in (1..).zip(&records) {
                disk.write(sequence, record);
            }
            disk.flush(2);
            disk.cut(&mut rng);
            let kept = disk.recover();
            assert!(kept.len() >= 2 && records.starts_with(&kept));
            disk.rot(&mut rng);
            let rotten = disk.recover();
            assert!(rotten.len() < kept.len() && records.starts_with(&rotten));
        }
    }
}
