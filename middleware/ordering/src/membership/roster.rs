//! A view with its members' keys and addresses: all that is needed to count and verify what they say.

use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::BTreeSet;
use steeldb_types::{Digest, ReplicaId, View, limits};
use steeldb_wire::auth::PublicKey;
use steeldb_wire::codec;

/// A replica of a view.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Member {
    /// Its number: stable, and never used again once it was removed.
    pub id: ReplicaId,
    /// Its public key.
    pub key: PublicKey,
    /// Where the others reach it, host:port; empty where links are not the core's business. No proof depends on it.
    pub address: String,
}

/// A view and who its members are. Made only of parts that fit together.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize)]
pub struct Roster {
    view: View,
    /// Ascending by number; as many as the view has.
    members: Vec<Member>,
    /// The lowest number that was never given to a replica.
    next_id: u16,
}

/// Why members do not make a view.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RosterError {
    /// Other replicas than the view's.
    #[error("the members are not the replicas of the view")]
    OtherReplicas,
    /// Two members have one key, or one address.
    #[error("replica {0} has the key or the address of another")]
    Shared(ReplicaId),
    /// An address that is too long.
    #[error("the address of replica {0} is too long")]
    Address(ReplicaId),
}

impl Roster {
    /// The members of a view. Addresses may be empty.
    ///
    /// # Errors
    /// [`RosterError`] says what does not fit.
    pub fn new(view: View, mut members: Vec<Member>) -> Result<Roster, RosterError> {
        members.sort_by_key(|member| member.id);
        if !members.iter().map(|member| member.id).eq(view.replicas()) {
            return Err(RosterError::OtherReplicas);
        }
        let (mut keys, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for member in &members {
            if member.address.len() > limits::ADDRESS_BYTES_MAX {
                return Err(RosterError::Address(member.id));
            }
            let known = !member.address.is_empty() && !addresses.insert(&member.address);
            if !keys.insert(member.key) || known {
                return Err(RosterError::Shared(member.id));
            }
        }
        let next_id = view.table_len() as u16;
        Ok(Roster { view, members, next_id })
    }

    /// The members of a view by their keys alone, in the order of its replicas.
    ///
    /// # Errors
    /// [`RosterError`]: too many or too few keys, or one twice.
    pub fn of_keys(view: View, keys: Vec<PublicKey>) -> Result<Roster, RosterError> {
        if keys.len() != view.members().len() {
            return Err(RosterError::OtherReplicas);
        }
        let member = |(id, key)| Member { id, key, address: String::new() };
        let members = view.replicas().zip(keys).map(member).collect();
        Roster::new(view, members)
    }

    /// The view.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The members, ascending.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// A member.
    pub fn member(&self, replica: ReplicaId) -> Option<&Member> {
        let index = self.members.binary_search_by_key(&replica, |member| member.id).ok()?;
        self.members.get(index)
    }

    /// A member's public key.
    pub fn key(&self, replica: ReplicaId) -> Option<&PublicKey> {
        self.member(replica).map(|member| &member.key)
    }

    /// The members' public keys by replica number, for code that looks them up so; what stands at numbers that are no
    /// member's is of no use.
    pub fn key_table(&self) -> Vec<PublicKey> {
        let mut table = vec![PublicKey([0; 32]); self.view.table_len()];
        for member in &self.members {
            table[usize::from(member.id.0)] = member.key;
        }
        table
    }

    /// What identifies this view and its members, in this cluster and no other. Addresses are left out: where a replica
    /// is found makes no difference to what it signed.
    pub fn digest(&self) -> Digest {
        let keys: Vec<(ReplicaId, PublicKey)> =
            self.members.iter().map(|member| (member.id, member.key)).collect();
        Digest::of("steeldb/view", &[&codec::encode(&(&self.view, keys, self.next_id))])
    }

    pub(super) fn with_next_id(self, next_id: u16) -> Roster {
        Roster { next_id, ..self }
    }

    /// The lowest number that was never given to a replica: the next new one's.
    pub fn next_id(&self) -> ReplicaId {
        ReplicaId(self.next_id)
    }
}

/// Only what [`Roster::new`] makes can be decoded.
impl BorshDeserialize for Roster {
    fn deserialize_reader<R: std::io::Read>(reader: &mut R) -> std::io::Result<Roster> {
        let invalid = |reason: String| std::io::Error::new(std::io::ErrorKind::InvalidData, reason);
        let view = View::deserialize_reader(reader)?;
        let members = Vec::<Member>::deserialize_reader(reader)?;
        let next_id = u16::deserialize_reader(reader)?;
        let mut roster = Roster::new(view, members.clone()).map_err(|error| invalid(error.to_string()))?;
        if roster.members != members || next_id < roster.next_id {
            return Err(invalid("a roster that is not as it is made".into()));
        }
        roster.next_id = next_id;
        Ok(roster)
    }
}
