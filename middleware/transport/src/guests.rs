//! Who visits a replica: configured clients, and guests, whose keys are in no configuration.
//!
//! Guests show a key like everyone else; what they may do is for the node to say. Those that it has not made welcome are
//! bounded together, and the oldest goes, as among half-open connections: to stay, one has to become welcome.

use crate::queue::{Queue, locked};
use crate::{ConnectionId, LinkOptions};
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};
use steeldb_types::ClientId;
use steeldb_wire::auth::PublicKey;

/// Whose connection it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visitor {
    Client(ClientId),
    Guest(PublicKey),
}

impl Visitor {
    /// The bounds of its link.
    pub(crate) fn options(self, options: LinkOptions) -> LinkOptions {
        match self {
            Visitor::Client(_) => options,
            Visitor::Guest(_) => {
                let frame_bytes_max = options.frame_bytes_max.min(options.guest_frame_bytes_max);
                LinkOptions { frame_bytes_max, ..options }
            }
        }
    }
}

impl fmt::Display for Visitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Visitor::Client(client) => write!(f, "{client}"),
            Visitor::Guest(key) => write!(f, "guest {key:?}"),
        }
    }
}

/// The keys of welcome guests.
#[derive(Default)]
pub(crate) struct Guests(Mutex<BTreeSet<PublicKey>>);

impl Guests {
    pub(crate) fn welcome(&self, key: PublicKey, welcome: bool) {
        let mut keys = locked(&self.0);
        if welcome {
            keys.insert(key)
        } else {
            keys.remove(&key)
        };
    }

    /// Which connection has to go when a guest comes; nothing while there is room.
    pub(crate) fn crowded_out(
        &self,
        coming: PublicKey,
        open: &HashMap<ConnectionId, (Visitor, Arc<Queue>)>,
        max: usize,
    ) -> Option<ConnectionId> {
        let welcome = locked(&self.0);
        if welcome.contains(&coming) {
            return None;
        }
        let is_unwelcome =
            |visitor: &Visitor| matches!(visitor, Visitor::Guest(key) if !welcome.contains(key));
        let unwelcome = || open.iter().filter(|(_, (visitor, _))| is_unwelcome(visitor)).map(|(id, _)| *id);
        if unwelcome().count() < max { None } else { unwelcome().min() }
    }
}
