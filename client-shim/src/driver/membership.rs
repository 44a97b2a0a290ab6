//! Who the replicas are: following views, asking replicas where they stand, and having the membership changed.

use super::{Shared, Shim};
use crate::ShimError;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use steeldb_ordering::{Request, Roster};
use steeldb_transport::ReplicaAddress;
use steeldb_types::{ReplicaId, Term, View, ViewNumber};
use steeldb_wire::codec::encode;
use steeldb_wire::transaction::{
    ClientMessage, MasterMove, MembershipReply, MembershipRequest, Ordered, ReplicaStatus, change_digest,
};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Answers that wait for whoever asked; what is more is dropped.
const ANSWERS_MAX: usize = 1024;

/// What a replica says of round trips.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoundTrips {
    /// Between this client and it, as this client measured.
    pub own: Duration,
    /// Between it and its peers, by its own word.
    pub between: BTreeMap<ReplicaId, Duration>,
}

/// Who waits for answers about the membership.
pub(super) type Waiters = Vec<mpsc::Sender<(ReplicaId, MembershipReply)>>;

impl Shim {
    /// The newest view that was proven to this client.
    pub fn view(&self) -> View {
        self.shared.view()
    }

    /// The replicas of that view; nothing over links that know no keys.
    pub fn roster(&self) -> Option<Arc<Roster>> {
        self.shared.state().views.as_ref().map(|views| Arc::clone(views.roster()))
    }

    /// Where each replica stands, by its own word. Waits for all of the newest view, at most for `patience`.
    pub async fn status(&self, patience: Duration) -> BTreeMap<ReplicaId, ReplicaStatus> {
        let deadline = Instant::now() + patience;
        self.connected(patience / 2).await;
        let mut answers = self.answers();
        self.ask_all(&ClientMessage::Membership(MembershipRequest::Status));
        let mut statuses = BTreeMap::new();
        loop {
            let view = self.shared.view();
            let newest = statuses.values().map(|status: &ReplicaStatus| status.view).max();
            // The newest view is proven a moment after it was first heard of.
            if view.replicas().all(|replica| statuses.contains_key(&replica)) && newest <= Some(view.number())
            {
                return statuses;
            }
            match tokio::time::timeout_at(deadline, answers.recv()).await {
                Ok(Some((replica, MembershipReply::Status(status)))) => {
                    statuses.insert(replica, status);
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return statuses,
            }
        }
    }

    /// The round trips that each replica of the newest view reports, and those between this client and each, the least of
    /// a few. Waits at most for `patience`.
    pub async fn round_trips(&self, patience: Duration) -> BTreeMap<ReplicaId, RoundTrips> {
        const ROUNDS: u32 = 8;
        let deadline = Instant::now() + patience;
        self.connected(patience / 2).await;
        let mut answers = self.answers();
        let mut heard: BTreeMap<ReplicaId, RoundTrips> = BTreeMap::new();
        for round in 0..ROUNDS {
            // A number that nobody can have answered before it was asked.
            let (asked, number) = (Instant::now(), rand::random());
            self.ask_all(&ClientMessage::Membership(MembershipRequest::RoundTrips { number }));
            // The first round waits for who is slow; then it is known who answers.
            let waits = if round == 0 { patience / 4 } else { patience / (2 * ROUNDS) };
            let until = deadline.min(asked + waits);
            let mut missing: BTreeSet<ReplicaId> = self.shared.view().replicas().collect();
            missing.retain(|replica| round == 0 || heard.contains_key(replica));
            while !missing.is_empty() {
                match tokio::time::timeout_at(until, answers.recv()).await {
                    Ok(Some((replica, MembershipReply::RoundTrips { number: of, micros })))
                        if of == number && missing.remove(&replica) =>
                    {
                        let between = micros.into_iter();
                        let between = between.map(|(id, took)| (id, Duration::from_micros(took.into())));
                        let own = heard.get(&replica).map_or(Duration::MAX, |before| before.own);
                        let own = own.min(asked.elapsed());
                        heard.insert(replica, RoundTrips { own, between: between.collect() });
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break,
                }
            }
        }
        heard
    }

    /// Has a change of the membership ordered that an administrator signed. Resolves once f + 1 replicas of the view
    /// that it changes say what became of it: one of them is correct.
    ///
    /// # Errors
    /// Why it was turned away, or that too few answered in time: it may still be ordered then.
    pub async fn change(&self, request: &Request, patience: Duration) -> Result<ViewNumber, ShimError> {
        let Request::Membership { payload, administrator, signature } = request else {
            return Err(ShimError::misuse("not a change of the membership"));
        };
        let (view, deadline) = (self.shared.view(), Instant::now() + patience);
        let mut answers = self.answers();
        let message = ClientMessage::Membership(MembershipRequest::Change {
            payload: payload.clone(),
            administrator: *administrator,
            signature: *signature,
        });
        self.ask_all(&message);
        let wanted = change_digest(payload);
        let mut results: BTreeMap<ReplicaId, Result<ViewNumber, String>> = BTreeMap::new();
        loop {
            match tokio::time::timeout_at(deadline, answers.recv()).await {
                Ok(Some((replica, MembershipReply::Changed { change, result }))) if change == wanted => {
                    results.insert(replica, result);
                }
                Ok(Some(_)) => continue,
                Ok(None) | Err(_) => {
                    let heard = results.len();
                    return Err(ShimError::new(
                        "57014",
                        format!("too few replicas said what became of the change ({heard} did)"),
                    )
                    .hint("It may still take effect: look at the cluster's status."));
                }
            }
            for result in results.values() {
                let same = results.iter().filter(|(_, other)| match (result, other) {
                    (Ok(a), Ok(b)) => a == b,
                    // Wordings may differ.
                    (Err(_), Err(_)) => true,
                    _ => false,
                });
                if view.has_correct(same.map(|(replica, _)| *replica)) {
                    return result.clone().map_err(|reason| ShimError::new("55000", reason));
                }
            }
        }
    }

    /// Has an administrator's wish for another master ordered. Resolves once f + 1 replicas speak of a term after the one
    /// that it ends; gives that term.
    ///
    /// # Errors
    /// Why f + 1 replicas turned it away, or that too few answered in time: it may still be ordered then.
    pub async fn move_master(&self, wish: &MasterMove, patience: Duration) -> Result<Term, ShimError> {
        let (view, deadline) = (self.shared.view(), Instant::now() + patience);
        let mut answers = self.answers();
        self.ask_all(&ClientMessage::Membership(MembershipRequest::Move(wish.clone())));
        let asked = Ordered::Move(wish.clone()).certified_key().unwrap_or_default();
        let mut refusals: BTreeMap<ReplicaId, String> = BTreeMap::new();
        loop {
            let term = self.term();
            if term.epoch > wish.term.epoch {
                return Ok(term);
            }
            if Instant::now() >= deadline {
                return Err(ShimError::new("57014", "too few replicas said who the master is")
                    .hint("It may still take effect: look at the master's status."));
            }
            // Terms do not come this way: look again soon.
            let again = Instant::now() + Duration::from_millis(20);
            if let Ok(Some((replica, MembershipReply::Changed { change, result: Err(reason) }))) =
                tokio::time::timeout_at(again.min(deadline), answers.recv()).await
                && change == asked
            {
                refusals.insert(replica, reason);
            }
            if let Some(reason) = refusals.values().next()
                && view.has_correct(refusals.keys().copied())
            {
                return Err(ShimError::new("55000", reason.clone()));
            }
        }
    }

    fn answers(&self) -> mpsc::Receiver<(ReplicaId, MembershipReply)> {
        let (sender, receiver) = mpsc::channel(ANSWERS_MAX);
        let mut state = self.shared.state();
        state.waiters.retain(|waiter| !waiter.is_closed());
        state.waiters.push(sender);
        receiver
    }

    fn ask_all(&self, message: &ClientMessage) {
        let frame = Bytes::from(encode(message));
        for replica in self.shared.view().replicas() {
            self.shared.links.send(replica, frame.clone());
        }
    }
}

impl Shared {
    /// A replica's word about the membership.
    pub(super) fn membership(&self, from: ReplicaId, reply: MembershipReply) {
        let mut state = self.state();
        let learned = match state.views.as_mut().map(|views| views.receive(from, &reply)) {
            Some(Ok(learned)) => learned,
            Some(Err(reason)) => {
                tracing::warn!(replica = %from, reason, "a replica showed a view that is none");
                return;
            }
            None => crate::Learned::default(),
        };
        for waiter in &state.waiters {
            // Whoever takes too little has what it needs, or is gone.
            let _ = waiter.try_send((from, reply.clone()));
        }
        let roster = state.views.as_ref().filter(|_| learned.changed).map(|views| Arc::clone(views.roster()));
        if let Some(roster) = &roster {
            state.view_changed(roster.view());
        }
        drop(state);
        if let Some(roster) = roster {
            self.follow(&roster);
        }
        if let Some(question) = learned.ask {
            self.links.send(from, Bytes::from(encode(&question)));
        }
    }

    fn follow(&self, roster: &Roster) {
        let members = roster.view().members();
        tracing::info!(view = roster.view().number().0, ?members, "the cluster's view changed");
        let address = |member: &steeldb_ordering::Member| ReplicaAddress {
            id: member.id,
            address: member.address.clone(),
            key: member.key,
        };
        self.links.set_replicas(roster.members().iter().map(address).collect());
    }
}
