#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| steeldb_fuzz_targets::run("kept_effects", input));
