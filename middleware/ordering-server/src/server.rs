//! Starting and stopping a server.

use crate::application::Application;
use crate::followers::Followers;
use crate::guests::Guests;
use crate::reactor::{Inputs, Reactor};
use crate::service::Service;
use crate::shell::Shell;
use crate::storage::{Held, Storage};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use steeldb_ordering::{Core, InstanceNumber, Message, Restored};
use steeldb_transport::{LinkOptions, ReplicaAddress, ReplicaConfig, ReplicaLinks, ReplicaTransport};
use steeldb_types::limits;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What a server is told when it starts.
pub struct ServerConfig {
    /// The core's: who this is, view, keys, clients, time-outs.
    pub ordering: steeldb_ordering::Config,
    /// Where to listen: host:port.
    pub listen: String,
    /// Where the other replicas are; an entry for this one is passed over.
    pub replicas: Vec<ReplicaAddress>,
    /// Bounds of the links.
    pub options: LinkOptions,
}

/// Why a server cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The core refuses its configuration or its log.
    #[error(transparent)]
    Core(#[from] steeldb_ordering::StartError),
    /// The links cannot be set up.
    #[error(transparent)]
    Links(#[from] steeldb_transport::StartError),
    /// The log failed.
    #[error("the log failed: {0}")]
    Log(String),
    /// A checkpoint that was fetched cannot be kept or read.
    #[error("the checkpoint: {0}")]
    Checkpoint(String),
    /// The state here is not what the order makes of it.
    #[error(
        "the state after {0} is another one than what correct replicas signed: this replica must not go on; without its log and checkpoints it fetches theirs"
    )]
    StateDiffers(InstanceNumber),
    /// The application panicked.
    #[error("the server's task ended: {0}")]
    Ended(String),
}

/// A running server.
pub struct Server {
    links: ReplicaLinks,
    task: JoinHandle<Result<(), ServerError>>,
}

impl Server {
    /// Starts a replica of `application` in its initial state: what `storage` held brings it to where it was. `persisted`
    /// gives what `storage` reports later. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn start<A, S>(
        config: ServerConfig,
        application: A,
        storage: S,
        held: Held,
        persisted: mpsc::UnboundedReceiver<Result<u64, String>>,
    ) -> Result<Server, ServerError>
    where
        A: Application + 'static,
        S: Storage + 'static,
    {
        let ServerConfig { ordering, listen, replicas, options } = config;
        let me = ordering.me;
        let guests_max = if ordering.registry.is_some() { limits::GUESTS_MAX } else { 0 };
        let options = LinkOptions { guests_max, ..options };
        let transport = ReplicaConfig {
            id: me,
            key: ordering.key.clone(),
            listen,
            peers: replicas,
            clients: ordering.client_keys.iter().map(|(client, key)| (*client, *key)).collect(),
            options,
        };
        let mut service = Service::new(application);
        if let Some((instance, state)) = held.state {
            service.restore(instance, &state).map_err(ServerError::Checkpoint)?;
        }
        let delivered = service.delivered();
        let core = Core::new(ordering, Restored::new(delivered, held.records))?;
        let (links, link_events) = ReplicaTransport::start(transport).await?;
        let guests = Guests::new(core.joined_clients());
        for key in guests.keys() {
            links.welcome(key, true);
        }
        let (shell, reads) = Shell::new(core, storage, links.clone(), envelope);
        let (followers, follower_reads) = Followers::new(delivered);
        let reactor = Reactor {
            me,
            service,
            shell,
            followers,
            connections: BTreeMap::new(),
            guests,
            waiting: BTreeMap::new(),
        };
        let inputs = Inputs { links: link_events, persisted, reads, follower_reads };
        Ok(Server { links, task: tokio::spawn(reactor.run(inputs)) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.links.address()
    }

    /// Resolves when the server ends, and says why.
    ///
    /// # Errors
    /// [`ServerError`]; none after [`stop`](Server::stop).
    pub async fn ended(&mut self) -> Result<(), ServerError> {
        match (&mut self.task).await {
            Ok(ended) => ended,
            Err(error) => Err(ServerError::Ended(error.to_string())),
        }
    }

    /// Closes links and port; [`ended`](Server::ended) then resolves.
    pub fn stop(&self) {
        self.links.stop();
    }
}

fn envelope(message: Message) -> Bytes {
    Bytes::from(message.encode())
}
