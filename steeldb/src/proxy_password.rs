//! `steeldb proxy-password`.

use crate::cli::ProxyPasswordArgs;
use crate::config::{Users, check_user, verifier};
use anyhow::{Context as _, ensure};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use std::io::{BufRead as _, IsTerminal as _};
use std::process::ExitCode;
use zeroize::Zeroizing;

/// Sets or removes a user.
///
/// # Errors
/// When the file or the password is refused.
pub(crate) fn execute(args: &ProxyPasswordArgs) -> anyhow::Result<ExitCode> {
    let mut users = match args.users.exists() {
        true => Users::read(&args.users)?,
        false => Users::default(),
    };
    if args.remove {
        ensure!(
            users.users.remove(&args.user).is_some(),
            "{}: no user {:?}",
            args.users.display(),
            args.user
        );
    } else {
        check_user(&args.user).map_err(anyhow::Error::msg)?;
        let password = password(&args.user)?;
        users.users.insert(args.user.clone(), verifier(&password));
    }
    users.write(&args.users)?;
    Ok(ExitCode::SUCCESS)
}

/// The first line of stdin; from a terminal it is asked for twice and not shown.
fn password(user: &str) -> anyhow::Result<Zeroizing<String>> {
    let stdin = std::io::stdin();
    let line = || -> anyhow::Result<Zeroizing<String>> {
        let mut line = Zeroizing::new(String::new());
        stdin.lock().read_line(&mut line).context("cannot read the password")?;
        Ok(Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_string()))
    };
    let password = if stdin.is_terminal() {
        let shown = tcgetattr(&stdin).context("cannot hide what is typed")?;
        let mut hidden = shown.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(&stdin, SetArg::TCSAFLUSH, &hidden).context("cannot hide what is typed")?;
        eprint!("Password of {user}: ");
        let first = line();
        eprint!("\nOnce more: ");
        let second = line();
        eprintln!();
        tcsetattr(&stdin, SetArg::TCSAFLUSH, &shown).context("cannot show again what is typed")?;
        let (first, second) = (first?, second?);
        ensure!(*first == *second, "the two passwords differ");
        first
    } else {
        line()?
    };
    ensure!(!password.is_empty(), "the password is empty");
    Ok(password)
}
