//! One MQTT 3.1.1 connection over mutual TLS. The packets come from rumqttc, so that a mistake of our own codec cannot hide.

use std::io;
use std::net::SocketAddrV4;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::mqttbytes;
use rumqttc::{ConnAck, Connect, ConnectReturnCode, Packet};
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Shortest keep alive that MQTT knows. A client sends PINGREQ twice as often.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Between two PINGREQ.
pub(super) const PING_INTERVAL: Duration = Duration::from_millis(500);
/// A connection on which nothing came for this long is dead: one and a half keep alives, as brokers count it [MQTT-3.1.2-24].
pub(super) const SILENCE: Duration = Duration::from_millis(1500);
/// Largest packet that a broker may send here; the demo's own are far smaller.
const MAX_PACKET: usize = 64 * 1024;

/// Who connects, and where to.
#[derive(Clone)]
pub(super) struct Identity {
    connector: TlsConnector,
    address: SocketAddrV4,
}

/// A connection with its CONNACK.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    buffer: BytesMut,
    output: BytesMut,
    /// Whose certificate was seen.
    pub(super) broker: String,
}

impl Identity {
    /// Reads `NAME.crt`, `NAME.key` and `ca.crt` in `directory`. Each handshake is a full one.
    pub(super) fn load(directory: &Path, name: &str, address: SocketAddrV4) -> io::Result<Self> {
        let certificates = |file: &str| -> io::Result<Vec<CertificateDer<'static>>> {
            let read = CertificateDer::pem_file_iter(directory.join(file)).map_err(io::Error::other)?;
            read.collect::<Result<_, _>>().map_err(io::Error::other)
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates("ca.crt")? {
            roots.add(certificate).map_err(io::Error::other)?;
        }
        let key = PrivateKeyDer::from_pem_file(directory.join(format!("{name}.key"))).map_err(io::Error::other)?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates(&format!("{name}.crt"))?, key)
            .map_err(io::Error::other)?;
        config.resumption = Resumption::disabled();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), address })
    }

    /// TCP, TLS, CONNECT, CONNACK; all of it within `timeout`.
    pub(super) async fn connect(&self, client_id: &str, timeout: Duration) -> io::Result<Connection> {
        match tokio::time::timeout(timeout, self.connect_in_time(client_id)).await {
            Ok(result) => result,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no CONNACK in time")),
        }
    }

    async fn connect_in_time(&self, client_id: &str) -> io::Result<Connection> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::from(std::net::IpAddr::from(*self.address.ip()));
        let stream = self.connector.connect(name, tcp).await?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let broker = certificate.and_then(evermq_daemon::tls::common_name).unwrap_or_else(|| "?".to_owned());
        let mut connection = Connection { stream, buffer: BytesMut::new(), output: BytesMut::new(), broker };
        let mut connect = Connect::new(client_id);
        connect.keep_alive = u16::try_from(KEEP_ALIVE.as_secs()).unwrap_or(1);
        connect.clean_session = true;
        connection.send(&Packet::Connect(connect)).await?;
        match connection.receive().await? {
            Packet::ConnAck(ConnAck { code: ConnectReturnCode::Success, .. }) => Ok(connection),
            other => Err(io::Error::other(format!("expected CONNACK, got {other:?}"))),
        }
    }
}

impl Connection {
    /// The next packet. Cancel-safe: what has come stays in the buffer.
    pub(super) async fn receive(&mut self) -> io::Result<Packet> {
        loop {
            match Packet::read(&mut self.buffer, MAX_PACKET) {
                Ok(packet) => return Ok(packet),
                Err(mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
            let closed = || io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the other side");
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return Err(closed()),
                // An end without TLS's own goodbye is what one sees of a process that was killed.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(closed()),
                result => drop(result?),
            }
        }
    }

    /// Sends a packet.
    pub(super) async fn send(&mut self, packet: &Packet) -> io::Result<()> {
        self.output.clear();
        packet.write(&mut self.output, MAX_PACKET).map_err(io::Error::other)?;
        self.stream.write_all(&self.output).await?;
        self.stream.flush().await
    }

    /// Says goodbye; whether it arrives does not matter.
    pub(super) async fn close(mut self) {
        if self.send(&Packet::Disconnect).await.is_ok() {
            let _ = self.stream.shutdown().await;
        }
    }
}
