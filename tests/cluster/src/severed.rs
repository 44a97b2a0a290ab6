//! Links of a client that end at a chosen point of a COMMIT, as when its process is killed there; and a proxy in a runtime
//! of its own, so that it can be killed.

use crate::APP;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use steeldb_client_shim::{Decision, Links, Shim, ShimConfig};
use steeldb_pg_proxy::ProxyOptions;
use steeldb_transport::{
    ClientConfig, ClientEvent, ClientLinks, ClientTransport, LinkOptions, ReplicaAddress,
};
use steeldb_types::{ReplicaId, SessionId, TxId, limits};
use steeldb_wire::codec::decode;
use steeldb_wire::transaction::{ClientMessage, Ordered, Outcome, ReplicaMessage};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

/// Where the links end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// Nowhere.
    Never,
    /// BEGINs are held back until [`Severed::release`]; everything else passes.
    Begins,
    /// The Finish of a COMMIT reaches nobody.
    BeforeFinish,
    /// It reaches this replica alone.
    FinishTo(ReplicaId),
    /// It reaches all, and nothing comes back.
    AfterFinish,
    /// So many replicas have said that the transaction is committed; nobody hears of it.
    AfterOutcomes(usize),
    /// Nowhere, but the client does not hear that another master's term has begun.
    Terms,
    /// Questions for outcomes reach this replica; from the others they are held back until [`Severed::release`].
    QuestionsTo(ReplicaId),
}

/// Links that end.
#[derive(Clone)]
pub struct Severed {
    links: ClientLinks,
    state: Arc<Mutex<State>>,
    ended: watch::Sender<bool>,
    /// The transaction whose BEGIN, or the question for whose outcome, is held back from all replicas that it is to be.
    held: watch::Sender<Option<TxId>>,
}

struct State {
    cut: Cut,
    replicas: usize,
    /// Nothing passes any more.
    ended: bool,
    finished: usize,
    outcomes: usize,
    /// Questions for outcomes, each as often as it was put.
    questions: BTreeSet<(SessionId, u64)>,
    held: Vec<(ReplicaId, Bytes)>,
}

impl Severed {
    /// A shim over links that end at `cut`. Call it inside a tokio runtime.
    pub fn shim(
        config: ShimConfig,
        replicas: Vec<ReplicaAddress>,
        cut: Cut,
    ) -> anyhow::Result<(Shim, Severed)> {
        let n = replicas.len();
        let (links, mut from_links) = ClientTransport::start(ClientConfig {
            client: config.client,
            key: config.key.clone(),
            replicas,
            options: LinkOptions::default(),
        })?;
        let state = State {
            cut,
            replicas: n,
            ended: false,
            finished: 0,
            outcomes: 0,
            questions: BTreeSet::new(),
            held: Vec::new(),
        };
        let severed = Severed {
            links,
            state: Arc::new(Mutex::new(state)),
            ended: watch::Sender::new(false),
            held: watch::Sender::new(None),
        };
        let (to_shim, events) = mpsc::channel(64);
        let filter = severed.clone();
        tokio::spawn(async move {
            // Read on after the end, so that what replicas say fills no buffer.
            while let Some(event) = from_links.recv().await {
                if filter.passes(&event) && to_shim.send(event).await.is_err() {
                    return;
                }
            }
        });
        Ok((Shim::over(config, Arc::new(severed.clone()), events), severed))
    }

    /// Waits until the links have ended.
    pub async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Waits until a BEGIN is held back from all replicas, or a question from all but one; of which transaction.
    pub async fn held(&self) -> TxId {
        let mut held = self.held.subscribe();
        let tx = held.wait_for(Option::is_some).await.map(|tx| *tx);
        tx.ok().flatten().unwrap_or_default()
    }

    /// How often the client has asked for outcomes.
    pub fn questions(&self) -> usize {
        self.state().questions.len()
    }

    /// Lets go what was held back, and all that follows.
    pub fn release(&self) {
        let held = {
            let mut state = self.state();
            state.cut = Cut::Never;
            std::mem::take(&mut state.held)
        };
        for (replica, frame) in held {
            self.links.send(replica, frame);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, state: &mut State) {
        state.ended = true;
        self.ended.send_replace(true);
    }

    /// Whether a frame may be sent.
    fn may_send(&self, replica: ReplicaId, frame: &Bytes) -> bool {
        let mut state = self.state();
        if state.ended {
            return false;
        }
        match decode::<ClientMessage>(frame, limits::FRAME_BYTES_MAX) {
            Ok(ClientMessage::Request { session, sequence, payload, .. }) => {
                let ordered = decode(&payload, limits::REQUEST_BYTES_MAX);
                if matches!(ordered, Ok(Ordered::Outcome { .. })) {
                    state.questions.insert((session, sequence));
                }
                let (tx, passed) = match (state.cut, ordered) {
                    (Cut::Begins, Ok(Ordered::Begin { tx, .. })) => (tx, 0),
                    (Cut::QuestionsTo(only), Ok(Ordered::Outcome { tx, .. })) if replica != only => (tx, 1),
                    _ => return true,
                };
                state.held.push((replica, frame.clone()));
                if state.held.len() + passed == state.replicas {
                    self.held.send_replace(Some(tx));
                }
                false
            }
            Ok(ClientMessage::Finish(finish)) if finish.finish.decision == Decision::Commit => {
                state.finished += 1;
                match state.cut {
                    Cut::BeforeFinish => {
                        self.end(&mut state);
                        false
                    }
                    Cut::FinishTo(only) => {
                        if state.finished == state.replicas {
                            self.end(&mut state);
                        }
                        replica == only
                    }
                    Cut::AfterFinish => {
                        if state.finished == state.replicas {
                            self.end(&mut state);
                        }
                        true
                    }
                    _ => true,
                }
            }
            _ => true,
        }
    }

    /// Whether an event may reach the shim.
    fn passes(&self, event: &ClientEvent) -> bool {
        let mut state = self.state();
        let ClientEvent::Frame(_, frame) = event else { return !state.ended };
        match (state.cut, decode::<ReplicaMessage>(frame, limits::FRAME_BYTES_MAX)) {
            (Cut::Terms, Ok(ReplicaMessage::Term(term))) => term.epoch == 0,
            (
                Cut::AfterOutcomes(count),
                Ok(ReplicaMessage::Outcome { outcome: Outcome::Committed { .. }, .. }),
            ) => {
                state.outcomes += 1;
                if state.outcomes == count {
                    self.end(&mut state);
                }
                false
            }
            _ => !state.ended,
        }
    }
}

impl Links for Severed {
    fn send(&self, replica: ReplicaId, frame: Bytes) {
        if self.may_send(replica, &frame) {
            self.links.send(replica, frame);
        }
    }

    fn send_relaxed(&self, replica: ReplicaId, frame: Bytes, patience: Duration) {
        if self.may_send(replica, &frame) {
            self.links.send_relaxed(replica, frame, patience);
        }
    }

    fn backlog(&self, replica: ReplicaId) -> usize {
        self.links.backlog(replica).unwrap_or(0)
    }
}

/// A proxy that can be killed: in a runtime of its own, over links that end.
pub struct Doomed {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its links.
    pub severed: Severed,
    runtime: Option<Runtime>,
}

impl Doomed {
    pub(crate) async fn start(
        host: &str,
        config: ShimConfig,
        replicas: Vec<ReplicaAddress>,
        cut: Cut,
    ) -> anyhow::Result<Doomed> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listen = format!("{host}:0");
        let starting = runtime.spawn(async move {
            let (shim, severed) = Severed::shim(config, replicas, cut)?;
            shim.connected(Duration::from_secs(20)).await;
            let proxy = steeldb_pg_proxy::Proxy::bind(ProxyOptions::new(listen, shim)).await?;
            let address = proxy.local_addr()?;
            tokio::spawn(proxy.run(std::future::pending()));
            anyhow::Ok((address, severed))
        });
        let (address, severed) = starting.await??;
        Ok(Doomed { address, severed, runtime: Some(runtime) })
    }

    /// Waits until what was sent is on its way, then ends the proxy without a word to anybody.
    pub async fn kill_when_sent(mut self) {
        while (0..self.severed.state().replicas).any(|id| self.severed.backlog(ReplicaId(id as u16)) > 0) {
            tokio::task::yield_now().await;
        }
        self.end();
    }

    /// Ends the proxy without a word to anybody.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Where it listens, as part of a connection string.
    pub fn connection_string(&self) -> String {
        let (host, port) = (self.address.ip(), self.address.port());
        format!("host={host} port={port} user={APP} dbname={APP}")
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        self.end();
    }
}
