//! From an accepted socket to a client: PROXY protocol header, TLS, WebSocket, CONNECT; all of it within `connect_timeout`.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::BytesMut;
use evermq_config::broker::Protocol;
use evermq_daemon::proxy_protocol::Header;
use evermq_mqtt::packet::Connect;
use evermq_mqtt::{ReasonCode, Version};
use tokio_util::task::TaskTracker;

use super::Entrance;
use super::door::{Proxy, Tls};
use super::hall::Stranger;
use crate::admission::{self, AdmissionError};
use crate::auth::Client;
use crate::auth::introduction::{Introduction, introduce as introduce_to};
use crate::auth::verify::Turn;
use crate::authentication::AuthenticationError;
use crate::bridges::identity::is_reserved;
use crate::connection::{Connection, clock};
use crate::places::{Full, Held};
use crate::proxy::ProxyError;
use crate::stream::{Socket, Stream, TlsStream, Transport, WebSocketStream};

/// A connection that has just been accepted.
pub(super) struct Newcomer {
    pub(super) entrance: Entrance,
    /// Its place until it is in.
    pub(super) stranger: Stranger,
    /// Its place among all.
    pub(super) held: Held,
    /// The other end.
    pub(super) from: SocketAddr,
}

/// A client that has said who it is.
struct Introduced {
    stream: Stream,
    client: Client,
    /// Who it is, or why it may not come in.
    introduction: Result<Introduction, ReasonCode>,
    connect: Connect,
    /// What came after it.
    unread: BytesMut,
}

/// A client that is in. Small, for there are many.
struct Seated {
    connection: Connection<Stream>,
    /// Given back when the connection is gone.
    _held: Held,
}

impl Future for Seated {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.get_mut().connection).poll(cx)
    }
}

/// Why a connection did not get in.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    #[error(transparent)]
    Upgrade(#[from] crate::stream::UpgradeError),
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    #[error(transparent)]
    Authentication(#[from] AuthenticationError),
    #[error("CONNECT refused: {0}")]
    Connect(&'static str),
    #[error(transparent)]
    Full(#[from] Full),
    #[error("no CONNECT in time")]
    Late,
    #[error("the broker stops")]
    Stopping,
}

impl Newcomer {
    /// Lets a client in, or ends the connection. A client gets a task of its own, which is much smaller than the one for all
    /// that comes before.
    pub(super) async fn enter(self, socket: Socket, clients: TaskTracker) {
        let Self { entrance, stranger, mut held, from } = self;
        let deadline = tokio::time::Instant::now() + entrance.conditions.load().connect_timeout;
        let introduced = tokio::select! {
            () = entrance.shutdown.cancelled() => Err(Refused::Stopping),
            done = tokio::time::timeout_at(deadline, introduce(socket, from, &entrance, &stranger, &mut held)) => {
                done.unwrap_or(Err(Refused::Late))
            }
        };
        let refused = match introduced {
            Ok(introduced) => {
                match open(introduced, &entrance, &mut held) {
                    Ok(connection) => {
                        drop(stranger);
                        clients.spawn(Seated { connection, _held: held });
                        return;
                    }
                    Err(Unopened { mut stream, version, max_packet_size, reason, refused }) => {
                        // It has until the deadline to take the answer; whether it does makes no difference.
                        let answer = admission::refuse(&mut stream, version, max_packet_size, reason);
                        let _ = tokio::time::timeout_at(deadline, answer).await;
                        refused
                    }
                }
            }
            Err(refused) => refused,
        };
        let counters = &entrance.broker.counters;
        counters.strangers.fetch_add(1, Ordering::Relaxed);
        match &refused {
            Refused::Proxy(_) => {
                counters.proxy_refused.fetch_add(1, Ordering::Relaxed);
            }
            Refused::Full(full) => entrance.places.refused(*full, counters, clock()),
            Refused::Tls(error) => {
                counters.tls_failures.fetch_add(1, Ordering::Relaxed);
                entrance.places.tls_failed(from, &entrance.door.name, error, clock());
            }
            _ => {}
        }
        tracing::debug!(address = %from, listener = &*entrance.door.name, reason = %refused, "connection did not get in");
    }
}

/// Everything before the broker itself is asked.
async fn introduce(
    socket: Socket,
    from: SocketAddr,
    entrance: &Entrance,
    stranger: &Stranger,
    held: &mut Held,
) -> Result<Introduced, Refused> {
    let door = &*entrance.door;
    let mut socket = socket;
    let header = proxy_header(&mut socket, from, entrance).await?;
    let client = Client::new(from, header.as_ref()).at(door, matches!(socket, Socket::Unix(_)));
    stranger.set_source(client.address.ip());
    if !client.is_unix {
        entrance.places.take_address(held, client.address.ip())?;
    }
    let (transport, client) = match &door.tls {
        Some(tls) => secure(socket, tls, client, header.as_ref(), entrance, stranger).await?,
        None => {
            let client = match header.as_ref().and_then(|header| header.ssl.as_deref()) {
                Some(ssl) => client.with_ssl(ssl),
                None => client,
            };
            (Transport::Plain(socket), client)
        }
    };
    let mut stream = match door.protocol {
        Protocol::Mqtt => Stream::from(transport),
        Protocol::WebSocket => Stream::WebSocket(WebSocketStream::accept(transport).await?),
    };
    let max_packet_size = entrance.broker.limits().max_packet_size.min(door.max_packet_size.unwrap_or(u32::MAX));
    let (connect, mut unread) = admission::read_connect(&mut stream, max_packet_size).await?;
    // While it waits for its turn it takes up room like anybody else.
    let turn = Turn { source: entrance.places.source(&client), works: &|works| stranger.set_ours(works) };
    let from_it = (&mut stream, &mut unread);
    let introduction = introduce_to(from_it, &connect, &client, door.versions, &entrance.broker, &turn).await;
    let introduction = match introduction {
        Ok(introduction) => Ok(introduction),
        // Who has said what is wrong waits for an answer.
        Err(error) => Err(error.reason().ok_or(error)?),
    };
    // The lbs are to hear how this broker is, whatever that is.
    if !client.is_lb {
        entrance.broker.gate.opened().await;
    }
    Ok(Introduced { stream, client, introduction, connect, unread })
}

async fn proxy_header(socket: &mut Socket, from: SocketAddr, entrance: &Entrance) -> Result<Option<Header>, Refused> {
    let Socket::Tcp(stream) = socket else { return Ok(None) };
    let header = match entrance.door.proxy {
        Proxy::No => None,
        Proxy::Maybe => entrance.lbs.accept(stream, from).await?,
        Proxy::Always => Some(entrance.lbs.require(stream, from).await?),
    };
    if let Some(header) = &header {
        entrance.broker.counters.proxied.fetch_add(1, Ordering::Relaxed);
        tracing::trace!(lb = %from, ?header, "PROXY protocol header");
    }
    Ok(header)
}

async fn secure(
    socket: Socket,
    tls: &Tls,
    client: Client,
    header: Option<&Header>,
    entrance: &Entrance,
    stranger: &Stranger,
) -> Result<(Transport, Client), Refused> {
    let config = tls.configs.config(tls.clients);
    let begun = clock();
    let (stream, for_itself) = TlsStream::accept(socket, config, stranger).await.map_err(Refused::Tls)?;
    entrance.broker.counters.handshakes.observe(clock().saturating_duration_since(begun));
    let chain = stream.peer_certificates();
    // Where the lb ends the client's TLS and begins one of its own, its header says who the client is; where TLS passes
    // through it, the certificate here is the client's.
    let ended_there = header.and_then(|header| header.ssl.as_deref()).filter(|_| {
        let own = chain.and_then(|chain| chain.first());
        own.is_some_and(|own| entrance.lbs.is_certificate_of_one(own, client.peer.ip()))
    });
    let is_lb = for_itself && entrance.broker.cluster.is_lb(chain);
    let client = match ended_there {
        Some(ssl) => client.with_ssl(ssl),
        None => client.with_tls(stream.protocol_version(), chain),
    };
    Ok((Transport::Tls(stream), Client { is_lb, ..client }))
}

/// Why there is no connection, with what is needed to say so.
struct Unopened {
    stream: Stream,
    version: Version,
    /// Bytes of a packet that the client takes, if it said so.
    max_packet_size: Option<u32>,
    reason: ReasonCode,
    refused: Refused,
}

fn open(introduced: Introduced, entrance: &Entrance, held: &mut Held) -> Result<Connection<Stream>, Unopened> {
    let Introduced { stream, client, introduction, connect, unread } = introduced;
    let (version, broker) = (connect.version, &entrance.broker);
    let max_packet_size = connect.properties.maximum_packet_size;
    let refuse_for = |stream, reason: ReasonCode, refused| {
        broker.counters.connect_refusals.count(reason);
        Err(Unopened { stream, version, max_packet_size, reason, refused })
    };
    let refuse = |stream, reason: ReasonCode| refuse_for(stream, reason, Refused::Connect(reason.name()));
    let Introduction { login, authenticated } = match introduction {
        Ok(introduction) => introduction,
        Err(reason) => return refuse(stream, reason),
    };
    if is_reserved(&connect.client_id) {
        return refuse(stream, ReasonCode::ClientIdentifierNotValid);
    }
    if let Some(user) = login.user.as_deref() {
        let replaces = || broker.is_connected(&connect.client_id);
        if let Err(full) = entrance.places.take_user(held, user, replaces) {
            return refuse_for(stream, ReasonCode::QuotaExceeded, full.into());
        }
    }
    let user = login.user.clone();
    match broker.connect_as(connect, &client, login, authenticated, clock()) {
        Ok(accepted) => {
            held.place.seat(client.peer, &accepted);
            let Client { address, certificate, tls, unique_id, listener, is_lb, .. } = &client;
            let dn = certificate.as_ref().and_then(|certificate| certificate.subject());
            tracing::debug!(
                client = %accepted.mailbox.client_id(), %address, user = user.as_deref(), dn, tls, unique_id, is_lb,
                listener = &**listener, ?version, "client connected"
            );
            // What was read with the CONNECT is little, as a rule nothing; its buffer was made for the CONNECT.
            let unread = if unread.is_empty() { BytesMut::new() } else { unread };
            Ok(Connection::new(stream, Arc::clone(broker), version, accepted, unread))
        }
        Err(reason) => refuse(stream, reason),
    }
}
