//! The core: events in, effects out.

use crate::catchup::CatchUp;
use crate::checkpointing::Checkpoints;
use crate::clients::{Clients, Registration};
use crate::config::{Config, PlantedBug, StartError};
use crate::early::Early;
use crate::effect::{Effect, EffectQueue, Refusal};
use crate::event::{Event, Now};
use crate::instance::Accept;
use crate::log::DecidedLog;
use crate::membership::{Change, ViewChain, verify_administrator};
use crate::membership::{Membership, Roster};
use crate::message::Message;
use crate::pending::{Load, Pending};
use crate::record::Restored;
use crate::request::{Request, RequestKey, Validator};
use crate::synchronization::Synchronization;
use crate::tentative::Given;
use crate::timeouts::Timeouts;
use crate::transfer::Transfer;
use crate::window::Window;
use crate::{InstanceNumber, Regency};
use std::collections::BTreeSet;
use std::sync::Arc;
use steeldb_types::{ClientId, Digest, ReplicaId, ViewNumber, limits};
use steeldb_wire::auth::{PublicKey, Signature};

/// One replica of the ordering protocol: a deterministic state machine without clock, randomness or I/O.
///
/// The shell calls [`handle`](Core::handle) with what happens, then does every effect that
/// [`poll_effect`](Core::poll_effect) gives, and sends [`Event::Tick`] when [`next_timeout`](Core::next_timeout) is
/// due. No input panics.
pub struct Core {
    pub(crate) config: Config,
    pub(crate) membership: Membership,
    pub(crate) effects: EffectQueue,
    pub(crate) log: DecidedLog,
    pub(crate) clients: Clients,
    pub(crate) pending: Pending,
    pub(crate) window: Window,
    pub(crate) early: Early,
    pub(crate) sync: Synchronization,
    pub(crate) timeouts: Timeouts,
    pub(crate) catchup: CatchUp,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) transfer: Transfer,
    /// Votes up to this instance may have been lost: none are cast there.
    pub(crate) passive_upto: InstanceNumber,
    /// The highest instance with a record that a tentative delivery may have followed before a restart.
    pub(crate) vouched_upto: InstanceNumber,
    /// Why a decision that must have made a view made none here.
    pub(crate) lost_view: Option<String>,
    /// A view has begun since the requests that wait were judged.
    pub(crate) view_is_new: bool,
    /// When to send own messages again; set while something waits and nothing is decided.
    pub(crate) resend_at: Option<u64>,
    /// Up to where the application has taken deliveries.
    pub(crate) delivered: InstanceNumber,
    /// What was delivered tentatively.
    pub(crate) given: Option<Given>,
    /// The monotonic clock at the event being handled.
    pub(crate) now_us: u64,
    /// ACCEPT signatures verified so far.
    pub(crate) verifications: u64,
}

/// What a handler may look at besides the core.
pub(crate) struct Context<'a> {
    pub(crate) now: Now,
    pub(crate) validator: &'a dyn Validator,
}

impl Core {
    /// A core that continues from `restored`. What is to be delivered again is ready to be polled.
    ///
    /// # Errors
    /// [`StartError`]: the configuration contradicts itself, or the log is damaged.
    pub fn new(config: Config, restored: Restored) -> Result<Core, StartError> {
        config.check()?;
        let mut core = Core {
            effects: EffectQueue::new(
                config.has(PlantedBug::DurabilityIgnored),
                config.has(PlantedBug::ReplyBeforeDurable),
            ),
            log: DecidedLog::new(config.decisions_kept_bytes, config.window),
            clients: Clients::new(config.sessions_remembered_max, config.registry.as_ref()),
            pending: Pending::default(),
            window: Window::new(config.window),
            early: Early::default(),
            sync: Synchronization::default(),
            timeouts: config.timeouts(),
            now_us: 0,
            given: None,
            catchup: CatchUp::default(),
            checkpoints: Checkpoints::default(),
            transfer: Transfer::default(),
            passive_upto: InstanceNumber(0),
            vouched_upto: InstanceNumber(0),
            resend_at: None,
            delivered: restored.delivered,
            verifications: 0,
            membership: Membership::new(config.me, config.key.public(), config.genesis.clone()),
            view_is_new: false,
            lost_view: None,
            config,
        };
        for record in restored.records {
            core.restore(record)?;
        }
        if let Some(reason) = core.lost_view.take() {
            let reason = format!("the genesis view is not the one that the cluster began with: {reason}");
            return Err(StartError::Config(reason));
        }
        let known = core.reach().0.saturating_add(limits::WINDOW_MAX as u64);
        if core.window.iter().any(|instance| instance.number.0 > known) {
            return Err(StartError::Log("a vote for an instance beyond any window".into()));
        }
        if let Some(instance) = core.checkpoints.stable().map(|stable| stable.certificate.instance) {
            core.drop_before(0, instance);
        }
        core.read_own_decisions();
        Ok(core)
    }

    /// Takes in what happened. `validator` judges requests; it must be the same function at every call.
    pub fn handle(&mut self, now: Now, event: Event, validator: &dyn Validator) {
        let cx = Context { now, validator };
        self.now_us = now.monotonic_us;
        match event {
            Event::Message { from, message } => self.on_message(&cx, from, message),
            Event::Request(request) => self.on_request(&cx, request),
            Event::Persisted { upto } => self.effects.persisted(upto),
            Event::Tick => {}
            Event::LinkUp(peer) => self.on_link_up(&cx, peer),
            Event::DecisionsRead { peer, decisions } => self.on_decisions_read(peer, decisions),
            Event::CheckpointTaken { instance, chunks } => self.on_checkpoint_taken(instance, chunks),
            Event::ChunkRead { peer, instance, chunk, bytes } => {
                self.on_chunk_read(peer, instance, chunk, bytes);
            }
            Event::CheckpointInstalled { instance } => self.on_checkpoint_installed(&cx, instance),
        }
        self.on_time(&cx);
        self.advance(&cx);
        self.arm_resend(&cx);
    }

    /// The next effect to do, until there is none. Ask again after every event.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.poll()
    }

    /// When, on the monotonic clock, [`Event::Tick`] is due; nothing while nothing waits.
    pub fn next_timeout(&self) -> Option<u64> {
        let timer =
            if self.sync.is_installed() { self.pending.next_deadline() } else { self.sync.deadline() };
        [timer, self.resend_at, self.sync.repeat_at(), self.catchup.due(), self.transfer.due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The regency this replica is in.
    pub fn regency(&self) -> Regency {
        self.sync.regency()
    }

    /// The leader of that regency.
    pub fn leader(&self) -> ReplicaId {
        self.membership.view().leader(self.sync.regency().number)
    }

    /// The last decided instance.
    pub fn last_decided(&self) -> InstanceNumber {
        InstanceNumber(self.log.next().0 - 1)
    }

    /// How many signatures of ACCEPTs this replica verified to decide: what an instance costs it besides its requests.
    pub fn accepts_verified(&self) -> u64 {
        self.verifications
    }

    /// The clients that are joined, ascending, as far as this replica has got in the order.
    pub fn joined_clients(&self) -> impl Iterator<Item = (ClientId, PublicKey)> + '_ {
        self.clients.joined()
    }

    /// Whether this replica has accepted a change of the membership that it does not know to be decided. Others may be in
    /// the next view already, so nobody may count on it as one of the current view.
    pub fn is_changing_view(&self) -> bool {
        let mut bound = self.window.iter().filter_map(|instance| instance.bound.as_ref());
        // A change is alone in its batch.
        bound.any(|(_, proposal)| matches!(&proposal.requests[..], [request] if request.is_membership()))
    }

    /// How many requests wait to be ordered.
    pub fn pending_requests(&self) -> usize {
        self.pending.len()
    }

    /// Whether a request waits to be ordered.
    pub fn is_pending(&self, key: &RequestKey) -> bool {
        self.pending.digest(key).is_some()
    }

    /// The replicas of the current view.
    pub fn roster(&self) -> &Arc<Roster> {
        self.membership.roster()
    }

    /// The views so far, with the decisions that made them.
    pub fn views(&self) -> &ViewChain {
        self.membership.chain()
    }

    /// Whether `replicas` are a WRITE or ACCEPT quorum.
    pub(crate) fn is_quorum(&self, replicas: &[ReplicaId]) -> bool {
        let view = self.membership.view();
        if self.config.has(PlantedBug::OldViewQuorum)
            && let Some(before) = view.number().0.checked_sub(1)
            && let Some(before) = self.membership.roster_of(ViewNumber(before))
        {
            return before.view().is_quorum(replicas.iter().copied());
        }
        if self.config.has(PlantedBug::WeightsMisSummed) {
            let members: BTreeSet<_> = replicas.iter().filter(|replica| view.contains(**replica)).collect();
            return members.len() > 2 * usize::from(view.f());
        }
        if self.config.has(PlantedBug::QuorumOneTooSmall) {
            let absent = view.replicas().find(|replica| !replicas.contains(replica));
            return view.is_quorum(replicas.iter().copied().chain(absent));
        }
        view.is_quorum(replicas.iter().copied())
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.leader() == self.config.me
    }

    pub(crate) fn timeout_us(&self) -> u64 {
        self.timeouts.current_us()
    }

    pub(crate) fn resend_us(&self) -> u64 {
        u64::try_from(self.config.resend_interval.as_micros()).unwrap_or(u64::MAX)
    }

    fn on_message(&mut self, cx: &Context<'_>, from: ReplicaId, message: Message) {
        // Whoever is no member may ask for decisions, and show some: they prove themselves. One that was removed, or is
        // to join, catches up so, and helps others to.
        let proves_itself = matches!(
            message,
            Message::FetchDecisions { .. }
                | Message::Decisions { .. }
                | Message::CheckpointOffer { .. }
                | Message::FetchState { .. }
                | Message::State { .. }
        );
        if from == self.config.me || !(self.membership.contains(from) || proves_itself) {
            return;
        }
        match message {
            Message::Forward { requests } => self.adopt(cx, from, &requests),
            Message::Propose { regency, proposal } => self.on_propose(cx, from, regency, proposal),
            Message::Write { instance, claim } => self.on_write(cx, from, instance, claim),
            Message::Accept { instance, claim, signature } => {
                self.on_accept(cx, from, instance, Accept { claim, signature, verified: false });
            }
            Message::Stop { regency, requests } => self.on_stop(cx, from, regency, &requests),
            Message::StopData { data, values } => self.on_stop_data(cx, from, data, values),
            Message::Sync { regency, stop_data, proposals } => {
                self.on_sync(cx, from, regency, stop_data, proposals);
            }
            Message::FetchDecisions { from: first, regency } => self.on_fetch(cx, from, first, regency),
            Message::Decisions { decisions, more } => self.on_decisions(from, decisions, more),
            Message::Checkpoint { instance, digest, signature } => {
                self.on_checkpoint(cx, from, instance, digest, signature);
            }
            Message::CheckpointOffer { certificate, views } => {
                self.on_checkpoint_offer(cx, from, certificate, &views);
            }
            Message::FetchState { instance, part } => self.on_fetch_state(cx, from, instance, part),
            Message::State { instance, part, bytes } => self.on_state(cx, from, instance, part, bytes),
        }
    }

    /// Applies the protocol's rules until none applies any more. Handlers only take note of facts.
    fn advance(&mut self, cx: &Context<'_>) {
        while self.try_judge_again(cx)
            || self.try_enter(cx)
            || self.try_synchronize(cx)
            || self.try_decide()
            || self.try_decide_by_proof()
            || self.try_deliver()
            || self.try_consider_early(cx)
            || self.try_propose(cx)
            || self.try_accept()
            || self.try_deliver_tentatively()
            || self.try_stabilize(cx)
        {}
    }

    fn on_request(&mut self, cx: &Context<'_>, request: Arc<Request>) {
        if let Err(reason) = self.admit(cx, &request) {
            self.effects.push(Effect::Refused { request: request.key(), reason });
        }
    }

    /// Takes a request into the pending set, its timer running.
    fn admit(&mut self, cx: &Context<'_>, request: &Arc<Request>) -> Result<(), Refusal> {
        let key = request.key();
        if !self.membership.votes() {
            return Err(Refusal::NotAMember);
        }
        if request.payload().len() > limits::REQUEST_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        if self.clients.is_stranger(&key) {
            return Err(Refusal::NotJoined);
        }
        if self.clients.is_void(&key) {
            let last = self.clients.sessions.is_last(&key);
            return Err(if last { Refusal::Executed } else { Refusal::Stale });
        }
        let digest = request.digest();
        match self.pending.digest(&key) {
            Some(known) if known == digest => return Ok(()),
            // Copies of a certified request may carry different proofs of the same thing.
            Some(_) if matches!(key, RequestKey::Certified(_)) => return Ok(()),
            Some(_) => return Err(Refusal::Conflict),
            None => {}
        }
        let bytes = request.size_bytes();
        let unbounded = self.config.has(PlantedBug::QueueUnbounded);
        let has_room = |held: Load, requests_max: usize, bytes_max: usize| {
            unbounded || (held.requests < requests_max && held.bytes + bytes <= bytes_max)
        };
        let (all, bytes_max) = (self.pending.load(), limits::PENDING_BYTES_MAX);
        if !has_room(all, self.config.pending_requests_max, bytes_max) {
            return Err(Refusal::Busy);
        }
        if let RequestKey::Client(id) = key {
            let (held, bytes_max) =
                (self.pending.load_of(id.session.client), limits::PENDING_BYTES_PER_CLIENT_MAX);
            if !has_room(held, self.config.pending_requests_per_client_max, bytes_max) {
                return Err(Refusal::Busy);
            }
        }
        if request.is_registration() {
            let (held, bytes_max) = (self.pending.load_of_registrants(), limits::REGISTRATION_BYTES_MAX);
            if !has_room(held, limits::REGISTRATIONS_PENDING_MAX, bytes_max) {
                return Err(Refusal::Busy);
            }
        }
        self.verify(cx, request).map_err(Refusal::Invalid)?;
        if self.clients.is_impostor(request) {
            return Err(Refusal::NotJoined);
        }
        self.wait(cx, request, digest);
        Ok(())
    }

    /// Takes in requests that a replica passed on.
    pub(crate) fn adopt(&mut self, cx: &Context<'_>, from: ReplicaId, requests: &[Arc<Request>]) {
        for request in requests {
            // What its sender found valid in an earlier or a later view is no lie.
            let lasting = matches!(
                **request,
                Request::Client { .. } | Request::Joined { .. } | Request::Registration { .. }
            );
            if let Err(Refusal::Invalid(reason)) = self.admit(cx, request)
                && lasting
            {
                self.effects.misbehaved(from, format!("passed on an invalid request: {reason}"));
                return;
            }
        }
    }

    /// Whether a request may be ordered at all: signature, then the application's judgement.
    pub(crate) fn verify(&self, cx: &Context<'_>, request: &Request) -> Result<(), String> {
        if let Request::Membership { payload, administrator, signature } = request {
            return self.verify_change(cx, payload, administrator, signature);
        }
        if self.config.registry.is_none()
            && matches!(request, Request::Joined { .. } | Request::Registration { .. })
        {
            return Err("this cluster's configuration lists its clients: none join".into());
        }
        if !self.config.has(PlantedBug::SignatureNotChecked) {
            request.verify_signature(&self.config.client_keys)?;
        }
        if self.config.has(PlantedBug::ValidityNotChecked) {
            return Ok(());
        }
        match request {
            Request::Registration { registration: Registration::Join(join), key, .. } => {
                match cx.validator.authorize(join, key)? == join.account {
                    true => Ok(()),
                    false => Err("the credential is for another account, or for other limits".into()),
                }
            }
            Request::Registration { .. } => Ok(()),
            _ => cx.validator.check(request, self.membership.roster()),
        }
    }

    /// Whether a request may be ordered in the current view: what the core says of one before it takes it.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn judge_request(&self, request: &Request, validator: &dyn Validator) -> Result<(), String> {
        if !self.membership.votes() {
            return Err(Refusal::NotAMember.to_string());
        }
        let now = Now { monotonic_us: 0, wall: steeldb_types::Timestamp(0) };
        self.verify(&Context { now, validator }, request)
    }

    /// Whether the membership may be changed so, from this view to the next.
    fn verify_change(
        &self,
        cx: &Context<'_>,
        payload: &[u8],
        administrator: &PublicKey,
        signature: &Signature,
    ) -> Result<(), String> {
        if !self.config.has(PlantedBug::UnsignedChangeAccepted) {
            verify_administrator(payload, administrator, signature, &self.config.administrators)
                .map_err(|error| error.to_string())?;
        }
        let roster = self.membership.roster();
        let mut change = Change::decode(payload).map_err(|error| error.to_string())?;
        if self.config.has(PlantedBug::ReplayedChangeAccepted) {
            (change.from, change.of) = (roster.view().number(), roster.digest());
        }
        let next = roster.changed(&change).map_err(|error| error.to_string())?;
        cx.validator.check_change(roster, &next)
    }

    pub(crate) fn wait(&mut self, cx: &Context<'_>, request: &Arc<Request>, digest: Digest) {
        let now = cx.now.monotonic_us;
        self.pending.insert(Arc::clone(request), digest, now, now.saturating_add(self.timeout_us()));
    }

    fn on_time(&mut self, cx: &Context<'_>) {
        let now = cx.now.monotonic_us;
        self.forget_old_stops(cx);
        if self.sync.is_installed() {
            self.on_request_timers(cx);
        } else {
            self.on_synchronization_timer(cx);
        }
        if self.resend_at.is_some_and(|at| at <= now) {
            self.resend_at = None;
            self.resend();
            self.fetch_from_next();
        }
        if self.catchup.due().is_some_and(|due| due <= now) {
            self.fetch_from_ahead(cx);
        }
        self.on_transfer_timer(cx);
        self.repeat_stop(cx);
    }

    /// Mod-SMaRt, section 4.3: the first time-out forwards a request to the leader, the second suspects it.
    fn on_request_timers(&mut self, cx: &Context<'_>) {
        const FORWARD_REQUESTS_MAX: usize = 64;
        let timeout = self.timeout_us();
        let expired = self.pending.expire(cx.now.monotonic_us, timeout, &self.clients);
        if !self.is_leader() {
            let leader = self.leader();
            for chunk in expired.first.chunks(FORWARD_REQUESTS_MAX) {
                self.effects.send(leader, Message::Forward { requests: chunk.to_vec() });
            }
        }
        if expired.again && !self.config.has(PlantedBug::SuspicionForgotten) {
            self.suspect(cx);
        }
    }

    fn arm_resend(&mut self, cx: &Context<'_>) {
        let stuck = self.window.is_running()
            || !self.pending.is_empty()
            || !self.sync.is_installed()
            || !self.may_vote()
            || !self.transfer.is_idle()
            // One that is to join asks until it knows the view that it is in.
            || self.membership.is_joining();
        if !stuck {
            self.resend_at = None;
        } else if self.resend_at.is_none() {
            self.resend_at = Some(cx.now.monotonic_us.saturating_add(self.resend_us()));
        }
    }

    /// Links lose messages: sends again what others may lack.
    fn resend(&mut self) {
        let (me, regency) = (self.config.me, self.sync.regency());
        if self.sync.is_installed() {
            if self.is_leader() {
                self.resend_as_leader();
            }
            for vote in self.window.iter().flat_map(|instance| instance.own_votes(me, regency)) {
                self.effects.broadcast(vote);
            }
        }
        self.resend_synchronization();
    }

    fn on_link_up(&mut self, cx: &Context<'_>, peer: ReplicaId) {
        if peer == self.config.me {
            return;
        }
        self.fetch(peer);
        self.resend_checkpoint(peer);
        if self.resend_at.is_some() {
            // Whoever comes back needs what is being waited for, now.
            self.resend_at = Some(cx.now.monotonic_us);
        }
    }
}
