//! The schema `steeldb` of every replicated database: numbered SQL files, installed once each.

use crate::connection::{Backend, BackendError};
use crate::quote;
use steeldb_types::Digest;

/// A migration: one file of SQL, run in one transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Migration {
    /// Its number; they are installed in ascending order.
    pub number: u32,
    /// What it is about.
    pub name: &'static str,
    /// Its statements.
    pub sql: &'static str,
}

macro_rules! migration {
    ($number:literal, $name:literal) => {
        Migration {
            number: $number,
            name: $name,
            sql: include_str!(concat!("../../../migrations/000", $number, "_", $name, ".sql")),
        }
    };
}

/// All migrations, ascending.
pub const MIGRATIONS: [Migration; 13] = [
    migration!(1, "schema"),
    migration!(2, "functions"),
    migration!(3, "digests"),
    migration!(4, "privileges"),
    migration!(5, "event_triggers"),
    migration!(6, "publication"),
    migration!(7, "ddl_effects"),
    migration!(8, "sequences"),
    migration!(9, "draws"),
    Migration { number: 10, name: "mismatch", sql: include_str!("../../../migrations/0010_mismatch.sql") },
    Migration { number: 11, name: "in_doubt", sql: include_str!("../../../migrations/0011_in_doubt.sql") },
    Migration { number: 12, name: "temporary", sql: include_str!("../../../migrations/0012_temporary.sql") },
    Migration { number: 13, name: "named", sql: include_str!("../../../migrations/0013_named.sql") },
];

/// Why the schema was not installed.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The server failed a command.
    #[error("migration {step}: {error}")]
    Backend {
        /// Which migration, or what about them.
        step: String,
        /// Why.
        error: BackendError,
    },
    /// A migration that was installed is not the one that this program has.
    #[error(
        "migration {number} was installed with other contents; installed ones are never changed, a later one corrects them"
    )]
    Changed {
        /// Its number.
        number: u32,
    },
    /// The database has migrations that this program does not know.
    #[error(
        "the database has migration {number}, which this version of SteelDB does not know; use a newer one"
    )]
    Newer {
        /// Its number.
        number: u32,
    },
}

/// Installs what is missing in the database that `backend`, the agent's superuser session, is connected to. Returns the
/// numbers installed now; does nothing the second time.
///
/// # Errors
/// [`MigrationError`]; each migration is installed whole or not at all.
pub async fn install(backend: &mut Backend) -> Result<Vec<u32>, MigrationError> {
    let failed = |step: &str| {
        let step = step.to_string();
        move |error| MigrationError::Backend { step, error }
    };
    let table = "SET search_path = pg_catalog; SET client_min_messages = warning; BEGIN; \
         SELECT pg_advisory_xact_lock(hashtext('steeldb migrations')); \
         CREATE SCHEMA IF NOT EXISTS steeldb; \
         CREATE TABLE IF NOT EXISTS steeldb.migration ( \
         number int4 PRIMARY KEY, name text NOT NULL, digest text NOT NULL); \
         COMMIT";
    backend.simple(table).await.map_err(failed("table"))?;
    let sql = "SELECT number, digest FROM steeldb.migration ORDER BY number";
    let installed = backend.simple(sql).await.map_err(failed("list"))?;
    let installed: Vec<(u32, String)> = installed
        .rows
        .into_iter()
        .filter_map(|row| match row.as_slice() {
            [Some(number), Some(digest)] => Some((number.parse().ok()?, digest.clone())),
            _ => None,
        })
        .collect();
    for (number, digest) in &installed {
        let known = MIGRATIONS.iter().find(|migration| migration.number == *number);
        let known = known.ok_or(MigrationError::Newer { number: *number })?;
        if known.digest() != *digest {
            return Err(MigrationError::Changed { number: *number });
        }
    }
    let mut now = Vec::new();
    for migration in MIGRATIONS {
        if installed.iter().any(|(number, _)| *number == migration.number) {
            continue;
        }
        let step = format!("{:04}_{}", migration.number, migration.name);
        let sql = format!(
            "BEGIN; SET LOCAL search_path = pg_catalog; {}\n; INSERT INTO steeldb.migration VALUES ({}, {}, {}); COMMIT",
            migration.sql,
            migration.number,
            quote::literal(migration.name),
            quote::literal(&migration.digest()),
        );
        if let Err(error) = backend.simple(&sql).await {
            // The block of a failed simple query stays open.
            let _ = backend.simple("ROLLBACK").await;
            return Err(MigrationError::Backend { step, error });
        }
        tracing::info!(step, "migration installed");
        now.push(migration.number);
    }
    Ok(now)
}

impl Migration {
    /// What tells whether an installed migration is this one.
    pub fn digest(&self) -> String {
        Digest::of("steeldb/migration", &[self.sql.as_bytes()]).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ascend() {
        assert!(MIGRATIONS.windows(2).all(|pair| pair[0].number + 1 == pair[1].number));
    }
}
