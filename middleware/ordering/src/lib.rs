//! The ordering core: Mod-SMaRt over VP-Consensus (Sousa and Bessani, EDCC 2012) with WHEAT's weighted quorums
//! (SRDS 2015), as a sans-IO state machine. It puts requests into one total order on n replicas of which f may lie, and
//! knows nothing of what they mean.
//!
//! Events go in ([`Core::handle`]), effects come out ([`Core::poll_effect`]); time, storage and links belong to the
//! shell. The same events give the same effects, byte for byte.
//!
//! Invariants, each held up by the simulation (`tests/simulation`):
//! - **Agreement.** No two correct replicas decide different batches in an instance.
//! - **Total order.** Deliveries come in instance order without gaps, and positions count delivered requests.
//! - **Integrity.** A client's request is delivered at most once, and only if the client signed it and the
//!   [`Validator`] accepts it.
//! - **Liveness.** Once messages arrive in time, what a correct replica holds is decided.
//! - **Checkpoints.** What a replica starts from without having seen the decisions was signed by a correct replica that had.
//! - **Durable before dependent** (A7). The core keeps an effect back until every record that arose before it is
//!   durable; so an effect that was polled may be done at once, and the shell only reports [`Event::Persisted`].
//!
//! # A replicated counter
//!
//! ```
//! use std::collections::{BTreeMap, VecDeque};
//! use std::sync::Arc;
//! use steeldb_ordering::{AcceptAll, Config, Core, Effect, Event, Now, Request, RequestId, Restored, Roster};
//! use steeldb_types::{ClientId, ReplicaId, SessionId, SessionKey, Timestamp, View};
//! use steeldb_wire::auth::SecretKey;
//!
//! let keys: Vec<SecretKey> = (0..4u8).map(|i| SecretKey::from_seed(&[i; 32])).collect();
//! let publics = keys.iter().map(SecretKey::public).collect();
//! let roster = Roster::of_keys(View::of_size(4).unwrap(), publics).unwrap();
//! let client = SecretKey::from_seed(&[9; 32]);
//! let clients = BTreeMap::from([(ClientId(1), client.public())]);
//! let mut cores: Vec<Core> = roster
//!     .view()
//!     .replicas()
//!     .zip(&keys)
//!     .map(|(me, key)| {
//!         let config = Config::new(me, roster.clone(), key.clone(), clients.clone());
//!         Core::new(config, Restored::nothing()).unwrap()
//!     })
//!     .collect();
//!
//! // A client asks every replica to add 2, then 40.
//! let session = SessionKey { client: ClientId(1), session: SessionId(1) };
//! let mut events: VecDeque<(usize, Event)> = VecDeque::new();
//! for (sequence, amount) in [(1, 2u8), (2, 40)] {
//!     let request = Arc::new(Request::signed(RequestId { session, sequence }, vec![amount], &client));
//!     events.extend((0..4).map(|replica| (replica, Event::Request(Arc::clone(&request)))));
//! }
//!
//! let mut counters = [0u64; 4];
//! while let Some((me, event)) = events.pop_front() {
//!     cores[me].handle(Now { monotonic_us: 0, wall: Timestamp(0) }, event, &AcceptAll);
//!     while let Some(effect) = cores[me].poll_effect() {
//!         let from = ReplicaId(me as u16);
//!         match effect {
//!             Effect::Persist { sequence, .. } => events.push_back((me, Event::Persisted { upto: sequence })),
//!             Effect::Send { to, message } => events.push_back((to.0.into(), Event::Message { from, message })),
//!             Effect::Broadcast { message } => events.extend(
//!                 (0..4).filter(|to| *to != me).map(|to| (to, Event::Message { from, message: message.clone() })),
//!             ),
//!             Effect::Deliver(delivery) => {
//!                 counters[me] += delivery.requests.iter().map(|(_, r)| u64::from(r.payload()[0])).sum::<u64>();
//!             }
//!             _ => {}
//!         }
//!     }
//! }
//! assert_eq!(counters, [42; 4]);
//! ```

mod catchup;
mod checkpoint;
mod checkpointing;
mod clients;
mod config;
mod core;
mod early;
mod effect;
mod event;
mod ids;
mod instance;
mod ledger;
mod log;
mod membership;
mod message;
mod normal;
mod pending;
mod proof;
mod proposal;
mod record;
mod request;
mod restoring;
mod sizes;
mod stopdata;
mod synchronization;
mod tentative;
mod timeouts;
mod transfer;
mod window;

pub use checkpoint::{Checkpoint, CheckpointCertificate, StableCheckpoint};
pub use clients::{
    Account, FIRST_JOINED_CLIENT, Join, JoinRefusal, Registered, Registration, RegistryConfig, Step,
};
#[cfg(feature = "planted-bugs")]
pub use config::PlantedBug;
pub use config::{Config, StartError};
pub use core::Core;
pub use effect::{Delivery, Effect, Refusal, RegistrationOutcome, Tentative};
pub use event::{Event, Now};
pub use ids::{InstanceNumber, Regency};
pub use ledger::{BlockHeader, Ledger, LedgerError};
pub use membership::{Change, ChangeError, Joining, Member, Roster, RosterError, ViewChain};
pub use message::{Message, Part};
pub use proof::{Claim, Decision, Proof};
pub use proposal::Proposal;
pub use record::{Record, Restored};
pub use request::{AcceptAll, ORDERS_UNSIGNED_REQUESTS, Request, RequestId, RequestKey, Validator};
pub use sizes::QueueSizes;
pub use stopdata::{SignedStopData, StopData, Votes};
