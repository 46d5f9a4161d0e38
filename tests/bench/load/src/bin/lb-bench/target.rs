//! Where the load goes, and the connections that carry it.

use std::net::{SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// An attempt to connect that has not succeeded by then has failed.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);
/// Connections being opened at once, where that is not what is measured.
const AT_ONCE: usize = 32;

#[derive(Debug, Clone, Args)]
pub(crate) struct TargetArgs {
    /// Where to connect
    pub(crate) address: SocketAddr,
    /// The balancer's process: its CPU time and memory count, with its children's
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// CA certificate (PEM): speak TLS, with --cert and --key
    #[arg(long, requires = "cert", requires = "key")]
    ca: Option<PathBuf>,
    /// Client certificate, PEM
    #[arg(long)]
    cert: Option<PathBuf>,
    /// Client key, PEM
    #[arg(long)]
    key: Option<PathBuf>,
    /// Resume TLS sessions where a ticket is at hand
    #[arg(long)]
    resume: bool,
    /// The name that clients ask for
    #[arg(long, default_value = "lb1")]
    name: String,
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// One connection, whose greeting has come back.
pub(crate) struct Opened {
    pub(crate) stream: Box<dyn Stream>,
    /// Whether TLS was resumed.
    pub(crate) resumed: bool,
}

/// Makes connections.
pub(crate) struct Target {
    address: SocketAddr,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// The first bytes: a ClientHello, or where the balancer ends TLS a CONNECT.
    greeting: Vec<u8>,
}

impl TargetArgs {
    pub(crate) fn target(&self) -> anyhow::Result<Target> {
        let name = ServerName::try_from(self.name.clone())?;
        let tls = self.connector()?.map(|connector| (connector, name.clone()));
        let greeting = if tls.is_some() { mqtt_connect("bench") } else { client_hello(name)? };
        Ok(Target { address: self.address, tls, greeting })
    }

    /// TLS with the certificates of the command line; none without.
    pub(crate) fn connector(&self) -> anyhow::Result<Option<TlsConnector>> {
        let (Some(ca), Some(cert), Some(key)) = (&self.ca, &self.cert, &self.key) else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca)? {
            roots.add(certificate)?;
        }
        let key = PrivateKeyDer::from_pem_file(key).with_context(|| key.display().to_string())?;
        let mut config = builder()?.with_root_certificates(roots).with_client_auth_cert(certificates(cert)?, key)?;
        if !self.resume {
            config.resumption = Resumption::disabled();
        }
        Ok(Some(Arc::new(config).into()))
    }

    pub(crate) fn server_name(&self) -> anyhow::Result<ServerName<'static>> {
        Ok(ServerName::try_from(self.name.clone())?)
    }
}

impl Target {
    /// Connects, greets and waits until the greeting has come back.
    pub(crate) async fn open(&self) -> anyhow::Result<Opened> {
        timeout(OPEN_TIMEOUT, self.open_patiently()).await.context("not connected in time")?
    }

    /// Opens `count`, some at a time.
    pub(crate) async fn open_all(self, count: usize) -> anyhow::Result<Vec<Opened>> {
        let target = Rc::new(self);
        let mut tasks = JoinSet::new();
        let mut opened = Vec::with_capacity(count);
        for number in 0..count {
            if number >= AT_ONCE
                && let Some(done) = tasks.join_next().await
            {
                opened.push(done??);
            }
            let target = Rc::clone(&target);
            tasks.spawn_local(async move { target.open().await });
        }
        while let Some(done) = tasks.join_next().await {
            opened.push(done??);
        }
        Ok(opened)
    }

    async fn open_patiently(&self) -> anyhow::Result<Opened> {
        let tcp = TcpStream::connect(self.address).await.context("connect")?;
        tcp.set_nodelay(true)?;
        let (mut stream, resumed): (Box<dyn Stream>, _) = match &self.tls {
            None => (Box::new(tcp), false),
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), tcp).await.context("TLS")?;
                let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
                (Box::new(stream), resumed)
            }
        };
        stream.write_all(&self.greeting).await.context("greeting")?;
        stream.flush().await?;
        let mut back = vec![0; self.greeting.len()];
        stream.read_exact(&mut back).await.context("greeting's echo")?;
        ensure!(back == self.greeting, "the greeting came back changed");
        Ok(Opened { stream, resumed })
    }
}

/// Connects from `source`; the port is chosen only then, so that each source address has all of them for each destination.
pub(crate) async fn connect_from(source: SocketAddrV4, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::IpBindAddressNoPort, &true)?;
    socket.bind(source.into())?;
    socket.set_nodelay(true)?;
    socket.connect(address).await
}

fn builder() -> anyhow::Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>> {
    let mut provider = default_provider();
    // What every balancer here has: a post-quantum key exchange would cost some of them a round trip.
    provider.kx_groups = vec![kx_group::X25519, kx_group::SECP256R1];
    Ok(ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[&rustls::version::TLS13])?)
}

/// A real ClientHello, as it goes over the wire.
fn client_hello(name: ServerName<'static>) -> anyhow::Result<Vec<u8>> {
    let mut config = builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.alpn_protocols = vec![b"mqtt".to_vec()];
    let mut hello = Vec::new();
    ClientConnection::new(Arc::new(config), name)?.write_tls(&mut hello)?;
    Ok(hello)
}

/// MQTT 3.1.1 §3.1: CONNECT of a clean session, keep alive 60 s.
pub(crate) fn mqtt_connect(client_id: &str) -> Vec<u8> {
    let id = client_id.as_bytes();
    let short = |length: usize| u8::try_from(length).expect("client identifiers of this program are short");
    let mut packet = vec![0x10, short(12 + id.len()), 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, short(id.len())];
    packet.extend_from_slice(id);
    packet
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.with_context(|| path.display().to_string())
}
