//! A real directory.

use crate::Disk;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Files kept open; a log reads and writes few at a time.
const OPEN_MAX: usize = 8;

/// A directory of the file system.
pub struct Directory {
    path: PathBuf,
    open: Mutex<BTreeMap<String, Arc<File>>>,
}

impl Directory {
    /// Opens or creates a directory.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn open(path: &Path) -> io::Result<Directory> {
        std::fs::create_dir_all(path)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(Directory { path: path.to_path_buf(), open: Mutex::default() })
    }

    fn opened(&self) -> MutexGuard<'_, BTreeMap<String, Arc<File>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, name: &str, create: bool) -> io::Result<Arc<File>> {
        if let Some(file) = self.opened().get(name) {
            return Ok(Arc::clone(file));
        }
        let mut options = OpenOptions::new();
        let file = Arc::new(options.read(true).write(true).create(create).open(self.path.join(name))?);
        let mut open = self.opened();
        if open.len() >= OPEN_MAX {
            open.pop_first();
        }
        open.insert(name.to_string(), Arc::clone(&file));
        Ok(file)
    }
}

impl Disk for Directory {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn length(&self, file: &str) -> io::Result<u64> {
        Ok(std::fs::metadata(self.path.join(file))?.len())
    }

    fn read(&self, file: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.path.join(file))?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn read_at(&self, file: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.file(file, false)?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn write_at(&self, file: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(file, true)?.write_all_at(bytes, offset)
    }

    fn set_len(&self, file: &str, length: u64) -> io::Result<()> {
        self.file(file, false)?.set_len(length)
    }

    fn sync(&self, file: &str) -> io::Result<()> {
        self.file(file, false)?.sync_data()
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn remove(&self, file: &str) -> io::Result<()> {
        self.opened().remove(file);
        std::fs::remove_file(self.path.join(file))
    }
}
