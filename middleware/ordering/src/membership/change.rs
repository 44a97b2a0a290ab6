//! Changes of the membership: what an administrator signs, and what makes it legal. Whether a change is legal is a
//! function of it and of the view it changes, so that all correct replicas judge alike.

use super::{Member, Roster, RosterError};
use crate::Request;
use borsh::{BorshDeserialize, BorshSerialize};
use steeldb_types::{Digest, ReplicaId, View, ViewError, ViewNumber, limits};
use steeldb_wire::auth::{Namespace, PublicKey, SecretKey, Signature};
use steeldb_wire::codec;

/// From one view to the next. What is not named stays as it is; the fault model always does.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Change {
    /// The view it changes; so it takes effect at most once.
    pub from: ViewNumber,
    /// The digest of that view ([`Roster::digest`]): the administrator knew it, and no other cluster has it.
    pub of: Digest,
    /// Who leaves.
    pub remove: Vec<ReplicaId>,
    /// Who joins: they are numbered on from [`Roster::next_id`], in this order.
    pub add: Vec<Joining>,
    /// New addresses of those who stay.
    pub move_to: Vec<(ReplicaId, String)>,
    /// f from now on.
    pub faults: Option<u16>,
    /// The replicas with V_max from now on. Nothing: those of now if they are right for the new view, else the first ones.
    pub heavy: Option<Vec<ReplicaId>>,
    /// The leader that the new view begins with. Nothing: the one that this view began with if it stays, else the first.
    pub first_leader: Option<ReplicaId>,
}

/// A replica that is to join.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct Joining {
    /// Its public key.
    pub key: PublicKey,
    /// Where the others reach it, host:port.
    pub address: String,
}

/// Why a change is not legal.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChangeError {
    /// Not the encoding of a change.
    #[error("not a change of the membership: {0}")]
    Malformed(String),
    /// Signed by nobody who may.
    #[error("not signed by an administrator of this cluster")]
    NotAnAdministrator,
    /// It was made for another view: one that is past, or one of another cluster.
    #[error("the change is of view {from}, and view {current} is the current one, or it has other members")]
    AnotherView {
        /// The view it names.
        from: u64,
        /// The view that is.
        current: u64,
    },
    /// It names a replica that is not in the view.
    #[error("replica {0} is not in the view, or is named twice")]
    Unknown(ReplicaId),
    /// It changes nothing.
    #[error("the change changes nothing")]
    Nothing,
    /// So many leave or join that those who stay are no quorum, in this view or the next.
    #[error(
        "those who stay are no quorum of view {0}: change one replica after the other, so that what was decided is not lost and the cluster goes on while new ones catch up"
    )]
    TooMuchAtOnce(u64),
    /// All numbers were given out.
    #[error("there are no numbers left for new replicas")]
    NoNumber,
    /// An address that cannot be.
    #[error("replica {0} needs an address of at most {max} bytes", max = limits::ADDRESS_BYTES_MAX)]
    Address(ReplicaId),
    /// What would come out is no view.
    #[error(transparent)]
    View(#[from] ViewError),
    /// What would come out is no roster.
    #[error(transparent)]
    Roster(#[from] RosterError),
}

impl Change {
    /// A change of `roster` that changes nothing yet.
    pub fn of(roster: &Roster) -> Change {
        Change {
            from: roster.view().number(),
            of: roster.digest(),
            remove: Vec::new(),
            add: Vec::new(),
            move_to: Vec::new(),
            faults: None,
            heavy: None,
            first_leader: None,
        }
    }

    /// The request that asks for it, signed with an administrator's key.
    pub fn signed(&self, key: &SecretKey) -> Request {
        let payload = codec::encode(self);
        let signature = key.sign(Namespace::Membership, &payload);
        Request::Membership { payload, administrator: key.public(), signature }
    }

    /// Decodes the payload of a [`Request::Membership`].
    ///
    /// # Errors
    /// [`ChangeError::Malformed`].
    pub fn decode(payload: &[u8]) -> Result<Change, ChangeError> {
        codec::decode(payload, limits::REQUEST_BYTES_MAX)
            .map_err(|error| ChangeError::Malformed(error.to_string()))
    }
}

/// Whether one of `administrators` signed a request to change the membership.
pub(crate) fn verify_administrator(
    payload: &[u8],
    administrator: &PublicKey,
    signature: &Signature,
    administrators: &[PublicKey],
) -> Result<(), ChangeError> {
    let known = administrators.contains(administrator);
    match known && administrator.verify(Namespace::Membership, payload, signature).is_ok() {
        true => Ok(()),
        false => Err(ChangeError::NotAnAdministrator),
    }
}

impl Roster {
    /// The view that follows this one by `change`.
    ///
    /// # Errors
    /// [`ChangeError`] says why there is none.
    pub fn changed(&self, change: &Change) -> Result<Roster, ChangeError> {
        let view = self.view();
        if change.from != view.number() || change.of != self.digest() {
            return Err(ChangeError::AnotherView { from: change.from.0, current: view.number().0 });
        }
        let mut members = self.members().to_vec();
        for replica in &change.remove {
            let index = members.iter().position(|member| member.id == *replica);
            members.remove(index.ok_or(ChangeError::Unknown(*replica))?);
        }
        let stay: Vec<ReplicaId> = members.iter().map(|member| member.id).collect();
        let mut moved = Vec::new();
        for (replica, address) in &change.move_to {
            let member = members.iter_mut().find(|member| member.id == *replica);
            let member = member.filter(|_| !moved.contains(replica)).ok_or(ChangeError::Unknown(*replica))?;
            check_address(*replica, address)?;
            member.address.clone_from(address);
            moved.push(*replica);
        }
        let mut next_id = self.next_id().0;
        for joining in &change.add {
            let id = ReplicaId(next_id);
            next_id = next_id.checked_add(1).ok_or(ChangeError::NoNumber)?;
            check_address(id, &joining.address)?;
            members.push(Member { id, key: joining.key, address: joining.address.clone() });
        }
        let ids: Vec<ReplicaId> = members.iter().map(|member| member.id).collect();
        let next = self.next_view(change, ids)?;
        for of in [view, &next] {
            if !of.is_quorum(stay.iter().copied()) {
                return Err(ChangeError::TooMuchAtOnce(of.number().0));
            }
        }
        let roster = Roster::new(next, members)?.with_next_id(next_id);
        let same = roster.members() == self.members()
            && roster.view().f() == view.f()
            && roster.view().heavy() == view.heavy()
            // Asked for, it begins a regency with that leader, whoever leads by now.
            && change.first_leader.is_none();
        if same { Err(ChangeError::Nothing) } else { Ok(roster) }
    }

    fn next_view(&self, change: &Change, ids: Vec<ReplicaId>) -> Result<View, ChangeError> {
        let view = self.view();
        let number = ViewNumber(view.number().0.saturating_add(1));
        let faults = change.faults.unwrap_or(view.f());
        let lowest = ids.iter().min().copied().unwrap_or_default();
        let kept = Some(view.first_leader()).filter(|leader| ids.contains(leader));
        let first = change.first_leader.or(kept).unwrap_or(lowest);
        let made =
            |heavy: Vec<ReplicaId>| View::of_members(number, view.model(), ids.clone(), faults, heavy, first);
        Ok(match &change.heavy {
            Some(heavy) => made(heavy.clone())?,
            None => made(view.heavy().to_vec()).or_else(|_| made(Vec::new()))?,
        })
    }
}

fn check_address(replica: ReplicaId, address: &str) -> Result<(), ChangeError> {
    match address.is_empty() || address.len() > limits::ADDRESS_BYTES_MAX {
        true => Err(ChangeError::Address(replica)),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeldb_types::FaultModel;

    fn key(seed: u8) -> PublicKey {
        SecretKey::from_seed(&[seed; 32]).public()
    }

    fn roster(n: u16, f: u16) -> Roster {
        let view = View::new(ViewNumber(0), FaultModel::Byzantine, n, f, vec![]).unwrap();
        let member = |id: ReplicaId| Member { id, key: key(id.0 as u8), address: format!("h{}:1", id.0) };
        let members = view.replicas().map(member).collect();
        Roster::new(view, members).unwrap()
    }

    fn joining(seed: u8) -> Joining {
        Joining { key: key(seed), address: format!("h{seed}:1") }
    }

    fn ids(list: &[u16]) -> Vec<ReplicaId> {
        list.iter().map(|id| ReplicaId(*id)).collect()
    }

    #[test]
    fn a_replica_is_replaced_under_a_new_number() {
        let old = roster(4, 1);
        let change = Change { remove: ids(&[1]), add: vec![joining(9)], ..Change::of(&old) };
        let new = old.changed(&change).unwrap();
        assert_eq!(new.view().members(), ids(&[0, 2, 3, 4]));
        assert_eq!((new.view().number(), new.key(ReplicaId(4))), (ViewNumber(1), Some(&key(9))));
        let back = Change { remove: ids(&[4]), add: vec![joining(1)], ..Change::of(&new) };
        let newest = new.changed(&back).unwrap();
        assert_eq!(newest.view().members(), ids(&[0, 2, 3, 5]), "numbers do not come back");
        assert!(matches!(newest.changed(&change), Err(ChangeError::AnotherView { .. })), "a replay");
        let encoded = codec::encode(&newest);
        assert_eq!(codec::decode::<Roster>(&encoded, 1 << 16).unwrap(), newest);
    }

    #[test]
    fn numbers_of_removed_replicas_are_not_given_again() {
        let old = roster(5, 1);
        let new = old.changed(&Change { remove: ids(&[4]), ..Change::of(&old) }).unwrap();
        assert_eq!((new.view().spare(), new.next_id()), (0, ReplicaId(5)));
        let grown = new.changed(&Change { add: vec![joining(9)], ..Change::of(&new) }).unwrap();
        assert_eq!(grown.view().members(), ids(&[0, 1, 2, 3, 5]));
        let decoded = codec::decode::<Roster>(&codec::encode(&new), 1 << 16).unwrap();
        assert_eq!(decoded.next_id(), ReplicaId(5));
    }

    #[test]
    fn weights_faults_addresses_and_the_first_leader_change() {
        let old = roster(5, 1);
        let change = Change {
            heavy: Some(ids(&[3, 4])),
            move_to: vec![(ReplicaId(2), "elsewhere:1".into())],
            first_leader: Some(ReplicaId(3)),
            ..Change::of(&old)
        };
        let new = old.changed(&change).unwrap();
        assert_eq!((new.view().heavy(), new.view().leader(0)), (&ids(&[3, 4])[..], ReplicaId(3)));
        assert_eq!(new.member(ReplicaId(2)).unwrap().address, "elsewhere:1");
        let mut wide = roster(4, 1);
        for seed in 10..13 {
            wide = wide.changed(&Change { add: vec![joining(seed)], ..Change::of(&wide) }).unwrap();
        }
        let more = wide.changed(&Change { faults: Some(2), ..Change::of(&wide) }).unwrap();
        assert_eq!((more.view().n(), more.view().f(), more.view().spare()), (7, 2, 0));
    }

    #[test]
    fn a_leader_that_lost_the_lead_gets_it_back_by_a_change_of_nothing_else() {
        let old = roster(4, 1);
        let change = Change { first_leader: Some(old.view().first_leader()), ..Change::of(&old) };
        let new = old.changed(&change).unwrap();
        assert_eq!((new.view().number(), new.view().leader(0)), (ViewNumber(1), old.view().leader(0)));
    }

    #[test]
    fn a_change_that_cannot_be_is_refused() {
        let (four, five) = (roster(4, 1), roster(5, 1));
        let of = Change::of;
        let cases = [
            (&four, Change { remove: ids(&[0]), ..of(&four) }, "at least 4"),
            (&four, Change { remove: ids(&[7]), ..of(&four) }, "not in the view"),
            (&four, Change { faults: Some(2), ..of(&four) }, "at least 7"),
            (&four, of(&four), "nothing"),
            (&four, of(&five), "another view, or it has other members"),
            (&four, Change { add: vec![joining(2)], ..of(&four) }, "the key or the address"),
            (
                &four,
                Change { add: vec![Joining { address: String::new(), ..joining(9) }], ..of(&four) },
                "address",
            ),
            (
                &four,
                Change { add: (9..12).map(joining).collect(), faults: Some(2), ..of(&four) },
                "of view 1",
            ),
            (
                &four,
                Change { remove: ids(&[0, 1]), add: vec![joining(8), joining(9)], ..of(&four) },
                "of view 0",
            ),
            (&five, Change { heavy: Some(ids(&[0])), ..of(&five) }, "V_max"),
            (&five, Change { heavy: Some(ids(&[0, 9])), ..of(&five) }, "V_max"),
            (&five, Change { first_leader: Some(ReplicaId(9)), ..of(&five) }, "cannot lead"),
            (&five, Change { move_to: vec![(ReplicaId(9), "x:1".into())], ..of(&five) }, "not in the view"),
        ];
        for (roster, change, said) in cases {
            let error = roster.changed(&change).unwrap_err().to_string();
            let said = said.replace("another view, ", "");
            assert!(error.contains(&said), "{said}: {error}");
        }
    }

    #[test]
    fn only_an_administrators_signature_counts() {
        let admin = SecretKey::from_seed(&[77; 32]);
        let Request::Membership { payload, administrator, signature } =
            Change::of(&roster(4, 1)).signed(&admin)
        else {
            panic!("another request");
        };
        let check = |payload: &[u8], key: &PublicKey, admins: &[PublicKey]| {
            verify_administrator(payload, key, &signature, admins)
        };
        assert_eq!(check(&payload, &administrator, &[key(1), administrator]), Ok(()));
        assert!(check(&payload, &administrator, &[key(1)]).is_err());
        assert!(check(&payload, &key(1), &[key(1)]).is_err());
        assert!(check(b"other", &administrator, &[administrator]).is_err());
    }
}
