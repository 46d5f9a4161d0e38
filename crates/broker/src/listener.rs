//! Accepts connections: TCP options, TLS, CONNECT, and then the [`Connection`].
//!
//! Each worker has listeners of its own for the same addresses; the kernel spreads new connections over them. A connection
//! is one task of its worker, owned by the worker's tracker; until its CONNECT it ends at once when the broker stops.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use evermq_daemon::listen::{self, SocketOptions};
use evermq_mqtt::packet::Connect;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{self, AdmissionError};
use crate::auth::Identity;
use crate::broker::{Broker, Place};
use crate::connection::{Connection, clock};

/// How long accepting rests after a failure such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every connection of a listener is given.
#[derive(Clone)]
pub struct Entrance {
    /// The broker.
    pub broker: Arc<Broker>,
    /// TLS with client certificates; `None` for plain TCP.
    pub tls: Option<TlsAcceptor>,
    /// TCP options.
    pub options: SocketOptions,
    /// For TLS and CONNECT together.
    pub connect_timeout: Duration,
    /// Connections that the broker serves at once.
    pub max_connections: usize,
    /// Ends what has not got in.
    pub shutdown: CancellationToken,
}

/// Why a connection did not get in.
#[derive(Debug, thiserror::Error)]
enum Stranger {
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    #[error("CONNECT refused: {0}")]
    Refused(&'static str),
    #[error("no CONNECT in time")]
    Late,
    #[error("the broker stops")]
    Stopping,
}

/// Accepts connections until shutdown.
pub async fn serve(listener: TcpListener, entrance: Entrance, tasks: TaskTracker) {
    let mut is_failing = false;
    loop {
        let accepted = tokio::select! {
            () = entrance.shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => {
                is_failing = false;
                accepted
            }
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, "cannot accept connections; trying again until it works");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = entrance.broker.place(entrance.max_connections) else {
            // §4.13: nothing is known of the other side, so there is nothing to say.
            entrance.broker.counters.strangers.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%address, "refused: broker.max_connections are connected");
            continue;
        };
        let (entrance, clients) = (entrance.clone(), tasks.clone());
        tasks.spawn(async move {
            if let Err(stranger) = enter(stream, &entrance, place, &clients).await {
                entrance.broker.counters.strangers.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%address, reason = %stranger, "connection did not get in");
            }
        });
    }
}

/// Lets a client in. It gets a task of its own, which is much smaller than the one for all that comes before.
async fn enter(stream: TcpStream, entrance: &Entrance, place: Place, clients: &TaskTracker) -> Result<(), Stranger> {
    if let Err(error) = listen::tune(&stream, entrance.options) {
        tracing::debug!(%error, "TCP options");
    }
    let deadline = tokio::time::Instant::now() + entrance.connect_timeout;
    match &entrance.tls {
        None => greet(stream, Identity::Anonymous, entrance, place, clients, deadline).await,
        Some(acceptor) => {
            let stream = tokio::select! {
                () = entrance.shutdown.cancelled() => return Err(Stranger::Stopping),
                handshake = tokio::time::timeout_at(deadline, acceptor.accept(stream)) => {
                    handshake.map_err(|_| Stranger::Late)?.map_err(Stranger::Tls)?
                }
            };
            let identity = Identity::of(stream.get_ref().1.peer_certificates());
            greet(stream, identity, entrance, place, clients, deadline).await
        }
    }
}

async fn greet<S>(
    mut stream: S,
    identity: Identity,
    entrance: &Entrance,
    place: Place,
    clients: &TaskTracker,
    deadline: tokio::time::Instant,
) -> Result<(), Stranger>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limit = entrance.broker.limits.max_packet_size;
    let (connect, unread) = tokio::select! {
        () = entrance.shutdown.cancelled() => return Err(Stranger::Stopping),
        connect = tokio::time::timeout_at(deadline, admission::read_connect(&mut stream, limit)) => {
            connect.map_err(|_| Stranger::Late)??
        }
    };
    let version = connect.version;
    let connection = match open(stream, connect, unread, &identity, &entrance.broker) {
        Ok(connection) => connection,
        Err((mut stream, reason)) => {
            let refusal = admission::refuse(&mut stream, version, reason);
            tokio::time::timeout_at(deadline, refusal)
                .await
                .map_err(|_| Stranger::Late)?
                .map_err(AdmissionError::Io)?;
            return Err(Stranger::Refused(reason.name()));
        }
    };
    clients.spawn(async move {
        connection.run().await;
        drop(place);
    });
    Ok(())
}

fn open<S>(
    stream: S,
    connect: Connect,
    unread: BytesMut,
    identity: &Identity,
    broker: &Arc<Broker>,
) -> Result<Connection<S>, (S, evermq_mqtt::ReasonCode)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let version = connect.version;
    match broker.connect(connect, clock()) {
        Ok(accepted) => {
            tracing::debug!(client = %accepted.mailbox.client_id(), %identity, ?version, "client connected");
            // What was read with the CONNECT is little, as a rule nothing; its buffer was made for the CONNECT.
            let unread = if unread.is_empty() { BytesMut::new() } else { unread };
            Ok(Connection::new(stream, Arc::clone(broker), version, accepted, unread))
        }
        Err(reason) => Err((stream, reason)),
    }
}
