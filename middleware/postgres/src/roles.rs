//! Roles and databases: what the agent creates, and which roles a client may never be (A4).

use crate::connection::{Backend, BackendError};
use crate::quote;

/// Why clients may not be a role.
#[derive(Debug, thiserror::Error)]
pub enum RoleRefused {
    /// There is no such role, or it cannot log in.
    #[error("there is no role {role:?} that can log in")]
    NoLogin {
        /// The role.
        role: String,
    },
    /// The role could go round the replication: reach files, other sessions, the agent's tables, or give itself such
    /// rights.
    #[error("role {role:?} is {what}, which no client of a replicated database may be")]
    TooPowerful {
        /// The role.
        role: String,
        /// What it is, or what it is a member of.
        what: String,
    },
    /// The server could not be asked.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Predefined roles that reach past what is replicated: the server's files and programs, other sessions, checkpoints,
/// locks on any table; and all data, which includes the agent's secret and records.
const FORBIDDEN_MEMBERSHIPS: [&str; 8] = [
    "pg_read_server_files",
    "pg_write_server_files",
    "pg_execute_server_program",
    "pg_signal_backend",
    "pg_checkpoint",
    "pg_stat_scan_tables",
    "pg_read_all_data",
    "pg_write_all_data",
];

/// Creates a role that can log in and nothing else.
///
/// # Errors
/// [`BackendError::Server`] with 42710 when it exists.
pub async fn create_role(backend: &mut Backend, name: &str) -> Result<(), BackendError> {
    let sql = format!(
        "CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS",
        quote::identifier(name)
    );
    backend.simple(&sql).await.map(|_| ())
}

/// Whether a role of that name exists.
///
/// # Errors
/// [`BackendError`].
pub async fn role_exists(backend: &mut Backend, name: &str) -> Result<bool, BackendError> {
    let sql = "SELECT count(*) FROM pg_catalog.pg_roles WHERE rolname = $1";
    Ok(backend.extended(sql, &[Some(name)]).await?.value() == Some("1"))
}

/// Creates a database that belongs to `owner`, from template0, so that what somebody left in template1 is not in it.
/// It still needs [`crate::migrations::install`] and its slot.
///
/// # Errors
/// [`BackendError::Server`] with 42P04 when it exists.
pub async fn create_database(backend: &mut Backend, name: &str, owner: &str) -> Result<(), BackendError> {
    let sql = format!(
        "CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'",
        quote::identifier(name),
        quote::identifier(owner)
    );
    backend.simple(&sql).await.map(|_| ())
}

/// Whether a database of that name exists.
///
/// # Errors
/// [`BackendError`].
pub async fn database_exists(backend: &mut Backend, name: &str) -> Result<bool, BackendError> {
    let sql = "SELECT count(*) FROM pg_catalog.pg_database WHERE datname = $1";
    Ok(backend.extended(sql, &[Some(name)]).await?.value() == Some("1"))
}

/// Checks that a client may be `name`: it can log in, and neither it nor any role it is a member of (directly or not,
/// inherited or not, since SET ROLE reaches them all) is a superuser, may replicate or create roles, or is one of the
/// predefined roles that reach past what is replicated.
///
/// # Errors
/// [`RoleRefused`].
pub async fn check_role(backend: &mut Backend, name: &str) -> Result<(), RoleRefused> {
    let sql = "WITH RECURSIVE reach (oid) AS ( \
               SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1 AND rolcanlogin \
               UNION SELECT m.roleid FROM pg_catalog.pg_auth_members m JOIN reach ON m.member = reach.oid) \
               SELECT r.rolname, r.rolsuper, r.rolreplication, r.rolcreaterole \
               FROM pg_catalog.pg_roles r JOIN reach USING (oid) ORDER BY r.rolname = $1 DESC, r.rolname";
    let answer = backend.extended(sql, &[Some(name)]).await?;
    if answer.rows.is_empty() {
        return Err(RoleRefused::NoLogin { role: name.to_string() });
    }
    for row in &answer.rows {
        let [Some(role), superuser, replication, createrole] = row.as_slice() else { continue };
        let is = |flag: &Option<String>| flag.as_deref() == Some("t");
        let what = if is(superuser) {
            Some("a superuser")
        } else if is(replication) {
            Some("a REPLICATION role")
        } else if is(createrole) {
            Some("a CREATEROLE role")
        } else {
            FORBIDDEN_MEMBERSHIPS.iter().find(|forbidden| *forbidden == role).copied()
        };
        if let Some(what) = what {
            let what = if role == name { what.to_string() } else { format!("a member of {role} ({what})") };
            return Err(RoleRefused::TooPowerful { role: name.to_string(), what });
        }
    }
    Ok(())
}
