//! What a transport is bounded by.

use std::time::Duration;
use steeldb_types::limits;

/// Bounds of a transport. The default is [`steeldb_types::limits`]; tests set smaller ones to reach their edges.
#[derive(Clone, Copy, Debug)]
pub struct LinkOptions {
    /// The largest frame, bytes.
    pub frame_bytes_max: usize,
    /// Bytes queued on one link.
    pub queue_bytes_max: usize,
    /// Events waiting to be received.
    pub events_max: usize,
    /// Bytes of received frames that are not done with, over all links.
    pub event_bytes_max: usize,
    /// Connections that have not shown who they are.
    pub half_open_max: usize,
    /// Connections of one client.
    pub connections_per_client_max: usize,
    /// Connections, in all, of guests that are not welcome ([`ReplicaLinks::welcome`](crate::ReplicaLinks::welcome)): of
    /// keys that are not configured. Past it the oldest of them is closed. 0: there are no guests, unknown keys are refused.
    pub guests_max: usize,
    /// The largest frame of a guest, bytes.
    pub guest_frame_bytes_max: usize,
    /// How long a connection may take to show who it is.
    pub handshake_timeout: Duration,
    /// The longest pause before dialling again; the shortest is a sixty-fourth of it.
    pub redial_pause_max: Duration,
}

impl Default for LinkOptions {
    fn default() -> Self {
        LinkOptions {
            frame_bytes_max: limits::FRAME_BYTES_MAX,
            queue_bytes_max: limits::LINK_QUEUE_BYTES_MAX,
            events_max: limits::LINK_EVENTS_MAX,
            event_bytes_max: limits::LINK_EVENT_BYTES_MAX,
            half_open_max: limits::HALF_OPEN_MAX,
            connections_per_client_max: limits::CONNECTIONS_PER_CLIENT_MAX,
            guests_max: 0,
            guest_frame_bytes_max: limits::GUEST_FRAME_BYTES_MAX,
            handshake_timeout: limits::HANDSHAKE_TIMEOUT,
            redial_pause_max: limits::REDIAL_PAUSE_MAX,
        }
    }
}
