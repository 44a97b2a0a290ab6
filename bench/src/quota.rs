//! Control groups: a share of the CPUs for each node, and what it used.
//!
//! Both layouts are spoken, since Debian 12 has the unified one and containers often the one with a folder per
//! controller. A quota with a short period stands for a slower processor: a node that has used its share waits for the
//! rest of the period.

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ROOT: &str = "/sys/fs/cgroup";

/// How the shares are dealt out.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Quota {
    /// CPUs per node; none: as they come.
    pub(crate) cpus: Option<f64>,
    /// In periods of this length.
    pub(crate) period: Duration,
}

/// Where control groups are made.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Layout {
    /// One hierarchy: limits and accounts in the same folder.
    Unified,
    /// One hierarchy for limits, one for accounts.
    PerController,
}

/// A control group; removed when dropped, with what still runs in it.
pub(crate) struct Group {
    layout: Layout,
    /// Where processes are entered and limits set; in the older layout the second is where CPU time is counted.
    folders: Vec<PathBuf>,
}

impl Group {
    /// Makes a group for this process and `name`.
    ///
    /// # Errors
    /// When no control groups can be made here: says what to do.
    pub(crate) fn new(name: &str) -> anyhow::Result<Group> {
        let name = format!("steeldb-bench-{}-{name}", std::process::id());
        let advice = "control groups cannot be made here: run as root, or with --no-quota";
        let root = Path::new(ROOT);
        if root.join("cgroup.controllers").exists() {
            // Children get the controller only if their parent hands it on. It may do so already.
            let _ = std::fs::write(root.join("cgroup.subtree_control"), "+cpu");
            let folder = root.join(&name);
            std::fs::create_dir(&folder).with_context(|| format!("{}: {advice}", folder.display()))?;
            let group = Group { layout: Layout::Unified, folders: vec![folder] };
            if !group.folders[0].join("cpu.max").exists() {
                bail!("{ROOT}: the cpu controller is not available: {advice}");
            }
            return Ok(group);
        }
        let mut group = Group { layout: Layout::PerController, folders: Vec::new() };
        for controller in ["cpu", "cpuacct"] {
            let folder = root.join(controller).join(&name);
            // Both controllers may be one hierarchy under two names.
            if !folder.exists() {
                std::fs::create_dir(&folder).with_context(|| format!("{}: {advice}", folder.display()))?;
            }
            group.folders.push(folder);
        }
        Ok(group)
    }

    /// Sets the share, or takes the limit away.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn limit(&self, quota: Quota) -> anyhow::Result<()> {
        let period = quota.period.as_micros();
        let allowed = quota.cpus.map(|cpus| (cpus * period as f64).round().max(1000.0) as u64);
        let folder = &self.folders[0];
        let set = |file: &str, text: String| {
            let file = folder.join(file);
            std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
        };
        match self.layout {
            Layout::Unified => {
                let allowed = allowed.map_or("max".into(), |allowed| allowed.to_string());
                set("cpu.max", format!("{allowed} {period}"))
            }
            Layout::PerController => {
                set("cpu.cfs_quota_us", "-1".into())?;
                set("cpu.cfs_period_us", period.to_string())?;
                set("cpu.cfs_quota_us", allowed.map_or("-1".into(), |allowed| allowed.to_string()))
            }
        }
    }

    /// The files to which a process writes its number to enter.
    pub(crate) fn doors(&self) -> impl Iterator<Item = PathBuf> {
        self.folders.iter().map(|folder| folder.join("cgroup.procs"))
    }

    /// CPU time used in it so far.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn used(&self) -> anyhow::Result<Duration> {
        let read = |file: PathBuf| {
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
        };
        match self.layout {
            Layout::Unified => usage_of(&read(self.folders[0].join("cpu.stat"))?),
            Layout::PerController => {
                let folder = self.folders.last().context("a group has folders")?;
                let nanoseconds = read(folder.join("cpuacct.usage"))?;
                Ok(Duration::from_nanos(nanoseconds.trim().parse().context("cpuacct.usage is no number")?))
            }
        }
    }

    /// Kills all that runs in it at once, as a host's crash does. Returns when nothing is left, or after a bound.
    pub(crate) fn kill(&self) {
        // Each round may race with a process that forks; a handful are enough for a handful of servers.
        for _ in 0..200 {
            let processes = self.processes();
            if processes.is_empty() {
                return;
            }
            for process in processes {
                let _ = kill(process, Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn processes(&self) -> Vec<Pid> {
        let text = std::fs::read_to_string(self.folders[0].join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).map(Pid::from_raw).collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
        for folder in &self.folders {
            // Zombies keep a group busy until they are waited for; a folder that stays is empty and harmless.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// `usage_usec` of a cpu.stat.
fn usage_of(stat: &str) -> anyhow::Result<Duration> {
    let line = stat.lines().find_map(|line| line.strip_prefix("usage_usec "));
    let microseconds =
        line.and_then(|text| text.trim().parse().ok()).context("cpu.stat has no usage_usec")?;
    Ok(Duration::from_micros(microseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_account_is_read() {
        let stat = "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n";
        assert_eq!(usage_of(stat).unwrap(), Duration::from_micros(1500));
        assert!(usage_of("user_usec 3\n").is_err());
    }
}
