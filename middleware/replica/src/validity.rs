//! What may be ordered: a synchronous function of the request, the view, the replicas' keys and the clients' rights
//! (rule 7; PROTOCOL-RISKS, section D). All replicas are configured alike, so all correct ones judge alike.

use crate::scheduler::ClientRights;
use std::collections::BTreeMap;
use steeldb_types::{ClientId, Digest, SessionKey, View, limits};
use steeldb_wire::auth::PublicKey;
use steeldb_wire::codec;
use steeldb_wire::transaction::{Ordered, SignatureMemo};

/// Judges the payload of a client's request; its signature is the ordering core's business.
///
/// # Errors
/// What is wrong with it.
pub fn check_client(
    session: SessionKey,
    payload: &[u8],
    clients: &BTreeMap<ClientId, ClientRights>,
) -> Result<Ordered, String> {
    let ordered = decode(payload)?;
    let rights = clients.get(&session.client).ok_or("unknown client")?;
    let permitted = |database: &String, role: Option<&String>| {
        if !rights.databases.contains(database) {
            return Err(format!("client may not use database \"{database}\""));
        }
        match role {
            Some(role) if !rights.roles.contains(role) => {
                Err(format!("client may not act as role \"{role}\""))
            }
            _ => Ok(()),
        }
    };
    match &ordered {
        Ordered::Begin { tx, database, role, .. } => {
            if tx.session != session {
                return Err("a BEGIN for another session".into());
            }
            permitted(database, Some(role))?;
        }
        Ordered::Rollback { tx, .. } => {
            if tx.session != session {
                return Err("a ROLLBACK for another session".into());
            }
        }
        Ordered::Maintain { session: named, database, role, sql } => {
            if *named != session {
                return Err("maintenance for another session".into());
            }
            permitted(database, Some(role))?;
            check_maintenance(sql)?;
        }
        Ordered::Verify { session: named, database } => {
            if *named != session {
                return Err("verification for another session".into());
            }
            permitted(database, None)?;
        }
        Ordered::Commit(_) | Ordered::Abort(_) => return Err("an outcome is no client's to order".into()),
    }
    Ok(ordered)
}

/// Judges a certified request.
///
/// # Errors
/// What is wrong with it.
pub fn check_certified(
    key: Digest,
    payload: &[u8],
    view: &View,
    keys: &[PublicKey],
    memo: &mut SignatureMemo,
) -> Result<Ordered, String> {
    let ordered = decode(payload)?;
    if ordered.certified_key() != Some(key) {
        return Err("the key is not that of the outcome".into());
    }
    match &ordered {
        Ordered::Commit(certificate) => certificate.check(view, keys, memo).map_err(|e| e.to_string())?,
        Ordered::Abort(certificate) => certificate.check(view, keys, memo).map_err(|e| e.to_string())?,
        _ => return Err("not an outcome".into()),
    }
    Ok(ordered)
}

/// Decodes the payload of an ordered request.
///
/// # Errors
/// What is wrong with it.
pub fn decode(payload: &[u8]) -> Result<Ordered, String> {
    codec::decode(payload, limits::REQUEST_BYTES_MAX).map_err(|error| error.to_string())
}

/// Only VACUUM and ANALYZE run outside a block, and only one of them at a time.
fn check_maintenance(sql: &str) -> Result<(), String> {
    let first: String = sql.trim_start().chars().take_while(char::is_ascii_alphabetic).collect();
    if matches!(first.to_ascii_uppercase().as_str(), "VACUUM" | "ANALYZE" | "ANALYSE") {
        Ok(())
    } else {
        Err(format!("{first} is not maintenance"))
    }
}
