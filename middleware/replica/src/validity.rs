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
        Ordered::Outcome { session: named, tx } => {
            if *named != session {
                return Err("the question of another session".into());
            }
            let owner = clients.get(&tx.session.client).ok_or("the transaction of an unknown client")?;
            // Asking may void what has not begun: no client may do that to one that can do more than itself.
            let covers = |mine: &[String], theirs: &[String]| theirs.iter().all(|name| mine.contains(name));
            if tx.session.client != session.client
                && !(covers(&rights.databases, &owner.databases) && covers(&rights.roles, &owner.roles))
            {
                let client = tx.session.client;
                return Err(format!(
                    "client may not ask for transactions of {client}, which has other rights"
                ));
            }
        }
        Ordered::Commit(_) | Ordered::Abort(_) => return Err("an outcome is no client's to order".into()),
        Ordered::Depose(_) | Ordered::Move(_) => {
            return Err("who is the master is no client's to order".into());
        }
        Ordered::SessionOver(_) => return Err("that a session is over is no client's to order".into()),
    }
    Ok(ordered)
}

/// What certified requests are judged by: all of it is the same on all correct replicas.
pub struct By<'a> {
    /// The view.
    pub view: &'a View,
    /// The digest of its roster.
    pub roster: Digest,
    /// The replicas' keys, by number.
    pub keys: &'a [PublicKey],
    /// The keys that sign moves of the master.
    pub administrators: &'a [PublicKey],
}

/// Judges a certified request.
///
/// # Errors
/// What is wrong with it.
pub fn check_certified(
    key: Digest,
    payload: &[u8],
    by: &By<'_>,
    memo: &mut SignatureMemo,
) -> Result<Ordered, String> {
    let ordered = decode(payload)?;
    let By { view, keys, .. } = *by;
    if ordered.certified_key() != Some(key) {
        return Err("the key is not that of the outcome".into());
    }
    match &ordered {
        Ordered::Commit(certificate) => certificate.check(view, keys, memo).map_err(|e| e.to_string())?,
        Ordered::Abort(certificate) => certificate.check(view, keys, memo).map_err(|e| e.to_string())?,
        Ordered::Depose(certificate) => certificate.check(view, keys).map_err(|e| e.to_string())?,
        Ordered::Move(wish) => wish.check(view, by.roster, by.administrators)?,
        Ordered::SessionOver(word) => word.check(view, keys)?,
        _ => return Err("not an outcome".into()),
    }
    Ok(ordered)
}

/// As [`check_certified`], where a bug is planted that makes replicas take certificates of too few votes for good ones.
///
/// # Errors
/// What is wrong with it, besides its number of votes.
#[cfg(feature = "planted-bugs")]
pub fn check_certified_by_any(
    key: Digest,
    payload: &[u8],
    by: &By<'_>,
    memo: &mut SignatureMemo,
) -> Result<Ordered, String> {
    use steeldb_wire::transaction::CertificateError;
    let ordered = decode(payload)?;
    let checked = match &ordered {
        Ordered::Commit(certificate) => certificate.check(by.view, by.keys, memo),
        Ordered::Abort(certificate) => certificate.check(by.view, by.keys, memo),
        Ordered::Depose(certificate) => certificate.check(by.view, by.keys),
        _ => return check_certified(key, payload, by, memo),
    };
    match checked {
        Err(CertificateError::NotEnough(_)) if ordered.certified_key() == Some(key) => Ok(ordered),
        _ => check_certified(key, payload, by, memo),
    }
}

/// Decodes the payload of an ordered request.
///
/// # Errors
/// What is wrong with it.
pub fn decode(payload: &[u8]) -> Result<Ordered, String> {
    codec::decode(payload, limits::REQUEST_BYTES_MAX).map_err(|error| error.to_string())
}

/// Only VACUUM and ANALYZE run outside a block, and only one of them at a time: what stood behind a semicolon would run
/// on every replica by itself, at its own time, and nobody would vote on it (A4).
fn check_maintenance(sql: &str) -> Result<(), String> {
    let sql = sql.trim().trim_end_matches(|c: char| c.is_whitespace() || c == ';');
    if sql.contains([';', '\0']) {
        return Err("maintenance is one statement without semicolons".into());
    }
    let first: String = sql.chars().take_while(char::is_ascii_alphabetic).collect();
    if matches!(first.to_ascii_uppercase().as_str(), "VACUUM" | "ANALYZE" | "ANALYSE") {
        Ok(())
    } else {
        Err(format!("{first} is not maintenance"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeldb_types::{Position, ReplicaId, SessionId, Term, TxId};
    use steeldb_wire::auth::SecretKey;
    use steeldb_wire::transaction::{AbortCertificate, DeposeCertificate, Modes};

    const SESSION: SessionKey = SessionKey { client: ClientId(1), session: SessionId(7) };

    fn check(ordered: &Ordered) -> Result<Ordered, String> {
        let rights = ClientRights {
            key: SecretKey::from_seed(&[1; 32]).public(),
            databases: vec!["app".into()],
            roles: vec!["alice".into()],
        };
        check_client(SESSION, &codec::encode(ordered), &[(SESSION.client, rights)].into())
    }

    fn maintain(sql: &str) -> Ordered {
        let (database, role) = ("app".into(), "alice".into());
        Ordered::Maintain { session: SESSION, database, role, sql: sql.into() }
    }

    fn begin(tx: TxId, database: &str, role: &str) -> Ordered {
        let (database, role) = (database.into(), role.into());
        Ordered::Begin { tx, database, role, modes: Modes::default(), preamble: Digest::default() }
    }

    #[test]
    fn a4_maintenance_is_one_statement_of_two_kinds() {
        for sql in ["VACUUM", " vacuum (analyze) t ; ", "ANALYZE t", "analyse verbose", "VACUUM(FULL) t"] {
            assert!(check(&maintain(sql)).is_ok(), "{sql}");
        }
        for sql in [
            "",
            "UPDATE t SET x = 1",
            "ANALYZE; UPDATE t SET x = 1",
            "ANALYZE t;;DELETE FROM t;",
            "/* */ VACUUM",
            "VACUUMS",
            "ANALYZE t\0",
        ] {
            assert!(check(&maintain(sql)).is_err(), "{sql}");
        }
    }

    #[test]
    fn a4_a_client_begins_and_ends_its_own_transactions_with_its_own_rights() {
        let own = TxId { session: SESSION, counter: 1 };
        let foreign = TxId { session: SessionKey { client: ClientId(2), ..SESSION }, counter: 1 };
        let other = TxId { session: SessionKey { session: SessionId(8), ..SESSION }, counter: 1 };
        assert!(check(&begin(own, "app", "alice")).is_ok());
        assert!(check(&begin(own, "payroll", "alice")).is_err());
        assert!(check(&begin(own, "app", "bob")).is_err());
        for tx in [foreign, other] {
            assert!(check(&begin(tx, "app", "alice")).is_err());
            assert!(check(&Ordered::Rollback { tx, slot: Position(1) }).is_err());
        }
        assert!(check(&Ordered::Rollback { tx: own, slot: Position(1) }).is_ok());
    }

    /// B2: a question may void a transaction that has not begun, so not everybody may ask for everybody's.
    #[test]
    fn e1_a_client_asks_for_its_own_transactions_and_for_those_of_clients_that_can_do_no_more() {
        let rights = |databases: &[&str], roles: &[&str]| ClientRights {
            key: SecretKey::from_seed(&[1; 32]).public(),
            databases: databases.iter().map(|name| name.to_string()).collect(),
            roles: roles.iter().map(|name| name.to_string()).collect(),
        };
        let clients = [
            (ClientId(1), rights(&["app"], &["alice"])),
            (ClientId(2), rights(&["app"], &["alice"])),
            (ClientId(3), rights(&["app"], &["alice", "bob"])),
            (ClientId(4), rights(&["app", "payroll"], &["alice"])),
        ];
        let asks = |asker: u32, owner: u32| {
            let session = SessionKey { client: ClientId(asker), session: SessionId(7) };
            let of = SessionKey { client: ClientId(owner), session: SessionId(9) };
            let question = Ordered::Outcome { session, tx: TxId { session: of, counter: 1 } };
            check_client(session, &codec::encode(&question), &clients.clone().into()).is_ok()
        };
        for (asker, owner) in [(1, 1), (1, 2), (2, 1), (3, 1), (4, 1)] {
            assert!(asks(asker, owner), "{asker} for {owner}");
        }
        for (asker, owner) in [(1, 3), (1, 4), (3, 4), (4, 3), (1, 9)] {
            assert!(!asks(asker, owner), "{asker} for {owner}");
        }
        let tx = TxId { session: SESSION, counter: 1 };
        let other = SessionKey { session: SessionId(8), ..SESSION };
        assert!(check(&Ordered::Outcome { session: other, tx }).is_err(), "an answer for another session");
    }

    #[test]
    fn a1_an_outcome_is_ordered_by_its_certificate_alone() {
        let tx = TxId { session: SESSION, counter: 1 };
        let abort = Ordered::Abort(AbortCertificate { tx, slot: Position(1), votes: vec![] });
        assert!(check(&abort).is_err(), "no client's to order");
        let view = View::of_size(4).unwrap();
        let keys: Vec<PublicKey> = (1..5).map(|seed| SecretKey::from_seed(&[seed; 32]).public()).collect();
        let mut memo = SignatureMemo::new(16);
        let by = By { view: &view, roster: Digest::default(), keys: &keys, administrators: &[] };
        let key = abort.certified_key().unwrap();
        assert!(check_certified(key, &codec::encode(&abort), &by, &mut memo).is_err(), "no votes");
        let depose =
            Ordered::Depose(DeposeCertificate { term: Term::first(ReplicaId(0)), accusations: vec![] });
        assert!(check(&depose).is_err(), "no client's to order");
        let unsigned = depose.certified_key().unwrap();
        assert!(
            check_certified(unsigned, &codec::encode(&depose), &by, &mut memo).is_err(),
            "nobody accuses"
        );
        let wrong = check_certified(Digest::default(), &codec::encode(&abort), &by, &mut memo);
        assert!(wrong.is_err_and(|reason| reason.contains("key")));
    }
}
