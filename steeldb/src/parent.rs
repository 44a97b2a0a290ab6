//! Ending with the process that started this one.

use anyhow::Context as _;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

/// Asks the kernel to kill this process when its parent ends, however it ends. A replica's server asks for the same, so
/// nothing outlives the parent; and a kill is what the durability of a replica is made for.
///
/// # Errors
/// When `parent` is not, or no longer, the parent.
pub(crate) fn die_with(parent: u32) -> anyhow::Result<()> {
    send_with(parent, Signal::SIGKILL)
}

/// As [`die_with`], with another signal.
///
/// # Errors
/// When `parent` is not, or no longer, the parent.
pub(crate) fn send_with(parent: u32, signal: Signal) -> anyhow::Result<()> {
    prctl::set_pdeathsig(signal).context("cannot ask to be ended with the parent")?;
    // The parent may have ended before the kernel was asked.
    anyhow::ensure!(is(parent), "process {parent}, which this one must end with, is not its parent");
    Ok(())
}

/// Whether `parent` is this process's parent.
pub(crate) fn is(parent: u32) -> bool {
    u32::try_from(getppid().as_raw()) == Ok(parent)
}
