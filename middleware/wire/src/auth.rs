//! Ed25519 keys and signatures. Everything signed is signed in a namespace, so that no signature of one kind can pass
//! for another; there is one verify function, the strict one, everywhere, so that all correct replicas agree on what a
//! valid signature is.

use borsh::{BorshDeserialize, BorshSerialize};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::fmt;
use zeroize::Zeroizing;

/// What a signature is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Namespace {
    /// A client's request to be ordered.
    Request,
    /// A client's Finish.
    Finish,
    /// A replica's batch of votes.
    Votes,
    /// The master's stream of executed operations.
    Stream,
    /// A replica's WRITE message.
    Write,
    /// A replica's ACCEPT message.
    Accept,
    /// A replica's STOP message.
    Stop,
    /// A replica's STOPDATA message.
    StopData,
    /// A leader's PROPOSE message.
    Propose,
    /// A leader's SYNC message.
    Sync,
    /// A replica's checkpoint.
    Checkpoint,
    /// An administrator's change of the membership.
    Membership,
    /// A client that joins or leaves.
    Registration,
    /// What an application's authority signs for a client's key, so that it may join.
    Credential,
    /// A replica's accusation of the master.
    Accusation,
    /// An administrator's wish for another master.
    MasterMove,
    /// A replica's word that a session is over.
    SessionOver,
}

impl Namespace {
    fn tag(self) -> &'static [u8] {
        match self {
            Namespace::Request => b"steeldb/1/request\0",
            Namespace::Finish => b"steeldb/1/finish\0",
            Namespace::Votes => b"steeldb/1/votes\0",
            Namespace::Stream => b"steeldb/1/stream\0",
            Namespace::Write => b"steeldb/1/write\0",
            Namespace::Accept => b"steeldb/1/accept\0",
            Namespace::Stop => b"steeldb/1/stop\0",
            Namespace::StopData => b"steeldb/1/stopdata\0",
            Namespace::Propose => b"steeldb/1/propose\0",
            Namespace::Sync => b"steeldb/1/sync\0",
            Namespace::Checkpoint => b"steeldb/1/checkpoint\0",
            Namespace::Membership => b"steeldb/1/membership\0",
            Namespace::Registration => b"steeldb/1/registration\0",
            Namespace::Credential => b"steeldb/1/credential\0",
            Namespace::Accusation => b"steeldb/1/accusation\0",
            Namespace::MasterMove => b"steeldb/1/master-move\0",
            Namespace::SessionOver => b"steeldb/1/session-over\0",
        }
    }
}

/// An Ed25519 public key; shown and configured as 64 hexadecimal digits.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    BorshSerialize,
    BorshDeserialize,
    Serialize,
    Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(pub [u8; 32]);

/// An Ed25519 signature: 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Signature(pub [u8; 64]);

/// An Ed25519 secret key. Never printed; wiped from memory when dropped.
pub struct SecretKey(SigningKey);

/// Why a key or a signature was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AuthError {
    /// Not 64 hexadecimal digits.
    #[error("a key is written as 64 hexadecimal digits")]
    NotHex,
    /// Not a point of the curve.
    #[error("not an Ed25519 public key")]
    NotAKey,
    /// The signature does not verify.
    #[error("the signature does not verify")]
    BadSignature,
}

impl PublicKey {
    /// Verifies `signature` over `message` in `namespace`, strictly (no small-order keys, canonical encodings).
    ///
    /// # Errors
    /// [`AuthError::NotAKey`] or [`AuthError::BadSignature`].
    pub fn verify(
        &self,
        namespace: Namespace,
        message: &[u8],
        signature: &Signature,
    ) -> Result<(), AuthError> {
        let key = self.parsed()?;
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        key.verify_strict(&namespaced(namespace, message), &signature).map_err(|_| AuthError::BadSignature)
    }

    /// The point that the bytes stand for. Decompressing it is a good part of a verification and a process knows few
    /// keys, so each thread remembers some.
    fn parsed(&self) -> Result<VerifyingKey, AuthError> {
        KEYS.with_borrow_mut(|keys| {
            if let Some((_, key)) = keys.iter().find(|(bytes, _)| *bytes == self.0) {
                return Ok(*key);
            }
            let key = VerifyingKey::from_bytes(&self.0).map_err(|_| AuthError::NotAKey)?;
            if keys.len() >= KEYS_REMEMBERED {
                keys.clear();
            }
            keys.push((self.0, key));
            Ok(key)
        })
    }
}

/// Parsed keys that each thread remembers.
const KEYS_REMEMBERED: usize = 64;

thread_local! {
    static KEYS: RefCell<Vec<([u8; 32], VerifyingKey)>> = const { RefCell::new(Vec::new()) };
}

impl SecretKey {
    /// The key whose 32 secret bytes are `seed`.
    pub fn from_seed(seed: &[u8; 32]) -> SecretKey {
        SecretKey(SigningKey::from_bytes(seed))
    }

    /// Reads 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`AuthError::NotHex`].
    pub fn from_hex(text: &str) -> Result<SecretKey, AuthError> {
        let mut seed = Zeroizing::new([0u8; 32]);
        hex::decode_to_slice(text.trim(), seed.as_mut_slice()).map_err(|_| AuthError::NotHex)?;
        Ok(SecretKey::from_seed(&seed))
    }

    /// The 32 secret bytes, to be written to a key file that only its owner can read, or handed to TLS.
    pub fn to_seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs `message` in `namespace`. Deterministic.
    pub fn sign(&self, namespace: Namespace, message: &[u8]) -> Signature {
        Signature(self.0.sign(&namespaced(namespace, message)).to_bytes())
    }
}

impl Clone for SecretKey {
    fn clone(&self) -> Self {
        SecretKey(SigningKey::from_bytes(&self.0.to_bytes()))
    }
}

fn namespaced(namespace: Namespace, message: &[u8]) -> Vec<u8> {
    [namespace.tag(), message].concat()
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {:?})", self.public())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0[..8]))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({})", hex::encode(&self.0[..8]))
    }
}

impl TryFrom<String> for PublicKey {
    type Error = AuthError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut bytes = [0u8; 32];
        hex::decode_to_slice(text.trim(), &mut bytes).map_err(|_| AuthError::NotHex)?;
        VerifyingKey::from_bytes(&bytes).map_err(|_| AuthError::NotAKey)?;
        Ok(PublicKey(bytes))
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> String {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_message_namespace_and_key_alone() {
        let key = SecretKey::from_seed(&[7; 32]);
        let other = SecretKey::from_seed(&[8; 32]);
        let signature = key.sign(Namespace::Votes, b"yes");
        assert_eq!(key.public().verify(Namespace::Votes, b"yes", &signature), Ok(()));
        assert_eq!(key.public().verify(Namespace::Votes, b"no", &signature), Err(AuthError::BadSignature));
        assert_eq!(key.public().verify(Namespace::Finish, b"yes", &signature), Err(AuthError::BadSignature));
        assert_eq!(other.public().verify(Namespace::Votes, b"yes", &signature), Err(AuthError::BadSignature));
    }

    #[test]
    fn a_secret_key_never_shows_itself() {
        let key = SecretKey::from_seed(&[7; 32]);
        assert!(!format!("{key:?}").contains(&hex::encode([7u8; 4])));
    }

    #[test]
    fn malformed_keys_are_refused() {
        assert!(SecretKey::from_hex("zz").is_err());
        assert!(PublicKey::try_from("00".to_string()).is_err());
    }
}
