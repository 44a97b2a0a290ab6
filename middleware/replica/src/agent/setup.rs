//! Making the server ready: databases, roles, schema `steeldb`, decoding slots.

use super::config::DatabaseConfig;
use super::decoder::slot_name;
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::path::Path;
use steeldb_postgres::decoding::{create_slot, slot_exists};
use steeldb_postgres::transaction::RecordSecret;
use steeldb_postgres::{AGENT_ROLE, Backend, migrations, roles};

/// Creates what is missing, and reads each database's record secret.
pub(super) async fn databases(
    socket_dir: &Path,
    databases: &[DatabaseConfig],
    client_roles: &[String],
) -> anyhow::Result<BTreeMap<String, RecordSecret>> {
    let mut secrets = BTreeMap::new();
    let mut agent = Backend::connect(socket_dir, "postgres", AGENT_ROLE, &[])
        .await
        .context("cannot connect to the replica's PostgreSQL as its agent")?;
    for role in databases.iter().map(|database| &database.owner).chain(client_roles) {
        if !roles::role_exists(&mut agent, role).await? {
            roles::create_role(&mut agent, role)
                .await
                .with_context(|| format!("cannot create role \"{role}\""))?;
        }
    }
    for database in databases {
        let name = &database.name;
        if !roles::database_exists(&mut agent, name).await? {
            roles::create_database(&mut agent, name, &database.owner)
                .await
                .with_context(|| format!("cannot create database \"{name}\""))?;
        }
        let mut backend = Backend::connect(socket_dir, name, AGENT_ROLE, &[])
            .await
            .with_context(|| format!("cannot connect to database \"{name}\""))?;
        migrations::install(&mut backend)
            .await
            .with_context(|| format!("cannot install schema steeldb in database \"{name}\""))?;
        let slot = slot_name(name);
        if !slot_exists(&mut backend, &slot).await? {
            // B13: creating it waits for every prepared transaction, so it is done before any can be.
            create_slot(socket_dir, name, &slot)
                .await
                .with_context(|| format!("cannot create the decoding slot of database \"{name}\""))?;
        }
        secrets.insert(name.clone(), RecordSecret::load(&mut backend).await?);
    }
    Ok(secrets)
}
