//! Every fuzz target on stable: the corpus, then inputs by seed. A failure prints the seed of its input.

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use std::path::{Path, PathBuf};
use steeldb_fuzz_targets::{TARGETS, Target, generator, samples};

/// Inputs per target; the core's are runs of many steps.
const SEEDS: u64 = 3000;

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target.name);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Says what was being run when a target panics.
struct Running(String);

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("found by {}", self.0);
        }
    }
}

fn drive(name: &str, seeds: u64) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let mut known: Vec<Vec<u8>> = Vec::new();
    for (path, bytes) in corpus(target) {
        let _running = Running(path.display().to_string());
        (target.run)(&bytes);
        known.push(bytes);
    }
    for seed in 0..seeds {
        let _running = Running(format!("{name}, seed {seed}"));
        let input = generator::input(&mut ChaCha8Rng::seed_from_u64(seed), &known);
        (target.run)(&input);
    }
}

#[test]
fn the_corpus_holds_every_sample() {
    for target in TARGETS {
        let files: Vec<Vec<u8>> = corpus(&target).into_iter().map(|(_, bytes)| bytes).collect();
        for sample in samples::of(target.name) {
            assert!(files.contains(&sample), "{}: a sample changed: run the corpus binary", target.name);
        }
    }
}

macro_rules! targets {
    ($($name:ident: $seeds:expr),* $(,)?) => {
        $(#[test]
        fn $name() {
            drive(stringify!($name), $seeds);
        })*

        #[test]
        fn no_target_is_left_out() {
            let driven = [$(stringify!($name)),*];
            assert!(TARGETS.iter().all(|target| driven.contains(&target.name)));
        }
    };
}

targets! {
    ordering_message: SEEDS,
    record: SEEDS,
    log_on_disk: SEEDS / 10,
    ledger_archive: SEEDS / 10,
    change: SEEDS,
    link_frame: SEEDS,
    client_frame: SEEDS,
    server_frame: SEEDS,
    transaction_message: SEEDS,
    peer_frame: SEEDS,
    kept_effects: SEEDS,
    core: SEEDS / 2,
}
