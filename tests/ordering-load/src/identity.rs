//! Keys of a throw-away cluster, made from numbers. Nothing secret.

use steeldb_transport::ReplicaAddress;
use steeldb_types::{ClientId, ReplicaId};
use steeldb_wire::auth::SecretKey;

/// A replica's key.
pub fn replica_key(replica: ReplicaId) -> SecretKey {
    key(1, u32::from(replica.0))
}

/// A client's key.
pub fn client_key(client: ClientId) -> SecretKey {
    key(2, client.0)
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
