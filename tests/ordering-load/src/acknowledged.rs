//! Clients that remember what was acknowledged to them, to be compared with what replicas executed.

use crate::application::State;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use steeldb_ordering_server::Client;
use steeldb_types::{ClientId, Position, SessionId, SessionKey};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Sessions that send one request after the other until they are stopped.
pub struct Workload {
    tasks: JoinSet<()>,
    acknowledged: Acknowledged,
    progress: watch::Receiver<u64>,
    stop: watch::Sender<bool>,
}

/// By session, how many requests were acknowledged, and at which positions.
type Acknowledged = Arc<Mutex<Log>>;

#[derive(Clone, Default)]
struct Log {
    sessions: BTreeMap<SessionKey, Vec<Position>>,
    ahead: u64,
}

impl Workload {
    /// Starts so many sessions of `client`, which is client number `id`.
    pub fn start(client: &Client, id: ClientId, sessions: u64) -> Workload {
        let acknowledged = Acknowledged::default();
        let (done, progress) = watch::channel(0);
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for number in 1..=sessions {
            let mut session = client.session(SessionId(number));
            let key = SessionKey { client: id, session: SessionId(number) };
            let (acknowledged, done, stopped) = (Arc::clone(&acknowledged), done.clone(), stopped.clone());
            tasks.spawn(async move {
                while !*stopped.borrow() {
                    let payload = number.to_le_bytes().to_vec();
                    let executed = session.invoke(&payload).await.expect("a correct request is executed");
                    assert_eq!(executed.result, payload, "another reply than the echo");
                    let mut all = acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
                    all.sessions.entry(key).or_default().push(executed.position);
                    all.ahead += u64::from(executed.ahead);
                    done.send_modify(|count| *count += 1);
                }
            });
        }
        Workload { tasks, acknowledged, progress, stop }
    }

    /// How many requests are acknowledged.
    pub fn acknowledged_in_all(&self) -> u64 {
        *self.progress.borrow()
    }

    /// How many requests of a session are acknowledged.
    pub fn acknowledged(&self, session: SessionKey) -> u64 {
        let all = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        all.sessions.get(&session).map_or(0, |positions| positions.len() as u64)
    }

    /// Waits until so many more requests than now are acknowledged.
    pub async fn more(&mut self, requests: u64) {
        let target = *self.progress.borrow() + requests;
        self.progress.wait_for(|count| *count >= target).await.expect("sessions run");
    }

    /// Lets every session finish its request.
    pub async fn finish(mut self) -> Finished {
        self.stop.send_replace(true);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no session failed");
        }
        let all = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        Finished(all.clone())
    }
}

/// What was acknowledged in the end.
pub struct Finished(Log);

impl Finished {
    /// How many requests were acknowledged before their decision.
    pub fn ahead(&self) -> u64 {
        self.0.ahead
    }

    /// Panics unless a state holds exactly what was acknowledged: each request once, none lost, in its session's order.
    pub fn check(&self, state: &State) {
        self.check_with(state, 0);
    }

    /// As [`check`](Finished::check), with so many requests of other clients besides.
    pub fn check_with(&self, state: &State, others: u64) {
        let mut positions: Vec<Position> = Vec::new();
        for (session, acknowledged) in &self.0.sessions {
            let count = acknowledged.len() as u64;
            let progress = state.sessions.get(session).map(|progress| (progress.executed, progress.last));
            assert_eq!(progress, Some((count, count)), "{session}");
            assert!(acknowledged.is_sorted(), "{session} was executed out of order");
            positions.extend(acknowledged);
        }
        positions.sort();
        positions.dedup();
        let acknowledged: usize = self.0.sessions.values().map(Vec::len).sum();
        assert_eq!(positions.len(), acknowledged, "two requests at one position");
        assert_eq!(state.position, Position(acknowledged as u64 + others));
    }
}
