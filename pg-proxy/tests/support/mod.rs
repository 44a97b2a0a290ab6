//! A proxy over replicas in the same process, and a client that speaks bytes.

use std::sync::{Arc, Mutex};
use steeldb_client_shim::testing::{FakeCluster, FakeLinks};
use steeldb_client_shim::{Patience, Shim, ShimConfig};
use steeldb_pg_proxy::{Proxy, ProxyOptions};
use steeldb_types::{ClientId, ReplicaId};
use steeldb_wire::auth::SecretKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A running proxy.
pub struct World {
    #[allow(dead_code, reason = "not every test file uses it")]
    pub cluster: Arc<Mutex<FakeCluster>>,
    pub port: u16,
}

/// Starts a proxy over `cluster`.
#[allow(dead_code, reason = "not every test file uses it")]
pub async fn start(cluster: FakeCluster) -> World {
    start_with(cluster, |_| {}).await
}

/// As [`start`], with other options.
#[allow(dead_code, reason = "not every test file uses it")]
pub async fn start_with(cluster: FakeCluster, change: impl FnOnce(&mut ProxyOptions)) -> World {
    launch(cluster, Patience::default(), change, std::future::pending()).await
}

/// As [`start`], until `shutdown` is done; sessions are broken off then.
#[allow(dead_code, reason = "not every test file uses it")]
pub async fn start_until(cluster: FakeCluster, shutdown: impl Future<Output = ()> + Send + 'static) -> World {
    let at_once =
        |options: &mut ProxyOptions| options.set(|settings| settings.stop_timeout = Default::default());
    launch(cluster, Patience::default(), at_once, shutdown).await
}

/// As [`start`], until `shutdown` is done; transactions have so long to end then.
#[allow(dead_code, reason = "not every test file uses it")]
pub async fn start_stopping(
    cluster: FakeCluster,
    stop_timeout: std::time::Duration,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> World {
    let patient =
        move |options: &mut ProxyOptions| options.set(|settings| settings.stop_timeout = stop_timeout);
    launch(cluster, Patience::default(), patient, shutdown).await
}

/// As [`start`], with so much patience for a transaction's outcome.
#[allow(dead_code, reason = "not every test file uses it")]
pub async fn start_patient(cluster: FakeCluster, outcome: std::time::Duration) -> World {
    launch(cluster, Patience { outcome, ..Patience::default() }, |_| {}, std::future::pending()).await
}

async fn launch(
    cluster: FakeCluster,
    patience: Patience,
    change: impl FnOnce(&mut ProxyOptions),
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> World {
    let view = cluster.view();
    let cluster = Arc::new(Mutex::new(cluster));
    let (links, events) = FakeLinks::start(cluster.clone());
    let config = ShimConfig {
        client: ClientId(1),
        key: SecretKey::from_seed(&[5; 32]),
        view,
        master: ReplicaId(0),
        execution: Default::default(),
        bulk_bytes_max: steeldb_types::limits::BULK_BYTES_MAX,
        patience,
    };
    let shim = Shim::over(config, Arc::new(links), events);
    let mut options = ProxyOptions::new("127.0.0.1:0", shim);
    change(&mut options);
    let proxy = Proxy::bind(options).await.unwrap();
    let port = proxy.local_addr().unwrap().port();
    tokio::spawn(proxy.run(shutdown));
    World { cluster, port }
}

impl World {
    /// A client past its start-up.
    pub async fn connect(&self) -> Wire {
        let mut wire = self.raw().await;
        wire.startup(&[("user", "app"), ("database", "db")]).await;
        let greeting = wire.until(b'Z').await;
        assert_eq!(greeting.first().map(|(tag, _)| *tag), Some(b'R'), "{greeting:?}");
        wire
    }

    /// A connection on which nothing was said.
    pub async fn raw(&self) -> Wire {
        Wire { stream: TcpStream::connect(("127.0.0.1", self.port)).await.unwrap() }
    }

    /// A tokio-postgres client.
    #[allow(dead_code, reason = "not every test file uses it")]
    pub async fn driver(&self) -> tokio_postgres::Client {
        let config = format!("host=127.0.0.1 port={} user=app dbname=db", self.port);
        let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

/// A client that speaks bytes.
pub struct Wire {
    pub stream: TcpStream,
}

/// A backend message.
pub type Message = (u8, Vec<u8>);

impl Wire {
    pub async fn startup(&mut self, parameters: &[(&str, &str)]) {
        let mut body = vec![0, 3, 0, 0];
        for (name, value) in parameters {
            body.extend(format!("{name}\0{value}\0").bytes());
        }
        body.push(0);
        let mut packet = (body.len() as u32 + 4).to_be_bytes().to_vec();
        packet.extend(body);
        self.stream.write_all(&packet).await.unwrap();
    }

    /// Sends messages together.
    pub async fn send(&mut self, messages: &[(u8, &[u8])]) {
        let mut bytes = Vec::new();
        for (tag, body) in messages {
            bytes.push(*tag);
            bytes.extend((body.len() as u32 + 4).to_be_bytes());
            bytes.extend(*body);
        }
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// The next message; nothing at the end of the connection.
    pub async fn next(&mut self) -> Option<Message> {
        let tag = self.stream.read_u8().await.ok()?;
        let length = self.stream.read_u32().await.ok()?;
        let mut body = vec![0; length as usize - 4];
        self.stream.read_exact(&mut body).await.ok()?;
        Some((tag, body))
    }

    /// Messages up to one of type `tag`, that one included; or to the end.
    pub async fn until(&mut self, tag: u8) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(message) = self.next().await {
            let last = message.0 == tag;
            messages.push(message);
            if last {
                break;
            }
        }
        messages
    }

    /// Runs a simple query; a line per message of the answer.
    pub async fn query(&mut self, sql: &str) -> Vec<String> {
        self.send(&[(b'Q', format!("{sql}\0").as_bytes())]).await;
        show(&self.until(b'Z').await)
    }

    /// Sends messages and a Sync; a line per message of the answer.
    #[allow(dead_code, reason = "not every test file uses it")]
    pub async fn pipeline(&mut self, messages: &[(u8, &[u8])]) -> Vec<String> {
        self.send(messages).await;
        self.send(&[(b'S', b"")]).await;
        show(&self.until(b'Z').await)
    }
}

/// A readable line per message.
pub fn show(messages: &[Message]) -> Vec<String> {
    messages
        .iter()
        .map(|(tag, body)| {
            let text = String::from_utf8_lossy(body).into_owned();
            match tag {
                b'C' => text.trim_end_matches('\0').to_string(),
                b'D' => format!("row {}", text.get(6..).unwrap_or_default()),
                b'E' | b'N' => {
                    let field = |kind| fields(&text, kind);
                    let kind = if *tag == b'E' { "error" } else { "notice" };
                    let place = field('P').map(|place| format!(" at {place}")).unwrap_or_default();
                    format!("{kind} {}{place}", field('C').unwrap_or_default())
                }
                b'Z' => format!("ready {text}"),
                b'd' => format!("data {}", text.trim_end()),
                tag => char::from(*tag).to_string(),
            }
        })
        .collect()
}

fn fields(text: &str, wanted: char) -> Option<String> {
    text.split('\0').find_map(|field| field.strip_prefix(wanted)).map(str::to_string)
}
