//! Replicas that lie to clients, to be among the f that may.

use crate::identity;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use steeldb_ordering::{Claim, InstanceNumber, Regency, RequestKey};
use steeldb_ordering_log::{Directory, Disk};
use steeldb_ordering_server::{ClientMessage, Reply, ServerMessage};
use steeldb_transport::{LinkEvent, LinkOptions, ReplicaConfig, ReplicaLinks, ReplicaTransport, StartError};
use steeldb_types::{ClientId, Digest, Position, ReplicaId};

/// What a replica that otherwise does as it should lies about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Lie {
    /// All results.
    Replies,
    /// Progress: nothing has happened yet.
    Queries,
    /// The state that it hands to replicas which fetch it.
    State,
}

/// A disk that gives back other bytes than were written, when it is asked for a part of a file.
pub struct LyingDisk(pub Directory);

impl Disk for LyingDisk {
    fn name(&self) -> String {
        self.0.name()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn length(&self, file: &str) -> io::Result<u64> {
        self.0.length(file)
    }

    fn read(&self, file: &str) -> io::Result<Vec<u8>> {
        self.0.read(file)
    }

    fn read_at(&self, file: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = self.0.read_at(file, offset, length)?;
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
        Ok(bytes)
    }

    fn write_at(&self, file: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(file, offset, bytes)
    }

    fn set_len(&self, file: &str, length: u64) -> io::Result<()> {
        self.0.set_len(file, length)
    }

    fn sync(&self, file: &str) -> io::Result<()> {
        self.0.sync(file)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.0.sync_names()
    }

    fn remove(&self, file: &str) -> io::Result<()> {
        self.0.remove(file)
    }
}

/// A replica that orders nothing and says at once that whatever a client wants was executed, at the next position, in a
/// batch that nobody has seen.
pub struct Forger {
    links: ReplicaLinks,
}

impl Forger {
    /// Takes the place of `replica`, which must not run. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// As [`ReplicaTransport::start`].
    pub async fn start(replica: ReplicaId, listen: &str, clients: u32) -> Result<Forger, StartError> {
        let key_of = |client| (ClientId(client), identity::client_key(ClientId(client)).public());
        let config = ReplicaConfig {
            id: replica,
            key: identity::replica_key(replica),
            listen: listen.to_string(),
            peers: Vec::new(),
            clients: (1..=clients).map(key_of).collect(),
            options: LinkOptions::default(),
        };
        let (links, mut events) = ReplicaTransport::start(config).await?;
        let forger = Forger { links: links.clone() };
        tokio::spawn(async move {
            let mut position = Position(0);
            let mut lies: BTreeMap<_, Position> = BTreeMap::new();
            while let Some(event) = events.recv().await {
                let LinkEvent::ClientFrame(connection, frame) = event else { continue };
                let Ok(ClientMessage::Order(request)) = ClientMessage::decode(&frame) else { continue };
                let RequestKey::Client(id) = request.key() else { continue };
                position = *lies.entry(id).or_insert_with(|| position.next());
                for result in [b"a lie".to_vec(), request.payload().to_vec()] {
                    let reply = Reply { position, result };
                    let claim = Claim { regency: Regency::default(), value: Digest::default() };
                    let view = claim.regency.view;
                    let instance = InstanceNumber(position.0);
                    let tentative = ServerMessage::Tentative { id, instance, claim, reply: reply.clone() };
                    links.send_client(connection, tentative.encode());
                    links.send_client(connection, ServerMessage::Executed { id, view, reply }.encode());
                }
            }
        });
        Ok(forger)
    }
}

impl Drop for Forger {
    fn drop(&mut self) {
        self.links.stop();
    }
}
