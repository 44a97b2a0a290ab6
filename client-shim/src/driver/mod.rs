//! The driver: the links of a proxy, shared by its sessions, and the clock. It moves bytes between links and cores and
//! decides nothing.

mod inbox;
mod links;
mod membership;
mod numbers;
mod session;
mod terms;

pub use links::Links;
pub use session::{Canceller, Session};

use crate::core::{Core, CoreConfig, Event};
use crate::views::Views;
use crate::{ShimError, TableDigest};
use bytes::Bytes;
use inbox::{Inbox, Input};
pub use membership::RoundTrips;
use membership::Waiters;
use numbers::Numbers;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use steeldb_ordering::{Member, Roster};
use steeldb_transport::{
    ClientConfig, ClientEvent, ClientTransport, LinkOptions, ReplicaAddress, StartError, Traffic,
};
use steeldb_types::{ClientId, Execution, Position, ReplicaId, SessionId, SessionKey, Term, View, limits};
use steeldb_wire::auth::SecretKey;
use steeldb_wire::codec::decode;
use steeldb_wire::transaction::ReplicaMessage;
use terms::Terms;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// What the shim of one client needs.
#[derive(Clone, Debug)]
pub struct ShimConfig {
    /// The client, as replicas know it.
    pub client: ClientId,
    /// Its key.
    pub key: SecretKey,
    /// The replicas and their weights in the view that the cluster began with; later ones are learned.
    pub view: View,
    /// The master of the first term; later ones are learned.
    pub master: ReplicaId,
    /// When the other replicas execute: how soon they want to hear what.
    pub execution: Execution,
    /// COPY data that a transaction may have, bytes, as the replicas are configured.
    pub bulk_bytes_max: u64,
    /// How long to wait for replicas.
    pub patience: Patience,
}

/// How long to wait for replicas before an error is shown. Statements themselves may take as long as they like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// For a session's backends.
    pub opening: Duration,
    /// For a lost master or quorum to come back, when a transaction starts.
    pub replicas: Duration,
    /// For a BEGIN to be ordered.
    pub slot: Duration,
    /// For another master to take over when the link to the master is lost in a transaction.
    pub master: Duration,
    /// For a transaction's outcome after COMMIT or ROLLBACK; past it a COMMIT is in doubt. Longer by four times what the
    /// transaction has taken, and by four seconds for each megabyte it sent.
    pub outcome: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            opening: Duration::from_secs(30),
            // Above the time in which a silent master is replaced, several times over.
            replicas: limits::MASTER_SILENCE * 10,
            slot: Duration::from_secs(30),
            master: limits::MASTER_SILENCE * 10,
            // Above T_vote several times over: replicas settle what they can long before.
            outcome: limits::VOTE_TIMEOUT * 12,
        }
    }
}

/// One replica's answer to [`Shim::verify`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedReplica {
    /// Which replica.
    pub replica: ReplicaId,
    /// The place in the order at which it took the digests: the same for all correct replicas.
    pub position: Position,
    /// One digest per table, ascending by name; or why it could not take them.
    pub tables: Result<Vec<TableDigest>, String>,
}

/// A client's shim: its links and its sessions. Clones share them.
#[derive(Clone)]
pub struct Shim {
    shared: Arc<Shared>,
}

struct Shared {
    config: ShimConfig,
    key: Arc<SecretKey>,
    links: Arc<dyn Links>,
    state: Mutex<State>,
    numbers: Mutex<Numbers>,
}

/// Guarded together, so that a session that starts misses no change of a link and hears of none twice.
struct State {
    inboxes: HashMap<SessionId, Arc<Inbox>>,
    /// Which links are up, as far as events told.
    up: BTreeSet<ReplicaId>,
    /// The newest view known.
    view: View,
    /// The newest master's term known, and what each replica last said of it.
    terms: Terms,
    /// How it is known; nothing over links that know no keys.
    views: Option<Views>,
    waiters: Waiters,
}

impl Shim {
    /// Dials the replicas and keeps the links up. Call it inside a tokio runtime. The links end with the last clone
    /// and the last session.
    ///
    /// # Errors
    /// [`StartError`] when `replicas` repeat a number or a key.
    pub fn start(config: ShimConfig, replicas: Vec<ReplicaAddress>) -> Result<Shim, StartError> {
        let member = |replica: &ReplicaAddress| Member {
            id: replica.id,
            key: replica.key,
            address: replica.address.clone(),
        };
        // Replicas that are not the view's, or repeat a key, are refused below.
        let genesis = Roster::new(config.view.clone(), replicas.iter().map(member).collect()).ok();
        let (links, events) = ClientTransport::start(ClientConfig {
            client: config.client,
            key: config.key.clone(),
            replicas,
            options: LinkOptions::default(),
        })?;
        Ok(Shim::with(config, Arc::new(links), events, genesis.map(Views::new)))
    }

    /// A shim over links of any kind, which knows no keys and stays in one view.
    pub fn over(config: ShimConfig, links: Arc<dyn Links>, events: mpsc::Receiver<ClientEvent>) -> Shim {
        Shim::with(config, links, events, None)
    }

    fn with(
        config: ShimConfig,
        links: Arc<dyn Links>,
        events: mpsc::Receiver<ClientEvent>,
        views: Option<Views>,
    ) -> Shim {
        let key = Arc::new(config.key.clone());
        let view = config.view.clone();
        let (inboxes, up, waiters) = (HashMap::new(), BTreeSet::new(), Vec::new());
        let terms = Terms::new(Term::first(config.master));
        let state = Mutex::new(State { inboxes, up, view, terms, views, waiters });
        let shared = Arc::new(Shared { config, key, links, state, numbers: Mutex::default() });
        tokio::spawn(dispatch(Arc::downgrade(&shared), events));
        Shim { shared }
    }

    /// Opens a session: one backend on every replica. Ready when the master and a quorum have it.
    ///
    /// # Errors
    /// What the master or f + 1 replicas say against it, or that too few answer.
    pub async fn open(
        &self,
        database: &str,
        role: &str,
        parameters: Vec<(String, String)>,
    ) -> Result<Session, ShimError> {
        let mut session = self.session(database, role, parameters, true);
        loop {
            match session.event().await {
                Event::Opened { parameters } => {
                    session.set_parameters(parameters);
                    return Ok(session);
                }
                Event::Lost(error) => return Err(error),
                _ => {}
            }
        }
    }

    /// The digests of all tables of `database` on every replica, at one place in the order. Waits for all replicas, at
    /// most for `patience`; those that have not answered are missing in the result.
    ///
    /// # Errors
    /// When the request is turned away.
    pub async fn verify(
        &self,
        database: &str,
        patience: Duration,
    ) -> Result<Vec<VerifiedReplica>, ShimError> {
        let deadline = Instant::now() + patience;
        self.connected(patience).await;
        // Replicas answer to the session's key; no backend is needed, so none is opened.
        let mut session = self.session(database, "", Vec::new(), false);
        session.verify();
        let mut answers: Vec<VerifiedReplica> = Vec::new();
        while answers.len() < usize::from(self.shared.view().n()) {
            match tokio::time::timeout_at(deadline, session.event()).await {
                Ok(Event::Verified { replica, position, tables }) => {
                    answers.push(VerifiedReplica { replica, position, tables });
                }
                Ok(Event::Lost(error)) => return Err(error),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        answers.sort_by_key(|answer| answer.replica);
        Ok(answers)
    }

    /// Waits until the links to all replicas are up, at most for `patience`; whether they are. A replica whose link
    /// comes up later has to catch up with what was committed before.
    pub async fn connected(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while !self.all_up() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20).min(deadline - Instant::now())).await;
        }
        self.all_up()
    }

    /// Which replicas' links are up.
    pub fn links_up(&self) -> Vec<ReplicaId> {
        let state = self.shared.state();
        state.view.replicas().filter(|replica| state.is_up(*replica)).collect()
    }

    /// What went over the link with each replica.
    pub fn traffic(&self) -> BTreeMap<ReplicaId, Traffic> {
        self.shared.links.traffic()
    }

    /// The newest master's term that f + 1 replicas spoke of.
    pub fn term(&self) -> Term {
        self.shared.term()
    }

    fn all_up(&self) -> bool {
        self.links_up().len() == usize::from(self.shared.view().n())
    }

    fn session(
        &self,
        database: &str,
        role: &str,
        parameters: Vec<(String, String)>,
        backends: bool,
    ) -> Session {
        let config = &self.shared.config;
        let id = self.shared.numbers.lock().unwrap_or_else(PoisonError::into_inner).draw();
        let mut state = self.shared.state();
        let inbox = Arc::new(Inbox::new(state.view.table_len()));
        let core = CoreConfig {
            view: state.view.clone(),
            master: state.terms.current().master,
            epoch: state.terms.current().epoch,
            session: SessionKey { client: config.client, session: id },
            key: self.shared.key.clone(),
            database: database.to_string(),
            role: role.to_string(),
            parameters,
            backends,
            bulk_bytes_max: config.bulk_bytes_max,
            #[cfg(feature = "planted-bugs")]
            planted_bug: None,
        };
        let core = Core::new(core, |replica| state.is_up(replica));
        state.inboxes.insert(id, inbox.clone());
        drop(state);
        Session::new(core, self.shared.clone(), inbox, id)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Whole between statements, whatever a thread that panicked left behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self) -> View {
        self.state().view.clone()
    }

    fn term(&self) -> Term {
        self.state().terms.current()
    }

    /// A replica says which term runs.
    fn term_said(&self, from: ReplicaId, term: Term) {
        let mut state = self.state();
        let State { terms, view, .. } = &mut *state;
        if let Some(term) = terms.said(view, from, term) {
            tracing::info!(epoch = term.epoch, master = %term.master, "the master changed");
            for inbox in state.inboxes.values() {
                inbox.push(Input::TermBegan(term));
            }
        }
    }

    fn link_changed(&self, replica: ReplicaId, up: bool) {
        let mut state = self.state();
        match up {
            true => state.up.insert(replica),
            false => state.up.remove(&replica),
        };
        if let Some(views) = state.views.as_mut().filter(|_| up) {
            views.link_up(replica);
        }
        for inbox in state.inboxes.values() {
            inbox.push(if up { Input::LinkUp(replica) } else { Input::LinkDown(replica) });
        }
    }
}

impl State {
    fn is_up(&self, replica: ReplicaId) -> bool {
        self.up.contains(&replica)
    }

    fn view_changed(&mut self, view: &View) {
        self.view = view.clone();
        for inbox in self.inboxes.values() {
            inbox.push(Input::ViewChanged(view.clone()));
        }
    }
}

/// Hands what comes over the links to the sessions it is for.
async fn dispatch(shared: Weak<Shared>, mut events: mpsc::Receiver<ClientEvent>) {
    while let Some(event) = events.recv().await {
        let Some(shared) = shared.upgrade() else { return };
        match event {
            ClientEvent::ReplicaUp(replica) => shared.link_changed(replica, true),
            ClientEvent::ReplicaDown(replica) => shared.link_changed(replica, false),
            ClientEvent::Frame(replica, frame) => route(&shared, replica, &frame),
        }
    }
}

fn route(shared: &Shared, replica: ReplicaId, frame: &Bytes) {
    let message: ReplicaMessage = match decode(frame, limits::FRAME_BYTES_MAX) {
        Ok(message) => message,
        Err(error) => return tracing::warn!(%replica, %error, "a replica sent what is no message"),
    };
    let session = match &message {
        ReplicaMessage::Membership(_) => {
            if let ReplicaMessage::Membership(reply) = message {
                shared.membership(replica, reply);
            }
            return;
        }
        ReplicaMessage::Term(term) => return shared.term_said(replica, *term),
        ReplicaMessage::SessionOpened { session, .. }
        | ReplicaMessage::SessionRefused { session, .. }
        | ReplicaMessage::Maintained { session, .. }
        | ReplicaMessage::Verified { session, .. }
        | ReplicaMessage::Told { session, .. }
        | ReplicaMessage::Refused { session, .. } => *session,
        ReplicaMessage::Begun { tx, .. }
        | ReplicaMessage::Result { tx, .. }
        | ReplicaMessage::Executed { tx, .. }
        | ReplicaMessage::Transcript { tx, .. }
        | ReplicaMessage::Outcome { tx, .. }
        | ReplicaMessage::Tentative { tx, .. }
        | ReplicaMessage::NotReproduced { tx } => {
            if tx.session.client != shared.config.client {
                return;
            }
            tx.session.session
        }
    };
    let inbox = shared.state().inboxes.get(&session).cloned();
    if let Some(inbox) = inbox {
        inbox.message(replica, message, frame.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeCluster, FakeLinks, Lie};

    fn shim(cluster: FakeCluster) -> Shim {
        shim_with(cluster, Patience::default())
    }

    fn impatient(cluster: FakeCluster) -> Shim {
        shim_with(cluster, Patience { opening: Duration::from_millis(1), ..Patience::default() })
    }

    fn shim_with(cluster: FakeCluster, patience: Patience) -> Shim {
        let view = cluster.view();
        let (links, events) = FakeLinks::start(Arc::new(Mutex::new(cluster)));
        let config = ShimConfig {
            client: ClientId(1),
            key: SecretKey::from_seed(&[5; 32]),
            view,
            master: ReplicaId(0),
            execution: Execution::default(),
            bulk_bytes_max: limits::BULK_BYTES_MAX,
            patience,
        };
        Shim::over(config, Arc::new(links), events)
    }

    #[tokio::test]
    async fn verify_shows_each_replicas_tables_and_who_is_missing() {
        let mut cluster = FakeCluster::new(4);
        cluster.replica(1).lie = Lie::OtherRows;
        let answers = shim(cluster).verify("db", Duration::from_secs(600)).await.unwrap();
        let digests: Vec<_> =
            answers.iter().map(|answer| answer.tables.as_ref().unwrap()[0].digest.as_str()).collect();
        assert_eq!(digests, ["abc", "f00", "abc", "abc"]);

        let mut cluster = FakeCluster::new(4);
        cluster.replica(2).lie = Lie::Silent;
        let answers = shim(cluster).verify("db", Duration::from_secs(2)).await.unwrap();
        let replicas: Vec<_> = answers.iter().map(|answer| answer.replica.0).collect();
        assert_eq!(replicas, [0, 1, 3]);
    }

    #[tokio::test]
    async fn sessions_are_numbered_anew_and_a_refused_one_says_why() {
        let shim = shim(FakeCluster::new(4));
        let mut seen = std::collections::HashSet::new();
        for _ in 0..3 {
            let mut session = shim.open("db", "app", vec![]).await.unwrap();
            session.begin(Default::default());
            assert!(seen.insert(session.tx().unwrap().session.session));
        }
        let error = shim.open("db", "nobody", vec![]).await.err().unwrap();
        assert_eq!(error.sqlstate.as_str(), "28000");
        assert!(shim.shared.state().inboxes.is_empty(), "closed sessions leave nothing behind");
    }

    #[tokio::test]
    async fn what_takes_too_long_is_an_error() {
        let mut cluster = FakeCluster::new(4);
        for replica in [2, 3] {
            cluster.replica(replica).lie = Lie::Silent;
        }
        let error = impatient(cluster).open("db", "app", vec![]).await.err().unwrap();
        assert_eq!(error.sqlstate.as_str(), "57P03");
    }
}
