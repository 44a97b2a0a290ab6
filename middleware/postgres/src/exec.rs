//! Becoming postgres: what the hidden subcommand of the `steeldb` binary runs, so that a server dies with its agent
//! however the agent ends.
//!
//! The order matters: the kernel clears the parent-death signal when credentials change, so privileges are dropped
//! first; and a parent that died before the signal was asked for is noticed by comparing parent ids afterwards.

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, getppid, setgid, setgroups, setuid};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

/// Why postgres was not executed.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The arguments are not those that [`ExecArgs::to_args`] makes.
    #[error("exec-postgres is started by SteelDB itself and takes: PARENT UID GID PROGRAM [ARGUMENT]...")]
    Usage,
    /// Privileges could not be dropped, or the signal not be asked for.
    #[error("cannot {step}: {error}")]
    System {
        /// What failed.
        step: &'static str,
        /// Why.
        error: nix::Error,
    },
    /// The agent ended before postgres started.
    #[error("the agent that asked for this server has ended")]
    Orphaned,
    /// The program could not be executed.
    #[error("cannot execute {program}: {error}")]
    Exec {
        /// Its path.
        program: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// What the hidden subcommand is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExecArgs {
    /// The process that must be the parent.
    pub parent: u32,
    /// The user to become, when running as root.
    pub user: Option<(u32, u32)>,
    /// postgres.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

impl ExecArgs {
    /// As command line arguments.
    pub fn to_args(&self) -> Vec<OsString> {
        let id = |id: Option<u32>| OsString::from(id.map_or("-".to_string(), |id| id.to_string()));
        let mut args = vec![
            OsString::from(self.parent.to_string()),
            id(self.user.map(|user| user.0)),
            id(self.user.map(|user| user.1)),
            self.program.clone().into(),
        ];
        args.extend(self.args.iter().cloned());
        args
    }

    /// From command line arguments.
    ///
    /// # Errors
    /// [`ExecError::Usage`].
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<ExecArgs, ExecError> {
        let mut args = args.into_iter();
        let mut number = || -> Result<Option<u32>, ExecError> {
            let arg = args.next().ok_or(ExecError::Usage)?;
            let text = arg.to_str().ok_or(ExecError::Usage)?;
            if text == "-" {
                return Ok(None);
            }
            text.parse().map(Some).map_err(|_| ExecError::Usage)
        };
        let parent = number()?.ok_or(ExecError::Usage)?;
        let user = match (number()?, number()?) {
            (Some(uid), Some(gid)) => Some((uid, gid)),
            (None, None) => None,
            _ => return Err(ExecError::Usage),
        };
        let program = args.next().ok_or(ExecError::Usage)?.into();
        Ok(ExecArgs { parent, user, program, args: args.collect() })
    }
}

/// Drops privileges, asks to be ended with the parent, and becomes postgres. Returns only when that fails. `args` are
/// what follows the subcommand's name on the command line.
pub fn exec_postgres(args: impl IntoIterator<Item = OsString>) -> ExecError {
    match prepare(args) {
        Err(error) => error,
        Ok(args) => {
            let error = Command::new(&args.program).args(&args.args).exec();
            ExecError::Exec { program: args.program, error }
        }
    }
}

fn prepare(args: impl IntoIterator<Item = OsString>) -> Result<ExecArgs, ExecError> {
    let args = ExecArgs::from_args(args)?;
    let failed = |step| move |error| ExecError::System { step, error };
    if let Some((uid, gid)) = args.user {
        let gid = Gid::from_raw(gid);
        setgroups(&[gid]).map_err(failed("leave root's groups"))?;
        setgid(gid).map_err(failed("change the group"))?;
        setuid(Uid::from_raw(uid)).map_err(failed("change the user"))?;
    }
    // An immediate shutdown: it waits for nothing, so nothing can be left behind; the log recovers what it skips.
    prctl::set_pdeathsig(Signal::SIGQUIT).map_err(failed("ask to be ended with the agent"))?;
    if u32::try_from(getppid().as_raw()) != Ok(args.parent) {
        return Err(ExecError::Orphaned);
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_survive_the_command_line() {
        let with_user = ExecArgs {
            parent: 7,
            user: Some((101, 104)),
            program: "/usr/bin/postgres".into(),
            args: vec!["-D".into(), "/data dir".into()],
        };
        let without = ExecArgs { user: None, ..with_user.clone() };
        for args in [with_user, without] {
            assert_eq!(ExecArgs::from_args(args.to_args()).unwrap(), args);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for args in
            [vec![], vec!["x"], vec!["1", "2", "-", "p"], vec!["1", "-", "-"], vec!["-", "-", "-", "p"]]
        {
            let args = args.into_iter().map(OsString::from);
            assert!(matches!(ExecArgs::from_args(args), Err(ExecError::Usage)));
        }
    }

    #[test]
    fn a_wrong_parent_is_noticed() {
        let args = ExecArgs { parent: 0, user: None, program: "/bin/false".into(), args: vec![] };
        // This also asks the kernel to end this test's thread with its parent, which is what happens anyway.
        assert!(matches!(prepare(args.to_args()), Err(ExecError::Orphaned)));
    }
}
