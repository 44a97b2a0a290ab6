//! A measured run: opens the terminals, lets them work for a time or a number of transactions, adds up.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::connection::{Connection, Session, target};
use crate::error::Error;
use crate::measurements::{Measurements, Totals};
use crate::progress::Progress;
use crate::random::{NuRandConstants, TpccRandom};
use crate::report::{Report, Second, Setup};
use crate::scale::{DISTRICTS, Scale};
use crate::terminal::{Phase, Shared, Terminal, TerminalEnd, lock};
use crate::transactions::Place;

/// How long transactions in flight may take to end after the run; terminals that take longer are reported as
/// hung.
const GRACE: Duration = Duration::from_secs(30);

/// What to run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Where.
    pub connection: Connection,
    /// Warehouses to use; `None` for all that are loaded.
    pub warehouses: Option<i32>,
    /// Terminals; `None` for one per warehouse, or ten with keying and think times (4.2.2).
    pub terminals: Option<usize>,
    /// Length of the measured span; `None` to be bounded by `transactions` alone.
    pub duration: Option<Duration>,
    /// Time before the measured span.
    pub warmup: Duration,
    /// Transactions to start over all terminals, warm-up included; `None` for no bound.
    pub transactions: Option<u64>,
    /// Wait as clause 5.2.5 says.
    pub keying_and_think_times: bool,
    /// Send statements that do not need one another's answers together.
    pub pipelining: bool,
    /// Tries of a transaction against serialization failures.
    pub max_tries: u32,
    /// Seed of the inputs; `None` draws one.
    pub seed: Option<u64>,
    /// Show a live line on standard error.
    pub progress: bool,
}

impl RunOptions {
    /// A minute on all loaded warehouses without waiting.
    pub fn new(connection: Connection) -> Self {
        Self {
            connection,
            warehouses: None,
            terminals: None,
            duration: Some(Duration::from_secs(60)),
            warmup: Duration::ZERO,
            transactions: None,
            keying_and_think_times: false,
            pipelining: false,
            max_tries: 20,
            seed: None,
            progress: false,
        }
    }

    fn validate(&self) -> Result<(), Error> {
        let complaint = if self.terminals == Some(0) || self.max_tries == 0 {
            "--terminals and --max-tries must be at least 1"
        } else if self.duration.is_none() && self.transactions.is_none() {
            "a run needs an end: give --duration or --transactions"
        } else if self.duration.is_some_and(|duration| duration.is_zero()) {
            "--duration must be longer than zero"
        } else {
            return Ok(());
        };
        Err(Error::Options(complaint.to_owned()))
    }
}

/// Runs the mix and reports. Failures of transactions are in the report; only what prevents the run is an
/// error.
///
/// # Errors
/// [`Error::NotLoaded`], connection, option and statement errors.
pub async fn run(options: &RunOptions) -> Result<Report, Error> {
    run_until(options, &CancellationToken::new()).await
}

/// As [`run`], but ends early, with a report, when `interrupt` fires.
///
/// # Errors
/// As [`run`].
pub async fn run_until(options: &RunOptions, interrupt: &CancellationToken) -> Result<Report, Error> {
    options.validate()?;
    let config = options.connection.resolve()?;
    let (scale, server_version) = inspect(&config, options.warehouses).await?;
    let seed = options.seed.unwrap_or_else(rand::random);
    let per_warehouse = if options.keying_and_think_times { DISTRICTS as usize } else { 1 };
    let terminal_count = options.terminals.unwrap_or(scale.warehouses as usize * per_warehouse);

    let shared = Arc::new(Shared::new(config.clone(), options, interrupt.child_token()));
    let terminals = open_terminals(&shared, scale, seed, terminal_count).await?;
    let measurements: Vec<_> = terminals.iter().map(Terminal::measurements).collect();
    let mut tasks = JoinSet::new();
    let progress = Progress::run(options.progress);
    let started_at = std::time::SystemTime::now();
    if options.warmup.is_zero() {
        shared.enter(Phase::Measuring);
    }
    for terminal in terminals {
        tasks.spawn(terminal.run());
    }
    let watched = watch(options, &shared, &mut tasks, &progress).await?;
    progress.finish();

    let setup = Setup {
        started_at_unix_s: started_at
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        target: target(&config),
        server_version,
        scale,
        specification_scale: scale.is_specification(),
        terminals: terminal_count,
        keying_and_think_times: options.keying_and_think_times,
        pipelining: options.pipelining,
        max_tries: options.max_tries,
        seed,
        warmup_seconds: watched.warmup.as_secs_f64(),
        measured_seconds: watched.measured.as_secs_f64(),
        interrupted: interrupt.is_cancelled(),
        terminals_lost: watched.lost,
        terminals_hung: watched.hung,
    };
    Ok(Report::new(setup, &total(&measurements), watched.timeline))
}

fn total(measurements: &[Arc<Mutex<Measurements>>]) -> Measurements {
    let mut total = Measurements::default();
    for terminal in measurements {
        total.add(&lock(terminal));
    }
    total
}

/// Cardinalities to work on, and the server's version if it tells.
async fn inspect(
    config: &tokio_postgres::Config,
    warehouses: Option<i32>,
) -> Result<(Scale, Option<String>), Error> {
    let session = Session::open(config).await?;
    let mut scale = Scale::of_database(&session.client).await?;
    if let Some(wanted) = warehouses {
        if !(1..=scale.warehouses).contains(&wanted) {
            return Err(Error::Options(format!(
                "--warehouses is {wanted}, but {} are loaded: choose from 1 to {}, or load again with --drop",
                scale.warehouses, scale.warehouses
            )));
        }
        scale.warehouses = wanted;
    }
    let version = session.client.query_one("SHOW server_version", &[]).await;
    Ok((scale, version.ok().and_then(|row| row.try_get(0).ok())))
}

async fn open_terminals(
    shared: &Arc<Shared>,
    scale: Scale,
    seed: u64,
    count: usize,
) -> Result<Vec<Terminal>, Error> {
    // Stream 0 is the run's own, the terminals count from 1.
    let constants = NuRandConstants::for_run(&mut TpccRandom::new(seed, 0));
    let mut terminals = Vec::with_capacity(count);
    for number in 0..count {
        let place = Place {
            warehouse: (number % scale.warehouses as usize) as i32 + 1,
            district: (number / scale.warehouses as usize % DISTRICTS as usize) as i32 + 1,
            scale,
            constants,
        };
        let random = TpccRandom::new(seed, 1 + number as u64);
        terminals.push(Terminal::open(Arc::clone(shared), place, random).await?);
    }
    Ok(terminals)
}

/// What was seen from outside the terminals.
struct Watched {
    warmup: Duration,
    measured: Duration,
    timeline: Vec<Second>,
    lost: usize,
    hung: usize,
}

/// Leads the run through its phases until every terminal has ended.
async fn watch(
    options: &RunOptions,
    shared: &Shared,
    tasks: &mut JoinSet<TerminalEnd>,
    progress: &Progress,
) -> Result<Watched, Error> {
    let started = Instant::now();
    let mut watched =
        Watched { warmup: options.warmup, measured: Duration::ZERO, timeline: Vec::new(), lost: 0, hung: 0 };
    let mut measuring_since = options.warmup.is_zero().then_some(started);
    let mut phase_end = match measuring_since {
        Some(_) => options.duration.and_then(|duration| started.checked_add(duration)),
        None => started.checked_add(options.warmup),
    };
    let mut ticks =
        tokio::time::interval_at((started + Duration::from_secs(1)).into(), Duration::from_secs(1));
    let mut before = Totals::default();
    loop {
        tokio::select! {
            joined = tasks.join_next() => match joined {
                None => break,
                Some(joined) => {
                    let end = joined.map_err(|error| Error::Internal(error.to_string()))?;
                    watched.lost += usize::from(end == TerminalEnd::Lost);
                }
            },
            () = sleep_until(phase_end) => {
                if measuring_since.is_some() {
                    break;
                }
                let now = Instant::now();
                watched.warmup = now - started;
                measuring_since = Some(now);
                shared.enter(Phase::Measuring);
                phase_end = options.duration.and_then(|duration| now.checked_add(duration));
            }
            () = shared.stop.cancelled() => break,
            _ = ticks.tick() => {
                let totals = shared.live.totals();
                let second = totals.since(before);
                before = totals;
                watched.timeline.push(Second {
                    second: watched.timeline.len() as u64 + 1,
                    warmup: measuring_since.is_none(),
                    totals: second,
                });
                progress.update(&live_line(started.elapsed(), measuring_since.is_none(), totals, second));
            }
        }
    }
    shared.enter(Phase::Over);
    match measuring_since {
        Some(since) => watched.measured = since.elapsed(),
        None => watched.warmup = started.elapsed(),
    }
    shared.stop.cancel();
    drain(tasks, &mut watched).await?;
    Ok(watched)
}

/// Lets transactions in flight end; they are not measured any more.
async fn drain(tasks: &mut JoinSet<TerminalEnd>, watched: &mut Watched) -> Result<(), Error> {
    let deadline = Instant::now() + GRACE;
    while !tasks.is_empty() {
        tokio::select! {
            joined = tasks.join_next() => if let Some(joined) = joined {
                let end = joined.map_err(|error| Error::Internal(error.to_string()))?;
                watched.lost += usize::from(end == TerminalEnd::Lost);
            },
            () = sleep_until(Some(deadline)) => {
                watched.hung = tasks.len();
                tasks.shutdown().await;
            }
        }
    }
    Ok(())
}

/// Never, without a moment.
async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

fn live_line(elapsed: Duration, warming_up: bool, totals: Totals, second: Totals) -> String {
    let per_minute = |count: u64| count as f64 * 60.0 / elapsed.as_secs_f64().max(f64::EPSILON);
    format!(
        "{}tpmC {:.0} (last second {}), tpmTOTAL {:.0}, retries {}, errors {}",
        if warming_up { "warm-up: " } else { "" },
        per_minute(totals.new_orders),
        second.new_orders * 60,
        per_minute(totals.transactions),
        totals.retries,
        totals.errors
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_needs_an_end_and_terminals() {
        let options = RunOptions::new(Connection::default());
        assert!(options.validate().is_ok());
        for (bad, named) in [
            (RunOptions { duration: None, ..options.clone() }, "--duration"),
            (RunOptions { duration: Some(Duration::ZERO), ..options.clone() }, "--duration"),
            (RunOptions { terminals: Some(0), ..options.clone() }, "--terminals"),
            (RunOptions { max_tries: 0, ..options.clone() }, "--max-tries"),
        ] {
            let text = bad.validate().expect_err("refused").to_string();
            assert!(text.contains(named), "{text}");
        }
    }

    #[test]
    fn the_live_line_counts_per_minute() {
        let totals = Totals { new_orders: 100, transactions: 220, retries: 3, errors: 1 };
        let line = live_line(Duration::from_secs(10), false, totals, Totals { new_orders: 11, ..totals });
        assert_eq!(line, "tpmC 600 (last second 660), tpmTOTAL 1320, retries 3, errors 1");
    }
}
