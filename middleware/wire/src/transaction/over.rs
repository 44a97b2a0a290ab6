//! A replica's word that a session is over, so that what it left behind can be cleared in the order.

use crate::auth::{Namespace, PublicKey, SecretKey, Signature};
use crate::codec::encode;
use borsh::{BorshDeserialize, BorshSerialize};
use steeldb_types::{Position, ReplicaId, SessionKey, View};

/// One replica's word. f + 1 of them make it so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct SessionOver {
    /// The session.
    pub session: SessionKey,
    /// Where in the order the session was last heard of: one that is heard of again is not over.
    pub used: Position,
    /// Who says so.
    pub replica: ReplicaId,
    /// Over the rest.
    pub signature: Signature,
}

impl SessionOver {
    /// Signs.
    pub fn new(session: SessionKey, used: Position, replica: ReplicaId, key: &SecretKey) -> SessionOver {
        let signature = key.sign(Namespace::SessionOver, &encode(&(session, used, replica)));
        SessionOver { session, used, replica, signature }
    }

    /// Judges it.
    ///
    /// # Errors
    /// Why it is no member's word.
    pub fn check(&self, view: &View, keys: &[PublicKey]) -> Result<(), String> {
        if !view.contains(self.replica) {
            return Err(format!("replica {} is no member of the view", self.replica));
        }
        let key = keys.get(usize::from(self.replica.0)).ok_or("a replica without a key")?;
        key.verify(Namespace::SessionOver, &encode(&(self.session, self.used, self.replica)), &self.signature)
            .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_members_own_signature_counts_and_nothing_else() {
        let key = |replica: u8| SecretKey::from_seed(&[replica + 1; 32]);
        let keys: Vec<PublicKey> = (0..4).map(|replica| key(replica).public()).collect();
        let view = View::of_size(4).unwrap();
        let word = SessionOver::new(SessionKey::default(), Position(7), ReplicaId(1), &key(1));
        assert_eq!(word.check(&view, &keys), Ok(()));
        for wrong in [
            SessionOver { used: Position(8), ..word },
            SessionOver { replica: ReplicaId(2), ..word },
            SessionOver::new(SessionKey::default(), Position(7), ReplicaId(9), &key(1)),
        ] {
            assert!(wrong.check(&view, &keys).is_err(), "{wrong:?}");
        }
    }
}
