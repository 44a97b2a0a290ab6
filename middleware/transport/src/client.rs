//! A client's side: a link to every replica.

use crate::arrivals::Arrivals;
use crate::dial::Dialler;
use crate::link::is_misbehaviour;
use crate::queue::{Queue, locked};
use crate::traffic::Meter;
use crate::{LinkOptions, ReplicaAddress, StartError, Traffic};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
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
    client: ClientId,
    key: SecretKey,
    options: LinkOptions,
    slots: Mutex<BTreeMap<ReplicaId, Arc<Slot>>>,
    /// For links that are opened later; ends with the tasks of those that are there.
    events: mpsc::WeakSender<ClientEvent>,
    arrivals: Arrivals,
    stop: CancellationToken,
}

/// Where the link with one replica goes.
struct Slot {
    replica: ReplicaAddress,
    queue: Mutex<Option<Arc<Queue>>>,
    meter: Arc<Meter>,
    /// Ends the link, and dialling, when the replica is one no more.
    stop: CancellationToken,
}

impl ClientTransport {
    /// Dials all replicas, and again whenever a link is down. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] when replicas share a number or a key, or TLS refuses the client's key.
    pub fn start(config: ClientConfig) -> Result<(ClientLinks, mpsc::Receiver<ClientEvent>), StartError> {
        let (events, receiver) = mpsc::channel(config.options.events_max);
        let shared = Shared {
            client: config.client,
            key: config.key,
            options: config.options,
            slots: Mutex::default(),
            events: events.downgrade(),
            arrivals: Arrivals::new(config.options.event_bytes_max),
            stop: CancellationToken::new(),
        };
        shared.link_with(config.replicas, &events)?;
        Ok((ClientLinks(Arc::new(shared)), receiver))
    }
}

impl Shared {
    /// Makes `replicas` the ones that there are links with.
    fn link_with(
        &self,
        replicas: Vec<ReplicaAddress>,
        events: &mpsc::Sender<ClientEvent>,
    ) -> Result<(), StartError> {
        for (index, replica) in replicas.iter().enumerate() {
            let before = &replicas[..index];
            if before.iter().any(|other| other.id == replica.id) {
                return Err(StartError::RepeatedId(replica.id.to_string()));
            }
            if before.iter().any(|other| other.key == replica.key) {
                return Err(StartError::RepeatedKey(replica.key));
            }
        }
        let mut slots = locked(&self.slots);
        slots.retain(|_, slot| {
            let kept = replicas.contains(&slot.replica);
            if !kept {
                slot.stop.cancel();
            }
            kept
        });
        for replica in replicas {
            if slots.contains_key(&replica.id) {
                continue;
            }
            let stop = self.stop.child_token();
            let meter = Arc::new(Meter::default());
            let dialler =
                Dialler::new(replica.clone(), &self.key, self.options, stop.clone(), meter.clone())?;
            let slot = Arc::new(Slot { replica: replica.clone(), queue: Mutex::new(None), meter, stop });
            slots.insert(replica.id, slot.clone());
            tokio::spawn(keep(
                self.client,
                slot,
                dialler,
                events.clone(),
                self.arrivals.clone(),
                self.options,
            ));
        }
        Ok(())
    }
}

async fn keep(
    client: ClientId,
    slot: Arc<Slot>,
    mut dialler: Dialler,
    events: mpsc::Sender<ClientEvent>,
    arrivals: Arrivals,
    options: LinkOptions,
) {
    let replica = slot.replica.id;
    loop {
        let link = tokio::select! {
            link = dialler.next() => link,
            () = events.closed() => None,
        };
        let Some(link) = link else { return };
        let queue = Arc::new(Queue::new(options.queue_bytes_max));
        *locked(&slot.queue) = Some(queue.clone());
        info!(%client, peer = %replica, "link up");
        if events.send(ClientEvent::ReplicaUp(replica)).await.is_err() {
            return;
        }
        let event = |frame| ClientEvent::Frame(replica, frame);
        let end = link.run(&queue, &slot.meter, &events, &arrivals, event, &slot.stop).await;
        *locked(&slot.queue) = None;
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
        if !crate::replica::within_bound(&frame, self.0.options.frame_bytes_max) {
            return false;
        }
        self.queue(replica).is_some_and(|queue| queue.push(frame))
    }

    /// Sends a frame that `replica` does nothing with yet: it may wait so long for company, and keeps its place among
    /// the others. False as with [`ClientLinks::send`].
    pub fn send_relaxed(&self, replica: ReplicaId, frame: Bytes, patience: Duration) -> bool {
        if !crate::replica::within_bound(&frame, self.0.options.frame_bytes_max) {
            return false;
        }
        self.queue(replica).is_some_and(|queue| queue.push_relaxed(frame, patience))
    }

    /// Sends a frame to all replicas.
    pub fn broadcast(&self, frame: Bytes) {
        let replicas: Vec<ReplicaId> = locked(&self.0.slots).keys().copied().collect();
        for replica in replicas {
            self.send(replica, frame.clone());
        }
    }

    /// Makes `replicas` the ones that there are links with, from now on. Links with others, and with those that have
    /// another key or moved, are closed. Nothing changes once the links were stopped. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] when replicas share a number or a key: nothing changes then.
    pub fn set_replicas(&self, replicas: Vec<ReplicaAddress>) -> Result<(), StartError> {
        match self.0.events.upgrade() {
            Some(events) => self.0.link_with(replicas, &events),
            None => Ok(()),
        }
    }

    /// Whether the link to `replica` is up.
    pub fn is_up(&self, replica: ReplicaId) -> bool {
        self.queue(replica).is_some()
    }

    /// What went over the links with each replica since this side has links with it, or with it at its address.
    pub fn traffic(&self) -> BTreeMap<ReplicaId, Traffic> {
        locked(&self.0.slots).iter().map(|(replica, slot)| (*replica, slot.meter.read())).collect()
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
        let slot = locked(&self.0.slots).get(&replica).cloned();
        slot.and_then(|slot| locked(&slot.queue).clone())
    }
}
