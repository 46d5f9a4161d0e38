//! Answers over HTTPS.
//!
//! | request | who | answer |
//! |---|---|---|
//! | `GET /`, `/page.css`, `/page.js`, `/icon.svg` | readers | the page |
//! | `GET /api/host?after=N` | readers | [`crate::report::HostAnswer`] of this host |
//! | `GET /api/cluster?after=N` | readers | the overview of all hosts, and their transitions |
//! | `GET /metrics/vip`, `/metrics/lb`, `/metrics/broker` | readers | what that program of this host has for Prometheus |
//! | `POST /api/drain` with `broker`, `state`, `rate` | admins | what the lb, or the broker itself, says of it |
//!
//! Strangers get as far as the TLS handshake, [`MAX_STRANGERS`] at once and for [`HANDSHAKE_TIMEOUT`]; with
//! `anonymous_read` they are readers. At most [`MAX_CONNECTIONS`] connections, each with [`HEADER_TIMEOUT`] for a request's head
//! of at most [`MAX_HEAD`] bytes, and [`BODY_TIMEOUT`] for a body of at most [`MAX_BODY`].
//!
//! Tasks: [`serve`] owns one task for each connection, in a set that ends with it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

mod access;
mod action;
mod answer;
mod asset;

pub use self::access::{Access, Caller, Right};
pub use self::answer::Host;

/// Connections at once: hosts, scrapers, a few people.
pub const MAX_CONNECTIONS: usize = 64;
/// Those of them that have not shown who they are.
pub const MAX_STRANGERS: usize = 16;
/// For TLS.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// For the head of a request, from the connection's start or the answer before.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// For the body of a request.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a request's head.
pub const MAX_HEAD: usize = 16 * 1024;
/// Bytes of a request's body.
pub const MAX_BODY: usize = 4 * 1024;
/// How long accepting rests after a failure such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What holds since the cluster file was read last.
pub struct InForce {
    /// Who may do what.
    pub access: Access,
    /// TLS.
    pub acceptor: TlsAcceptor,
    /// What is answered.
    pub host: Arc<Host>,
    /// It does not hold any more: connections end, and who comes again is judged anew.
    pub over: CancellationToken,
}

impl std::fmt::Debug for InForce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InForce").field("access", &self.access).finish_non_exhaustive()
    }
}

/// Answers until `shutdown`.
pub async fn serve(listener: TcpListener, in_force: watch::Receiver<Arc<InForce>>, shutdown: CancellationToken) {
    let strangers = Arc::new(Semaphore::new(MAX_STRANGERS));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = accept(&listener, &strangers), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, peer, place)) => {
                    let now = Arc::clone(&in_force.borrow());
                    connections.spawn(async move {
                        let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, now.acceptor.accept(stream)).await;
                        drop(place);
                        match handshake {
                            Ok(Ok(stream)) => connection(stream, peer, now).await,
                            Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS with a client failed"),
                            Err(_) => tracing::debug!(%peer, "a client took too long for TLS"),
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Takes a connection when there is a place for a stranger: until then it waits in the kernel. Cancel-safe.
async fn accept(
    listener: &TcpListener,
    strangers: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(strangers).acquire_owned().await.expect("nobody closes it");
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

async fn connection(stream: tokio_rustls::server::TlsStream<TcpStream>, peer: SocketAddr, now: Arc<InForce>) {
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let caller = Arc::new(now.access.caller(certificate));
    let (host, over) = (Arc::clone(&now.host), now.over.clone());
    drop(now);
    let service = service_fn(move |request| answer::answer(Arc::clone(&host), Arc::clone(&caller), request));
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = over.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
}
