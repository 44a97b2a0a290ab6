//! Requests: what is ordered. The core reads their identity and checks signatures; payloads mean nothing to it.

use crate::clients::{FIRST_JOINED_CLIENT, Join, Registration, Step};
use crate::{Account, Roster};
use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::BTreeMap;
use std::fmt;
use steeldb_types::{ClientId, Digest, Hasher, SessionKey, limits};
use steeldb_wire::auth::{Namespace, PublicKey, SecretKey, Signature};
use steeldb_wire::codec;

/// A client's request: the n-th of one of its sessions.
///
/// A session's requests are executed in ascending sequence, each at most once. One ordered after a higher sequence of
/// the same session is stale and never executed, so a session waits for a request before it sends the next, or sends
/// them in order over one link and accepts that loss may make it number the lost ones anew.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct RequestId {
    /// Whose session, and which.
    pub session: SessionKey,
    /// Ascending within the session, from 1.
    pub sequence: u64,
}

/// Whether this build orders requests that nobody signed. Anything shipped asserts that it does not.
pub const ORDERS_UNSIGNED_REQUESTS: bool = cfg!(feature = "unsigned-requests");

#[cfg(feature = "unsigned-requests")]
const UNSIGNED: Signature = Signature([0; 64]);

/// What is ordered.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum Request {
    /// Signed by the client, executed at most once.
    Client {
        /// Which request.
        id: RequestId,
        /// The application's bytes.
        payload: Vec<u8>,
        /// The client's signature over (id, payload) in [`Namespace::Request`].
        signature: Signature,
    },
    /// Carries its own proof, such as a certificate of votes, judged by the [`Validator`] alone. May come from any
    /// replica.
    ///
    /// Copies with one key are merged while they wait, but one that comes back after its key was decided can be
    /// decided, and is delivered, again: the application lets the first one count.
    Certified {
        /// What the request is about: copies with equal keys need to be ordered once.
        key: Digest,
        /// The application's bytes, proof included.
        payload: Vec<u8>,
    },
    /// Changes who the replicas are, from the next instance on: alone in its batch, judged by the core. The
    /// application is told of the new view and need not read it.
    Membership {
        /// The encoded [`Change`](crate::Change).
        payload: Vec<u8>,
        /// Who signed it.
        administrator: PublicKey,
        /// Over the payload in [`Namespace::Membership`].
        signature: Signature,
    },
    /// Of a client that joined. It carries its key, so that whether it is valid is a function of it alone; it is executed,
    /// at most once, if the client is joined with this key then.
    Joined {
        /// Which request; the client's number is at least [`FIRST_JOINED_CLIENT`].
        id: RequestId,
        /// The client's key.
        key: PublicKey,
        /// The application's bytes.
        payload: Vec<u8>,
        /// As of [`Request::Client`].
        signature: Signature,
    },
    /// A client joins or leaves: judged by the core and, for its right to, by [`Validator::authorize`]. The application does not
    /// execute it.
    Registration {
        /// What is asked for.
        registration: Registration,
        /// Whose it is.
        key: PublicKey,
        /// Over the registration in [`Namespace::Registration`].
        signature: Signature,
    },
}

/// What a request is known by while it waits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RequestKey {
    /// Of a client, listed or joined.
    Client(RequestId),
    /// Carrying its own proof.
    Certified(Digest),
    /// A change of the membership, by its digest.
    Membership(Digest),
    /// A client's that joins or leaves: one of each kind waits at most.
    Registration(PublicKey, Step),
}

impl RequestKey {
    /// The client's session that it belongs to, if it is a client's.
    pub fn session(&self) -> Option<SessionKey> {
        match self {
            RequestKey::Client(id) => Some(id.session),
            RequestKey::Certified(_) | RequestKey::Membership(_) | RequestKey::Registration(..) => None,
        }
    }
}

/// The application's judgement of requests.
///
/// All functions must be pure and deterministic, of their arguments and of constants every replica shares: they may not
/// wait, look at the clock, or look at anything decided or received. All correct replicas must judge alike, or a
/// correct leader looks faulty. A verdict is kept as long as the request waits and the view lasts.
pub trait Validator {
    /// Whether `request`, which is no change of the membership and no registration, may be ordered in the view of `roster`.
    ///
    /// # Errors
    /// Says what is wrong with the request. Whoever proposed or passed it on is at fault.
    fn check(&self, request: &Request, roster: &Roster) -> Result<(), String>;

    /// Whether the application can bear that `next` follows the view of `roster`. The core has found it legal.
    ///
    /// # Errors
    /// Says what the application cannot do.
    fn check_change(&self, roster: &Roster, next: &Roster) -> Result<(), String> {
        let _ = (roster, next);
        Ok(())
    }

    /// For which account the holder of `key`, who signed `join`, may join by its credential. It is invalid unless that is
    /// the account that it names.
    ///
    /// # Errors
    /// Says why it may not.
    fn authorize(&self, join: &Join, key: &PublicKey) -> Result<Account, String> {
        let _ = (join, key);
        Err("this service's configuration lists its clients: none join".into())
    }
}

/// Accepts everything that is properly signed.
pub struct AcceptAll;

impl Validator for AcceptAll {
    fn check(&self, _request: &Request, _roster: &Roster) -> Result<(), String> {
        Ok(())
    }

    fn authorize(&self, join: &Join, _key: &PublicKey) -> Result<Account, String> {
        Ok(join.account.clone())
    }
}

impl Request {
    /// A client's request, signed with its key.
    pub fn signed(id: RequestId, payload: Vec<u8>, key: &SecretKey) -> Request {
        let signature = key.sign(Namespace::Request, &signed_bytes(&id, &payload));
        Request::Client { id, payload, signature }
    }

    /// A request of a client that joined, signed with its key.
    pub fn signed_joined(id: RequestId, payload: Vec<u8>, key: &SecretKey) -> Request {
        let signature = key.sign(Namespace::Request, &signed_bytes(&id, &payload));
        Request::Joined { id, key: key.public(), payload, signature }
    }

    /// A client's request that nobody signed; replicas built with this feature order it.
    #[cfg(feature = "unsigned-requests")]
    pub fn unsigned(id: RequestId, payload: Vec<u8>) -> Request {
        Request::Client { id, payload, signature: UNSIGNED }
    }

    /// What it is known by while it waits.
    pub fn key(&self) -> RequestKey {
        match self {
            Request::Client { id, .. } | Request::Joined { id, .. } => RequestKey::Client(*id),
            Request::Certified { key, .. } => RequestKey::Certified(*key),
            Request::Membership { .. } => RequestKey::Membership(self.digest()),
            Request::Registration { registration, key, .. } => {
                RequestKey::Registration(*key, registration.step())
            }
        }
    }

    /// The application's bytes.
    pub fn payload(&self) -> &[u8] {
        match self {
            Request::Client { payload, .. }
            | Request::Certified { payload, .. }
            | Request::Joined { payload, .. }
            | Request::Membership { payload, .. } => payload,
            Request::Registration { registration, .. } => registration.payload(),
        }
    }

    /// The digest of everything in it, signature included.
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::new("steeldb/request");
        match self {
            Request::Client { id, payload, signature } => {
                hasher.part(b"client").part(&codec::encode(id)).part(payload).part(&signature.0);
            }
            Request::Certified { key, payload } => {
                hasher.part(b"certified").part(&key.0).part(payload);
            }
            Request::Membership { payload, administrator, signature } => {
                hasher.part(b"membership").part(payload).part(&administrator.0).part(&signature.0);
            }
            Request::Joined { id, key, payload, signature } => {
                hasher.part(b"joined").part(&codec::encode(id)).part(&key.0);
                hasher.part(payload).part(&signature.0);
            }
            Request::Registration { registration, key, signature } => {
                hasher.part(b"registration").part(&codec::encode(registration));
                hasher.part(&key.0).part(&signature.0);
            }
        }
        hasher.finish()
    }

    /// Whether it changes the membership.
    pub fn is_membership(&self) -> bool {
        matches!(self, Request::Membership { .. })
    }

    /// Whether a client joins or leaves by it.
    pub fn is_registration(&self) -> bool {
        matches!(self, Request::Registration { .. })
    }

    /// Its size when it travels, give or take its framing.
    pub fn size_bytes(&self) -> usize {
        const OVERHEAD_BYTES: usize = 128;
        let account = if self.is_registration() { limits::ACCOUNT_BYTES_MAX } else { 0 };
        self.payload().len() + account + OVERHEAD_BYTES
    }

    /// Checks the client's signature; nothing to check for certificates and changes of the membership. Whether the key that
    /// a joined client's request or a registration carries is anyone's is not asked here.
    ///
    /// # Errors
    /// The client is unknown, or the signature does not verify.
    pub fn verify_signature(&self, client_keys: &BTreeMap<ClientId, PublicKey>) -> Result<(), String> {
        let (id, payload, signature) = match self {
            Request::Client { id, payload, signature } => (id, payload, signature),
            Request::Joined { id, key, payload, signature } => {
                if id.session.client < FIRST_JOINED_CLIENT {
                    return Err(format!("{} is no number of a joined client", id.session.client));
                }
                return verify_request(key, id, payload, signature);
            }
            Request::Registration { registration, key, signature } => {
                return registration.verify(key, signature);
            }
            Request::Certified { .. } | Request::Membership { .. } => return Ok(()),
        };
        #[cfg(feature = "unsigned-requests")]
        if *signature == UNSIGNED {
            return Ok(());
        }
        let client = id.session.client;
        let key = client_keys.get(&client).ok_or_else(|| format!("unknown client {client}"))?;
        verify_request(key, id, payload, signature)
    }
}

fn verify_request(
    key: &PublicKey,
    id: &RequestId,
    payload: &[u8],
    signature: &Signature,
) -> Result<(), String> {
    key.verify(Namespace::Request, &signed_bytes(id, payload), signature)
        .map_err(|error| format!("request {id:?}: {error}"))
}

fn signed_bytes(id: &RequestId, payload: &[u8]) -> Vec<u8> {
    codec::encode(&(id, payload))
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.session, self.sequence)
    }
}
