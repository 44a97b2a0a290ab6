#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| steeldb_fuzz_targets::run("peer_frame", input));
