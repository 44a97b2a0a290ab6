//! Merkle trees over votes: a batch is signed once, and each vote keeps a path to the signed root (rule 6).

use borsh::{BorshDeserialize, BorshSerialize};
use steeldb_types::Digest;

/// A tree over at least one leaf.
pub struct MerkleTree {
    /// Levels from the leaves to the root; an odd node out is carried up unchanged.
    levels: Vec<Vec<Digest>>,
}

/// The way from a leaf to the root.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct MerklePath {
    /// The leaf's index.
    pub index: u32,
    /// How many leaves the tree has.
    pub leaves: u32,
    /// The siblings on the way, from the bottom; levels where the node is carried up have none.
    pub siblings: Vec<Digest>,
}

fn leaf(data: &[u8]) -> Digest {
    Digest::of("steeldb/merkle/leaf", &[data])
}

fn node(left: &Digest, right: &Digest) -> Digest {
    Digest::of("steeldb/merkle/node", &[&left.0, &right.0])
}

/// The signed root also fixes the number of leaves, so that a path has one shape.
fn root(top: &Digest, leaves: usize) -> Digest {
    Digest::of("steeldb/merkle/root", &[&top.0, &(leaves as u64).to_le_bytes()])
}

impl MerkleTree {
    /// A tree over the encodings of the leaves; none when there are none.
    pub fn new<T: AsRef<[u8]>>(leaves: &[T]) -> Option<MerkleTree> {
        if leaves.is_empty() {
            return None;
        }
        let mut levels = vec![leaves.iter().map(|data| leaf(data.as_ref())).collect::<Vec<_>>()];
        while let Some(level) = levels.last().filter(|level| level.len() > 1) {
            let above = level
                .chunks(2)
                .map(|pair| match pair {
                    [left, right] => node(left, right),
                    [odd, ..] => *odd,
                    [] => Digest::default(),
                })
                .collect();
            levels.push(above);
        }
        Some(MerkleTree { levels })
    }

    /// The digest to sign.
    pub fn root(&self) -> Digest {
        let top = self.levels.last().and_then(|level| level.first()).copied().unwrap_or_default();
        root(&top, self.levels[0].len())
    }

    /// The path of leaf `index`; none when there is no such leaf.
    pub fn path(&self, index: usize) -> Option<MerklePath> {
        if index >= self.levels[0].len() {
            return None;
        }
        let mut siblings = Vec::new();
        let mut at = index;
        for level in &self.levels {
            if let Some(sibling) = level.get(at ^ 1).filter(|_| level.len() > 1) {
                siblings.push(*sibling);
            }
            at /= 2;
        }
        Some(MerklePath { index: index as u32, leaves: self.levels[0].len() as u32, siblings })
    }
}

impl MerklePath {
    /// The root that this path leads to from `data`; none when the path has not the shape its numbers demand.
    pub fn root(&self, data: &[u8]) -> Option<Digest> {
        if self.index >= self.leaves || self.siblings.len() > 32 {
            return None;
        }
        let mut siblings = self.siblings.iter();
        let mut here = leaf(data);
        let (mut at, mut width) = (self.index, self.leaves);
        while width > 1 {
            if at ^ 1 < width {
                let sibling = siblings.next()?;
                here = if at & 1 == 0 { node(&here, sibling) } else { node(sibling, &here) };
            }
            at /= 2;
            width = width.div_ceil(2);
        }
        siblings.next().is_none().then(|| root(&here, self.leaves as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_leaf_of_every_small_tree_has_a_path_to_the_root_and_no_other_leaf_has() {
        for n in 1..=33usize {
            let leaves: Vec<Vec<u8>> = (0..n).map(|i| vec![i as u8]).collect();
            let tree = MerkleTree::new(&leaves).unwrap();
            for (i, data) in leaves.iter().enumerate() {
                let path = tree.path(i).unwrap();
                assert_eq!(path.root(data), Some(tree.root()), "leaf {i} of {n}");
                assert_ne!(path.root(b"other"), Some(tree.root()));
                let moved = MerklePath { index: (i as u32 + 1) % n as u32, ..path.clone() };
                assert!(n == 1 || moved.root(data) != Some(tree.root()));
                let longer =
                    MerklePath { siblings: [path.siblings.clone(), vec![tree.root()]].concat(), ..path };
                assert_eq!(longer.root(data), None);
            }
            assert!(tree.path(n).is_none());
        }
        assert!(MerkleTree::new::<Vec<u8>>(&[]).is_none());
    }
}
