//! A disk in memory that does what disks do at their worst: forgets what was not synced, sector by sector and in any
//! order, rots, loses files, fills up.

use crate::Disk;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const SECTOR_BYTES: usize = 512;

/// A simulated disk; clones are the same disk.
#[derive(Clone, Default)]
pub struct SimulatedDisk(Arc<Mutex<Contents>>);

#[derive(Clone, Default)]
struct Contents {
    /// As programs see them.
    files: BTreeMap<String, Vec<u8>>,
    /// As they are sure to be after a power cut.
    durable: BTreeMap<String, Vec<u8>>,
    capacity_bytes: Option<usize>,
    /// Syncs return and do nothing: power fails before they are done.
    syncs_fail: bool,
    syncs: u64,
}

fn missing(file: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {file}"))
}

impl SimulatedDisk {
    /// An empty disk.
    pub fn new() -> SimulatedDisk {
        SimulatedDisk::default()
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another disk with the same contents.
    pub fn copy(&self) -> SimulatedDisk {
        SimulatedDisk(Arc::new(Mutex::new(self.contents().clone())))
    }

    /// Takes over the contents of another disk.
    pub fn become_copy_of(&self, other: &SimulatedDisk) {
        let contents = other.contents().clone();
        *self.contents() = contents;
    }

    /// How many bytes fit on it from now on; nothing: any number.
    pub fn set_capacity(&self, bytes: Option<usize>) {
        self.contents().capacity_bytes = bytes;
    }

    /// Bytes on it.
    pub fn used(&self) -> usize {
        self.contents().files.values().map(Vec::len).sum()
    }

    /// From now on syncs return and do nothing, until power is cut: what a program does then was under way when the
    /// lights went out.
    pub fn stop_syncing(&self) {
        self.contents().syncs_fail = true;
    }

    /// How many times files were synced.
    pub fn syncs(&self) -> u64 {
        self.contents().syncs
    }

    /// Power is cut. Of every sector that was written and not synced, the old or the new contents survive; of every
    /// length and name, the old or the new one. `draw(n)` gives a number below n.
    pub fn cut_power(&self, draw: &mut dyn FnMut(u64) -> u64) {
        let mut contents = self.contents();
        let mut names: Vec<String> = contents.files.keys().chain(contents.durable.keys()).cloned().collect();
        names.sort();
        names.dedup();
        let mut after = BTreeMap::new();
        for name in names {
            let (new, old) = (contents.files.get(&name), contents.durable.get(&name));
            let survivor = match (new, old) {
                (Some(new), Some(old)) => Some(torn(old, new, draw)),
                (Some(new), None) => (draw(2) == 0).then(|| torn(&[], new, draw)),
                (None, Some(old)) => (draw(2) == 0).then(|| old.clone()),
                (None, None) => None,
            };
            after.extend(survivor.map(|bytes| (name, bytes)));
        }
        contents.syncs_fail = false;
        contents.files = after.clone();
        contents.durable = after;
    }

    /// Writes back everything, as a disk does that is given time.
    pub fn write_back(&self) {
        let mut contents = self.contents();
        contents.durable = contents.files.clone();
    }

    /// Flips bits of a byte on the disk itself.
    pub fn rot(&self, file: &str, offset: usize, bits: u8) {
        let mut contents = self.contents();
        let Contents { files, durable, .. } = &mut *contents;
        for files in [files, durable] {
            if let Some(byte) = files.get_mut(file).and_then(|bytes| bytes.get_mut(offset)) {
                *byte ^= bits;
            }
        }
    }

    /// Loses a file.
    pub fn lose(&self, file: &str) {
        let mut contents = self.contents();
        contents.files.remove(file);
        contents.durable.remove(file);
    }
}

/// A file of which some sectors were written back.
fn torn(old: &[u8], new: &[u8], draw: &mut dyn FnMut(u64) -> u64) -> Vec<u8> {
    if old == new {
        return new.to_vec();
    }
    let length = match draw(3) {
        0 => old.len(),
        1 => new.len(),
        _ => {
            let (low, high) = (old.len().min(new.len()), old.len().max(new.len()));
            low + draw((high - low) as u64 + 1) as usize
        }
    };
    let everything = draw(3) == 0;
    let mut bytes = vec![0; length];
    for (number, sector) in bytes.chunks_mut(SECTOR_BYTES).enumerate() {
        let at = number * SECTOR_BYTES;
        let part = |from: &[u8]| from.get(at..from.len().min(at + SECTOR_BYTES)).unwrap_or_default().to_vec();
        let (was, is) = (part(old), part(new));
        let survivor = if was == is || everything || draw(2) == 0 { is } else { was };
        let length = survivor.len().min(sector.len());
        sector[..length].copy_from_slice(&survivor[..length]);
    }
    bytes
}

impl Disk for SimulatedDisk {
    fn name(&self) -> String {
        "simulated".into()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.contents().files.keys().cloned().collect())
    }

    fn length(&self, file: &str) -> io::Result<u64> {
        self.contents().files.get(file).map(|bytes| bytes.len() as u64).ok_or_else(|| missing(file))
    }

    fn read(&self, file: &str) -> io::Result<Vec<u8>> {
        self.contents().files.get(file).cloned().ok_or_else(|| missing(file))
    }

    fn read_at(&self, file: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let contents = self.contents();
        let bytes = contents.files.get(file).ok_or_else(|| missing(file))?;
        let at = offset as usize;
        let range = at..at.saturating_add(length);
        bytes.get(range).map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn write_at(&self, file: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let used = self.used();
        let mut contents = self.contents();
        let room = contents.capacity_bytes.map_or(usize::MAX, |capacity| capacity.saturating_sub(used));
        let written = contents.files.entry(file.to_string()).or_default();
        let grows = (offset as usize + bytes.len()).saturating_sub(written.len());
        let fits = bytes.len() - grows.saturating_sub(room).min(bytes.len());
        let end = offset as usize + fits;
        if fits > 0 && written.len() < end {
            written.resize(end, 0);
        }
        if fits > 0 {
            written[offset as usize..end].copy_from_slice(&bytes[..fits]);
        }
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn set_len(&self, file: &str, length: u64) -> io::Result<()> {
        let mut contents = self.contents();
        let bytes = contents.files.get_mut(file).ok_or_else(|| missing(file))?;
        bytes.resize(length as usize, 0);
        Ok(())
    }

    fn sync(&self, file: &str) -> io::Result<()> {
        let mut contents = self.contents();
        contents.syncs += 1;
        let bytes = contents.files.get(file).cloned().ok_or_else(|| missing(file))?;
        if contents.syncs_fail {
            return Ok(());
        }
        // A journaling file system makes the name durable with the first sync of a new file.
        contents.durable.insert(file.to_string(), bytes);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut contents = self.contents();
        if contents.syncs_fail {
            return Ok(());
        }
        let Contents { files, durable, .. } = &mut *contents;
        durable.retain(|name, _| files.contains_key(name));
        Ok(())
    }

    fn remove(&self, file: &str) -> io::Result<()> {
        self.contents().files.remove(file).map(|_| ()).ok_or_else(|| missing(file))
    }
}
