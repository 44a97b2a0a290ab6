//! What the servers and this process take of the machine's memory, from /proc.

use std::collections::BTreeMap;
use std::fmt;

/// Memory of a set of processes. Pages that several share (the buffer cache, the program) are counted once in `pss`,
/// and once for each process in `rss`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Processes.
    pub processes: usize,
    /// Resident, KiB.
    pub rss_kb: u64,
    /// Resident, with shared pages divided among those who share them, KiB.
    pub pss_kb: u64,
}

impl Memory {
    /// Of this process.
    pub fn of_this_process() -> Memory {
        of(std::process::id()).unwrap_or_default()
    }

    /// Of these processes and their children.
    pub fn of_trees(roots: &[u32]) -> Memory {
        let parents: BTreeMap<u32, u32> = std::fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(|process| Some((process, parent(process)?)))
            .collect();
        let belongs = |process: &u32| roots.contains(process) || roots.contains(&parents[process]);
        parents.keys().filter(|process| belongs(process)).filter_map(|process| of(*process)).fold(
            Memory::default(),
            |sum, one| Memory {
                processes: sum.processes + 1,
                rss_kb: sum.rss_kb + one.rss_kb,
                pss_kb: sum.pss_kb + one.pss_kb,
            },
        )
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |kb: u64| kb.div_ceil(1024);
        write!(f, "{} processes, RSS {} MiB, PSS {} MiB", self.processes, mib(self.rss_kb), mib(self.pss_kb))
    }
}

fn parent(process: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The program's name, in brackets, may hold anything.
    let after_name = &stat[stat.rfind(')')? + 1..];
    after_name.split_whitespace().nth(1)?.parse().ok()
}

fn of(process: u32) -> Option<Memory> {
    let text = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    Some(Memory { processes: 1, rss_kb: field("Rss:")?, pss_kb: field("Pss:")? })
}
