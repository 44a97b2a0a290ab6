//! What is put in the total order: BEGIN, the outcomes, and work that no transaction block can hold.

use super::{AbortCertificate, CommitCertificate, DeposeCertificate, MasterMove, SessionOver};
use borsh::{BorshDeserialize, BorshSerialize};
use steeldb_types::{Digest, SessionKey, Slot, TxId};

/// The attributes of a BEGIN. Every transaction runs at REPEATABLE READ.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, BorshSerialize, BorshDeserialize)]
pub struct Modes {
    /// READ ONLY.
    pub read_only: bool,
    /// DEFERRABLE; without effect below SERIALIZABLE, but visible to the client.
    pub deferrable: bool,
}

/// The payload of an ordered request.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub enum Ordered {
    /// A transaction gets its slot. Signed by its client.
    Begin {
        /// The transaction.
        tx: TxId,
        /// The database it runs in.
        database: String,
        /// The role it runs as.
        role: String,
        /// Its attributes.
        modes: Modes,
        /// The digest of the session's preamble.
        preamble: Digest,
    },
    /// The client gives a transaction up. Signed by its client; valid as an Abort (rule 7).
    Rollback {
        /// The transaction.
        tx: TxId,
        /// Its slot.
        slot: Slot,
    },
    /// Maintenance that each replica runs by itself, outside any block (VACUUM, ANALYZE). Signed by its client.
    Maintain {
        /// The session.
        session: SessionKey,
        /// The database.
        database: String,
        /// The role.
        role: String,
        /// One statement.
        sql: String,
    },
    /// Digests of all tables at this position. Signed by its client.
    Verify {
        /// The session that wants the answer.
        session: SessionKey,
        /// The database.
        database: String,
    },
    /// A transaction commits (rule 7). Certified.
    Commit(CommitCertificate),
    /// A transaction aborts (rule 7). Certified.
    Abort(AbortCertificate),
    /// The master is deposed: the next replica takes over. Certified.
    Depose(DeposeCertificate),
    /// An administrator names another master. Certified by its signature.
    Move(MasterMove),
    /// What became of a transaction. One whose BEGIN is not ordered is void from here on. Signed by who asks.
    Outcome {
        /// The session that wants the answer.
        session: SessionKey,
        /// The transaction.
        tx: TxId,
    },
    /// A replica's word that a session is over, whose temporary relations are to go. Certified by its signature.
    SessionOver(SessionOver),
}

impl Ordered {
    /// The session that a client's request is of; none for what is certified.
    pub fn session(&self) -> Option<SessionKey> {
        match self {
            Ordered::Begin { tx, .. } | Ordered::Rollback { tx, .. } => Some(tx.session),
            Ordered::Maintain { session, .. }
            | Ordered::Verify { session, .. }
            | Ordered::Outcome { session, .. } => Some(*session),
            Ordered::Commit(_)
            | Ordered::Abort(_)
            | Ordered::Depose(_)
            | Ordered::Move(_)
            | Ordered::SessionOver(_) => None,
        }
    }

    /// The key under which a certified request is ordered: one per transaction and outcome, so that a waiting Abort
    /// never hides a Commit; one per term that ends.
    pub fn certified_key(&self) -> Option<Digest> {
        match self {
            Ordered::Commit(certificate) => Some(Digest::of(
                "steeldb/certified/commit",
                &[&crate::codec::encode(&(certificate.tx, certificate.slot))],
            )),
            Ordered::Abort(certificate) => Some(Digest::of(
                "steeldb/certified/abort",
                &[&crate::codec::encode(&(certificate.tx, certificate.slot))],
            )),
            Ordered::Depose(certificate) => {
                Some(Digest::of("steeldb/certified/depose", &[&crate::codec::encode(&certificate.term)]))
            }
            Ordered::Move(wish) => Some(Digest::of(
                "steeldb/certified/move",
                &[&crate::codec::encode(&(wish.term, wish.roster, wish.to, wish.administrator))],
            )),
            Ordered::SessionOver(word) => Some(Digest::of(
                "steeldb/certified/session-over",
                &[&crate::codec::encode(&(word.session, word.used, word.replica))],
            )),
            _ => None,
        }
    }
}
