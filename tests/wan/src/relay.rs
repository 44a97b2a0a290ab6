//! A relay: where the processes of one site reach one process of another.

use crate::emulator::{Emulator, Pair};
use crate::line::pass_on;
use serde::Deserialize;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What a relay stands for.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayConfig {
    /// The site of those who connect.
    pub from: String,
    /// The site of the target.
    pub to: String,
    /// Where it listens: host:port; port 0 for any.
    pub listen: String,
    /// Where the target listens: host:port.
    pub target: String,
}

/// A running relay; ends with its value, and its connections with it.
pub struct Relay {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Relay {
    /// Listens. Connections to a target that is not there end at once.
    ///
    /// # Errors
    /// When a site is unknown, or nothing can listen there.
    pub async fn start(emulator: &Emulator, config: RelayConfig) -> anyhow::Result<Relay> {
        let there = emulator.pair(&config.from, &config.to)?;
        let back = emulator.pair(&config.to, &config.from)?;
        let listener = TcpListener::bind(&config.listen)
            .await
            .map_err(|error| anyhow::anyhow!("cannot listen on {}: {error}", config.listen))?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        // Out of descriptors, or gone before it was accepted: others may come.
                        let Ok((from, _)) = accepted else { continue };
                        connections.spawn(connection(from, config.target.clone(), there.clone(), back.clone()));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Relay { address, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connection(from: TcpStream, target: String, there: Pair, back: Pair) {
    // The handshake takes a round trip. What the dialler already sends is read after it.
    let now = tokio::time::Instant::now();
    tokio::time::sleep_until(back.arrival(there.arrival(now, 0), 0)).await;
    there.mended().await;
    back.mended().await;
    let Ok(to) = TcpStream::connect(target).await else { return };
    if from.set_nodelay(true).and_then(|()| to.set_nodelay(true)).is_err() {
        return;
    }
    let (from_reader, from_writer) = from.into_split();
    let (to_reader, to_writer) = to.into_split();
    // Either side's failure ends both, as a reset would.
    let _ = tokio::try_join!(pass_on(from_reader, to_writer, there), pass_on(to_reader, from_writer, back));
}
