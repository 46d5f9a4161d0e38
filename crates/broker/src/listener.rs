//! Accepts connections: TCP options, PROXY protocol header, TLS, CONNECT, and then the [`Connection`].
//!
//! Each worker has listeners of its own for the same addresses; the kernel spreads new connections over them. A connection
//! is one task of its worker, owned by the worker's tracker; until its CONNECT it ends at once when the broker stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use evermq_daemon::cluster_topics;
use evermq_daemon::listen::{self, SocketOptions};
use evermq_daemon::proxy_protocol::Header;
use evermq_mqtt::packet::Connect;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::server::Acceptor;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{self, AdmissionError};
use crate::auth::Client;
use crate::broker::{Broker, Place};
use crate::connection::{Connection, clock};
use crate::proxy::{LoadBalancers, ProxyError};

/// How long accepting rests after a failure such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What comes first on a listener's connections.
#[derive(Clone)]
pub enum Door {
    /// CONNECT.
    Plain,
    /// TLS with client certificates, from load balancers perhaps behind a PROXY protocol header.
    Tls(TlsAcceptor),
    /// A PROXY protocol header, then CONNECT.
    Proxy,
}

/// What every connection of a listener is given.
#[derive(Clone)]
pub struct Entrance {
    /// The broker.
    pub broker: Arc<Broker>,
    /// What comes first.
    pub door: Door,
    /// Whose PROXY protocol headers are believed.
    pub lbs: LoadBalancers,
    /// TCP options.
    pub options: SocketOptions,
    /// For PROXY protocol header, TLS and CONNECT together.
    pub connect_timeout: Duration,
    /// Connections that the broker serves at once.
    pub max_connections: usize,
    /// Ends what has not got in.
    pub shutdown: CancellationToken,
}

/// Why a connection did not get in.
#[derive(Debug, thiserror::Error)]
enum Stranger {
    #[error(transparent)]
    Proxy(#[from] ProxyError),
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
            if let Err(stranger) = enter(stream, address, &entrance, place, &clients).await {
                let counters = &entrance.broker.counters;
                counters.strangers.fetch_add(1, Ordering::Relaxed);
                if matches!(stranger, Stranger::Proxy(_)) {
                    counters.proxy_refused.fetch_add(1, Ordering::Relaxed);
                }
                tracing::debug!(%address, reason = %stranger, "connection did not get in");
            }
        });
    }
}

/// Lets a client in. It gets a task of its own, which is much smaller than the one for all that comes before.
async fn enter(
    mut stream: TcpStream,
    from: SocketAddr,
    entrance: &Entrance,
    place: Place,
    clients: &TaskTracker,
) -> Result<(), Stranger> {
    if let Err(error) = listen::tune(&stream, entrance.options) {
        tracing::debug!(%error, "TCP options");
    }
    let deadline = tokio::time::Instant::now() + entrance.connect_timeout;
    match &entrance.door {
        Door::Plain => greet(stream, Client::new(from, None), entrance, place, clients, deadline).await,
        Door::Proxy => {
            let header = in_time(entrance, deadline, entrance.lbs.require(&mut stream, from)).await??;
            count_proxied(entrance, from, &header);
            let client = Client::new(from, Some(&header));
            let client = match &header.ssl {
                Some(ssl) => client.with_ssl(ssl),
                None => client,
            };
            greet(stream, client, entrance, place, clients, deadline).await
        }
        Door::Tls(acceptor) => {
            let header = in_time(entrance, deadline, entrance.lbs.accept(&mut stream, from)).await??;
            if let Some(header) = &header {
                count_proxied(entrance, from, header);
            }
            let (stream, for_itself) =
                in_time(entrance, deadline, accept(acceptor, stream)).await?.map_err(Stranger::Tls)?;
            let (tls, client) = (stream.get_ref().1, Client::new(from, header.as_ref()));
            let chain = tls.peer_certificates();
            // Where the lb ends the client's TLS and begins one of its own, its header says who the client is; where TLS
            // passes through it, the certificate here is the client's.
            let ended_there = header.as_ref().and_then(|header| header.ssl.as_deref()).filter(|_| {
                let own = chain.and_then(|chain| chain.first());
                own.is_some_and(|own| entrance.lbs.is_certificate_of_one(own, from.ip()))
            });
            let client = match ended_there {
                Some(ssl) => client.with_ssl(ssl),
                None => client.with_tls(tls.protocol_version(), chain),
            };
            let is_lb = for_itself && entrance.broker.cluster.is_lb(chain);
            greet(stream, Client { is_lb, ..client }, entrance, place, clients, deadline).await
        }
    }
}

/// The TLS handshake, and whether the other side says in it that it is an lb that speaks for itself.
async fn accept(acceptor: &TlsAcceptor, stream: TcpStream) -> std::io::Result<(TlsStream<TcpStream>, bool)> {
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let protocols = hello.client_hello().alpn();
    let for_itself = protocols.is_some_and(|mut protocols| protocols.any(|name| name == cluster_topics::ALPN));
    Ok((hello.into_stream(Arc::clone(acceptor.config())).await?, for_itself))
}

/// `what` before the deadline and before the broker stops.
async fn in_time<T>(
    entrance: &Entrance,
    deadline: tokio::time::Instant,
    what: impl Future<Output = T>,
) -> Result<T, Stranger> {
    tokio::select! {
        () = entrance.shutdown.cancelled() => Err(Stranger::Stopping),
        done = tokio::time::timeout_at(deadline, what) => done.map_err(|_| Stranger::Late),
    }
}

fn count_proxied(entrance: &Entrance, lb: SocketAddr, header: &Header) {
    entrance.broker.counters.proxied.fetch_add(1, Ordering::Relaxed);
    tracing::trace!(%lb, ?header, "PROXY protocol header");
}

async fn greet<S>(
    mut stream: S,
    client: Client,
    entrance: &Entrance,
    mut place: Place,
    clients: &TaskTracker,
    deadline: tokio::time::Instant,
) -> Result<(), Stranger>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limit = entrance.broker.limits.max_packet_size;
    let (connect, unread) = in_time(entrance, deadline, admission::read_connect(&mut stream, limit)).await??;
    let version = connect.version;
    let connection = match open(stream, connect, unread, &client, &entrance.broker, &mut place) {
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
    client: &Client,
    broker: &Arc<Broker>,
    place: &mut Place,
) -> Result<Connection<S>, (S, evermq_mqtt::ReasonCode)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let version = connect.version;
    match broker.connect_as(connect, client.is_lb, clock()) {
        Ok(accepted) => {
            place.seat(client.peer, &accepted);
            let Client { address, identity, dn, tls, unique_id, peer: _, is_lb } = client;
            tracing::debug!(
                client = %accepted.mailbox.client_id(), %address, %identity, dn, tls, unique_id, is_lb, ?version, "client connected"
            );
            // What was read with the CONNECT is little, as a rule nothing; its buffer was made for the CONNECT.
            let unread = if unread.is_empty() { BytesMut::new() } else { unread };
            Ok(Connection::new(stream, Arc::clone(broker), version, accepted, unread))
        }
        Err(reason) => Err((stream, reason)),
    }
}
