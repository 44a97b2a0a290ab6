//! What the agent says at a transaction's start and end: the replicated time and randomness, and the record that every
//! voted transaction leaves (A5).

use crate::connection::{Backend, BackendError};
use crate::quote;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use std::collections::BTreeMap;
use std::fmt;
use steeldb_types::{Digest, Hasher, Position, Slot, Timestamp, TxId};

/// Completes a transaction's operations: the implicit last one (B5), then one row that says whether the transaction has
/// assigned a transaction id, so that it must be voted (A9), and the digest of what its DDL did; NULL without DDL, empty
/// when it defined nothing but temporary relations, which must be in `schema`, and what its DDL may be reached by, NULL where
/// that is not known. Works in a READ ONLY transaction. Every name in it is qualified: it runs in the client's session.
///
/// `has_temporary`: the session may have temporary tables with an ON COMMIT, which is done in between, as PostgreSQL does it
/// between deferred constraints and the end. No cursor is open any more then.
pub fn complete_sql(schema: &str, has_temporary: bool) -> String {
    let schema = quote::literal(schema);
    let on_commit = match has_temporary {
        true => format!("CLOSE ALL; SELECT steeldb.end_temporary({schema}); "),
        false => String::new(),
    };
    format!(
        "SET CONSTRAINTS ALL IMMEDIATE; {on_commit}\
         SELECT pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL, \
         CASE WHEN EXISTS (SELECT FROM steeldb.ddl_command) THEN steeldb.ddl_effects({schema}) END, \
         CASE WHEN EXISTS (SELECT FROM steeldb.ddl_command) THEN steeldb.ddl_reach() END"
    )
}

/// What every transaction starts with besides its snapshot: its number, the agreed time and randomness.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransactionStart {
    /// The transaction, as `steeldb.current_tx()` gives it.
    pub tx: TxId,
    /// The agreed time, ISO 8601 in UTC with microseconds.
    pub now: String,
    /// 64 hexadecimal digits that UUIDs are drawn from.
    pub seed: String,
    /// What `random()` is seeded with, between -1 and 1.
    pub random: String,
}

impl TransactionStart {
    /// From the slot's timestamp and the transaction's 32-byte seed. UUIDs and random() get independent seeds.
    pub fn new(tx: TxId, timestamp: Timestamp, seed: &[u8; 32]) -> TransactionStart {
        TransactionStart {
            tx,
            now: timestamp_text(timestamp),
            seed: Digest::of("steeldb/seed/uuid", &[seed]).to_string(),
            random: random_seed(seed).to_string(),
        }
    }

    /// Appends the statements that set them, for the transaction alone. They take no snapshot, so `SET TRANSACTION
    /// SNAPSHOT` may come before or after; and they are utility statements, which nothing a client defines can replace.
    pub fn push_sql(&self, sql: &mut String) {
        for (setting, value) in [
            ("steeldb.tx", self.tx.to_string().as_str()),
            ("steeldb.now", self.now.as_str()),
            ("steeldb.seed", &self.seed),
            ("steeldb.uuid_counter", "0"),
            ("seed", &self.random),
        ] {
            sql.push_str("; SET LOCAL ");
            sql.push_str(setting);
            sql.push_str(" = ");
            quote::push_literal(sql, value);
        }
    }
}

/// A float8 in [-1, 1] for `setseed()`, drawn from a 32-byte seed. Its shortest decimal form reads back exactly, so every
/// server seeds alike.
pub fn random_seed(seed: &[u8; 32]) -> f64 {
    let digest = Digest::of("steeldb/seed/random", &[seed]).0;
    let bits = digest.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes)) >> 11;
    // 53 bits are exact in a float8: 0 to 2^53 - 1 becomes -1 to 1 - 2^-52.
    bits as f64 / (1u64 << 52) as f64 - 1.0
}

/// A timestamp as PostgreSQL reads it whatever its settings: `2024-02-29 23:59:59.000001+00`.
pub fn timestamp_text(timestamp: Timestamp) -> String {
    const DAY: i64 = 86_400_000_000;
    let (days, micros) = (timestamp.0.div_euclid(DAY), timestamp.0.rem_euclid(DAY));
    // Days to a proleptic Gregorian date: count from 0000-03-01, so that the leap day ends a year.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let seconds = micros / 1_000_000;
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{:06}+00",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        micros % 1_000_000
    )
}

/// What is recorded of a voted transaction, in the transaction itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The transaction.
    pub tx: TxId,
    /// Its slot.
    pub slot: Slot,
    /// k: how many operations it has.
    pub operations: u32,
    /// h_k: its transcript.
    pub transcript: Digest,
}

impl Record {
    /// tx as the key of `steeldb.transaction`: 20 bytes, big-endian client, session, counter.
    pub fn tx_id(&self) -> [u8; 20] {
        tx_id_bytes(self.tx)
    }

    /// The call of `steeldb.record_transaction`, authorised by `secret`. `ran_ddl`: its DDL commands are noted in the
    /// transaction, and are to be forgotten.
    pub fn sql(&self, secret: &RecordSecret, ran_ddl: bool) -> String {
        // decode(), since a literal with a backslash would depend on the session's settings.
        let bytea = |bytes: &[u8]| format!("pg_catalog.decode('{}', 'hex')", hex::encode(bytes));
        format!(
            "SELECT steeldb.record_transaction({}, {}::pg_catalog.int8, {}::pg_catalog.int4, {}, {}, {ran_ddl})",
            bytea(&self.tx_id()),
            self.slot_number(),
            self.operations_number(),
            bytea(&self.transcript.0),
            bytea(&secret.mac(self)),
        )
    }

    /// The call of `steeldb.record_draws`, authorised by `secret`: the least and the greatest value that the transaction
    /// drew from each sequence, by its qualified name. Nothing to call when it drew none.
    pub fn draws_sql(&self, secret: &RecordSecret, marks: &BTreeMap<String, (i64, i64)>) -> Option<String> {
        if marks.is_empty() {
            return None;
        }
        let line = |(name, (least, greatest)): (&String, &(i64, i64))| {
            format!("{} {least} {greatest}", hex::encode(name))
        };
        let lines = marks.iter().map(line).collect::<Vec<_>>().join("\n");
        let bytea = |bytes: &[u8]| format!("pg_catalog.decode('{}', 'hex')", hex::encode(bytes));
        let mac = secret.draws_mac(&self.tx_id(), &lines);
        // Digits, spaces and ends of lines alone, as bytes: no literal that a session's settings could read otherwise.
        Some(format!(
            "SELECT steeldb.record_draws({}, pg_catalog.convert_from({}, 'UTF8'), {})",
            bytea(&self.tx_id()),
            bytea(lines.as_bytes()),
            bytea(&mac),
        ))
    }

    // PostgreSQL has no unsigned numbers; neither comes near the sign in a cluster's life.
    fn slot_number(&self) -> i64 {
        i64::try_from(self.slot.0).unwrap_or(i64::MAX)
    }

    fn operations_number(&self) -> i32 {
        i32::try_from(self.operations).unwrap_or(i32::MAX)
    }
}

/// The key of `steeldb.transaction` for `tx`: 20 bytes, big-endian client, session, counter.
pub fn tx_id_bytes(tx: TxId) -> [u8; 20] {
    let mut bytes = [0u8; 20];
    bytes[..4].copy_from_slice(&tx.session.client.0.to_be_bytes());
    bytes[4..12].copy_from_slice(&tx.session.session.0.to_be_bytes());
    bytes[12..].copy_from_slice(&tx.counter.to_be_bytes());
    bytes
}

/// The GID that `tx` is prepared under at `slot`: 64 hexadecimal digits, below PostgreSQL's 200 bytes whatever the ids.
pub fn gid(tx: TxId, slot: Slot) -> String {
    let mut hasher = Hasher::new("steeldb/gid/1");
    hasher.part(&tx_id_bytes(tx)).number(slot.0);
    hasher.finish().to_string()
}

/// This server's secret, with which the agent authorises records. It never leaves the server and its agent.
#[derive(Clone)]
pub struct RecordSecret([u8; 32]);

impl fmt::Debug for RecordSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordSecret")
    }
}

impl RecordSecret {
    /// Reads it through a superuser's session.
    ///
    /// # Errors
    /// [`BackendError`]; `Protocol` when the schema is not installed rightly.
    pub async fn load(backend: &mut Backend) -> Result<RecordSecret, BackendError> {
        let answer = backend.simple("SELECT pg_catalog.encode(key, 'hex') FROM steeldb.agent_secret").await?;
        let mut key = [0u8; 32];
        answer.value().and_then(|text| hex::decode_to_slice(text, &mut key).ok()).ok_or_else(|| {
            BackendError::Protocol("steeldb.agent_secret has no key of 32 bytes".to_string())
        })?;
        Ok(RecordSecret(key))
    }

    /// HMAC-SHA-256 over the record; `steeldb.record_transaction` computes the same. Every field but the last has its
    /// length or a fixed one, so no two records share a message.
    pub fn mac(&self, record: &Record) -> [u8; 32] {
        let tx_id = record.tx_id();
        // HMAC takes keys of any length, so this cannot fail.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return [0; 32] };
        mac.update(&(tx_id.len() as u32).to_be_bytes());
        mac.update(&tx_id);
        mac.update(&record.slot_number().to_be_bytes());
        mac.update(&record.operations_number().to_be_bytes());
        mac.update(&record.transcript.0);
        mac.finalize().into_bytes().into()
    }

    /// HMAC-SHA-256 over what a transaction drew; `steeldb.record_draws` computes the same.
    fn draws_mac(&self, tx_id: &[u8], lines: &str) -> [u8; 32] {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return [0; 32] };
        mac.update(b"steeldb/record-draws/");
        mac.update(&(tx_id.len() as u32).to_be_bytes());
        mac.update(tx_id);
        mac.update(lines.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// HMAC-SHA-256 that authorises the agent to start a session's draws from sequences: `steeldb.arm_draws` computes
    /// the same. What it is over cannot be a record's message, which begins with four bytes of a small number.
    pub fn session_mac(&self, process_id: i32, token: i64) -> [u8; 32] {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return [0; 32] };
        mac.update(b"steeldb/draws/");
        mac.update(&process_id.to_be_bytes());
        mac.update(&token.to_be_bytes());
        mac.finalize().into_bytes().into()
    }
}

/// Records `record` in the session's open transaction.
///
/// # Errors
/// [`BackendError::Server`]: 42501 for a wrong MAC, 23505 when the transaction is recorded already.
pub async fn record_transaction(
    backend: &mut Backend,
    secret: &RecordSecret,
    record: &Record,
) -> Result<(), BackendError> {
    backend.simple(&record.sql(secret, true)).await.map(|_| ())
}

/// Starts a transaction's replicated time and randomness in the session's open transaction.
///
/// # Errors
/// [`BackendError`].
pub async fn begin_transaction(backend: &mut Backend, start: &TransactionStart) -> Result<(), BackendError> {
    let mut sql = String::new();
    start.push_sql(&mut sql);
    backend.simple(&sql).await.map(|_| ())
}

/// Whether `tx` is recorded, that is committed here (A5). On a superuser's session.
///
/// # Errors
/// [`BackendError`].
pub async fn is_recorded(backend: &mut Backend, tx: TxId) -> Result<bool, BackendError> {
    let id = format!("\\x{}", hex::encode(tx_id_bytes(tx)));
    let sql = "SELECT count(*) FROM steeldb.transaction WHERE tx_id = $1::pg_catalog.bytea";
    Ok(backend.extended(sql, &[Some(&id)]).await?.value() == Some("1"))
}

/// Those of `txs` that are recorded. On a superuser's session.
///
/// # Errors
/// [`BackendError`].
pub async fn recorded_of(
    backend: &mut Backend,
    txs: impl Iterator<Item = TxId>,
) -> Result<Vec<TxId>, BackendError> {
    let by_id: BTreeMap<String, TxId> = txs.map(|tx| (hex::encode(tx_id_bytes(tx)), tx)).collect();
    if by_id.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<String> = by_id.keys().map(|id| format!("\"\\\\x{id}\"")).collect();
    let ids = format!("{{{}}}", ids.join(","));
    let sql = "SELECT pg_catalog.encode(tx_id, 'hex') FROM steeldb.transaction \
               WHERE tx_id = ANY ($1::pg_catalog.bytea[])";
    let answer = backend.extended(sql, &[Some(&ids)]).await?;
    let found = answer.rows.iter().filter_map(|row| row.first()?.as_deref());
    Ok(found.filter_map(|id| by_id.get(id).copied()).collect())
}

/// The last slot of the transactions that are recorded as applied.
///
/// # Errors
/// [`BackendError`].
pub async fn recorded_upto(backend: &mut Backend) -> Result<Option<Slot>, BackendError> {
    let answer = backend.simple("SELECT pg_catalog.max(slot) FROM steeldb.transaction").await?;
    let Some(slot) = answer.value() else { return Ok(None) };
    let slot = slot.parse().map_err(|_| BackendError::Protocol(format!("{slot:?} is no slot")))?;
    Ok(Some(Position(slot)))
}

/// The GIDs of the transactions prepared in `database`.
///
/// # Errors
/// [`BackendError`].
pub async fn prepared_gids(backend: &mut Backend, database: &str) -> Result<Vec<String>, BackendError> {
    let sql = "SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = $1 ORDER BY gid COLLATE \"C\"";
    let answer = backend.extended(sql, &[Some(database)]).await?;
    Ok(answer.rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_written_as_iso() {
        let text = |micros| timestamp_text(Timestamp(micros));
        assert_eq!(text(0), "1970-01-01 00:00:00.000000+00");
        assert_eq!(text(-1), "1969-12-31 23:59:59.999999+00");
        assert_eq!(text(1_709_251_199_000_001), "2024-02-29 23:59:59.000001+00");
        assert_eq!(text(951_868_800_000_000), "2000-03-01 00:00:00.000000+00");
        assert_eq!(text(4_102_444_799_000_000), "2099-12-31 23:59:59.000000+00");
    }

    #[test]
    fn the_random_seed_is_in_range_and_depends_on_the_seed() {
        let a = random_seed(&[1; 32]);
        assert!((-1.0..=1.0).contains(&a));
        assert_ne!(a, random_seed(&[2; 32]));
        assert_eq!(a.to_string().parse::<f64>().unwrap().to_bits(), a.to_bits());
    }

    #[test]
    fn a_gid_fits_and_tells_transactions_and_slots_apart() {
        let tx = TxId { counter: 1, ..TxId::default() };
        assert!(gid(tx, steeldb_types::Position(u64::MAX)).len() < 200);
        assert_ne!(gid(tx, steeldb_types::Position(1)), gid(tx, steeldb_types::Position(2)));
        assert_ne!(gid(tx, steeldb_types::Position(1)), gid(TxId::default(), steeldb_types::Position(1)));
    }
}
