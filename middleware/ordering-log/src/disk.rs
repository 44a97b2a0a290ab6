//! What the log needs of a disk.

use std::io;

/// A directory of files. Nothing is durable before a sync says so.
pub trait Disk: Send + Sync + 'static {
    /// The name of the whole, for messages.
    fn name(&self) -> String;

    /// The files' names.
    ///
    /// # Errors
    /// The disk failed.
    fn list(&self) -> io::Result<Vec<String>>;

    /// How many bytes a file has.
    ///
    /// # Errors
    /// No such file, or the disk failed.
    fn length(&self, file: &str) -> io::Result<u64>;

    /// All bytes of a file.
    ///
    /// # Errors
    /// No such file, or the disk failed.
    fn read(&self, file: &str) -> io::Result<Vec<u8>>;

    /// `length` bytes of a file at `offset`.
    ///
    /// # Errors
    /// No such file, fewer bytes, or the disk failed.
    fn read_at(&self, file: &str, offset: u64, length: usize) -> io::Result<Vec<u8>>;

    /// Writes bytes at `offset`, creating the file if there is none.
    ///
    /// # Errors
    /// The disk is full, or failed. Part of the bytes may be written.
    fn write_at(&self, file: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts a file off.
    ///
    /// # Errors
    /// No such file, or the disk failed.
    fn set_len(&self, file: &str, length: u64) -> io::Result<()>;

    /// Makes a file's contents durable, not its name.
    ///
    /// # Errors
    /// The disk failed; what was written may be lost for good.
    fn sync(&self, file: &str) -> io::Result<()>;

    /// Makes the creations and removals of files durable.
    ///
    /// # Errors
    /// The disk failed.
    fn sync_names(&self) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// No such file, or the disk failed.
    fn remove(&self, file: &str) -> io::Result<()>;
}
