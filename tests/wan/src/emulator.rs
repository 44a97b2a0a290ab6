//! The state of the network: what each directed pair is like now.

use rand::Rng as _;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Normal};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use steeldb_sites::{Conditions, Matrix};
use tokio::sync::watch;
use tokio::time::Instant;

/// A network; clones are the same one.
#[derive(Clone)]
pub struct Emulator {
    pairs: Arc<BTreeMap<(String, String), Pair>>,
}

/// A site that the matrix does not have.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("there is no site {0:?}")]
pub struct UnknownSite(pub String);

/// A directed pair of sites; clones are the same one.
#[derive(Clone)]
pub struct Pair {
    state: Arc<Mutex<State>>,
    cut: Arc<watch::Sender<bool>>,
}

struct State {
    conditions: Conditions,
    /// When the last byte sent so far has left: bandwidth is shared by all connections.
    free_at: Option<Instant>,
    rng: ChaCha8Rng,
}

impl Emulator {
    /// The network that `matrix` describes. Delays are drawn from `seed`, for each directed pair by itself.
    pub fn new(matrix: &Matrix, seed: u64) -> Emulator {
        let pairs = matrix.pairs().zip(0u64..).map(|((from, to, conditions), number)| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(number);
            let state = State { conditions, free_at: None, rng };
            let pair = Pair { state: Arc::new(Mutex::new(state)), cut: Arc::new(watch::Sender::new(false)) };
            ((from.to_string(), to.to_string()), pair)
        });
        Emulator { pairs: Arc::new(pairs.collect()) }
    }

    /// The directed pair.
    ///
    /// # Errors
    /// [`UnknownSite`].
    pub fn pair(&self, from: &str, to: &str) -> Result<Pair, UnknownSite> {
        self.pairs.get(&(from.to_string(), to.to_string())).cloned().ok_or_else(|| {
            let known = |site: &str| self.pairs.contains_key(&(site.to_string(), site.to_string()));
            UnknownSite(if known(from) { to } else { from }.to_string())
        })
    }

    /// All directed pairs.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str, &Pair)> {
        self.pairs.iter().map(|((from, to), pair)| (from.as_str(), to.as_str(), pair))
    }

    /// Cuts a site off from all others, both ways, or lets it back.
    ///
    /// # Errors
    /// [`UnknownSite`].
    pub fn isolate(&self, site: &str, cut: bool) -> Result<(), UnknownSite> {
        self.pair(site, site)?;
        for (from, to, pair) in self.pairs() {
            if from != to && (from == site || to == site) {
                pair.cut(cut);
            }
        }
        Ok(())
    }

    /// Mends all that is cut.
    pub fn heal(&self) {
        for (_, _, pair) in self.pairs() {
            pair.cut(false);
        }
    }
}

impl Pair {
    /// What it is like now.
    pub fn conditions(&self) -> Conditions {
        self.state().conditions
    }

    /// Changes what it is like, for what is sent from now on.
    pub fn set(&self, conditions: Conditions) {
        self.state().conditions = conditions;
    }

    /// Cuts or mends it. What is sent while it is cut arrives once it is mended: TCP keeps trying.
    pub fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }

    /// Whether it is cut.
    pub fn is_cut(&self) -> bool {
        *self.cut.borrow()
    }

    /// Waits until it is not cut.
    pub(crate) async fn mended(&self) {
        // The sender lives as long as this.
        let _ = self.cut.subscribe().wait_for(|cut| !*cut).await;
    }

    /// When `bytes` that are sent `now` arrive.
    pub(crate) fn arrival(&self, now: Instant, bytes: usize) -> Instant {
        let mut state = self.state();
        let conditions = state.conditions;
        let mut left = now;
        if let Some(rate) = conditions.bandwidth_mbit {
            let start = state.free_at.map_or(now, |free| free.max(now));
            left = start + Duration::from_secs_f64(bytes as f64 * 8.0 / (rate * 1e6));
            state.free_at = Some(left);
        }
        let mut delay_ms = conditions.latency_ms;
        if let Ok(jitter) = Normal::new(0.0, conditions.jitter_ms)
            && conditions.jitter_ms > 0.0
        {
            delay_ms = (delay_ms + jitter.sample(&mut state.rng)).max(conditions.latency_ms / 2.0);
        }
        while conditions.loss > 0.0 && state.rng.random_bool(conditions.loss) {
            delay_ms += conditions.retransmission_ms;
        }
        left + Duration::from_secs_f64(delay_ms / 1e3)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole between statements, whatever a thread that panicked left behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
