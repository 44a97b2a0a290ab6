//! A client's side: a link to every replica.

use crate::dial::Dialler;
use crate::link::is_misbehaviour;
use crate::queue::{Queue, locked};
use crate::{LinkOptions, ReplicaAddress, StartError};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use steeldb_types::{ClientId, ReplicaId};
use steeldb_wire::auth::SecretKey;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// What a client's transport needs.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The client; for log lines.
    pub client: ClientId,
    /// Its key, which every replica lists.
    pub key: SecretKey,
    /// All replicas.
    pub replicas: Vec<ReplicaAddress>,
    /// Bounds.
    pub options: LinkOptions,
}

/// What happens on a client's links.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientEvent {
    /// The link to a replica is up: it accepted this client.
    ReplicaUp(ReplicaId),
    /// The link to a replica is down; it is dialled again.
    ReplicaDown(ReplicaId),
    /// A frame of a replica. It may share a larger buffer: copy what is to be kept.
    Frame(ReplicaId, Bytes),
}

/// Starts a client's links.
pub struct ClientTransport;

/// A handle on a client's links; clones share them. They end with [`ClientLinks::stop`], or when the receiver of the
/// events is dropped.
#[derive(Clone)]
pub struct ClientLinks(Arc<Shared>);

struct Shared {
    queues: BTreeMap<ReplicaId, Mutex<Option<Arc<Queue>>>>,
    frame_bytes_max: usize,
    stop: CancellationToken,
}

impl ClientTransport {
    /// Dials all replicas, and again whenever a link is down. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] when replicas share a number or a key, or TLS refuses the client's key.
    pub fn start(config: ClientConfig) -> Result<(ClientLinks, mpsc::Receiver<ClientEvent>), StartError> {
        let stop = CancellationToken::new();
        let mut queues = BTreeMap::new();
        let mut diallers = Vec::new();
        for (index, replica) in config.replicas.iter().enumerate() {
            if queues.insert(replica.id, Mutex::new(None)).is_some() {
                return Err(StartError::RepeatedId(replica.id.to_string()));
            }
            if config.replicas[..index].iter().any(|other| other.key == replica.key) {
                return Err(StartError::RepeatedKey(replica.key));
            }
            let dialler = Dialler::new(replica.clone(), &config.key, config.options, stop.clone())?;
            diallers.push((replica.id, dialler));
        }
        let shared = Arc::new(Shared { queues, frame_bytes_max: config.options.frame_bytes_max, stop });
        let (events, receiver) = mpsc::channel(config.options.events_max);
        for (replica, dialler) in diallers {
            tokio::spawn(keep(
                config.client,
                replica,
                dialler,
                shared.clone(),
                events.clone(),
                config.options,
            ));
        }
        Ok((ClientLinks(shared), receiver))
    }
}

async fn keep(
    client: ClientId,
    replica: ReplicaId,
    mut dialler: Dialler,
    shared: Arc<Shared>,
    events: mpsc::Sender<ClientEvent>,
    options: LinkOptions,
) {
    let Some(slot) = shared.queues.get(&replica) else { return };
    loop {
        let link = tokio::select! {
            link = dialler.next() => link,
            () = events.closed() => None,
        };
        let Some(link) = link else { return };
        let queue = Arc::new(Queue::new(options.queue_bytes_max));
        *locked(slot) = Some(queue.clone());
        info!(%client, peer = %replica, "link up");
        if events.send(ClientEvent::ReplicaUp(replica)).await.is_err() {
            return;
        }
        let end = link.run(&queue, &events, |frame| ClientEvent::Frame(replica, frame), &shared.stop).await;
        *locked(slot) = None;
        if is_misbehaviour(&end) {
            warn!(%client, peer = %replica, "link down: {end}");
        } else {
            info!(%client, peer = %replica, "link down: {end}");
        }
        // Nobody left to tell is no error.
        let _ = events.send(ClientEvent::ReplicaDown(replica)).await;
    }
}

impl ClientLinks {
    /// Sends a frame to a replica. False when it was dropped: no link, or the link ends because it takes too little.
    pub fn send(&self, replica: ReplicaId, frame: Bytes) -> bool {
        if !crate::replica::within_bound(&frame, self.0.frame_bytes_max) {
            return false;
        }
        self.queue(replica).is_some_and(|queue| queue.push(frame))
    }

    /// Sends a frame that `replica` does nothing with yet: it may wait some 50 ms for company, and keeps its place
    /// among the others. False as with [`ClientLinks::send`].
    pub fn send_relaxed(&self, replica: ReplicaId, frame: Bytes) -> bool {
        if !crate::replica::within_bound(&frame, self.0.frame_bytes_max) {
            return false;
        }
        self.queue(replica).is_some_and(|queue| queue.push_relaxed(frame))
    }

    /// Sends a frame to all replicas.
    pub fn broadcast(&self, frame: Bytes) {
        for replica in self.0.queues.keys() {
            self.send(*replica, frame.clone());
        }
    }

    /// Whether the link to `replica` is up.
    pub fn is_up(&self, replica: ReplicaId) -> bool {
        self.queue(replica).is_some()
    }

    /// Bytes waiting to be sent to `replica`; nothing when the link is down.
    pub fn backlog(&self, replica: ReplicaId) -> Option<usize> {
        self.queue(replica).map(|queue| queue.backlog())
    }

    /// Closes all links for good; the receiver of the events then comes to its end.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }

    fn queue(&self, replica: ReplicaId) -> Option<Arc<Queue>> {
        self.0.queues.get(&replica).and_then(|slot| locked(slot).clone())
    }
}
