//! Where the server is, and sessions with it.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, NoTls};

use crate::error::{Error, describe};

const DEFAULT_PORT: u16 = 5432;
const DEBIAN_SOCKET_DIRECTORY: &str = "/var/run/postgresql";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How to reach the server: a connection string, completed from PGHOST, PGPORT, PGUSER, PGDATABASE,
/// PGPASSWORD and PGAPPNAME where it leaves something open, as libpq does. TLS is not spoken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// `postgresql://user@host:port/database` or `host=... dbname=...`; `None` for the environment alone.
    pub url: Option<String>,
}

impl Connection {
    /// A connection described by this string.
    pub fn to(url: impl Into<String>) -> Self {
        Self { url: Some(url.into()) }
    }

    /// The driver's configuration.
    ///
    /// # Errors
    /// [`Error::ConnectionSettings`] naming the string or variable that cannot be understood.
    pub fn resolve(&self) -> Result<Config, Error> {
        self.resolve_with(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn resolve_with(&self, variable: impl Fn(&str) -> Option<String>) -> Result<Config, Error> {
        let mut config = match &self.url {
            Some(url) => Config::from_str(url)
                .map_err(|error| settings_error("the connection string", describe(&error)))?,
            None => Config::new(),
        };
        if config.get_ssl_mode() == SslMode::Require {
            return Err(settings_error(
                "sslmode=require",
                "TLS is not supported here, use a local server or proxy",
            ));
        }
        if config.get_ports().is_empty() {
            for port in variable("PGPORT").iter().flat_map(|ports| ports.split(',')) {
                let number = port.trim().parse::<u16>();
                config.port(number.map_err(|error| settings_error(format!("PGPORT={port}"), error))?);
            }
        }
        if config.get_hosts().is_empty() {
            let hosts = variable("PGHOST").unwrap_or_else(|| default_host(config.get_ports()).to_owned());
            // The driver takes a host that starts with a slash for the directory of a Unix socket.
            for host in hosts.split(',') {
                config.host(host.trim());
            }
        }
        if config.get_user().is_none()
            && let Some(user) = variable("PGUSER")
        {
            config.user(user);
        }
        if config.get_dbname().is_none()
            && let Some(database) = variable("PGDATABASE")
        {
            config.dbname(database);
        }
        if config.get_password().is_none()
            && let Some(password) = variable("PGPASSWORD")
        {
            config.password(password);
        }
        if config.get_application_name().is_none() {
            config.application_name(variable("PGAPPNAME").unwrap_or_else(|| "steeldb-tpcc".to_owned()));
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        Ok(config)
    }

    /// Opens a session.
    ///
    /// # Errors
    /// [`Error::ConnectionSettings`] and [`Error::Connect`].
    pub async fn open(&self) -> Result<Session, Error> {
        Session::open(&self.resolve()?).await
    }
}

fn settings_error(what: impl Into<String>, reason: impl ToString) -> Error {
    Error::ConnectionSettings { what: what.into(), reason: reason.to_string() }
}

/// As libpq chooses: the Unix socket if there is one, else TCP.
fn default_host(ports: &[u16]) -> &'static str {
    let port = ports.first().copied().unwrap_or(DEFAULT_PORT);
    let socket = Path::new(DEBIAN_SOCKET_DIRECTORY).join(format!(".s.PGSQL.{port}"));
    if socket.exists() { DEBIAN_SOCKET_DIRECTORY } else { "localhost" }
}

/// One session; it ends when this is dropped.
#[derive(Debug)]
pub struct Session {
    /// The driver's client.
    pub client: Client,
    io: JoinHandle<()>,
}

impl Session {
    /// Opens a session with a configuration resolved before.
    ///
    /// # Errors
    /// [`Error::Connect`].
    pub async fn open(config: &Config) -> Result<Self, Error> {
        let (client, io) = config
            .connect(NoTls)
            .await
            .map_err(|error| Error::Connect { target: target(config), reason: describe(&error) })?;
        // What ends the connection reaches the caller as the error of its current statement.
        let io = tokio::spawn(async move { drop(io.await) });
        Ok(Self { client, io })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.io.abort();
    }
}

/// Hosts, port and database for people to read; never the password.
pub(crate) fn target(config: &Config) -> String {
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            #[cfg(unix)]
            Host::Unix(directory) => directory.display().to_string(),
        })
        .collect();
    let port = config.get_ports().first().copied().unwrap_or(DEFAULT_PORT);
    let mut text = format!("{} port {port}", hosts.join(","));
    if let Some(database) = config.get_dbname() {
        text.push_str(&format!(" database {database}"));
    }
    if let Some(user) = config.get_user() {
        text.push_str(&format!(" user {user}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(url: Option<&str>, variables: &[(&str, &str)]) -> Result<Config, Error> {
        let find = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Connection { url: url.map(str::to_owned) }.resolve_with(find)
    }

    #[test]
    fn the_environment_alone_suffices() {
        let config = resolve(
            None,
            &[
                ("PGHOST", "/run/pg"),
                ("PGPORT", "6001"),
                ("PGUSER", "ann"),
                ("PGDATABASE", "shop"),
                ("PGAPPNAME", "x"),
            ],
        )
        .expect("valid settings");
        assert_eq!(config.get_hosts(), [Host::Unix("/run/pg".into())]);
        assert_eq!(config.get_ports(), [6001]);
        assert_eq!((config.get_user(), config.get_dbname()), (Some("ann"), Some("shop")));
        assert_eq!(config.get_application_name(), Some("x"));
    }

    #[test]
    fn the_url_wins_over_the_environment() {
        let config = resolve(
            Some("postgresql://bob@db:6002/tpcc"),
            &[("PGHOST", "elsewhere"), ("PGPORT", "1"), ("PGUSER", "ann"), ("PGPASSWORD", "secret")],
        )
        .expect("valid settings");
        assert_eq!(target(&config), "db port 6002 database tpcc user bob");
        assert_eq!(
            config.get_password(),
            Some(b"secret".as_slice()),
            "what the URL leaves open is completed"
        );
        assert_eq!(config.get_application_name(), Some("steeldb-tpcc"));
    }

    #[test]
    fn key_value_strings_are_understood() {
        let config = resolve(Some("host=/tmp/here dbname=d user=u"), &[]).expect("valid settings");
        assert_eq!(target(&config), "/tmp/here port 5432 database d user u");
    }

    #[test]
    fn nonsense_is_named_with_advice() {
        for (url, variables, named) in [
            (Some("nonsense"), &[][..], "connection string"),
            (Some("host=h sslmode=require"), &[][..], "sslmode=require"),
            (None, &[("PGPORT", "many")][..], "PGPORT=many"),
        ] {
            let text = resolve(url, variables).expect_err("refused").to_string();
            assert!(text.contains(named) && text.contains("--url"), "{text}");
        }
    }
}
