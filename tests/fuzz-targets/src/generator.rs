//! Inputs by seed: random bytes, and samples changed here and there.

use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use rand_chacha::ChaCha8Rng;

/// The largest input, bytes.
const BYTES_MAX: usize = 4096;

/// An input. `samples` are where most of them begin.
pub fn input(rng: &mut ChaCha8Rng, samples: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = match samples.choose(rng) {
        Some(sample) if rng.random_bool(0.7) => sample.clone(),
        _ => {
            let length = rng.random_range(0..1024);
            (0..length).map(|_| rng.random()).collect()
        }
    };
    for _ in 0..rng.random_range(0..6) {
        change(rng, &mut bytes, samples);
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

fn change(rng: &mut ChaCha8Rng, bytes: &mut Vec<u8>, samples: &[Vec<u8>]) {
    let at = rng.random_range(0..=bytes.len());
    match rng.random_range(0..6) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, rng.random()),
        2 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
        // Lengths and numbers: none, all, one more.
        3 if at < bytes.len() => bytes[at] = *[0, 1, 0x7f, 0x80, 0xff].choose(rng).unwrap_or(&0),
        4 if at < bytes.len() => {
            let upto = rng.random_range(at..=bytes.len());
            bytes.drain(at..upto);
        }
        _ => {
            if let Some(other) = samples.choose(rng).filter(|other| !other.is_empty()) {
                let from = rng.random_range(0..other.len());
                let piece = other[from..].to_vec();
                bytes.splice(at.., piece);
            }
        }
    }
}
