//! Keeping up a link that this side dials.

use crate::link::Link;
use crate::traffic::Meter;
use crate::{LinkError, LinkOptions, ReplicaAddress, socket, tls};
use rand::Rng;
use std::sync::Arc;
use std::time::Duration;
use steeldb_wire::auth::SecretKey;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Dials one replica, again and again.
pub(crate) struct Dialler {
    replica: ReplicaAddress,
    connector: TlsConnector,
    options: LinkOptions,
    stop: CancellationToken,
    /// The next pause; nothing before the first attempt.
    pause: Option<Duration>,
    /// When the last link was handed out.
    linked: Option<Instant>,
    last_failure: String,
    meter: Arc<Meter>,
}

impl Dialler {
    /// Dials `replica` as the node with `own` key until `stop`.
    ///
    /// # Errors
    /// When TLS refuses the key.
    pub(crate) fn new(
        replica: ReplicaAddress,
        own: &SecretKey,
        options: LinkOptions,
        stop: CancellationToken,
        meter: Arc<Meter>,
    ) -> Result<Dialler, rustls::Error> {
        let connector = tls::connector(own, replica.key)?;
        let last_failure = String::new();
        Ok(Dialler { replica, connector, options, stop, pause: None, linked: None, last_failure, meter })
    }

    /// The next link; to be called when the last one has ended. Nothing once stopped. Pauses grow while the replica
    /// cannot be reached or does not keep its links; failures are logged when they change.
    pub(crate) async fn next(&mut self) -> Option<Link> {
        let stop = self.stop.clone();
        tokio::select! {
            link = self.redial() => Some(link),
            () = stop.cancelled() => None,
        }
    }

    async fn redial(&mut self) -> Link {
        // A link that lived proves that the peer is well; one that died young may be refused again.
        if self.linked.take().is_some_and(|since| since.elapsed() > self.options.redial_pause_max) {
            self.pause = Some(self.shortest_pause());
        }
        loop {
            let pause = self.pause.unwrap_or_default();
            let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.0));
            tokio::time::sleep(jittered).await;
            self.pause = Some((pause * 2).clamp(self.shortest_pause(), self.options.redial_pause_max));
            match self.connect().await {
                Ok(link) => {
                    self.last_failure.clear();
                    self.linked = Some(Instant::now());
                    return link;
                }
                Err(error) => {
                    self.meter.failed();
                    self.note(error.to_string());
                }
            }
        }
    }

    fn shortest_pause(&self) -> Duration {
        self.options.redial_pause_max / 64
    }

    fn note(&mut self, failure: String) {
        let ReplicaAddress { id, address, .. } = &self.replica;
        if failure == self.last_failure {
            debug!(peer = %id, %address, "still no link: {failure}");
        } else {
            warn!(peer = %id, %address, "no link: {failure}");
            self.last_failure = failure;
        }
    }

    /// One attempt.
    ///
    /// # Errors
    /// [`LinkError`] says what went wrong.
    pub(crate) async fn connect(&self) -> Result<Link, LinkError> {
        let limit: Duration = self.options.handshake_timeout;
        let attempt = async {
            let tcp = TcpStream::connect(self.replica.address.as_str()).await?;
            socket::tune(&tcp)?;
            let stream = tls::connect(&self.connector, tcp).await?;
            Link::welcomed(stream, &self.options).await
        };
        match timeout(limit, attempt).await {
            Ok(result) => result,
            Err(_) => Err(LinkError::HandshakeTimeout { seconds: limit.as_secs_f32() }),
        }
    }
}
