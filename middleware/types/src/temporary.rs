//! The schemas that stand for sessions' `pg_temp`.
//!
//! PREPARE TRANSACTION refuses a transaction that has touched a temporary table of PostgreSQL's. So a session's temporary
//! relations are ordinary ones in a schema of its own, whose name every part derives from the session alone.

use crate::{Digest, SessionKey};

/// What the names of all these schemas begin with.
pub const TEMPORARY_SCHEMA_PREFIX: &str = "steeldb_temp_";

/// Stands for the session's schema in a text that is analysed once for all sessions. As long as any such name, so that
/// positions in the text stay what they are.
pub const TEMPORARY_SCHEMA_PLACEHOLDER: &str = "steeldb_temp_00000000000000000000";

/// Hexadecimal digits behind the prefix.
const DIGITS: usize = 20;

/// The schema of a session's temporary relations. A digest: who may ask for a transaction's outcome is told by its number,
/// and names of schemas are everybody's to see.
pub fn temporary_schema(session: SessionKey) -> String {
    let digest = Digest::of(
        "steeldb/temporary-schema",
        &[&session.client.0.to_le_bytes(), &session.session.0.to_le_bytes()],
    );
    format!("{TEMPORARY_SCHEMA_PREFIX}{}", &digest.to_string()[..DIGITS])
}

/// Whether a schema is a session's for its temporary relations.
pub fn is_temporary_schema(name: &str) -> bool {
    name.strip_prefix(TEMPORARY_SCHEMA_PREFIX).is_some_and(|digits| {
        digits.len() == DIGITS
            && digits.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClientId, SessionId};

    #[test]
    fn every_session_has_a_schema_and_its_name_has_one_form() {
        let of = |client, session| {
            temporary_schema(SessionKey { client: ClientId(client), session: SessionId(session) })
        };
        assert_ne!(of(1, 7), of(1, 8));
        assert_ne!(of(1, 7), of(2, 7));
        assert_eq!(of(1, 7).len(), TEMPORARY_SCHEMA_PLACEHOLDER.len());
        for name in [&of(1, 7), TEMPORARY_SCHEMA_PLACEHOLDER] {
            assert!(is_temporary_schema(name), "{name}");
        }
        for name in
            ["public", "steeldb", "steeldb_temp_", "steeldb_temp_0000000000000000000G", "steeldb_temp_000"]
        {
            assert!(!is_temporary_schema(name), "{name}");
        }
    }
}
