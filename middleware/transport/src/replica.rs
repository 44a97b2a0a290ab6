//! A replica's side: one link with each other replica, and any number of clients.

use crate::arrivals::Arrivals;
use crate::dial::Dialler;
use crate::guests::{Guests, Visitor};
use crate::half_open::{HalfOpen, Place};
use crate::link::{Link, is_misbehaviour};
use crate::queue::{End, Queue, locked};
use crate::throttle::Throttle;
use crate::traffic::Meter;
use crate::{LinkError, LinkOptions, ReplicaAddress, StartError, Traffic, socket, tls};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use steeldb_types::{ClientId, ReplicaId};
use steeldb_wire::auth::{PublicKey, SecretKey};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Log lines per ten seconds that strangers may cause together, and that one known peer may cause.
const LOG_LINES_PER_WINDOW: u32 = 10;

/// What a replica's transport needs.
#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// This replica.
    pub id: ReplicaId,
    /// Its key.
    pub key: SecretKey,
    /// Where it listens: host:port.
    pub listen: String,
    /// The other replicas; an entry for this one is passed over.
    pub peers: Vec<ReplicaAddress>,
    /// The clients and their keys.
    pub clients: Vec<(ClientId, PublicKey)>,
    /// Bounds.
    pub options: LinkOptions,
}

/// A client's connection; never used twice while a replica runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// What happens on a replica's links.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkEvent {
    /// The link with a peer is up.
    PeerUp(ReplicaId),
    /// The link with a peer is down.
    PeerDown(ReplicaId),
    /// A frame of a peer. It may share a larger buffer: copy what is to be kept.
    PeerFrame(ReplicaId, Bytes),
    /// A client connected. It may have several connections.
    ClientUp(ConnectionId, ClientId),
    /// Somebody connected whose key is not configured ([`LinkOptions::guests_max`]); from here on as a client.
    GuestUp(ConnectionId, PublicKey),
    /// A client's connection ended.
    ClientDown(ConnectionId),
    /// A frame of a client. It may share a larger buffer: copy what is to be kept.
    ClientFrame(ConnectionId, Bytes),
}

/// Starts a replica's links.
pub struct ReplicaTransport;

/// A handle on a replica's links; clones share them. They end with [`ReplicaLinks::stop`], or when the receiver of the
/// events is dropped.
#[derive(Clone)]
pub struct ReplicaLinks(Arc<Shared>);

struct Shared {
    id: ReplicaId,
    address: SocketAddr,
    key: SecretKey,
    peers: Mutex<BTreeMap<ReplicaId, Arc<Slot>>>,
    identities: Mutex<HashMap<PublicKey, Identity>>,
    /// The keys of `identities`, for TLS.
    known: tls::Known,
    clients: Mutex<HashMap<ConnectionId, (Visitor, Arc<Queue>)>>,
    /// Of the configured clients; none for guests.
    client_meters: BTreeMap<ClientId, Meter>,
    guest_meter: Meter,
    refusals: AtomicU64,
    guests: Guests,
    next_connection: AtomicU64,
    options: LinkOptions,
    refused: Throttle,
    /// For links that are opened later; ends with the tasks of those that are there.
    events: mpsc::WeakSender<LinkEvent>,
    arrivals: Arrivals,
    stop: CancellationToken,
}

/// Where the link with one peer goes.
struct Slot {
    peer: ReplicaAddress,
    current: Mutex<Option<Arc<Queue>>>,
    meter: Arc<Meter>,
    /// Held from Up to Down, so that a link that replaces another begins after the other has ended.
    turn: Arc<tokio::sync::Mutex<()>>,
    lines: Throttle,
    /// Ends the link, and dialling, when the peer is one no more.
    stop: CancellationToken,
}

/// Whose key it is.
#[derive(Clone, Copy)]
enum Identity {
    Peer(ReplicaId),
    Client(ClientId),
}

impl ReplicaTransport {
    /// Listens on `config.listen`, dials the peers with lower numbers, accepts the others and clients. Call it inside a
    /// tokio runtime.
    ///
    /// # Errors
    /// [`StartError::Listen`] names an address that cannot be listened on; other variants, what is wrong in `config`.
    pub async fn start(
        config: ReplicaConfig,
    ) -> Result<(ReplicaLinks, mpsc::Receiver<LinkEvent>), StartError> {
        let listener = TcpListener::bind(config.listen.as_str())
            .await
            .map_err(|source| StartError::Listen { address: config.listen.clone(), source })?;
        ReplicaTransport::start_on(listener, config)
    }

    /// As [`ReplicaTransport::start`], on a socket that listens already; `config.listen` is only named.
    ///
    /// # Errors
    /// As [`ReplicaTransport::start`].
    pub fn start_on(
        listener: TcpListener,
        config: ReplicaConfig,
    ) -> Result<(ReplicaLinks, mpsc::Receiver<LinkEvent>), StartError> {
        let address = listener
            .local_addr()
            .map_err(|source| StartError::Listen { address: config.listen.clone(), source })?;
        let identities = identities(config.id, &config.key, &config.peers, &config.clients)?;
        let known = tls::Known::default();
        let acceptor = tls::acceptor(&config.key, known.clone(), config.options.guests_max > 0)?;
        let (events, receiver) = mpsc::channel(config.options.events_max);
        let shared = Arc::new(Shared {
            id: config.id,
            address,
            key: config.key,
            peers: Mutex::default(),
            identities: Mutex::default(),
            known,
            clients: Mutex::default(),
            client_meters: config.clients.iter().map(|(client, _)| (*client, Meter::default())).collect(),
            guest_meter: Meter::default(),
            refusals: AtomicU64::new(0),
            guests: Guests::default(),
            next_connection: AtomicU64::new(1),
            options: config.options,
            refused: Throttle::new(LOG_LINES_PER_WINDOW),
            events: events.downgrade(),
            arrivals: Arrivals::new(config.options.event_bytes_max),
            stop: CancellationToken::new(),
        });
        shared.identify(identities);
        info!(replica = %config.id, %address, "listening");
        shared.link_with(config.peers, &events)?;
        tokio::spawn(listen(listener, acceptor, shared.clone(), events));
        Ok((ReplicaLinks(shared), receiver))
    }
}

/// Whose keys are accepted, if each stands for one node.
fn identities(
    me: ReplicaId,
    own: &SecretKey,
    replicas: &[ReplicaAddress],
    clients: &[(ClientId, PublicKey)],
) -> Result<HashMap<PublicKey, Identity>, StartError> {
    let mut identities = HashMap::new();
    let (mut peers, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for peer in replicas.iter().filter(|peer| peer.id != me) {
        if !peers.insert(peer.id) {
            return Err(StartError::RepeatedId(peer.id.to_string()));
        }
        if identities.insert(peer.key, Identity::Peer(peer.id)).is_some() {
            return Err(StartError::RepeatedKey(peer.key));
        }
    }
    for (client, key) in clients {
        if !ids.insert(*client) {
            return Err(StartError::RepeatedId(client.to_string()));
        }
        if identities.insert(*key, Identity::Client(*client)).is_some() {
            return Err(StartError::RepeatedKey(*key));
        }
    }
    match identities.contains_key(&own.public()) {
        true => Err(StartError::RepeatedKey(own.public())),
        false => Ok(identities),
    }
}

async fn keep(peer: ReplicaId, mut dialler: Dialler, shared: Arc<Shared>, events: mpsc::Sender<LinkEvent>) {
    loop {
        let link = tokio::select! {
            link = dialler.next() => link,
            () = events.closed() => None,
        };
        let Some(link) = link else { return };
        shared.run_peer(peer, link, &events).await;
    }
}

/// Accepts connections until the end.
async fn listen(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
    events: mpsc::Sender<LinkEvent>,
) {
    let half_open = HalfOpen::new(shared.options.half_open_max);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => break,
            () = events.closed() => break,
        };
        match accepted {
            Ok((tcp, from)) => {
                let place = half_open.enter();
                tokio::spawn(admit(tcp, from, place, acceptor.clone(), shared.clone(), events.clone()));
            }
            Err(error) => {
                // Out of file descriptors, most likely: links that end give some back.
                if let Some(others) = shared.refused.admit() {
                    warn!(replica = %shared.id, others, "cannot accept connections: {error}");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    // The port is free before the events come to their end: whoever waits for that may listen again.
    drop(listener);
}

/// From a connection to a link, if it shows a key that is known.
async fn admit(
    tcp: TcpStream,
    from: SocketAddr,
    place: Place,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
    events: mpsc::Sender<LinkEvent>,
) {
    let limit = shared.options.handshake_timeout;
    let handshake = timeout(limit, async {
        socket::tune(&tcp)?;
        let (stream, key) = tls::accept(&acceptor, tcp).await?;
        let admitted = shared.admit(key)?;
        let options = match &admitted {
            Admitted::Client(connection) => connection.visitor.options(shared.options),
            Admitted::Peer(_) => shared.options,
        };
        Ok((Link::welcome(stream, &options).await?, admitted))
    });
    let result = tokio::select! {
        result = handshake => {
            result.unwrap_or(Err(LinkError::HandshakeTimeout { seconds: limit.as_secs_f32() }))
        }
        () = place.evicted() => Err(LinkError::Unexpected("too many connections that stay silent".into())),
        () = shared.stop.cancelled() => return,
    };
    drop(place);
    match result {
        Ok((link, Admitted::Peer(peer))) => shared.run_peer(peer, link, &events).await,
        Ok((link, Admitted::Client(connection))) => connection.run(link, &events).await,
        Err(error) => {
            shared.refusals.fetch_add(1, Ordering::Relaxed);
            if let Some(others) = shared.refused.admit() {
                warn!(replica = %shared.id, %from, others, "connection refused: {error}");
            }
        }
    }
}

/// Who may have a link here.
enum Admitted {
    Peer(ReplicaId),
    Client(Connection),
}

/// A client's connection, counted from its admission to its end.
struct Connection {
    id: ConnectionId,
    visitor: Visitor,
    queue: Arc<Queue>,
    shared: Arc<Shared>,
}

impl Shared {
    fn identify(&self, identities: HashMap<PublicKey, Identity>) {
        let keys = identities.keys().copied().collect();
        // Whole whatever a thread that panicked left behind.
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = keys;
        *locked(&self.identities) = identities;
    }

    /// Makes `peers` the ones that this replica has links with: ends others, and dials whom it is to dial.
    fn link_with(
        self: &Arc<Self>,
        peers: Vec<ReplicaAddress>,
        events: &mpsc::Sender<LinkEvent>,
    ) -> Result<(), StartError> {
        let wanted: BTreeMap<ReplicaId, ReplicaAddress> =
            peers.into_iter().filter(|peer| peer.id != self.id).map(|peer| (peer.id, peer)).collect();
        let mut slots = locked(&self.peers);
        // Where a peer that dials this replica listens makes no difference here.
        let is_same = |slot: &Slot, peer: &ReplicaAddress| {
            slot.peer.key == peer.key && (peer.id > self.id || slot.peer.address == peer.address)
        };
        let mut turns = BTreeMap::new();
        slots.retain(|id, slot| {
            let kept = wanted.get(id).is_some_and(|peer| is_same(slot, peer));
            if !kept {
                slot.stop.cancel();
                turns.insert(*id, slot.turn.clone());
            }
            kept
        });
        for (id, peer) in wanted {
            if slots.contains_key(&id) {
                continue;
            }
            let slot = Slot {
                peer: peer.clone(),
                current: Mutex::new(None),
                meter: Arc::default(),
                turn: turns.remove(&id).unwrap_or_default(),
                lines: Throttle::new(LOG_LINES_PER_WINDOW),
                stop: self.stop.child_token(),
            };
            if id < self.id {
                let dialler =
                    Dialler::new(peer, &self.key, self.options, slot.stop.clone(), slot.meter.clone())?;
                tokio::spawn(keep(id, dialler, self.clone(), events.clone()));
            }
            slots.insert(id, Arc::new(slot));
        }
        Ok(())
    }

    fn slot(&self, peer: ReplicaId) -> Option<Arc<Slot>> {
        locked(&self.peers).get(&peer).cloned()
    }

    fn admit(self: &Arc<Self>, key: PublicKey) -> Result<Admitted, LinkError> {
        let identity = locked(&self.identities).get(&key).copied();
        match identity {
            Some(Identity::Peer(peer)) if peer > self.id => Ok(Admitted::Peer(peer)),
            Some(Identity::Peer(peer)) => {
                Err(LinkError::Unexpected(format!("{peer} dials {}, which dials it itself", self.id)))
            }
            Some(Identity::Client(client)) => self.admit_visitor(Visitor::Client(client)),
            None if self.options.guests_max > 0 && key != self.key.public() => {
                self.admit_visitor(Visitor::Guest(key))
            }
            None => Err(LinkError::Unexpected("unknown key".into())),
        }
    }

    fn admit_visitor(self: &Arc<Self>, visitor: Visitor) -> Result<Admitted, LinkError> {
        let mut clients = locked(&self.clients);
        let open = clients.values().filter(|(other, _)| *other == visitor).count();
        if open >= self.options.connections_per_client_max {
            return Err(LinkError::Unexpected(format!("{visitor} has {open} connections already")));
        }
        if let Visitor::Guest(key) = visitor
            && let Some(oldest) = self.guests.crowded_out(key, &clients, self.options.guests_max)
            && let Some((_, queue)) = clients.remove(&oldest)
        {
            queue.end(End::Replaced);
        }
        let id = ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed));
        let queue = Arc::new(Queue::new(self.options.queue_bytes_max));
        clients.insert(id, (visitor, queue.clone()));
        Ok(Admitted::Client(Connection { id, visitor, queue, shared: self.clone() }))
    }

    async fn run_peer(&self, peer: ReplicaId, link: Link, events: &mpsc::Sender<LinkEvent>) {
        let Some(slot) = self.slot(peer) else { return };
        // The newest link wins: the peer may have restarted before this side noticed that the old one is dead.
        let queue = Arc::new(Queue::new(self.options.queue_bytes_max));
        if let Some(older) = locked(&slot.current).replace(queue.clone()) {
            older.end(End::Replaced);
        }
        let turn = slot.turn.lock().await;
        if queue.end_reason().is_none() {
            let noted = slot.lines.admit();
            if let Some(others) = noted {
                info!(replica = %self.id, %peer, others, "link up");
            }
            if events.send(LinkEvent::PeerUp(peer)).await.is_err() {
                return;
            }
            let event = |frame| LinkEvent::PeerFrame(peer, frame);
            let end = link.run(&queue, &slot.meter, events, &self.arrivals, event, &slot.stop).await;
            match noted {
                Some(_) if is_misbehaviour(&end) => warn!(replica = %self.id, %peer, "link down: {end}"),
                Some(_) => info!(replica = %self.id, %peer, "link down: {end}"),
                None => {}
            }
            // Nobody left to tell is no error.
            let _ = events.send(LinkEvent::PeerDown(peer)).await;
        }
        drop(turn);
        let mut current = locked(&slot.current);
        if current.as_ref().is_some_and(|newest| Arc::ptr_eq(newest, &queue)) {
            *current = None;
        }
    }
}

impl Connection {
    async fn run(self, link: Link, events: &mpsc::Sender<LinkEvent>) {
        let (id, client, replica) = (self.id, self.visitor, self.shared.id);
        let up = match client {
            Visitor::Client(client) => LinkEvent::ClientUp(id, client),
            Visitor::Guest(key) => LinkEvent::GuestUp(id, key),
        };
        if events.send(up).await.is_err() {
            return;
        }
        info!(%replica, %client, connection = id.0, "client connected");
        let event = |frame| LinkEvent::ClientFrame(id, frame);
        let meter = match client {
            Visitor::Client(client) => self.shared.client_meters.get(&client),
            Visitor::Guest(_) => None,
        };
        let meter = meter.unwrap_or(&self.shared.guest_meter);
        let (arrivals, stop) = (&self.shared.arrivals, &self.shared.stop);
        let end = link.run(&self.queue, meter, events, arrivals, event, stop).await;
        if is_misbehaviour(&end) {
            if let Some(others) = self.shared.refused.admit() {
                warn!(%replica, %client, connection = id.0, others, "client's link closed: {end}");
            }
        } else {
            info!(%replica, %client, connection = id.0, "client's link closed: {end}");
        }
        drop(self);
        // Nobody left to tell is no error.
        let _ = events.send(LinkEvent::ClientDown(id)).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        locked(&self.shared.clients).remove(&self.id);
    }
}

impl ReplicaLinks {
    /// Sends a frame to a peer. False when it was dropped: no link, or the link ends because it takes too little.
    pub fn send_peer(&self, peer: ReplicaId, frame: Bytes) -> bool {
        if !within_bound(&frame, self.0.options.frame_bytes_max) {
            return false;
        }
        let queue = self.0.slot(peer).and_then(|slot| locked(&slot.current).clone());
        queue.is_some_and(|queue| queue.push(frame))
    }

    /// Sends a frame to all peers; not to this replica itself.
    pub fn broadcast(&self, frame: Bytes) {
        let peers: Vec<ReplicaId> = locked(&self.0.peers).keys().copied().collect();
        for peer in peers {
            self.send_peer(peer, frame.clone());
        }
    }

    /// Makes `peers` the replicas that this one has links with, from now on; an entry for this one is passed over.
    /// Links with others, and with those that have another key or moved, are closed; new ones are opened. Nothing
    /// changes once the links were stopped.
    ///
    /// # Errors
    /// [`StartError`] when replicas share a number or a key, or have a client's key: nothing changes then.
    pub fn set_peers(&self, peers: Vec<ReplicaAddress>) -> Result<(), StartError> {
        let Some(events) = self.0.events.upgrade() else { return Ok(()) };
        let of_clients = |(key, identity): (&PublicKey, &Identity)| match identity {
            Identity::Client(client) => Some((*client, *key)),
            Identity::Peer(_) => None,
        };
        let clients: Vec<_> = locked(&self.0.identities).iter().filter_map(of_clients).collect();
        let identities = identities(self.0.id, &self.0.key, &peers, &clients)?;
        self.0.identify(identities);
        self.0.link_with(peers, &events)
    }

    /// Sends a frame to a client. False when it was dropped: the connection is gone, or ends because it takes too
    /// little.
    pub fn send_client(&self, connection: ConnectionId, frame: Bytes) -> bool {
        if !within_bound(&frame, self.0.options.frame_bytes_max) {
            return false;
        }
        self.client_queue(connection).is_some_and(|queue| queue.push(frame))
    }

    /// Ends a client's connection after sending what is queued on it. Frames that it sent before may still arrive;
    /// [`LinkEvent::ClientDown`] is the last.
    pub fn close_client(&self, connection: ConnectionId) {
        if let Some(queue) = self.client_queue(connection) {
            queue.end(End::Closing);
        }
    }

    /// Makes the guest with this key welcome, or not any more: no connection of a welcome guest is closed to make room for
    /// others.
    pub fn welcome(&self, key: PublicKey, welcome: bool) {
        self.0.guests.welcome(key, welcome);
    }

    /// Bytes waiting to be sent to a client; nothing when the connection is gone.
    pub fn client_backlog(&self, connection: ConnectionId) -> Option<usize> {
        self.client_queue(connection).map(|queue| queue.backlog())
    }

    /// Whether the link with `peer` is up.
    pub fn is_up(&self, peer: ReplicaId) -> bool {
        self.0.slot(peer).is_some_and(|slot| locked(&slot.current).is_some())
    }

    /// Where this replica listens.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// What went over the links with each peer since this side has links with it, or with it at its address.
    pub fn peer_traffic(&self) -> BTreeMap<ReplicaId, Traffic> {
        locked(&self.0.peers).iter().map(|(peer, slot)| (*peer, slot.meter.read())).collect()
    }

    /// What went over the links with each configured client since the start.
    pub fn client_traffic(&self) -> BTreeMap<ClientId, Traffic> {
        self.0.client_meters.iter().map(|(client, meter)| (*client, meter.read())).collect()
    }

    /// How many connections were turned away before they were links: no known key, too slow, too many, not the protocol.
    pub fn refusals(&self) -> u64 {
        self.0.refusals.load(Ordering::Relaxed)
    }

    /// How many connections were refused or closed for misbehaviour since the start.
    pub fn refused(&self) -> u64 {
        self.0.refused.total()
    }

    /// Closes all links and the port for good; the receiver of the events then comes to its end.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }

    fn client_queue(&self, connection: ConnectionId) -> Option<Arc<Queue>> {
        locked(&self.0.clients).get(&connection).map(|(_, queue)| queue.clone())
    }
}

/// Our own mistake, not the peer's: said loudly, and the frame is dropped rather than the link.
pub(crate) fn within_bound(frame: &Bytes, max: usize) -> bool {
    if frame.len() > max {
        error!(bytes = frame.len(), max, "a frame above the bound was not sent: this is a defect");
    }
    frame.len() <= max
}
