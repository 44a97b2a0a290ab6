//! The session at the replicas: opened everywhere, lost with a link, opened anew before the next transaction.

use super::transaction::Phase;
use super::{Core, Event};
use crate::ShimError;
use steeldb_types::{ReplicaId, View};
use steeldb_wire::transaction::ClientMessage;

/// The session at one replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Membership {
    /// The link is down.
    Away,
    /// The link is up, and the session is not asked for.
    Closed,
    /// It is asked for. What is sent meanwhile waits there for the backend.
    Opening,
    /// Its backend is there.
    Open { parameters: Vec<(String, String)> },
    /// It was refused; asked for again with the next transaction.
    Refused(ShimError),
}

impl Core {
    /// The link to a replica is up.
    pub fn link_up(&mut self, replica: ReplicaId) {
        let Some(membership) = self.replicas.get_mut(usize::from(replica.0)) else { return };
        if *membership != Membership::Away || self.over {
            return;
        }
        *membership = Membership::Closed;
        let started = self.transaction.as_ref().is_some_and(|transaction| transaction.started);
        let orphaned = self.transaction.as_ref().is_some_and(|transaction| transaction.orphaned);
        if orphaned && self.is_master(replica) && !self.awaits_outcome() {
            // It is the master still, and has lost the transaction with the link. Others vouch for what is finished.
            self.lose_master();
        } else if !started {
            self.open_where_closed();
        }
    }

    /// The replicas are those of another view from now on. A transaction that is open ends on the replicas, which say so.
    pub fn change_view(&mut self, view: View) {
        if self.over || view.number() <= self.config.view.number() {
            return;
        }
        if view.table_len() > self.replicas.len() {
            // What it keeps by replica has no room for the new ones; a new session has.
            let error = ShimError::new("57P01", "the cluster has new replicas: connect again");
            return self.lose(error);
        }
        let left: Vec<ReplicaId> =
            self.config.view.replicas().filter(|replica| !view.contains(*replica)).collect();
        for replica in left {
            self.link_down(replica);
        }
        self.config.view = view;
    }

    /// The link to a replica is down: what the session had there is gone.
    pub fn link_down(&mut self, replica: ReplicaId) {
        let Some(membership) = self.replicas.get_mut(usize::from(replica.0)) else { return };
        if *membership == Membership::Away || self.over {
            return;
        }
        *membership = Membership::Away;
        self.session_gone(replica, None);
    }

    pub(super) fn session_opened(&mut self, from: ReplicaId, parameters: Vec<(String, String)>) {
        let Some(membership) = self.replicas.get_mut(usize::from(from.0)) else { return };
        if *membership != Membership::Opening {
            return;
        }
        *membership = Membership::Open { parameters };
        if !self.is_usable() {
            return;
        }
        self.become_usable();
        self.pump();
    }

    /// The parameters of the master's backend.
    pub(super) fn parameters_of_master(&self) -> Option<Vec<(String, String)>> {
        match self.replicas.get(usize::from(self.config.master.0)) {
            Some(Membership::Open { parameters }) => Some(parameters.clone()),
            _ => None,
        }
    }

    pub(super) fn session_refused(&mut self, from: ReplicaId, error: ShimError) {
        let Some(membership) = self.replicas.get_mut(usize::from(from.0)) else { return };
        if !matches!(membership, Membership::Opening | Membership::Open { .. }) {
            return;
        }
        let was_open = matches!(membership, Membership::Open { .. });
        *membership = Membership::Refused(error.clone());
        if !self.opened {
            if self.is_master(from) || self.config.view.has_correct(self.refusing()) {
                self.lose(error);
            }
            return;
        }
        if self.is_master(from) && was_open && !self.awaits_outcome() {
            // The backend that answered is gone, and with it what the application believes its session to be.
            return self.lose(error);
        }
        // Whoever waits for an outcome needs no backend for it: the others tell. Before the next transaction the session is
        // opened there again, as where a link was lost.
        self.session_gone(from, Some(error));
    }

    /// The session at `replica` is gone; the running transaction may go on without it, if others suffice.
    fn session_gone(&mut self, replica: ReplicaId, error: Option<ShimError>) {
        if self.is_master(replica) {
            // The application still has to take them.
            self.stale += std::mem::take(&mut self.unconsumed);
            self.unacknowledged = 0;
        }
        self.ordering_lost(replica);
        let refusing = self.refusing();
        let view = self.config.view.clone();
        let usable = view.is_quorum(self.members());
        let is_master = self.is_master(replica);
        let Some(transaction) = self.transaction.as_mut() else { return };
        let Some(word) = transaction.words.get_mut(usize::from(replica.0)) else { return };
        word.reachable = false;
        match transaction.phase {
            Phase::Finishing { sent: true, .. } => self.judge(),
            Phase::Doomed { .. } => {}
            _ if !transaction.started => {}
            _ if is_master => match error {
                Some(error) => self.doom(error),
                None if transaction.begin.is_none() => self.lose_master(),
                None => self.orphan(),
            },
            _ => match error {
                Some(error) if view.has_correct(refusing) => self.doom(error),
                _ if !usable => self.doom(self.left_by_too_many()),
                _ => {}
            },
        }
    }

    /// Why a transaction cannot go on that some replicas never had, or have no more.
    fn left_by_too_many(&self) -> ShimError {
        if !self.config.view.is_quorum(self.linked()) {
            return self.unusable();
        }
        // Replicas that came back while it ran take part in the next one alone: in a rolling restart no client sees more
        // than this.
        ShimError::new(
            "40001",
            "replicas that executed the transaction were lost, and those that came back did not begin it",
        )
        .hint("Retry the transaction.")
    }

    /// All is said, and what became of the transaction is yet to be heard.
    fn awaits_outcome(&self) -> bool {
        let transaction = self.transaction.as_ref();
        transaction
            .is_some_and(|transaction| matches!(transaction.phase, Phase::Finishing { sent: true, .. }))
    }

    /// The session is over.
    pub(super) fn lose(&mut self, error: ShimError) {
        let error = self.last_word(error);
        self.close();
        self.events.push_back(Event::Lost(error));
    }

    /// The master and a quorum have the session.
    pub(super) fn is_usable(&self) -> bool {
        let open = |replica: ReplicaId| {
            matches!(self.replicas.get(usize::from(replica.0)), Some(Membership::Open { .. }))
        };
        open(self.config.master)
            && self.config.view.is_quorum(self.config.view.replicas().filter(|r| open(*r)))
    }

    /// Replicas that have the session or are opening it.
    pub(super) fn members(&self) -> Vec<ReplicaId> {
        self.which(|membership| matches!(membership, Membership::Opening | Membership::Open { .. }))
    }

    /// Replicas whose link is up.
    pub(super) fn linked(&self) -> Vec<ReplicaId> {
        self.which(|membership| *membership != Membership::Away)
    }

    fn refusing(&self) -> Vec<ReplicaId> {
        self.which(|membership| matches!(membership, Membership::Refused(_)))
    }

    fn which(&self, is: impl Fn(&Membership) -> bool) -> Vec<ReplicaId> {
        let members = self.config.view.replicas();
        members.filter(|replica| self.replicas.get(usize::from(replica.0)).is_some_and(&is)).collect()
    }

    /// Opens the session, with its statements, wherever the link is up and it is not open.
    pub(super) fn open_where_closed(&mut self) {
        if !self.config.backends {
            return;
        }
        // Without its settings it would answer otherwise there than elsewhere.
        let Some(settings) = self.settings.statements().map(<[String]>::to_vec) else { return };
        for replica in self.which(|membership| *membership == Membership::Closed) {
            let session = self.config.session.session;
            let open = ClientMessage::OpenSession {
                session,
                database: self.config.database.clone(),
                role: self.config.role.clone(),
                parameters: self.config.parameters.clone(),
            };
            self.send(vec![replica], open);
            if !settings.is_empty() {
                let settings = settings.clone();
                self.send(vec![replica], ClientMessage::Restore { session, settings });
            }
            for (statement, text) in self.statements.all() {
                let text = text.as_ref().clone();
                self.send(vec![replica], ClientMessage::Define { session, statement, text });
            }
            if let Some(membership) = self.replicas.get_mut(usize::from(replica.0)) {
                *membership = Membership::Opening;
            }
        }
    }

    /// Between transactions: asks again where the session was refused, and opens it where links have come back.
    pub(super) fn reopen(&mut self) {
        if self.over {
            return;
        }
        for membership in &mut self.replicas {
            if matches!(membership, Membership::Refused(_)) {
                *membership = Membership::Closed;
            }
        }
        self.open_where_closed();
    }

    /// Why no transaction can run.
    pub(super) fn unusable(&self) -> ShimError {
        let view: &View = &self.config.view;
        let mut states = Vec::new();
        let member = |replica: ReplicaId| Some((replica, self.replicas.get(usize::from(replica.0))?));
        for (replica, membership) in view.replicas().filter_map(member) {
            states.push(match membership {
                Membership::Away => format!("{replica}: not reachable"),
                Membership::Closed | Membership::Opening => format!("{replica}: no answer"),
                Membership::Open { .. } => continue,
                Membership::Refused(error) => format!("{replica}: {error}"),
            });
        }
        let master = self.config.master;
        let what = match self.replicas.get(usize::from(master.0)) {
            Some(Membership::Open { .. }) => "too few replicas are available".to_string(),
            _ => format!("the master replica {master} is not available"),
        };
        ShimError::new("57P03", what)
            .detail(format!("{}.", states.join("; ")))
            .hint("Retry; check that the replicas run and are reachable.")
    }
}
