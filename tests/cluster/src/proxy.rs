//! A pg-proxy in this process.

use crate::{APP, Program, Said, identical};
use std::net::SocketAddr;
use std::sync::Arc;
use steeldb_client_shim::Shim;
use steeldb_pg_proxy::ProxyOptions;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_postgres::error::DbError;
use tokio_postgres::{AsyncMessage, Client, NoTls};

/// A running proxy; stops with its value.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its shim.
    pub shim: Shim,
    _stop: oneshot::Sender<()>,
}

/// A driver's connection.
pub struct Connection {
    /// The driver's handle; futures of its statements may be run together.
    pub client: Arc<Client>,
    /// Notices, in the order in which they came.
    pub notices: mpsc::UnboundedReceiver<DbError>,
    task: JoinHandle<()>,
}

impl Connection {
    /// A tokio-postgres connection by its connection string.
    pub async fn open(config: &str) -> Result<Connection, tokio_postgres::Error> {
        let (client, mut connection) = tokio_postgres::connect(config, NoTls).await?;
        let (sender, notices) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            loop {
                match std::future::poll_fn(|context| connection.poll_message(context)).await {
                    Some(Ok(AsyncMessage::Notice(notice))) => drop(sender.send(notice)),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return,
                }
            }
        });
        Ok(Connection { client: Arc::new(client), notices, task })
    }

    /// Ends the connection without a word, as a client does whose machine is gone.
    pub fn vanish(self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Starts a proxy on `host`, at a port that the system chooses.
    pub(crate) async fn start(host: &str, shim: Shim) -> anyhow::Result<Proxy> {
        let options = ProxyOptions::new(format!("{host}:0"), shim.clone());
        let proxy = steeldb_pg_proxy::Proxy::bind(options).await?;
        let address = proxy.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(proxy.run(async move {
            let _ = stopped.await;
        }));
        Ok(Proxy { address, shim, _stop: stop })
    }

    /// A tokio-postgres connection of the application's role.
    pub async fn connect(&self) -> Result<Connection, tokio_postgres::Error> {
        self.connect_with("").await
    }

    /// As [`Proxy::connect`], with more in the connection string.
    pub async fn connect_with(&self, more: &str) -> Result<Connection, tokio_postgres::Error> {
        let (host, port) = (self.address.ip(), self.address.port());
        Connection::open(&format!("host={host} port={port} user={APP} dbname={APP} {more}")).await
    }

    /// A program with the variables that libpq reads.
    pub fn program(&self, path: &str) -> Program {
        Program::new(path)
            .env("PGHOST", &self.address.ip().to_string())
            .env("PGPORT", &self.address.port().to_string())
            .env("PGUSER", APP)
            .env("PGDATABASE", APP)
    }

    /// Runs psql on a script: unaligned, tuples only, errors with their SQLSTATE, on after errors.
    pub async fn psql(&self, script: &str) -> Said {
        let arguments = ["-X", "-A", "-t", "-q", "-v", "VERBOSITY=sqlstate", "-v", "SHOW_CONTEXT=never"];
        self.program("psql").args(&arguments).input(script).run().await
    }

    /// Asserts that all replicas hold the same.
    pub async fn identical(&self) {
        identical(&self.shim).await;
    }
}

/// The SQLSTATE of a driver's error; the error's text if it has none.
pub fn sqlstate(error: &tokio_postgres::Error) -> String {
    error.code().map_or_else(|| format!("{error:?}"), |code| code.code().to_string())
}
