//! The port: `/metrics`, `/health`, `/ready`.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value, json};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use steeldb_types::limits;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Bytes of a request's head; more is refused.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// How long to wait before accepting again when the system has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who a process is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// `replica` or `proxy`.
    pub role: &'static str,
    /// `r0`, `c1`.
    pub name: String,
    /// Of the program.
    pub version: &'static str,
}

/// Whether a process can do what it is there for.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Readiness {
    /// Why not, in a few words each; none: it is ready.
    pub reasons: Vec<String>,
    /// What that was judged by.
    pub details: Map<String, Value>,
}

impl Readiness {
    /// Whether it is ready.
    pub fn is_ready(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// What an endpoint tells.
pub trait Source: Send + Sync {
    /// Whose it is.
    fn identity(&self) -> Identity;
    /// In OpenMetrics' text format.
    fn metrics(&self) -> String;
    /// Asked at every `/ready`.
    fn readiness(&self) -> Readiness;
}

/// A port that is listened on and not served yet.
pub struct Endpoint {
    listener: TcpListener,
}

impl Endpoint {
    /// Listens on host:port.
    ///
    /// # Errors
    /// What the system says.
    pub async fn bind(listen: &str) -> io::Result<Endpoint> {
        Ok(Endpoint { listener: TcpListener::bind(listen).await? })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until it is dropped.
    pub async fn serve(self, source: Arc<dyn Source>) {
        let places = Arc::new(Semaphore::new(limits::METRICS_CONNECTIONS_MAX));
        let started = Instant::now();
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for metrics");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Whoever comes while all places are taken is turned away; those there have little time.
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let source = Arc::clone(&source);
            tokio::spawn(async move {
                let _place = place;
                let serving = converse(stream, source, started);
                let _ = tokio::time::timeout(limits::METRICS_CONNECTION_TIME, serving).await;
            });
        }
    }
}

/// One request, one answer.
async fn converse(stream: TcpStream, source: Arc<dyn Source>, started: Instant) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(&request, &*source, started);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::METRICS_CONNECTION_TIME)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Whoever breaks off, or speaks something else, has had its answer or wants none.
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection for metrics ended");
    }
}

fn answer(request: &Request<Incoming>, source: &dyn Source, started: Instant) -> Response<Full<Bytes>> {
    const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    const JSON: &str = "application/json";

    let path = request.uri().path();
    let known = matches!(path, "/metrics" | "/health" | "/ready");
    if known && request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "GET only\n".into());
        response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => respond(StatusCode::OK, METRICS, source.metrics()),
        "/health" => {
            let mut body = head(source);
            body.insert("alive".into(), json!(true));
            body.insert("uptime_s".into(), json!(started.elapsed().as_secs()));
            respond(StatusCode::OK, JSON, line(body))
        }
        "/ready" => {
            let readiness = source.readiness();
            let ready = readiness.is_ready();
            let mut body = head(source);
            body.insert("ready".into(), json!(ready));
            body.insert("reasons".into(), json!(readiness.reasons));
            body.extend(readiness.details);
            let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            respond(status, JSON, line(body))
        }
        _ => respond(StatusCode::NOT_FOUND, "text/plain", "/metrics, /health, /ready\n".into()),
    }
}

fn head(source: &dyn Source) -> Map<String, Value> {
    let Identity { role, name, version } = source.identity();
    let pairs = [("role", json!(role)), ("name", json!(name)), ("version", json!(version))];
    pairs.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}

fn line(body: Map<String, Value>) -> String {
    format!("{}\n", Value::Object(body))
}

fn respond(status: StatusCode, content: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    struct Told {
        ready: AtomicBool,
    }

    impl Source for Told {
        fn identity(&self) -> Identity {
            Identity { role: "replica", name: "r2".into(), version: "9.9" }
        }

        fn metrics(&self) -> String {
            "steeldb_x 1\n# EOF\n".into()
        }

        fn readiness(&self) -> Readiness {
            let reasons = if self.ready.load(Ordering::Relaxed) { vec![] } else { vec!["too far".into()] };
            Readiness { reasons, details: [("lag".to_string(), json!(7))].into_iter().collect() }
        }
    }

    async fn start() -> (SocketAddr, Arc<Told>) {
        let endpoint = Endpoint::bind("127.0.0.1:0").await.unwrap();
        let address = endpoint.local_addr().unwrap();
        let told = Arc::new(Told { ready: AtomicBool::new(false) });
        tokio::spawn(endpoint.serve(told.clone()));
        (address, told)
    }

    async fn say(address: SocketAddr, text: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        // A connection that is reset has said what it had to say.
        let _ = stream.read_to_end(&mut said).await;
        String::from_utf8(said).unwrap()
    }

    async fn get(address: SocketAddr, path: &str) -> (String, String) {
        let said = say(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        (head.to_string(), body.to_string())
    }

    #[tokio::test]
    async fn each_path_answers_with_its_status() {
        let (address, told) = start().await;
        let (head, body) = get(address, "/metrics").await;
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("openmetrics-text"), "{head}");
        assert_eq!(body, "steeldb_x 1\n# EOF\n");
        let (head, body) = get(address, "/ready").await;
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["reasons"], json!(["too far"]));
        assert_eq!((&body["lag"], &body["name"], &body["ready"]), (&json!(7), &json!("r2"), &json!(false)));
        told.ready.store(true, Ordering::Relaxed);
        assert!(get(address, "/ready").await.0.starts_with("HTTP/1.1 200"));
        let (head, body) = get(address, "/health").await;
        assert!(head.starts_with("HTTP/1.1 200") && body.contains("\"alive\":true"), "{head} {body}");
        assert!(get(address, "/else").await.0.starts_with("HTTP/1.1 404"));
        let post = "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
        assert!(say(address, post).await.starts_with("HTTP/1.1 405"));
        assert!(say(address, "nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400"));
        let long = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(2 * HEAD_BYTES_MAX));
        let said = say(address, &long).await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    }

    #[tokio::test]
    async fn who_comes_while_all_places_are_taken_is_turned_away() {
        let (address, _told) = start().await;
        let mut silent = Vec::new();
        for _ in 0..limits::METRICS_CONNECTIONS_MAX {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // Half a request: it has a place as soon as it is accepted, and keeps it.
            stream.write_all(b"GET ").await.unwrap();
            silent.push(stream);
        }
        assert_eq!(say(address, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await, "");
        drop(silent);
        // Their places are free as soon as their ends are noticed.
        while say(address, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await.is_empty() {
            tokio::task::yield_now().await;
        }
    }
}
