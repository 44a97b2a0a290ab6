//! Clients: closed loops, each one request at a time, or arrivals at a rate.

use crate::cluster::Cluster;
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use steeldb_ordering_server::{Acceptance, Client, Session};
use steeldb_types::{ClientId, SessionId};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A load to put on a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Sessions, each with at most one request in flight.
    pub sessions: u64,
    /// Clients that share them: each has a link of its own to every replica.
    pub clients: u32,
    /// Bytes of a request and of its reply.
    pub payload_bytes: usize,
    /// Whether requests are signed.
    pub signed: bool,
    /// Requests per second that arrive over all sessions; nothing: each session sends the next when it has a reply.
    pub rate: Option<f64>,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Requests executed per second.
    pub throughput: f64,
    /// Of requests, microseconds.
    pub latency_us: Histogram<u64>,
    /// The longest time in which no request at all completed.
    pub longest_gap: Duration,
    /// Arrivals that found every session busy.
    pub shed: u64,
    /// CPU of all replicas per request.
    pub replicas_cpu_us: f64,
    /// CPU of the clients per request.
    pub clients_cpu_us: f64,
}

/// Counts completions while a measurement runs.
struct Meter {
    state: Mutex<MeterState>,
    shed: AtomicU64,
}

struct MeterState {
    running: bool,
    latency_us: Histogram<u64>,
    last: Instant,
    longest_gap: Duration,
}

impl Meter {
    fn note(&self, took: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.running {
            let now = Instant::now();
            state.longest_gap = state.longest_gap.max(now - state.last);
            state.last = now;
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            state.latency_us.saturating_record(micros);
        }
    }

    fn run(&self, running: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if !running {
            state.longest_gap = state.longest_gap.max(now - state.last);
        }
        state.last = now;
        state.running = running;
    }
}

/// A minute is beyond every latency of interest; three digits.
fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

/// Puts `load` on `cluster` for `warm_up`, then measures for `duration`, in the middle of which `disturb` is called.
///
/// # Errors
/// When a client cannot start.
pub async fn run(
    cluster: &mut Cluster,
    load: Load,
    warm_up: Duration,
    duration: Duration,
    disturb: impl AsyncFnOnce(&mut Cluster) -> anyhow::Result<()>,
) -> anyhow::Result<Measured> {
    let state = MeterState {
        running: false,
        latency_us: histogram()?,
        last: Instant::now(),
        longest_gap: Duration::ZERO,
    };
    let meter = Arc::new(Meter { state: Mutex::new(state), shed: AtomicU64::new(0) });
    let clients_count = u64::from(load.clients).min(load.sessions).max(1);
    let mut clients = Vec::new();
    for client in 1..=clients_count {
        clients.push(start_client(cluster, ClientId(u32::try_from(client)?), load.signed)?);
    }
    for client in &clients {
        client.ready().await;
    }
    let sessions: Vec<Session> = (0..load.sessions)
        .map(|number| clients[(number % clients_count) as usize].session(SessionId(number + 1)))
        .collect();
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let payload = vec![7u8; load.payload_bytes];
    match load.rate {
        None => {
            for session in sessions {
                tasks.spawn(closed_loop(session, payload.clone(), Arc::clone(&meter), stopped.clone()));
            }
        }
        Some(rate) => {
            tasks.spawn(arrivals(sessions, payload, rate, Arc::clone(&meter), stopped));
        }
    }
    tokio::time::sleep(warm_up).await;
    let (replicas_before, own_before) = (cluster.cpu_used(), own_cpu());
    let began = Instant::now();
    meter.run(true);
    tokio::time::sleep(duration / 2).await;
    let before_disturbance = cluster.cpu_used();
    disturb(cluster).await?;
    // A process that was killed takes its account along.
    let lost = before_disturbance.saturating_sub(cluster.cpu_used());
    tokio::time::sleep(duration.saturating_sub(began.elapsed())).await;
    meter.run(false);
    let took = began.elapsed();
    let replicas = (cluster.cpu_used() + lost).saturating_sub(replicas_before);
    let own = own_cpu().saturating_sub(own_before);
    stop.send_replace(true);
    for client in &clients {
        client.stop();
    }
    tasks.shutdown().await;
    let state = meter.state.lock().unwrap_or_else(PoisonError::into_inner);
    let requests = state.latency_us.len().max(1) as f64;
    Ok(Measured {
        throughput: state.latency_us.len() as f64 / took.as_secs_f64(),
        latency_us: state.latency_us.clone(),
        longest_gap: state.longest_gap,
        shed: meter.shed.load(Ordering::Relaxed),
        replicas_cpu_us: replicas.as_secs_f64() * 1e6 / requests,
        clients_cpu_us: own.as_secs_f64() * 1e6 / requests,
    })
}

fn own_cpu() -> Duration {
    crate::cpu::used(std::process::id()).unwrap_or_default()
}

fn start_client(cluster: &Cluster, client: ClientId, signed: bool) -> anyhow::Result<Client> {
    let config = cluster.client_config(client);
    let genesis = cluster.genesis();
    if signed {
        return Ok(Client::start(config, genesis, Acceptance::Quorum)?);
    }
    #[cfg(feature = "unsigned-requests")]
    return Ok(Client::start_unsigned(config, genesis, Acceptance::Quorum)?);
    #[cfg(not(feature = "unsigned-requests"))]
    anyhow::bail!("this build orders signed requests alone; build it with --features unsigned-requests")
}

async fn closed_loop(
    mut session: Session,
    payload: Vec<u8>,
    meter: Arc<Meter>,
    stopped: watch::Receiver<bool>,
) {
    while !*stopped.borrow() {
        let began = Instant::now();
        if session.invoke(&payload).await.is_ok() {
            meter.note(began.elapsed());
        }
    }
}

/// Requests come at `rate` whatever becomes of them, as long as a session is free.
async fn arrivals(
    sessions: Vec<Session>,
    payload: Vec<u8>,
    rate: f64,
    meter: Arc<Meter>,
    stopped: watch::Receiver<bool>,
) {
    let mut idle = sessions;
    let mut busy = JoinSet::new();
    let began = Instant::now();
    let mut arrived = 0u64;
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    while !*stopped.borrow() {
        tokio::select! {
            _ = tick.tick() => {}
            Some(Ok(session)) = busy.join_next() => {
                idle.push(session);
                continue;
            }
        }
        let due = (began.elapsed().as_secs_f64() * rate) as u64;
        while arrived < due {
            arrived += 1;
            let Some(mut session) = idle.pop() else {
                meter.shed.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let (payload, meter) = (payload.clone(), Arc::clone(&meter));
            busy.spawn(async move {
                let began = Instant::now();
                if session.invoke(&payload).await.is_ok() {
                    meter.note(began.elapsed());
                }
                session
            });
        }
    }
}
