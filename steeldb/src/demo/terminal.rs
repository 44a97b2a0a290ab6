//! The terminal belongs to one process group at a time: to COMMAND while it runs (it may be psql), else to the demo.

use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};
use std::io::IsTerminal as _;

/// The terminal, lent to another process group.
pub(crate) struct Terminal {
    owner: Pid,
}

impl Terminal {
    /// Hands the terminal to `group`, if there is one and it is ours to give.
    pub(crate) fn hand_over(group: Pid) -> Option<Terminal> {
        let stdin = std::io::stdin();
        let owner = getpgrp();
        if !stdin.is_terminal() || tcgetpgrp(&stdin) != Ok(owner) {
            return None;
        }
        tcsetpgrp(&stdin, group).ok()?;
        // It may have been stopped for reading before the terminal was its own.
        let _ = killpg(group, Signal::SIGCONT);
        Some(Terminal { owner })
    }

    /// Takes it back.
    pub(crate) fn take_back(self) {
        // Whoever takes the terminal from the background is stopped by SIGTTOU unless it is blocked.
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGTTOU);
        if blocked.thread_block().is_ok() {
            let _ = tcsetpgrp(std::io::stdin(), self.owner);
            let _ = blocked.thread_unblock();
        }
    }
}
