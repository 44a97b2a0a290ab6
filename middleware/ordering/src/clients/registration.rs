//! How a client joins and leaves: what it asks for, and what the order makes of it.
//!
//! A registration carries the key that signed it, so whether it is valid is a function of the request alone, before and
//! after the client is known.

use crate::Request;
use borsh::{BorshDeserialize, BorshSerialize};
use steeldb_types::{ClientId, Digest, Timestamp, limits};
use steeldb_wire::auth::{Namespace, PublicKey, SecretKey, Signature};
use steeldb_wire::codec;

/// Joined clients are numbered from here on, those that the configuration lists below.
pub const FIRST_JOINED_CLIENT: ClientId = ClientId(1 << 31);

/// On whose behalf clients join, as the application sees it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, BorshSerialize, BorshDeserialize)]
pub struct Account {
    /// Its name: at most [`limits::ACCOUNT_BYTES_MAX`] bytes of the application's choice.
    pub name: Vec<u8>,
    /// How many of its clients may be joined at once; at least 1.
    pub sessions_max: u16,
}

/// Asks for a challenge.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Join {
    /// For which account: what the application makes of the credential, or the request is invalid.
    pub account: Account,
    /// Why the holder of the key may; at most [`limits::CREDENTIAL_BYTES_MAX`] bytes. All replicas see it, so it should
    /// name the key: something that is of use to whoever shows it could be stolen by a faulty one.
    pub credential: Vec<u8>,
    /// The agreed time after which this counts no more. Of two with one key the later one counts.
    pub until: Timestamp,
}

/// What a client asks for; see [`Request::Registration`].
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum Registration {
    /// A challenge, to join.
    Join(Join),
    /// To join, having read the challenge: so who joins is there, and reads what replicas answer.
    Confirm {
        /// What a quorum answered to the Join.
        challenge: Digest,
    },
    /// To leave: the number is never given to anyone again.
    Leave {
        /// Who leaves.
        client: ClientId,
    },
}

/// Which of the three a registration is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Step {
    /// [`Registration::Join`].
    Join,
    /// [`Registration::Confirm`].
    Confirm,
    /// [`Registration::Leave`].
    Leave,
}

/// What the order makes of a registration: the same on every replica.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum Registered {
    /// To be confirmed; nobody could know it before the Join was ordered.
    Challenge(Digest),
    /// The key's holder is this client now.
    Joined(ClientId),
    /// It is a client no more.
    Left,
    /// Nothing changes.
    Refused(JoinRefusal),
}

/// Why a registration changes nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, BorshSerialize, BorshDeserialize)]
pub enum JoinRefusal {
    /// It was ordered too late.
    #[error("the join was ordered after the time up to which it counts")]
    TooLate,
    /// It would count for longer than a join may.
    #[error("the join counts for longer than {max_ms} ms: is the client's clock right?")]
    TooLong {
        /// The bound, milliseconds.
        max_ms: u64,
    },
    /// A later one with the same key came first.
    #[error("a later join with the same key was ordered before")]
    Superseded,
    /// The account has as many clients as it may, and none was idle for long enough.
    #[error("the account has {sessions_max} clients joined or joining, as many as it may")]
    AccountFull {
        /// How many it may have.
        sessions_max: u16,
    },
    /// Too many joins wait to be confirmed, of this account or of all. Try again later.
    #[error("too many joins wait to be confirmed: try again later")]
    TooManyJoining,
    /// The cluster has as many clients as it may, and none was idle for long enough.
    #[error("the cluster has as many joined clients as it may")]
    Full,
    /// No join with this key waits to be confirmed: there was none, or it took too long.
    #[error("no join with this key waits to be confirmed")]
    NotJoining,
    /// Another challenge than the one given.
    #[error("this is not the challenge")]
    WrongChallenge,
    /// The key is not that client's.
    #[error("the key is not that of a client with this number")]
    NotJoined,
}

impl Account {
    fn check(&self) -> Result<(), String> {
        if self.name.len() > limits::ACCOUNT_BYTES_MAX {
            return Err(format!("an account's name has at most {} bytes", limits::ACCOUNT_BYTES_MAX));
        }
        if self.sessions_max == 0 {
            return Err("an account without clients".into());
        }
        Ok(())
    }
}

impl Registration {
    /// The request that asks for it, signed with the client's key.
    pub fn signed(self, key: &SecretKey) -> Request {
        let signature = key.sign(Namespace::Registration, &codec::encode(&self));
        Request::Registration { registration: self, key: key.public(), signature }
    }

    /// Which of the three it is.
    pub fn step(&self) -> Step {
        match self {
            Registration::Join(_) => Step::Join,
            Registration::Confirm { .. } => Step::Confirm,
            Registration::Leave { .. } => Step::Leave,
        }
    }

    /// The application's bytes in it.
    pub(crate) fn payload(&self) -> &[u8] {
        match self {
            Registration::Join(join) => &join.credential,
            Registration::Confirm { .. } | Registration::Leave { .. } => &[],
        }
    }

    /// Checks its bounds and that the holder of `key` asks for it.
    pub(crate) fn verify(&self, key: &PublicKey, signature: &Signature) -> Result<(), String> {
        if let Registration::Join(join) = self {
            join.account.check()?;
            if join.credential.len() > limits::CREDENTIAL_BYTES_MAX {
                return Err(format!("a credential has at most {} bytes", limits::CREDENTIAL_BYTES_MAX));
            }
        }
        key.verify(Namespace::Registration, &codec::encode(self), signature)
            .map_err(|error| format!("{:?} of {key:?}: {error}", self.step()))
    }
}
