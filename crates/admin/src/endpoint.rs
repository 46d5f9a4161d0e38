//! Answers over HTTPS.
//!
//! | request | who | answer |
//! |---|---|---|
//! | `GET /`, `/page.css`, `/page.js`, `/icon.svg` | readers | the page |
//! | `GET /api/host?after=N` | readers | [`crate::report::HostAnswer`] of this host |
//! | `GET /api/cluster?after=N` | readers | the overview of all hosts, and their transitions |
//! | `GET /metrics/vip`, `/metrics/lb`, `/metrics/broker` | readers | what that program of this host has for Prometheus |
//! | `GET /api/drain?broker=NAME` | readers | what the lb, or on the broker's host the broker itself, says of it |
//! | `POST /api/drain` with `broker`, `state`, `rate`, `moved` | admins | the same, after it |
//! | `POST /api/rebalance` with `rate` | admins | what the lb says of it |
//!
//! Strangers get as far as the TLS handshake and, where their certificate is nobody's who may see, one refusal, for
//! [`HANDSHAKE_TIMEOUT`] in all and [`MAX_STRANGERS`] at once; with `anonymous_read` they are readers. At most
//! [`MAX_CONNECTIONS`] connections, each with [`HEADER_TIMEOUT`] for a request's head of at most [`MAX_HEAD`] bytes,
//! [`BODY_TIMEOUT`] for a body of at most [`MAX_BODY`], and [`UNREAD_TIMEOUT`] to take what it is answered. Who has to make room
//! for others: `places`.
//!
//! Tasks: [`serve`] owns one task for each connection until it has shown who it is, and another one after that, in two sets
//! that end with it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

mod access;
mod action;
mod answer;
mod asset;
mod places;

pub use self::access::{Access, Caller, Right};
pub use self::answer::Host;
use self::places::{Places, Standing};

/// Connections at once: hosts, scrapers, a few people.
pub const MAX_CONNECTIONS: usize = 64;
/// Those of them that have not shown who they are.
pub const MAX_STRANGERS: usize = 16;
/// For TLS, and for the refusal of who may not see.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// For the head of a request, from the connection's start or the answer before.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// For the body of a request.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// For what was answered to be taken.
pub const UNREAD_TIMEOUT: Duration = Duration::from_secs(30);
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

/// Answers until `shutdown`, where it is listened on at the time; who was let in at another address before stays.
pub async fn serve(
    mut listeners: watch::Receiver<Option<Arc<TcpListener>>>,
    in_force: watch::Receiver<Arc<InForce>>,
    shutdown: CancellationToken,
) {
    let mut door = Door::default();
    loop {
        let listener = listeners.borrow_and_update().clone();
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = listeners.changed() => if changed.is_err() { return },
            Some(greeted) = door.greetings.join_next_with_id(), if !door.greetings.is_empty() => door.greeted(greeted),
            Some(ended) = door.connections.join_next_with_id(), if !door.connections.is_empty() => {
                door.leave(ended.map_or_else(|error| error.id(), |(id, ())| id));
            }
            accepted = accept(listener.as_deref()), if door.places.has_room() => match accepted {
                Ok((stream, peer)) => door.open(stream, peer, Arc::clone(&in_force.borrow())),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> std::io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// Everybody who is connected.
#[derive(Default)]
struct Door {
    /// Those of whom it is not known who they are.
    greetings: JoinSet<Option<Guest>>,
    /// Those who may see.
    connections: JoinSet<()>,
    places: Places<Id>,
    handles: HashMap<Id, AbortHandle>,
}

/// Who has shown that it may see.
struct Guest {
    stream: TlsStream<TcpStream>,
    peer: SocketAddr,
    caller: Caller,
    now: Arc<InForce>,
}

impl Door {
    fn open(&mut self, stream: TcpStream, peer: SocketAddr, now: Arc<InForce>) {
        let handle = self.greetings.spawn(async move {
            let greeting = tokio::time::timeout(HANDSHAKE_TIMEOUT, greet(stream, peer, now));
            greeting.await.unwrap_or_else(|_| {
                tracing::debug!(%peer, "a client took too long for TLS");
                None
            })
        });
        self.enter(handle, peer, Standing::Stranger);
    }

    fn greeted(&mut self, greeted: Result<(Id, Option<Guest>), JoinError>) {
        let (id, guest) = greeted.unwrap_or_else(|error| (error.id(), None));
        // One that had to make room at this very moment has lost its place.
        let had_place = self.leave(id);
        let Some(guest) = guest.filter(|_| had_place) else { return };
        let standing = if guest.caller.by_name { Standing::Named } else { Standing::Anonymous };
        let peer = guest.peer;
        let handle = self.connections.spawn(guest.serve());
        self.enter(handle, peer, standing);
    }

    fn enter(&mut self, handle: AbortHandle, peer: SocketAddr, standing: Standing) {
        let id = handle.id();
        self.handles.insert(id, handle);
        if let Some(goes) = self.places.enter(id, peer.ip(), standing, Instant::now().into_std())
            && let Some(handle) = self.handles.remove(&goes)
        {
            handle.abort();
        }
    }

    fn leave(&mut self, id: Id) -> bool {
        self.handles.remove(&id);
        self.places.leave(id).is_some()
    }
}

/// TLS, and who it is. None where that is all there will be: who may not see has been told so.
async fn greet(stream: TcpStream, peer: SocketAddr, now: Arc<InForce>) -> Option<Guest> {
    // Who asks and does not take the answer holds a place no longer than this.
    if let Err(error) = SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD_TIMEOUT)) {
        tracing::debug!(%peer, %error, "a client has gone");
    }
    let stream = match now.acceptor.accept(stream).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%peer, %error, "TLS with a client failed");
            return None;
        }
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let caller = now.access.caller(certificate);
    let guest = Guest { stream, peer, caller, now };
    if guest.caller.may >= Right::Read {
        return Some(guest);
    }
    guest.serve().await;
    None
}

impl Guest {
    /// Answers what it asks; one question only of who may not see.
    async fn serve(self) {
        let Self { stream, peer, caller, now } = self;
        let (host, over, caller) = (Arc::clone(&now.host), now.over.clone(), Arc::new(caller));
        drop(now);
        let may_ask_again = caller.may >= Right::Read;
        let service = service_fn(move |request| answer::answer(Arc::clone(&host), Arc::clone(&caller), request));
        let serving = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .keep_alive(may_ask_again)
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
}
