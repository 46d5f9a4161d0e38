//! Asking a host's endpoint: one connection, kept for the next question.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use evermq_config::HostName;
use evermq_daemon::tls;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// Bytes of an answer.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// Why a host's endpoint gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// It took too long.
    #[error("{address} does not answer within {} ms", timeout.as_millis())]
    Slow {
        /// Where.
        address: SocketAddr,
        /// How long was waited.
        timeout: Duration,
    },
    /// Nobody there.
    #[error("cannot connect to {address}: {source}; is the host up, and does evermq-admin run there?")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// One of the two does not accept the other's certificate.
    #[error("TLS with {address} failed: {source}")]
    Tls {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The connection broke, or carries no HTTP.
    #[error("{address}: {source}")]
    Http {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: hyper::Error,
    },
    /// It would not.
    #[error("{address}: {text}")]
    Refused {
        /// Where.
        address: SocketAddr,
        /// The status.
        status: StatusCode,
        /// Its words.
        text: String,
    },
    /// An answer that is not understood.
    #[error("{address} answers something else than evermq-admin does; is it of the same version?")]
    Answer {
        /// Where.
        address: SocketAddr,
    },
}

/// A host's endpoint.
#[derive(Debug)]
pub struct Door {
    host: HostName,
    address: SocketAddr,
    config: Arc<ClientConfig>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    sender: SendRequest<Full<Bytes>>,
    /// The connection's task ends with this.
    _task: JoinSet<()>,
}

impl Door {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(host: HostName, address: SocketAddr, config: Arc<ClientConfig>) -> Self {
        Self { host, address, config, open: None }
    }

    /// Asks for `path`.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn get(&mut self, path: &str, timeout: Duration) -> Result<Value, RemoteError> {
        self.ask(Method::GET, path, Bytes::new(), timeout).await
    }

    /// Has something done.
    ///
    /// # Errors
    /// See [`RemoteError`].
    pub async fn post(&mut self, path: &str, body: &Value, timeout: Duration) -> Result<Value, RemoteError> {
        self.ask(Method::POST, path, Bytes::from(body.to_string()), timeout).await
    }

    async fn ask(&mut self, method: Method, path: &str, body: Bytes, timeout: Duration) -> Result<Value, RemoteError> {
        let address = self.address;
        let answer = tokio::time::timeout(timeout, self.exchange(method, path, body)).await;
        let answer = answer.unwrap_or(Err(RemoteError::Slow { address, timeout }));
        if !matches!(answer, Ok(_) | Err(RemoteError::Refused { .. })) {
            self.open = None;
        }
        answer
    }

    async fn exchange(&mut self, method: Method, path: &str, body: Bytes) -> Result<Value, RemoteError> {
        let address = self.address;
        // A connection that was kept may have been closed meanwhile; what only asks may be asked again.
        let kept = self.open.take().filter(|open| method == Method::GET && !open.sender.is_closed());
        if let Some(mut open) = kept
            && let Ok(answer) = exchange(&mut open, address, &method, path, body.clone()).await
        {
            self.open = Some(open);
            return answer;
        }
        let mut open = self.connect().await?;
        let answer = exchange(&mut open, address, &method, path, body).await;
        self.open = Some(open);
        answer.unwrap_or_else(|source| Err(RemoteError::Http { address, source }))
    }

    async fn connect(&self) -> Result<Open, RemoteError> {
        let address = self.address;
        let stream = TcpStream::connect(address).await.map_err(|source| RemoteError::Connect { address, source })?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(tls::server_name(&self.host), stream).await;
        let stream = stream.map_err(|source| RemoteError::Tls { address, source })?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|source| RemoteError::Http { address, source })?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, %error, "connection to another host's endpoint ended");
            }
        });
        Ok(Open { sender, _task: task })
    }
}

/// The outer error: the connection is of no use.
async fn exchange(
    open: &mut Open,
    address: SocketAddr,
    method: &Method,
    path: &str,
    body: Bytes,
) -> Result<Result<Value, RemoteError>, hyper::Error> {
    let request = Request::builder().method(method).uri(path).header(HOST, address.to_string());
    let request = if body.is_empty() { request } else { request.header(CONTENT_TYPE, "application/json") };
    let request = request.body(Full::new(body)).expect("the parts of a request are well-formed");
    open.sender.ready().await?;
    let response = open.sender.send_request(request).await?;
    let status = response.status();
    let Ok(body) = Limited::new(response.into_body(), MAX_ANSWER).collect().await else {
        return Ok(Err(RemoteError::Answer { address }));
    };
    let body = body.to_bytes();
    let value = serde_json::from_slice::<Value>(&body).ok();
    if !status.is_success() {
        let told = value.as_ref().and_then(|value| value["error"].as_str()).map(str::to_owned);
        let text = told.unwrap_or_else(|| status.to_string());
        return Ok(Err(RemoteError::Refused { address, status, text }));
    }
    Ok(value.ok_or(RemoteError::Answer { address }))
}
