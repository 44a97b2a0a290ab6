//! A client over TCP: links to all replicas, many sessions, one task.

use crate::collector::{Acceptance, Collector, Outcome, Said};
use crate::limits;
use crate::membership::address;
use crate::message::{Answer, ClientMessage, Refused, Reply, ServerMessage};
use crate::operation::Operation;
use crate::reads::{ReadOutcome, Reads};
use crate::registrations::Registrations;
use crate::views::{Learned, Views};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use steeldb_ordering::{Decision, Registered, Registration, Request, RequestId, Roster};
use steeldb_transport::{ClientConfig, ClientEvent, ClientLinks, ClientTransport, StartError};
use steeldb_types::{ClientId, Digest, Position, ReplicaId, SessionId, SessionKey, ViewNumber};
use steeldb_wire::auth::SecretKey;
use tokio::sync::{mpsc, oneshot, watch};

/// A client of a service. Clones share its links.
#[derive(Clone)]
pub struct Client {
    pub(crate) id: ClientId,
    pub(crate) key: Arc<SecretKey>,
    orders: mpsc::Sender<Order>,
    links: ClientLinks,
    up: watch::Receiver<BTreeSet<ReplicaId>>,
    roster: watch::Receiver<Arc<Roster>>,
    acceptance: Acceptance,
    sign: Sign,
}

/// Makes a request of a session's.
type Sign = fn(RequestId, Vec<u8>, &SecretKey) -> Request;

/// One session: its requests are executed in the order they are made, each once.
pub struct Session {
    client: Client,
    key: SessionKey,
    sequence: u64,
}

/// A request that was executed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Executed {
    /// Where in the order.
    pub position: Position,
    /// What the application says.
    pub result: Vec<u8>,
    /// Whether that was known before the decision was.
    pub ahead: bool,
}

/// What was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Read {
    /// What the application says.
    pub result: Vec<u8>,
    /// Whether it took a place in the order to know.
    pub ordered: bool,
}

/// Why a request has no result.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvokeError {
    /// A correct replica refuses it for good.
    #[error("refused: {0}")]
    Refused(Refused),
    /// The client was stopped, or the replica asked is not reachable.
    #[error("no link")]
    Closed,
}

type ChangeAnswer = oneshot::Sender<Result<Arc<Roster>, Refused>>;
type RegistrationAnswer = oneshot::Sender<Result<Registered, Refused>>;

enum Order {
    Invoke {
        id: RequestId,
        frame: Bytes,
        answer: oneshot::Sender<Result<Executed, InvokeError>>,
    },
    Query {
        replica: ReplicaId,
        payload: Vec<u8>,
        answer: oneshot::Sender<Vec<u8>>,
    },
    /// Sent again without an answer's place.
    Register {
        request: Digest,
        frame: Bytes,
        answer: Option<RegistrationAnswer>,
    },
    /// Sent again without an answer's place.
    Change {
        request: Digest,
        frame: Bytes,
        answer: Option<ChangeAnswer>,
    },
    /// The answer is dropped when there is no agreement.
    Read {
        payload: Vec<u8>,
        answer: oneshot::Sender<Vec<u8>>,
    },
}

impl Client {
    /// Dials all replicas of `config`, and those of the views that it learns of. It trusts the genesis view. Call it inside
    /// a tokio runtime.
    ///
    /// # Errors
    /// As [`ClientTransport::start`].
    pub fn start(
        config: ClientConfig,
        genesis: Roster,
        acceptance: Acceptance,
    ) -> Result<Client, StartError> {
        Client::start_with(config, genesis, acceptance, Request::signed)
    }

    /// As [`Client::start`], for requests that nobody signed.
    ///
    /// # Errors
    /// As [`Client::start`].
    #[cfg(feature = "unsigned-requests")]
    pub fn start_unsigned(
        config: ClientConfig,
        genesis: Roster,
        acceptance: Acceptance,
    ) -> Result<Client, StartError> {
        Client::start_with(config, genesis, acceptance, |id, payload, _| Request::unsigned(id, payload))
    }

    pub(crate) fn start_with(
        config: ClientConfig,
        genesis: Roster,
        acceptance: Acceptance,
        sign: Sign,
    ) -> Result<Client, StartError> {
        let (id, key) = (config.client, Arc::new(config.key.clone()));
        let (links, events) = ClientTransport::start(config)?;
        let (orders, order_receiver) = mpsc::channel(limits::IN_FLIGHT_MAX);
        let (up_sender, up) = watch::channel(BTreeSet::new());
        let view = genesis.view().clone();
        let views = Views::new(genesis);
        let (roster_sender, roster) = watch::channel(Arc::clone(views.roster()));
        let task = Task {
            links: links.clone(),
            collector: Collector::new(view.clone(), acceptance),
            in_flight: HashMap::new(),
            due: BTreeSet::new(),
            reads: Reads::new(view.clone()),
            readers: BTreeMap::new(),
            registrations: Registrations::new(view),
            registering: BTreeMap::new(),
            queries: BTreeMap::new(),
            next_query: 0,
            up: up_sender,
            views,
            changes: BTreeMap::new(),
            roster: roster_sender,
        };
        tokio::spawn(task.run(order_receiver, events));
        Ok(Client { id, key, orders, links, up, roster, acceptance, sign })
    }

    /// Waits for links to a quorum.
    pub async fn ready(&self) {
        let mut up = self.up.clone();
        // Fails only when the client was stopped, which whoever waits here learns from its next request.
        let _ = up.wait_for(|up| self.roster.borrow().view().is_quorum(up.iter().copied())).await;
    }

    /// The newest view that this client knows, and who its replicas are.
    pub fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.roster.borrow())
    }

    /// Has the membership changed, by a [`Request::Membership`], and waits for the view that it makes as long as it takes.
    ///
    /// # Errors
    /// [`InvokeError::Refused`]: a correct replica finds it illegal, signed by nobody who may, or made for another view.
    pub async fn change(&self, change: Request) -> Result<Arc<Roster>, InvokeError> {
        let (request, frame) = (change.digest(), ClientMessage::Order(Arc::new(change)).encode());
        let (answer, mut changed) = oneshot::channel();
        let mut answer = Some(answer);
        loop {
            let order = Order::Change { request, frame: frame.clone(), answer: answer.take() };
            self.orders.send(order).await.map_err(|_| InvokeError::Closed)?;
            match tokio::time::timeout(limits::RESEND_INTERVAL, &mut changed).await {
                Ok(Ok(changed)) => return changed.map_err(InvokeError::Refused),
                Ok(Err(_)) => return Err(InvokeError::Closed),
                Err(_) => {}
            }
        }
    }

    /// The number that this client is known by; of one that joined, the one it was given.
    pub fn id(&self) -> ClientId {
        self.id
    }

    /// Has a registration ordered, and waits for it as long as it takes.
    pub(crate) async fn register(&self, registration: Registration) -> Result<Registered, InvokeError> {
        let request = Arc::new(registration.signed(&self.key));
        let (digest, frame) = (request.digest(), ClientMessage::Register(request).encode());
        let (answer, mut registered) = oneshot::channel();
        let mut answer = Some(answer);
        loop {
            let order = Order::Register { request: digest, frame: frame.clone(), answer: answer.take() };
            self.orders.send(order).await.map_err(|_| InvokeError::Closed)?;
            match tokio::time::timeout(limits::RESEND_INTERVAL, &mut registered).await {
                Ok(Ok(registered)) => return registered.map_err(InvokeError::Refused),
                Ok(Err(_)) => return Err(InvokeError::Closed),
                Err(_) => {}
            }
        }
    }

    /// Opens a session. Its number must never have been used with this client's key before.
    pub fn session(&self, session: SessionId) -> Session {
        let key = SessionKey { client: self.id, session };
        Session { client: self.clone(), key, sequence: 0 }
    }

    /// Asks one replica about its state; nothing when it cannot be reached, or cannot tell. Its word alone.
    pub async fn query(&self, replica: ReplicaId, payload: Vec<u8>) -> Option<Vec<u8>> {
        let (answer, result) = oneshot::channel();
        self.orders.send(Order::Query { replica, payload, answer }).await.ok()?;
        result.await.ok()
    }

    /// Closes the links.
    pub fn stop(&self) {
        self.links.stop();
    }
}

impl Session {
    /// Has a request ordered and executed, and waits for it as long as it takes.
    ///
    /// # Errors
    /// [`InvokeError`].
    pub async fn invoke(&mut self, payload: &[u8]) -> Result<Executed, InvokeError> {
        self.order(Operation::Execute(payload)).await
    }

    /// Reads what every request completed before has led to. Asks all replicas; if too few answer alike, or in time, the
    /// query takes a place in the order. It always does with [`Acceptance::Correct`].
    ///
    /// # Errors
    /// [`InvokeError`].
    pub async fn query(&mut self, payload: &[u8]) -> Result<Read, InvokeError> {
        if self.client.acceptance == Acceptance::Quorum {
            let (answer, result) = oneshot::channel();
            let read = Order::Read { payload: payload.to_vec(), answer };
            self.client.orders.send(read).await.map_err(|_| InvokeError::Closed)?;
            if let Ok(result) = result.await {
                return Ok(Read { result, ordered: false });
            }
        }
        let executed = self.order(Operation::Query(payload)).await?;
        Ok(Read { result: executed.result, ordered: true })
    }

    async fn order(&mut self, operation: Operation<'_>) -> Result<Executed, InvokeError> {
        self.sequence += 1;
        let id = RequestId { session: self.key, sequence: self.sequence };
        let request = (self.client.sign)(id, operation.encode(), &self.client.key);
        let frame = ClientMessage::Order(Arc::new(request)).encode();
        let (answer, result) = oneshot::channel();
        let order = Order::Invoke { id, frame, answer };
        self.client.orders.send(order).await.map_err(|_| InvokeError::Closed)?;
        result.await.map_err(|_| InvokeError::Closed)?
    }
}

struct Task {
    links: ClientLinks,
    collector: Collector,
    in_flight: HashMap<RequestId, InFlight>,
    /// When to send what again.
    due: BTreeSet<(Instant, RequestId)>,
    reads: Reads,
    readers: BTreeMap<u64, oneshot::Sender<Vec<u8>>>,
    registrations: Registrations,
    registering: BTreeMap<Digest, RegistrationAnswer>,
    queries: BTreeMap<u64, (ReplicaId, oneshot::Sender<Vec<u8>>)>,
    /// Of queries of both kinds.
    next_query: u64,
    up: watch::Sender<BTreeSet<ReplicaId>>,
    views: Views,
    /// Changes of the membership that are waited for, and who refuses them.
    changes: BTreeMap<Digest, (ChangeAnswer, BTreeSet<ReplicaId>)>,
    roster: watch::Sender<Arc<Roster>>,
}

struct InFlight {
    frame: Bytes,
    answer: oneshot::Sender<Result<Executed, InvokeError>>,
    due: Instant,
    pause: Duration,
}

impl Task {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>, mut events: mpsc::Receiver<ClientEvent>) {
        let mut batch = Vec::with_capacity(limits::EVENTS_AT_ONCE);
        loop {
            let due = self.due.first().map(|(due, _)| *due).into_iter().chain(self.reads.due()).min();
            let due = due.unwrap_or_else(|| Instant::now() + limits::RESEND_INTERVAL);
            let room = self.in_flight.len().max(self.readers.len()) < limits::IN_FLIGHT_MAX;
            tokio::select! {
                order = orders.recv(), if room => match order {
                    Some(order) => self.order(order),
                    // Every handle is gone.
                    None => return self.links.stop(),
                },
                count = events.recv_many(&mut batch, limits::EVENTS_AT_ONCE) => {
                    if count == 0 {
                        return;
                    }
                    for event in batch.drain(..) {
                        self.event(event);
                    }
                }
                () = tokio::time::sleep_until(due.into()) => {
                    let now = Instant::now();
                    for number in self.reads.expire(now) {
                        self.readers.remove(&number);
                    }
                    self.resend(now);
                }
            }
        }
    }

    fn order(&mut self, order: Order) {
        match order {
            Order::Invoke { id, frame, answer } => {
                self.collector.begin(id);
                self.links.broadcast(frame.clone());
                let due = Instant::now() + limits::RESEND_INTERVAL;
                self.due.insert((due, id));
                self.in_flight.insert(id, InFlight { frame, answer, due, pause: limits::BUSY_PAUSE });
            }
            Order::Register { request, frame, answer } => {
                if let Some(answer) = answer {
                    self.forget_registrations();
                    self.registrations.begin(request);
                    self.registering.insert(request, answer);
                }
                self.links.broadcast(frame);
            }
            Order::Change { request, frame, answer } => {
                self.changes.retain(|_, (answer, _)| !answer.is_closed());
                if let Some(answer) = answer {
                    self.changes.insert(request, (answer, BTreeSet::new()));
                }
                self.links.broadcast(frame);
            }
            Order::Query { replica, payload, answer } => {
                self.next_query += 1;
                let number = self.next_query;
                if self.links.send(replica, ClientMessage::Query { number, payload }.encode()) {
                    self.queries.insert(number, (replica, answer));
                }
            }
            Order::Read { payload, answer } => {
                self.next_query += 1;
                let number = self.next_query;
                self.reads.begin(number, Instant::now());
                self.readers.insert(number, answer);
                self.links.broadcast(ClientMessage::Query { number, payload }.encode());
            }
        }
    }

    /// Forgets those that nobody waits for any more.
    fn forget_registrations(&mut self) {
        let registrations = &mut self.registrations;
        self.registering.retain(|request, answer| {
            if answer.is_closed() {
                registrations.forget(request);
            }
            !answer.is_closed()
        });
    }

    fn registered(&mut self, from: ReplicaId, request: Digest, word: Result<Registered, Refused>) {
        if let Some(believed) = self.registrations.says(from, request, word)
            && let Some(answer) = self.registering.remove(&request)
        {
            // Whoever asked may have gone.
            let _ = answer.send(believed);
        }
    }

    /// A replica answered a query: one of those that only it was asked, or one that all were.
    fn answer(&mut self, from: ReplicaId, number: u64, view: ViewNumber, answer: Option<Answer>) {
        if self.readers.contains_key(&number) {
            let outcome = self.reads.answered(from, number, view, answer);
            let Some(outcome) = outcome else { return };
            if let (Some(reader), ReadOutcome::Agreed(result)) = (self.readers.remove(&number), outcome) {
                // Whoever asked may have gone.
                let _ = reader.send(result);
            }
        } else if self.queries.get(&number).is_some_and(|(asked, _)| *asked == from)
            && let (Some((_, asker)), Some(answer)) = (self.queries.remove(&number), answer)
        {
            let _ = asker.send(answer.result);
        }
    }

    fn shown(&mut self, from: ReplicaId, decisions: &[Arc<Decision>]) {
        let learned = self.views.shown(from, decisions).unwrap_or_else(|reason| {
            tracing::warn!(peer = %from, reason, "a replica showed what made no view");
            Learned::default()
        });
        if let Some(question) = learned.ask {
            self.links.send(from, question.encode());
        }
        if learned.changed {
            self.follow_view();
        }
    }

    /// Another view is current: links follow it, and what is under way is asked of its replicas.
    fn follow_view(&mut self) {
        let roster = Arc::clone(self.views.roster());
        let view = roster.view();
        if let Err(error) = self.links.set_replicas(roster.members().iter().map(address).collect()) {
            tracing::error!(%error, "links cannot follow the new view");
        }
        self.up.send_modify(|up| up.retain(|replica| view.contains(*replica)));
        self.collector.set_view(view.clone());
        self.registrations.set_view(view.clone());
        // They are ordered.
        for number in self.reads.set_view(view.clone()) {
            self.readers.remove(&number);
        }
        let mut ids: Vec<_> = self.in_flight.keys().copied().collect();
        ids.sort();
        for id in ids {
            self.links.broadcast(self.in_flight[&id].frame.clone());
        }
        // Before whoever waits for a change looks at it.
        self.roster.send_replace(roster);
        let waited_for: Vec<Digest> = self.changes.keys().copied().collect();
        for change in waited_for {
            if let Some(made) = self.views.made_by(change).cloned()
                && let Some((answer, _)) = self.changes.remove(&change)
            {
                // Whoever asked may have gone.
                let _ = answer.send(Ok(made));
            }
        }
    }

    fn not_changed(&mut self, from: ReplicaId, change: Digest, reason: Refused) {
        let Some((_, refusing)) = self.changes.get_mut(&change) else { return };
        refusing.insert(from);
        if self.views.roster().view().has_correct(refusing.iter().copied())
            && let Some((answer, _)) = self.changes.remove(&change)
        {
            let _ = answer.send(Err(reason));
        }
    }

    fn event(&mut self, event: ClientEvent) {
        match event {
            ClientEvent::ReplicaUp(replica) => {
                self.views.link_up(replica);
                self.up.send_modify(|up| {
                    up.insert(replica);
                });
                // What was sent before is lost to it.
                let mut ids: Vec<_> = self.in_flight.keys().copied().collect();
                ids.sort();
                for id in ids {
                    self.links.send(replica, self.in_flight[&id].frame.clone());
                }
            }
            ClientEvent::ReplicaDown(replica) => {
                self.up.send_modify(|up| {
                    up.remove(&replica);
                });
                self.queries.retain(|_, (asked, _)| *asked != replica);
            }
            ClientEvent::Frame(replica, frame) => match ServerMessage::decode(&frame) {
                Ok(message) => self.message(replica, message),
                Err(error) => tracing::warn!(peer = %replica, %error, "a replica sent nonsense"),
            },
        }
    }

    fn message(&mut self, from: ReplicaId, message: ServerMessage) {
        match message {
            ServerMessage::Executed { id, view, reply } => {
                let outcome = self.collector.executed(from, id, Said { ahead: None, reply, view });
                self.outcome(id, outcome);
            }
            ServerMessage::Tentative { id, instance, claim, reply } => {
                let said = Said { ahead: Some((instance, claim)), reply, view: claim.regency.view };
                let outcome = self.collector.executed(from, id, said);
                self.outcome(id, outcome);
            }
            ServerMessage::Refused { id, reason } => {
                let outcome = self.collector.refused(from, id, reason);
                self.outcome(id, outcome);
            }
            ServerMessage::Answer { number, view, answer } => self.answer(from, number, view, answer),
            ServerMessage::View { view } => {
                if let Some(question) = self.views.heard(from, view) {
                    self.links.send(from, question.encode());
                }
            }
            ServerMessage::Views { decisions } => self.shown(from, &decisions),
            ServerMessage::NotChanged { request, reason } => self.not_changed(from, request, reason),
            ServerMessage::Registered { request, registered } => {
                self.registered(from, request, Ok(registered));
            }
            ServerMessage::NotRegistered { request, reason } => {
                self.registered(from, request, Err(reason));
            }
            ServerMessage::Decisions { .. } | ServerMessage::NotKept { .. } => {}
        }
    }

    fn outcome(&mut self, id: RequestId, outcome: Option<Outcome>) {
        let result = match outcome {
            None => return,
            Some(Outcome::Busy) => return self.later(id),
            Some(Outcome::Executed { reply: Reply { position, result }, ahead }) => {
                Ok(Executed { position, result, ahead })
            }
            Some(Outcome::Refused(reason)) => Err(InvokeError::Refused(reason)),
        };
        if let Some(in_flight) = self.in_flight.remove(&id) {
            self.due.remove(&(in_flight.due, id));
            // Whoever asked may have gone.
            let _ = in_flight.answer.send(result);
        }
    }

    /// Replicas are busy: sends it again after a pause that doubles.
    fn later(&mut self, id: RequestId) {
        let Some(in_flight) = self.in_flight.get_mut(&id) else { return };
        self.due.remove(&(in_flight.due, id));
        in_flight.due = Instant::now() + in_flight.pause;
        in_flight.pause = (in_flight.pause * 2).min(limits::RESEND_INTERVAL);
        self.due.insert((in_flight.due, id));
    }

    fn resend(&mut self, now: Instant) {
        while let Some((due, id)) = self.due.first().copied() {
            if due > now {
                return;
            }
            self.due.pop_first();
            let Some(in_flight) = self.in_flight.get_mut(&id) else { continue };
            if in_flight.answer.is_closed() {
                self.in_flight.remove(&id);
                self.collector.forget(id);
                continue;
            }
            self.links.broadcast(in_flight.frame.clone());
            in_flight.due = now + limits::RESEND_INTERVAL;
            self.due.insert((in_flight.due, id));
        }
    }
}
