//! A terminal: draws transactions, runs them with retries over its own session, measures.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::Config;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::connection::Session;
use crate::deck::Deck;
use crate::error::Error;
use crate::measurements::{LiveCounters, Measurements};
use crate::random::TpccRandom;
use crate::transactions::{self, Completed, Failure, Input, Kind, Place, Statements};

/// A terminal that cannot reach the server for so long gives up.
const RECONNECT_LIMIT: Duration = Duration::from_secs(60);

/// Waits after conflicts: from below a millisecond to 64.
const CONFLICT_BACKOFF: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(64));

/// Waits after refusals and between attempts to connect.
const TROUBLE_BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// What all terminals of a run share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub config: Config,
    pub keying_and_think_times: bool,
    pub pipelining: bool,
    pub max_tries: u32,
    /// Transactions still to start; `None` without such a bound.
    pub budget: Option<AtomicU64>,
    /// Fired when no further transaction shall start.
    pub stop: CancellationToken,
    pub live: LiveCounters,
    phase: AtomicU8,
}

/// Where the run is; only what completes while measuring enters the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    WarmUp,
    Measuring,
    Over,
}

impl Shared {
    pub fn new(config: Config, options: &crate::run::RunOptions, stop: CancellationToken) -> Self {
        Self {
            config,
            keying_and_think_times: options.keying_and_think_times,
            pipelining: options.pipelining,
            max_tries: options.max_tries,
            budget: options.transactions.map(AtomicU64::new),
            stop,
            live: LiveCounters::default(),
            phase: AtomicU8::new(Phase::WarmUp as u8),
        }
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    fn is_measuring(&self) -> bool {
        self.phase.load(Ordering::Acquire) == Phase::Measuring as u8
    }

    /// Takes one transaction from the budget; false when it is used up.
    fn take(&self) -> bool {
        self.budget.as_ref().is_none_or(|budget| {
            budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
        })
    }
}

/// Ends of a terminal that are not errors of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TerminalEnd {
    /// Asked to stop, or the budget is used up.
    Done,
    /// The server could not be reached for [`RECONNECT_LIMIT`].
    Lost,
}

/// One terminal.
pub(crate) struct Terminal {
    shared: Arc<Shared>,
    place: Place,
    random: TpccRandom,
    deck: Deck,
    session: Session,
    statements: Statements,
    /// Read by the run even if this terminal hangs.
    measurements: Arc<Mutex<Measurements>>,
}

impl Terminal {
    /// Connects and prepares the statements.
    pub async fn open(shared: Arc<Shared>, place: Place, random: TpccRandom) -> Result<Self, Error> {
        let (session, statements) = connect(&shared.config).await?;
        let measurements = Arc::default();
        Ok(Self { shared, place, random, deck: Deck::default(), session, statements, measurements })
    }

    pub fn measurements(&self) -> Arc<Mutex<Measurements>> {
        Arc::clone(&self.measurements)
    }

    /// Runs transactions until told to stop.
    pub async fn run(mut self) -> TerminalEnd {
        let mut trouble = Backoff::new(TROUBLE_BACKOFF.0, TROUBLE_BACKOFF.1);
        while !self.shared.stop.is_cancelled() && self.shared.take() {
            let kind = self.deck.draw(&mut self.random);
            if self.shared.keying_and_think_times {
                self.pause(kind.keying_time()).await;
                if self.shared.stop.is_cancelled() {
                    break;
                }
            }
            let input = Input::draw(kind, &mut self.random, &self.place);
            let started = Instant::now();
            match self.perform(&input).await {
                Ok(completed) => {
                    self.shared.live.completed(kind, completed.ending);
                    self.measure(|figures| figures.completed(kind, started.elapsed(), &completed));
                    trouble = Backoff::new(TROUBLE_BACKOFF.0, TROUBLE_BACKOFF.1);
                }
                Err(failure) => {
                    self.shared.live.failed();
                    self.measure(|figures| figures.failed(kind, &failure));
                    let is_session_over = self.session.client.is_closed()
                        || matches!(failure, Failure::Disconnected { .. } | Failure::CommitInDoubt { .. });
                    if is_session_over && !self.reconnect().await {
                        return TerminalEnd::Lost;
                    }
                    // A server that refuses everything should not be hammered.
                    let wait = trouble.next(&mut self.random);
                    self.pause(wait).await;
                }
            }
            if self.shared.keying_and_think_times {
                let think = think_time(kind, &mut self.random);
                self.pause(think).await;
            }
        }
        TerminalEnd::Done
    }

    /// One transaction with its retries.
    async fn perform(&mut self, input: &Input) -> Result<Completed, Failure> {
        let kind = input.kind();
        let mut backoff = Backoff::new(CONFLICT_BACKOFF.0, CONFLICT_BACKOFF.1);
        let mut tries = 1;
        loop {
            let shared = &self.shared;
            let attempt =
                transactions::attempt(&mut self.session.client, &self.statements, input, shared.pipelining);
            match attempt.await {
                Err(Failure::Conflict { state }) if tries < shared.max_tries => {
                    tries += 1;
                    shared.live.retried();
                    self.measure(|figures| figures.retried(kind, &state));
                    let wait = backoff.next(&mut self.random);
                    self.pause(wait).await;
                }
                settled => return settled,
            }
        }
    }

    /// Opens a new session in place of the lost one; false if that stays impossible.
    async fn reconnect(&mut self) -> bool {
        let lost = Instant::now();
        let mut backoff = Backoff::new(TROUBLE_BACKOFF.0, TROUBLE_BACKOFF.1);
        while !self.shared.stop.is_cancelled() {
            if let Ok((session, statements)) = connect(&self.shared.config).await {
                (self.session, self.statements) = (session, statements);
                self.measure(|figures| figures.reconnects += 1);
                return true;
            }
            if lost.elapsed() >= RECONNECT_LIMIT {
                return false;
            }
            let wait = backoff.next(&mut self.random);
            self.pause(wait).await;
        }
        true
    }

    /// Waits, but not beyond the end of the run.
    async fn pause(&self, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.shared.stop.cancelled() => {}
        }
    }

    fn measure(&self, update: impl FnOnce(&mut Measurements)) {
        if self.shared.is_measuring() {
            update(&mut lock(&self.measurements));
        }
    }
}

async fn connect(config: &Config) -> Result<(Session, Statements), Error> {
    let session = Session::open(config).await?;
    let statements = Statements::prepare(&session.client)
        .await
        .map_err(Error::statement("preparing the statements of the terminals"))?;
    Ok((session, statements))
}

/// Negative exponential, cut off at ten times the mean (5.2.5.4).
fn think_time(kind: Kind, random: &mut TpccRandom) -> Duration {
    kind.mean_think_time().mul_f64((-random.unit().ln()).min(10.0))
}

pub(crate) fn lock(measurements: &Mutex<Measurements>) -> MutexGuard<'_, Measurements> {
    measurements.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn think_times_have_the_specified_mean_and_bound() {
        let mut random = TpccRandom::new(1, 0);
        let drawn: Vec<Duration> = (0..20_000).map(|_| think_time(Kind::OrderStatus, &mut random)).collect();
        let mean = drawn.iter().sum::<Duration>().as_secs_f64() / drawn.len() as f64;
        assert!((9.5..10.5).contains(&mean), "{mean}");
        assert!(drawn.iter().all(|time| *time <= Duration::from_secs(100)));
    }
}
