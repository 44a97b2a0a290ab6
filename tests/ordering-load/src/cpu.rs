//! CPU time of processes.

use std::time::Duration;

/// Clock ticks per second of /proc: fixed by the kernel's interface.
const TICKS_PER_SECOND: u64 = 100;

/// What a process has used so far, user and system; nothing when it is gone.
pub fn used(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, blanks included; what follows its closing parenthesis is regular.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}
