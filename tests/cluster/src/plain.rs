//! One plain PostgreSQL server, to compare answers with.

use crate::APP;
use steeldb_postgres::connection::PORT;
use steeldb_postgres::{AGENT_ROLE, Backend, Launcher, Server, ServerConfig, roles};
use tokio_postgres::{Client, NoTls};

/// A server without any of SteelDB in it. Stops with its value.
pub struct Plain {
    server: Server,
    _dir: tempfile::TempDir,
}

impl Plain {
    /// Starts a server with an empty database of the application's.
    pub async fn start() -> anyhow::Result<Plain> {
        let dir = tempfile::Builder::new().prefix("steeldb-test-").tempdir()?;
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let mut config = ServerConfig::new(dir.path().join("data"), Launcher::Direct);
        config.settings.fsync = false;
        config.settings.shared_buffers_mb = 32;
        let server = tokio::task::spawn_blocking(move || Server::start(config)).await??;
        let mut admin = Backend::connect(server.socket_dir(), "postgres", AGENT_ROLE, &[]).await?;
        roles::create_role(&mut admin, APP).await?;
        roles::create_database(&mut admin, APP, APP).await?;
        Ok(Plain { server, _dir: dir })
    }

    /// A tokio-postgres connection of the application's role.
    pub async fn connect(&self) -> anyhow::Result<Client> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.server.socket_dir()).port(PORT).user(APP).dbname(APP);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}
