//! `steeldb demo`: a cluster on this machine, as child processes.
//!
//! Invariants:
//! - No process is left behind. Children ask the kernel to be killed with this process; COMMAND's group is kept by a
//!   process that does the same; at an orderly end everything that is left below this process is ended and waited for.
//! - The proxy stops before the replicas, so that no application meets a cluster that is half gone.

mod child;
mod command;
mod directory;
mod reaper;
mod terminal;

pub(crate) use command::supervise;

use crate::cli::{DemoArgs, LogFormat, Logging};
use crate::signals::{Signals, exit_code};
use anyhow::bail;
use child::Managed;
use command::Running;
use directory::{DemoDirectory, NAME, Wanted};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

/// How long a proxy, and then the replicas, may take to stop.
const PROXY_PATIENCE: Duration = Duration::from_secs(15);
const REPLICA_PATIENCE: Duration = Duration::from_secs(90);

/// How a demo ended.
enum Outcome {
    /// COMMAND ended with this status.
    Command(u8),
    /// This signal came.
    Signal(u8),
}

/// Runs the demo to its end.
///
/// # Errors
/// When it cannot start, or the proxy ends.
pub(crate) fn execute(args: DemoArgs, logging: &Logging) -> anyhow::Result<ExitCode> {
    // One thread, the main one: children are tied to the thread that starts them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let directory = {
            let listen = args.listen.as_deref();
            let execution = args.execution.map(Into::into);
            let tentative = args.tentative;
            let wanted = Wanted { replicas: args.replicas, listen, execution, tentative };
            DemoDirectory::open(args.dir.as_deref(), wanted)?
        };
        reaper::adopt_orphans()?;
        let mut demo =
            Demo { directory, logging: flags(logging), replicas: Vec::new(), proxy: None, command: None };
        let outcome = tokio::select! {
            outcome = demo.run(args.run.as_deref()) => outcome,
            signal = signals.recv() => Ok(Outcome::Signal(signal)),
        };
        tokio::select! {
            () = demo.stop() => {}
            // A second signal: children are killed with this process, and no folder is removed under them.
            signal = signals.recv() => {
                eprintln!("steeldb: ending at once; data are kept in {}", demo.directory.path().display());
                std::process::exit(exit_code(signal).into());
            }
        }
        match outcome? {
            Outcome::Command(status) => Ok(ExitCode::from(status)),
            Outcome::Signal(signal) if args.run.is_some() => Ok(ExitCode::from(exit_code(signal))),
            Outcome::Signal(_) => Ok(ExitCode::SUCCESS),
        }
    })
}

/// The logging flags as they are handed on.
fn flags(logging: &Logging) -> Vec<String> {
    let format = match logging.log_format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    let mut flags = vec!["--log-format".to_string(), format.to_string()];
    if let Some(level) = &logging.log_level {
        flags.extend(["--log-level".to_string(), level.clone()]);
    }
    flags
}

/// A demo's processes.
struct Demo {
    directory: DemoDirectory,
    logging: Vec<String>,
    replicas: Vec<Managed>,
    proxy: Option<Managed>,
    command: Option<Running>,
}

impl Demo {
    /// Starts everything and waits: for COMMAND, or for ever.
    async fn run(&mut self, command: Option<&str>) -> anyhow::Result<Outcome> {
        let count = self.directory.replicas;
        eprintln!(
            "starting {count} replicas, each with its PostgreSQL, in {}",
            self.directory.path().display()
        );
        for id in 0..count {
            let child = self.start(format!("replica {id}"), "replica", &self.directory.replica(id))?;
            self.replicas.push(child);
        }
        self.proxy = Some(self.start("the proxy".into(), "proxy", &self.directory.proxy())?);
        self.ready().await?;
        self.announce(command.is_some());
        if let Some(command) = command {
            self.command = Some(Running::start(command, &self.directory)?);
        }
        let Demo { replicas, proxy, command, .. } = self;
        let Some(proxy) = proxy else { bail!("there is no proxy") };
        match command {
            None => Err(watch(proxy, replicas).await),
            Some(command) => tokio::select! {
                status = command.wait() => status.map(Outcome::Command),
                error = watch(proxy, replicas) => Err(error),
            },
        }
    }

    /// Waits until all are ready. All are watched at once: whichever fails is heard of at once.
    async fn ready(&mut self) -> anyhow::Result<()> {
        let mut waiting: Vec<_> =
            self.replicas.iter_mut().chain(&mut self.proxy).map(|child| Box::pin(child.ready())).collect();
        while !waiting.is_empty() {
            first(&mut waiting).await?;
        }
        Ok(())
    }

    fn start(&self, name: String, subcommand: &str, folder: &Path) -> anyhow::Result<Managed> {
        let config = folder.join(format!("{subcommand}.toml")).display().to_string();
        let mut args = vec![subcommand, "--config", &config];
        args.extend(self.logging.iter().map(String::as_str));
        Managed::start(name, folder, &args)
    }

    /// The ready line; for a COMMAND it goes to stderr, since stdout is COMMAND's.
    fn announce(&self, command: bool) {
        let listen = &self.directory.listen;
        let (host, port) = listen.rsplit_once(':').unwrap_or((listen, ""));
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let line = format!("ready: psql -h {host} -p {port} -U {NAME} {NAME}");
        if command {
            eprintln!("{line}");
        } else {
            let mut stdout = std::io::stdout().lock();
            // Nobody may be listening; that is no reason to stop.
            let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
        }
    }

    /// Stops everything in order, and waits until it is gone.
    async fn stop(&mut self) {
        if let Some(running) = self.command.take() {
            running.end().await;
        }
        if let Some(proxy) = &mut self.proxy {
            proxy.ask_to_stop();
            proxy.stopped(Instant::now() + PROXY_PATIENCE).await;
        }
        for replica in &self.replicas {
            replica.ask_to_stop();
        }
        let deadline = Instant::now() + REPLICA_PATIENCE;
        for replica in &mut self.replicas {
            replica.stopped(deadline).await;
        }
        reaper::end_orphans().await;
    }
}

/// Tells of replicas that end, which the cluster survives up to f. Returns when the proxy ends.
async fn watch(proxy: &mut Managed, replicas: &mut [Managed]) -> anyhow::Error {
    loop {
        let alive = replicas.iter_mut().filter(|replica| !replica.has_ended());
        let mut alive: Vec<_> = alive
            .map(|replica| {
                Box::pin(async move {
                    let status = replica.ended().await;
                    replica.obituary(status)
                })
            })
            .collect();
        tokio::select! {
            status = proxy.ended() => return anyhow::anyhow!("{}", proxy.obituary(status)),
            obituary = first(&mut alive) => eprintln!("{obituary}\n{} replicas are left", alive.len()),
        }
    }
}

/// Waits for the first of `futures` and takes it out; for ever when there is none.
async fn first<F: Future + Unpin>(futures: &mut Vec<F>) -> F::Output {
    std::future::poll_fn(|context| {
        for index in 0..futures.len() {
            if let std::task::Poll::Ready(output) = std::pin::Pin::new(&mut futures[index]).poll(context) {
                drop(futures.swap_remove(index));
                return std::task::Poll::Ready(output);
            }
        }
        std::task::Poll::Pending
    })
    .await
}
