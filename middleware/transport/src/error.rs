//! Why a transport does not start and why a link ends.

use steeldb_wire::auth::PublicKey;

/// Why a transport does not start: the configuration or this host is at fault.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// One key stands for two nodes.
    #[error("the key {0} is configured twice: every replica and every client needs its own")]
    RepeatedKey(PublicKey),
    /// One number stands for two nodes.
    #[error("{0} is configured twice")]
    RepeatedId(String),
    /// The key or the TLS settings are refused.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why a link ended or never came to be.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The peer announced a frame above the bound: it misbehaved.
    #[error("peer misbehaved: it announced a frame of {length} bytes where at most {max} are allowed")]
    FrameTooLong {
        /// The length announced.
        length: usize,
        /// The bound.
        max: usize,
    },
    /// The connection ended inside a frame.
    #[error("the connection ended inside a frame")]
    Truncated,
    /// The peer closed the link.
    #[error("closed by the peer")]
    ClosedByPeer,
    /// The network or TLS failed; a wrong key is reported here by TLS.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The peer did not show who it is in time.
    #[error("no authenticated answer within {seconds} s")]
    HandshakeTimeout {
        /// How long it had.
        seconds: f32,
    },
    /// The peer did not accept this node: its key is not in the peer's configuration, or it has too many links.
    #[error(
        "the peer closed the connection instead of welcoming it: is this node's key in its configuration?"
    )]
    NotWelcome,
    /// The peer answered with something else than the empty frame.
    #[error("peer misbehaved: its first frame is not the empty one")]
    BadWelcome,
    /// A known key that may not connect here.
    #[error("{0}")]
    Unexpected(String),
    /// The peer takes less than it is sent.
    #[error("more than {max} bytes were waiting to be sent")]
    QueueFull {
        /// The bound.
        max: usize,
    },
    /// A newer link of the same peer took its place.
    #[error("replaced by a newer link")]
    Replaced,
    /// This side closed it.
    #[error("closed here")]
    ClosedHere,
}
