//! The reactor: one task that feeds the ordering core and the scheduler, and runs their effects.

use super::anchors;
use super::catchup::CatchUp;
use super::committer::Committer;
use super::controls::Controls;
use super::fetching::Fetching;
use super::hook::{Hook, Point};
use super::judge::Judge;
use super::peer::PeerMessage;
use super::round_trips::RoundTrips;
use super::rows::Rows;
use super::watching::Watching;
use super::worker;
use crate::promises::Promises;
use crate::scheduler::{Connection, Event, Scheduler};
use crate::spool::Copies;
use crate::validity;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use steeldb_ordering::{self as ordering, Core, Delivery, Now, Refusal, Request, RequestId, RequestKey};
use steeldb_ordering_log::{Journal, LogError};
use steeldb_postgres::transaction::RecordSecret;
use steeldb_transport::{ConnectionId, LinkEvent, ReplicaLinks};
use steeldb_types::{ClientId, Digest, ReplicaId, SessionId, SessionKey, Timestamp, limits};
use steeldb_wire::codec;
use steeldb_wire::transaction::{ClientMessage, Ordered, ReplicaMessage};
use tokio::sync::mpsc;

/// How often the scheduler looks at its clocks.
const TICK: Duration = Duration::from_millis(100);

/// What was ordered this long ago is late: it comes from catching up with the order.
const LATE: Duration = Duration::from_secs(2);

/// Answers kept for clients whose own copy of the request comes later than the order's; the oldest go.
pub(super) const UNCLAIMED_MAX: usize = 256;

/// Sessions whose last delivered request is remembered.
const EXECUTED_MAX: usize = 16_384;

/// Events handled before effects are run: bounds latency, lets votes gather under one signature.
const EVENTS_AT_ONCE: usize = 64;

pub(super) struct Reactor {
    pub(super) me: ReplicaId,
    pub(super) started: Instant,
    pub(super) judge: Judge,
    pub(super) promises: Promises,
    pub(super) core: Core,
    pub(super) scheduler: Scheduler,
    #[cfg(feature = "adversary")]
    pub(super) adversary: super::adversary::Adversary,
    pub(super) journal: Journal,
    /// Where decisions go that were read from the journal.
    pub(super) decisions_read: mpsc::UnboundedSender<ordering::Event>,
    pub(super) links: ReplicaLinks,
    pub(super) committer: Committer,
    pub(super) anchors: mpsc::UnboundedSender<anchors::Request>,
    /// Each session's backend, with the incarnation of its worker.
    pub(super) workers: BTreeMap<SessionKey, (u64, mpsc::UnboundedSender<worker::Input>)>,
    pub(super) incarnations: u64,
    /// How long a client may take none of its results.
    pub(super) idle_timeout: Duration,
    pub(super) reports: mpsc::UnboundedSender<worker::Report>,
    /// Whose each client connection is.
    pub(super) connections: BTreeMap<ConnectionId, ClientId>,
    /// Over which connection a session's ordered requests came: refusals go back there.
    pub(super) origins: BTreeMap<SessionKey, ConnectionId>,
    /// Answers to requests whose client's own copy has not come yet.
    pub(super) unclaimed: VecDeque<(SessionKey, ReplicaMessage)>,
    /// The last request of each session that was delivered; the newest sessions'.
    pub(super) executed: BTreeMap<(SessionId, ClientId), u64>,
    pub(super) secrets: BTreeMap<String, RecordSecret>,
    /// Makes here what peers keep.
    pub(super) catch_up: CatchUp,
    /// What peers are asked for.
    pub(super) fetching: Fetching,
    /// How far peers are.
    pub(super) round_trips: RoundTrips,
    pub(super) rows: Rows,
    /// COPY data that wait for their backends.
    pub(super) copies: Copies,
    /// Changes of the membership that clients here wait for, by the digest of their payload.
    pub(super) changes: BTreeMap<Digest, ConnectionId>,
    pub(super) socket_dir: PathBuf,
    pub(super) internal: mpsc::UnboundedSender<Event>,
    /// Where a test stops it, and that it has.
    pub(super) hook: Hook,
    pub(super) stopped: bool,
    pub(super) watching: Watching,
    pub(super) controls: Controls,
}

impl Reactor {
    pub(super) async fn run(
        &mut self,
        mut links: mpsc::Receiver<LinkEvent>,
        mut internal: mpsc::UnboundedReceiver<Event>,
        mut reports: mpsc::UnboundedReceiver<worker::Report>,
        mut persisted: mpsc::UnboundedReceiver<Result<u64, LogError>>,
        mut decisions: mpsc::UnboundedReceiver<ordering::Event>,
        shutdown: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut stopping: Option<Instant> = None;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let due = self.core.next_timeout().map(|at| {
                let at = Duration::from_micros(at);
                at.saturating_sub(self.started.elapsed())
            });
            let wake = self.scheduler.next_wake().map(|at| {
                let at = Duration::from_micros(at);
                at.saturating_sub(self.started.elapsed())
            });
            tokio::select! {
                Some(done) = persisted.recv() => self.persisted(done?),
                Some(event) = internal.recv() => self.schedule(event),
                Some(report) = reports.recv() => self.report(report),
                Some(event) = decisions.recv() => self.order(event),
                event = links.recv() => match event {
                    Some(event) => self.link_event(event),
                    None => anyhow::bail!("the transport ended"),
                },
                () = &mut shutdown, if stopping.is_none() => stopping = Some(Instant::now()),
                _ = tick.tick() => {
                    self.fetch_again();
                    self.ask_round_trips();
                    self.schedule(Event::Tick);
                    self.watch();
                }
                () = tokio::time::sleep(due.unwrap_or(Duration::from_secs(3600))) => {
                    self.order(ordering::Event::Tick);
                }
                () = tokio::time::sleep(wake.unwrap_or(Duration::from_secs(3600))) => {
                    self.schedule(Event::Wake);
                }
            }
            for _ in 0..EVENTS_AT_ONCE {
                if let Ok(done) = persisted.try_recv() {
                    self.persisted(done?);
                } else if let Ok(event) = internal.try_recv() {
                    self.schedule(event);
                } else if let Ok(report) = reports.try_recv() {
                    self.report(report);
                } else if let Ok(event) = links.try_recv() {
                    self.link_event(event);
                } else {
                    break;
                }
            }
            self.settle();
            if self.stopped {
                std::future::pending::<()>().await;
            }
            // What clients have finished is prepared first: after a restart their sessions are gone, and DDL cannot be
            // had from a peer.
            let patience = self.controls.settings().stop_timeout;
            if stopping.is_some_and(|since| self.scheduler.is_settled() || since.elapsed() >= patience) {
                return Ok(());
            }
        }
    }

    /// A worker's report, unless the session has a newer worker: what an old one says is not about it.
    fn report(&mut self, report: worker::Report) {
        let worker::Report { session, incarnation, report } = report;
        if self.workers.get(&session).is_none_or(|(current, _)| *current == incarnation) {
            self.schedule(Event::Backend { session, report });
        }
    }

    pub(super) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now {
            monotonic_us: self.started.elapsed().as_micros() as u64,
            wall: Timestamp(wall.as_micros() as i64),
        }
    }

    pub(super) fn schedule(&mut self, event: Event) {
        self.note_event(&event);
        let now = self.started.elapsed().as_micros() as u64;
        self.scheduler.handle(now, event);
    }

    pub(super) fn order(&mut self, event: ordering::Event) {
        let now = self.now();
        self.core.handle(now, event, &self.judge);
    }

    fn persisted(&mut self, upto: u64) {
        self.promises.persisted(upto);
        self.order(ordering::Event::Persisted { upto });
    }

    /// Runs effects until both machines are quiet.
    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            self.scheduler.flush();
            while !self.stopped
                && let Some(effect) = self.scheduler.poll_effect()
            {
                quiet = false;
                if let Some(effect) = self.promises.take(effect) {
                    self.effect(effect);
                }
            }
            while !self.stopped
                && let Some(effect) = self.promises.poll()
            {
                quiet = false;
                self.effect(effect);
            }
            while !self.stopped
                && let Some(effect) = self.core.poll_effect()
            {
                quiet = false;
                self.ordering_effect(effect);
            }
            if quiet {
                return;
            }
        }
    }

    fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::PeerUp(peer) => {
                tracing::debug!(%peer, "link up");
                self.round_trips.up(peer);
                self.order(ordering::Event::LinkUp(peer));
                self.schedule(Event::PeerUp(peer));
                self.tell_standing(peer);
            }
            LinkEvent::PeerDown(peer) => {
                tracing::info!(%peer, "link down");
                self.round_trips.down(peer);
            }
            LinkEvent::PeerFrame(peer, frame) => self.peer_frame(peer, &frame),
            LinkEvent::ClientUp(connection, client) => {
                self.connections.insert(connection, client);
                self.announce(connection);
            }
            // The links take no guests.
            LinkEvent::GuestUp(connection, _) => self.links.close_client(connection),
            LinkEvent::ClientDown(connection) => {
                self.connections.remove(&connection);
                self.changes.retain(|_, asker| *asker != connection);
                self.origins.retain(|_, origin| *origin != connection);
                self.schedule(Event::ConnectionLost(Connection(connection.0)));
            }
            LinkEvent::ClientFrame(connection, frame) => self.client_frame(connection, frame),
        }
    }

    fn peer_frame(&mut self, peer: ReplicaId, frame: &[u8]) {
        match PeerMessage::decode(frame) {
            Ok(PeerMessage::Ordering(message)) => {
                self.order(ordering::Event::Message { from: peer, message });
            }
            Ok(PeerMessage::Votes(bundle)) => {
                let Some(key) = self.core.roster().key(peer).copied() else { return };
                if !self.scheduler.wants(&bundle) {
                    return;
                }
                let opened = bundle.open(peer, &key, &mut self.judge.memo.borrow_mut());
                match opened {
                    Ok(votes) => self.schedule(Event::Votes(votes)),
                    Err(error) => tracing::warn!(%peer, %error, "a peer sent votes it did not sign"),
                }
            }
            // The master's own link vouches for it as well as its signature does; that is for pieces passed on by others.
            Ok(PeerMessage::Stream(stream)) => {
                let (epoch, entries) = (stream.epoch, stream.entries);
                self.schedule(Event::Stream { from: peer, epoch, entries });
            }
            Ok(PeerMessage::Accusation(signed)) => {
                let Some(key) = self.core.roster().key(peer) else { return };
                match signed.verify(key) {
                    Ok(()) if signed.replica == peer => self.schedule(Event::Accused(signed)),
                    _ => tracing::warn!(%peer, "a peer sent an accusation that it did not sign"),
                }
            }
            Ok(PeerMessage::Standing(delivered)) => self.watching.peer_stands(peer, delivered),
            Ok(PeerMessage::FetchEffects { tx, slot, from }) => {
                self.fetching.serve(&self.links, &self.catch_up.effects, peer, tx, slot, from);
            }
            Ok(PeerMessage::Effects { tx, from, part }) => self.effects_received(peer, tx, from, part),
            Ok(PeerMessage::Ping { number }) => {
                self.links.send_peer(peer, PeerMessage::Pong { number }.encode());
            }
            Ok(PeerMessage::Pong { number }) => self.round_trips.answered(peer, number, Instant::now()),
            Err(error) => tracing::warn!(%peer, %error, "a peer sent what no correct replica sends"),
        }
    }

    fn ask_round_trips(&mut self) {
        for (peer, number) in self.round_trips.due(Instant::now(), rand::random) {
            self.links.send_peer(peer, PeerMessage::Ping { number }.encode());
        }
    }

    fn client_frame(&mut self, connection: ConnectionId, frame: Bytes) {
        let Some(client) = self.connections.get(&connection).copied() else { return };
        match codec::decode::<ClientMessage>(&frame, limits::FRAME_BYTES_MAX) {
            Ok(ClientMessage::CopyData { tx, number, data }) => {
                // The data are the end of their frame. They keep it, and its room, as long as they wait for the disk.
                let data = frame.slice(frame.len().saturating_sub(data.len())..);
                let connection = Connection(connection.0);
                self.schedule(Event::CopyData { connection, client, tx, number, data });
            }
            Ok(ClientMessage::Request { session, sequence, payload, signature }) => {
                let session = SessionKey { client, session };
                if self.origins.insert(session, connection).is_none() {
                    self.claim(session, connection);
                }
                let request = Request::Client { id: RequestId { session, sequence }, payload, signature };
                self.order(ordering::Event::Request(request.into()));
            }
            Ok(ClientMessage::Membership(request)) => self.membership_request(connection, request),
            Ok(message) => {
                if let ClientMessage::CloseSession { session } = &message {
                    self.origins.remove(&SessionKey { client, session: *session });
                }
                self.schedule(Event::Client { connection: Connection(connection.0), client, message });
            }
            Err(error) => {
                tracing::warn!(%client, %error, "a client sent what no correct shim sends");
                self.links.close_client(connection);
            }
        }
    }

    /// A session's first request came: answers that were ready before it are its.
    fn claim(&mut self, session: SessionKey, connection: ConnectionId) {
        let (claimed, rest): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.unclaimed).into_iter().partition(|(of, _)| *of == session);
        self.unclaimed = rest;
        for (_, message) in claimed {
            self.links.send_client(connection, Bytes::from(codec::encode(&message)));
        }
    }

    pub(super) fn ordering_effect(&mut self, effect: ordering::Effect) {
        self.note_ordering(&effect);
        match effect {
            ordering::Effect::Persist { sequence, record } => {
                self.promises.appended(sequence);
                self.journal.append(sequence, record);
            }
            ordering::Effect::Send { to, message } => {
                self.links.send_peer(to, PeerMessage::Ordering(message).encode());
            }
            ordering::Effect::Broadcast { message } => {
                self.to_members(&PeerMessage::Ordering(message).encode());
            }
            ordering::Effect::Deliver(delivery) => self.deliver(delivery),
            // The order was faster than the client's own copy.
            ordering::Effect::Refused {
                request: RequestKey::Client(id),
                reason: Refusal::Executed | Refusal::Stale,
            } if self.has_executed(id) => {}
            ordering::Effect::Refused { request: RequestKey::Client(id), reason } => {
                if let Some(origin) = self.origins.get(&id.session) {
                    let message = ReplicaMessage::Refused {
                        session: id.session.session,
                        sequence: id.sequence,
                        reason: reason.to_string(),
                    };
                    self.links.send_client(*origin, codec::encode(&message).into());
                }
            }
            // Another replica's copy was ordered first.
            ordering::Effect::Refused { request: RequestKey::Certified(_), .. } => {}
            ordering::Effect::Refused { request: RequestKey::Membership(_), .. } => {}
            // The configuration lists all clients: none joins.
            ordering::Effect::Refused { request: RequestKey::Registration(..), .. } => {}
            ordering::Effect::ViewInstalled { roster, .. } => self.view_installed(&roster),
            ordering::Effect::ReadDecisions { peer, from, bytes_max } => {
                self.read_decisions(peer, from, bytes_max);
            }
            ordering::Effect::Tentative(tentative) => self.bound(&tentative),
            ordering::Effect::Revoke { instance } => {
                tracing::info!(%instance, "another batch may take the place of the one that was bound");
                self.schedule(Event::Unbound);
            }
            // The database takes no checkpoints yet, and its configuration asks for none.
            ordering::Effect::TakeCheckpoint { .. }
            | ordering::Effect::ReadChunk { .. }
            | ordering::Effect::StoreChunk { .. }
            | ordering::Effect::InstallCheckpoint { .. }
            | ordering::Effect::DropCheckpoints { .. }
            | ordering::Effect::Truncate { .. }
            | ordering::Effect::StateDiffers { .. } => {}
            ordering::Effect::RegencyInstalled { regency, leader } => {
                tracing::info!(?regency, %leader, "regency installed");
            }
            ordering::Effect::Misbehaved { replica, reason } => {
                tracing::warn!(%replica, reason, "a replica did what no correct one does");
            }
        }
    }

    /// A batch is bound: commits in it may be told ahead of the decision.
    fn bound(&mut self, tentative: &ordering::Tentative) {
        let ordering::Tentative { instance, claim, requests, .. } = tentative;
        let of = |request: &Request| match request.is_membership() {
            true => None,
            false => validity::decode(request.payload()).ok(),
        };
        let requests = requests.iter().map(|(position, request)| (*position, of(request))).collect();
        let view = claim.regency.view;
        let claim = Digest::of("steeldb/claim", &[&codec::encode(&(instance, claim))]);
        self.schedule(Event::Bound { view, claim, requests });
    }

    fn deliver(&mut self, delivery: Delivery) {
        let age_us = self.now().wall.0.saturating_sub(delivery.timestamp.0);
        let late = age_us > LATE.as_micros() as i64;
        for (position, request) in &delivery.requests {
            if request.is_membership() {
                self.change_delivered(*position, request.payload());
                continue;
            }
            match validity::decode(request.payload()) {
                Ok(payload) => {
                    if matches!(payload, Ordered::Commit(_)) && self.hook.stops(Point::Decided) {
                        self.stopped = true;
                        return;
                    }
                    let request = match request.key() {
                        RequestKey::Client(id) => Some((id.session, id.sequence)),
                        _ => None,
                    };
                    if let Some((session, sequence)) = request {
                        self.executed.insert((session.session, session.client), sequence);
                        if self.executed.len() > EXECUTED_MAX {
                            // Session numbers ascend with time.
                            self.executed.pop_first();
                        }
                    }
                    tracing::trace!(%position, replica = %self.me, "delivered");
                    self.schedule(Event::Delivered {
                        position: *position,
                        timestamp: delivery.timestamp,
                        late,
                        request,
                        payload,
                    });
                }
                // Validity was judged before it was decided.
                Err(reason) => tracing::error!(%position, reason, "an invalid request was decided"),
            }
        }
    }

    fn has_executed(&self, id: RequestId) -> bool {
        let last = self.executed.get(&(id.session.session, id.session.client));
        last.is_some_and(|last| *last >= id.sequence)
    }

    pub(super) fn submit(&mut self, ordered: &Ordered) {
        if let Some(key) = ordered.certified_key() {
            let request = Request::Certified { key, payload: codec::encode(ordered) };
            self.order(ordering::Event::Request(request.into()));
        }
    }
}
