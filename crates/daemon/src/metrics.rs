//! Figures for Prometheus: histograms, the text format, and the HTTP server that shows it.
//!
//! [`serve`] answers `GET /metrics` and nothing else. It listens where the operator says, as a rule on loopback, without
//! TLS: the figures hold no secret. At most [`MAX_CONNECTIONS`] connections at once, each with [`HEADER_TIMEOUT`] for a
//! request's head (and for the pause between two requests) of at most [`MAX_HEAD`] bytes; a request's body is not read.
//!
//! Tasks: [`serve`] owns one task for each connection, in a set that ends with it.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

mod exposition;
mod histogram;

pub use self::exposition::{Exposition, Family, Kind};
pub use self::histogram::{BOUNDS, Counts, Histogram};

/// Connections served at once: a few scrapers.
pub const MAX_CONNECTIONS: usize = 16;
/// For the head of a request, from the connection's start or the answer before.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
pub const MAX_HEAD: usize = 16 * 1024;
/// Prometheus' text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// How long accepting rests after a failure such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Makes the text at each scrape.
pub type Text = Arc<dyn Fn() -> String + Send + Sync>;

/// The address for metrics cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for metrics: {source}; correct `metrics`, or free the port")]
pub struct MetricsError {
    /// The address.
    pub address: SocketAddr,
    /// Why not.
    pub source: io::Error,
}

/// Listens for scrapers.
///
/// # Errors
/// The address is not this machine's, or taken.
pub fn bind(address: SocketAddr) -> Result<TcpListener, MetricsError> {
    let open = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    open().map_err(|source| MetricsError { address, source })
}

/// Answers scrapers until `shutdown`.
///
/// # Errors
/// The listener does not belong to a runtime that can drive it.
pub async fn serve(listener: TcpListener, text: Text, shutdown: CancellationToken) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, peer)) => {
                    let text = Arc::clone(&text);
                    connections.spawn(async move {
                        if let Err(error) = connection(stream, text).await {
                            tracing::debug!(%peer, %error, "scraper's connection ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept scrapers");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn connection(stream: tokio::net::TcpStream, text: Text) -> hyper::Result<()> {
    let service = service_fn(move |request| {
        let answer = answer(&request, &text);
        async move { Ok::<_, Infallible>(answer) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn answer(request: &Request<Incoming>, text: &Text) -> Response<Full<Bytes>> {
    let plain = |status: StatusCode, body: String| {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response
    };
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "the figures are at /metrics\n".to_owned());
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, String::new());
        response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let mut response = plain(StatusCode::OK, text());
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(TEXT_FORMAT));
    response
}

#[cfg(test)]
mod tests;
