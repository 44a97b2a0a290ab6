//! SHA-256 digests with domain separation.

use borsh::{BorshDeserialize, BorshSerialize};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// A SHA-256 digest: 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, BorshSerialize, BorshDeserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `parts` in namespace `domain`. Every part enters with its length, so no two lists of parts
    /// share an encoding.
    pub fn of(domain: &str, parts: &[&[u8]]) -> Digest {
        let mut hasher = Hasher::new(domain);
        for part in parts {
            hasher.part(part);
        }
        hasher.finish()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Eight bytes tell digests apart in a log line.
        f.write_str(&hex::encode(&self.0[..8]))
    }
}

/// An incremental [`Digest`]: a namespace, then parts, each with its length.
#[derive(Clone)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Starts a digest in namespace `domain`, such as `"steeldb/vote"`.
    pub fn new(domain: &str) -> Hasher {
        let mut hasher = Hasher(Sha256::new());
        hasher.part(domain.as_bytes());
        hasher
    }

    /// Adds one part with its length.
    pub fn part(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Begins one part of `length` bytes, which come by [`Hasher::stream`].
    pub fn part_of(&mut self, length: u64) -> &mut Self {
        self.0.update(length.to_le_bytes());
        self
    }

    /// Adds bytes that come in pieces: how they are cut makes no difference. Nothing else may follow them, but after a part
    /// whose length was told.
    pub fn stream(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    /// Adds a number as one part.
    pub fn number(&mut self, number: u64) -> &mut Self {
        self.part(&number.to_le_bytes())
    }

    /// The digest of everything added.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_domains_do_not_run_into_each_other() {
        assert_ne!(Digest::of("a", &[b"bc", b"d"]), Digest::of("a", &[b"b", b"cd"]));
        assert_ne!(Digest::of("ab", &[b"c"]), Digest::of("a", &[b"bc"]));
        assert_ne!(Digest::of("a", &[]), Digest::of("a", &[b""]));
        let mut pieces = Hasher::new("a");
        pieces.part_of(3).stream(b"b").stream(b"cd");
        assert_eq!(pieces.finish(), Digest::of("a", &[b"bcd"]));
    }
}
