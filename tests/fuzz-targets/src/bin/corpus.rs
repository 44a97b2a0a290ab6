//! Writes the samples of every target into `fuzz/corpus`.

use std::path::Path;
use steeldb_fuzz_targets::{TARGETS, samples};

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for target in TARGETS {
        let folder = corpus.join(target.name);
        std::fs::create_dir_all(&folder)?;
        for (number, bytes) in samples::of(target.name).iter().enumerate() {
            std::fs::write(folder.join(format!("sample-{number:02}")), bytes)?;
        }
    }
    Ok(())
}
