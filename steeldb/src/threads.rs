//! On how many threads a replica or a proxy runs.
//!
//! What it does for one operation is a chain of short steps, each of which wakes the next: a frame comes, the core decides, a
//! backend is told. On one thread the next step is the next task; on several it is another thread, which has to be woken, and
//! what that costs is more than the step where CPUs are few. Where they are many, TLS and backends' results are worth
//! threads of their own.

use std::process::ExitCode;
use std::thread::available_parallelism;
use tokio::runtime::Builder;

/// Up to so many CPUs one thread is cheaper.
const CPUS_FEW: usize = 2;

/// The most that can be configured.
pub(crate) const THREADS_MAX: u32 = 1024;

/// Runs `work` on so many threads; 0: on one where the process may use two CPUs or fewer, else on one for each.
pub(crate) fn run(
    threads: u32,
    work: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    let mut builder = match resolve(threads, || available_parallelism().map_or(1, usize::from)) {
        1 => Builder::new_current_thread(),
        threads => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(threads);
            builder
        }
    };
    let runtime = builder.enable_all().build()?;
    let result = runtime.block_on(work);
    // Blocking work that is still under way must not hold up the exit.
    runtime.shutdown_background();
    result
}

fn resolve(threads: u32, cpus: impl FnOnce() -> usize) -> usize {
    match threads {
        0 => match cpus() {
            few if few <= CPUS_FEW => 1,
            many => many,
        },
        threads => threads as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_counts_and_else_the_cpus() {
        for (threads, cpus, expected) in [(0, 1, 1), (0, 2, 1), (0, 3, 3), (0, 64, 64), (1, 64, 1), (4, 2, 4)]
        {
            assert_eq!(resolve(threads, || cpus), expected, "{threads} threads, {cpus} CPUs");
        }
    }
}
