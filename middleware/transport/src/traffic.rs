//! What goes over links, counted. One meter per node outlives the links with it.

use std::sync::atomic::{AtomicU64, Ordering};

/// What went over the links with one node since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Frames sent, and their bytes with the headers.
    pub frames_sent: u64,
    /// See there.
    pub bytes_sent: u64,
    /// Frames received, and their bytes with the headers.
    pub frames_received: u64,
    /// See there.
    pub bytes_received: u64,
    /// Links that came up: one more than how often one was lost.
    pub links: u64,
    /// Attempts of this side to make one that failed.
    pub failures: u64,
}

/// Counts.
#[derive(Default)]
pub(crate) struct Meter {
    frames_sent: AtomicU64,
    bytes_sent: AtomicU64,
    frames_received: AtomicU64,
    bytes_received: AtomicU64,
    links: AtomicU64,
    failures: AtomicU64,
}

impl Meter {
    pub(crate) fn sent(&self, bytes: usize) {
        self.frames_sent.fetch_add(1, Ordering::Relaxed);
        self.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.frames_received.fetch_add(1, Ordering::Relaxed);
        self.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn linked(&self) {
        self.links.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Traffic {
        Traffic {
            frames_sent: self.frames_sent.load(Ordering::Relaxed),
            bytes_sent: self.bytes_sent.load(Ordering::Relaxed),
            frames_received: self.frames_received.load(Ordering::Relaxed),
            bytes_received: self.bytes_received.load(Ordering::Relaxed),
            links: self.links.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
        }
    }
}
