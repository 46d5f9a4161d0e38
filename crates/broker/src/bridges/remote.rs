//! The connection to the remote broker, up to its CONNACK.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use evermq_config::bridges::BridgeVersion;
use evermq_daemon::listen::{self, SocketOptions};
use evermq_mqtt::codec::{self, DecodeError, Sender};
use evermq_mqtt::packet::{ConnAck, Connect};
use evermq_mqtt::properties::ConnectProperties;
use evermq_mqtt::{Packet, QoS, ReasonCode, Text, Version};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::prepared::Prepared;
use super::relay::Terms;

/// For TCP, TLS and CONNACK together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What carries MQTT to the remote broker.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// The remote broker has said CONNACK.
pub(super) struct Remote {
    pub(super) stream: Box<dyn Wire>,
    /// What came after its CONNACK.
    pub(super) unread: BytesMut,
    /// Whether it has a session of this client.
    pub(super) session_present: bool,
    pub(super) terms: Terms,
    /// Messages of QoS 1 and 2 that it takes at once.
    pub(super) receive_maximum: u16,
    /// Whether it takes the client for a bridge, or needs not to.
    pub(super) is_bridge: bool,
    /// Where it is.
    pub(super) address: String,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum RemoteError {
    #[error("{address}: {source}")]
    Unreachable { address: String, source: io::Error },
    #[error("{address}: no CONNACK within 10 s")]
    Late { address: String },
    #[error("{address}: the remote broker closed the connection before its CONNACK")]
    Closed { address: String },
    #[error("{address}: the remote broker does not let the bridge in: {reason}", reason = .reason.name())]
    Refused { address: String, reason: ReasonCode },
    #[error("{address}: the remote broker sent what is no MQTT: {source}")]
    Malformed { address: String, source: DecodeError },
    #[error("{0}")]
    Setting(&'static str),
}

/// Connects to the first address that lets the bridge in. The limits are those of this broker.
pub(super) async fn connect(
    prepared: &Prepared,
    max_packet_size: u32,
    socket: SocketOptions,
) -> Result<Remote, RemoteError> {
    let mut last = RemoteError::Setting("there is no address");
    for address in &prepared.config.bridge.addresses {
        let attempt = tokio::time::timeout(CONNECT_TIMEOUT, connect_to(prepared, address, max_packet_size, socket));
        match attempt.await.unwrap_or_else(|_| Err(RemoteError::Late { address: address.clone() })) {
            Ok(remote) => return Ok(remote),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_to(
    prepared: &Prepared,
    address: &str,
    max_packet_size: u32,
    socket: SocketOptions,
) -> Result<Remote, RemoteError> {
    let bridge = &prepared.config.bridge;
    let says_so = bridge.version == BridgeVersion::V311 && bridge.try_private;
    match attempt(prepared, address, max_packet_size, socket, says_so).await {
        // 3.1.1 [MQTT-3.1.2-2]: it does not know what a bridge is.
        Err(RemoteError::Refused { reason: ReasonCode::UnsupportedProtocolVersion, .. }) if says_so => {
            attempt(prepared, address, max_packet_size, socket, false).await
        }
        other => other,
    }
}

async fn attempt(
    prepared: &Prepared,
    address: &str,
    max_packet_size: u32,
    socket: SocketOptions,
    says_so: bool,
) -> Result<Remote, RemoteError> {
    let unreachable = |source| RemoteError::Unreachable { address: address.to_owned(), source };
    let stream = TcpStream::connect(address).await.map_err(unreachable)?;
    listen::tune(&stream, socket).map_err(unreachable)?;
    let mut stream: Box<dyn Wire> = match &prepared.tls {
        Some(config) => {
            let name = server_name(prepared, address)?;
            Box::new(TlsConnector::from(Arc::clone(config)).connect(name, stream).await.map_err(unreachable)?)
        }
        None => Box::new(stream),
    };
    let (connect, out) = greeting(prepared, max_packet_size, says_so)?;
    stream.write_all(&out).await.map_err(unreachable)?;
    stream.flush().await.map_err(unreachable)?;
    let mut unread = BytesMut::new();
    let connack = loop {
        let decoded = codec::decode(&mut unread, connect.version, &codec::Limits::default());
        let checked = decoded.and_then(|packet| {
            packet.as_ref().map_or(Ok(()), |packet| codec::check_sender(packet, Sender::Server)).map(|()| packet)
        });
        match checked.map_err(|source| RemoteError::Malformed { address: address.to_owned(), source })? {
            Some(Packet::ConnAck(connack)) => break connack,
            Some(_) => return Err(RemoteError::Setting("the remote broker sent something else before its CONNACK")),
            None => {}
        }
        if stream.read_buf(&mut unread).await.map_err(unreachable)? == 0 {
            return Err(RemoteError::Closed { address: address.to_owned() });
        }
    };
    if connack.reason != ReasonCode::Success {
        return Err(RemoteError::Refused { address: address.to_owned(), reason: connack.reason });
    }
    Ok(Remote {
        stream,
        unread,
        session_present: connack.session_present,
        terms: terms(&connect, &connack, max_packet_size),
        receive_maximum: connack.properties.receive_maximum.unwrap_or(u16::MAX),
        is_bridge: says_so || connect.version == Version::V5,
        address: address.to_owned(),
    })
}

fn server_name(prepared: &Prepared, address: &str) -> Result<ServerName<'static>, RemoteError> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = prepared.config.bridge.tls.as_ref().and_then(|tls| tls.server_name.as_deref()).unwrap_or(host);
    ServerName::try_from(name.to_owned()).map_err(|_| {
        RemoteError::Setting(
            "server_name is neither a DNS name nor an address: write the one of the remote broker's certificate",
        )
    })
}

/// The CONNECT and its bytes.
fn greeting(prepared: &Prepared, max_packet_size: u32, says_so: bool) -> Result<(Connect, BytesMut), RemoteError> {
    let bridge = &prepared.config.bridge;
    let text = |text: &str| Text::new(text).map_err(|_| RemoteError::Setting("client_id or username is too long"));
    let version = match bridge.version {
        BridgeVersion::V311 => Version::V4,
        BridgeVersion::V50 => Version::V5,
    };
    let connect = Connect {
        version,
        clean_start: false,
        keep_alive: u16::try_from(bridge.keep_alive.as_secs()).unwrap_or(u16::MAX),
        client_id: text(&bridge.client_id)?,
        will: None,
        username: bridge.username.as_deref().map(text).transpose()?,
        password: prepared.password.as_ref().map(|password| password.0.clone()),
        properties: ConnectProperties {
            session_expiry: Some(u32::MAX),
            maximum_packet_size: Some(max_packet_size),
            ..ConnectProperties::default()
        },
        is_bridge: says_so,
    };
    let mut out = BytesMut::new();
    let packet = Packet::Connect(Box::new(connect.clone()));
    codec::encode(&packet, version, &mut out).map_err(|_| RemoteError::Setting("the CONNECT cannot be written"))?;
    Ok((connect, out))
}

fn terms(connect: &Connect, connack: &ConnAck, max_packet_size_here: u32) -> Terms {
    let said = &connack.properties;
    Terms {
        version: connect.version,
        max_packet_size: said.maximum_packet_size.unwrap_or(u32::MAX),
        max_packet_size_here,
        max_qos: said.maximum_qos.unwrap_or(QoS::ExactlyOnce),
        takes_retained: said.retain_available.unwrap_or(true),
        keep_alive: Duration::from_secs(said.server_keep_alive.unwrap_or(connect.keep_alive).into()),
    }
}
