//! Keys of a throw-away cluster, made from numbers. Nothing secret.

use steeldb_ordering::{Account, Member, Roster};
use steeldb_transport::ReplicaAddress;
use steeldb_types::{ClientId, FaultModel, ReplicaId, View, ViewNumber};
use steeldb_wire::auth::{Namespace, PublicKey, SecretKey, Signature};
use steeldb_wire::codec;

/// A replica's key.
pub fn replica_key(replica: ReplicaId) -> SecretKey {
    key(1, u32::from(replica.0))
}

/// A client's key.
pub fn client_key(client: ClientId) -> SecretKey {
    key(2, client.0)
}

/// A key that no configuration lists.
pub fn guest_key(seed: u32) -> SecretKey {
    key(3, seed)
}

/// The key that signs changes of the membership.
pub fn administrator_key() -> SecretKey {
    key(5, 0)
}

/// The genesis view: replicas at `addresses`, numbered from 0, of which as many may be faulty as can be.
///
/// # Errors
/// No view has so many replicas.
pub fn genesis(addresses: &[String], model: FaultModel) -> anyhow::Result<Roster> {
    let n = u16::try_from(addresses.len())?;
    let faults = match model {
        FaultModel::Byzantine => n.saturating_sub(1) / 3,
        FaultModel::Crash => n.saturating_sub(1) / 2,
    };
    let view = View::new(ViewNumber(0), model, n, faults, Vec::new())?;
    let member =
        |replica: ReplicaAddress| Member { id: replica.id, key: replica.key, address: replica.address };
    Ok(Roster::new(view, replicas(addresses).into_iter().map(member).collect())?)
}

/// Whose word decides who may join.
pub fn authority_key() -> SecretKey {
    key(4, 0)
}

/// The authority's word that the holder of a key may join for an account: of no use to anyone else.
pub fn credential(account: &Account, key: &PublicKey) -> Vec<u8> {
    let signature = authority_key().sign(Namespace::Credential, &codec::encode(&(account, key)));
    codec::encode(&(account, signature))
}

/// For which account a credential lets the holder of a key join.
///
/// # Errors
/// Says what is wrong with it.
pub fn authorized(credential: &[u8], key: &PublicKey) -> Result<Account, String> {
    let (account, signature): (Account, Signature) =
        codec::decode(credential, credential.len()).map_err(|error| error.to_string())?;
    let signed = codec::encode(&(&account, key));
    match authority_key().public().verify(Namespace::Credential, &signed, &signature) {
        Ok(()) => Ok(account),
        Err(_) => Err("the credential is not the authority's for this key".into()),
    }
}

/// The replicas at `addresses`, numbered from 0.
pub fn replicas(addresses: &[String]) -> Vec<ReplicaAddress> {
    let numbered = addresses.iter().zip(0..);
    numbered
        .map(|(address, number)| {
            let id = ReplicaId(number);
            ReplicaAddress { id, address: address.clone(), key: replica_key(id).public() }
        })
        .collect()
}

fn key(kind: u8, number: u32) -> SecretKey {
    let mut seed = [kind; 32];
    seed[..4].copy_from_slice(&number.to_le_bytes());
    SecretKey::from_seed(&seed)
}
