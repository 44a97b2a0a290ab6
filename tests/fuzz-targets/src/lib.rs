//! The bodies of all fuzz targets. `fuzz/` hands them to libFuzzer, with the tools that needs; the tests of this
//! crate drive the same functions with a seeded generator and the corpus, on stable.
//!
//! A target panics when it finds something. It takes any bytes, and gives the same answer to the same ones.

mod core;
mod decoders;
pub mod generator;
pub mod samples;
mod world;

/// A target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: of the libFuzzer target and of the corpus folder.
    pub name: &'static str,
    /// Its body.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 12] = [
    Target { name: "ordering_message", run: decoders::ordering_message },
    Target { name: "record", run: decoders::record },
    Target { name: "log_on_disk", run: decoders::log_on_disk },
    Target { name: "ledger_archive", run: decoders::ledger_archive },
    Target { name: "change", run: decoders::change },
    Target { name: "link_frame", run: decoders::link_frame },
    Target { name: "client_frame", run: decoders::client_frame },
    Target { name: "server_frame", run: decoders::server_frame },
    Target { name: "transaction_message", run: decoders::transaction_message },
    Target { name: "peer_frame", run: decoders::peer_frame },
    Target { name: "kept_effects", run: decoders::kept_effects },
    Target { name: "core", run: core::run },
];

/// Runs a target by its name; for the bodies in `fuzz/`.
///
/// # Panics
/// When the target finds something, or there is none of that name.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of that name");
    (target.run)(input);
}
