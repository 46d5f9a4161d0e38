//! Connections to the broker.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::BytesMut;
use clap::Args;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::meter;
use crate::tls::{Connector, TlsArgs, server_name};
use crate::wire;

/// Room that a read asks for.
const READ: usize = 64 * 1024;
/// An answer to CONNECT or SUBSCRIBE that has not come by then never comes.
const ANSWER: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Args)]
pub(crate) struct TargetArgs {
    /// Where the broker listens
    pub(crate) address: SocketAddr,
    /// Its process, whose CPU time and memory count
    #[arg(long)]
    pub(crate) pid: u32,
    #[command(flatten)]
    tls: TlsArgs,
}

/// The other end of a mesh or a bridge.
#[derive(Debug, Clone, Args)]
pub(crate) struct FarArgs {
    /// Where subscribers connect: another broker, which gets the messages from the first one
    #[arg(long, requires = "to_pid")]
    to: Option<SocketAddr>,
    /// Its process
    #[arg(long, requires = "to")]
    to_pid: Option<u32>,
}

impl FarArgs {
    /// Where subscribers connect; as a rule where publishers do.
    pub(crate) fn target(&self, near: &Target) -> Target {
        Target { address: self.to.unwrap_or(near.address), tls: near.tls.clone() }
    }

    /// CPU time of the other broker, if there is one.
    pub(crate) fn cpu(&self) -> anyhow::Result<Option<Duration>> {
        self.to_pid.map(meter::cpu).transpose()
    }
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    tls: Connector,
}

/// The receiving half.
pub(crate) struct Reader {
    stream: ReadHalf<Box<dyn Stream>>,
    buffer: BytesMut,
}

/// The sending half.
pub(crate) struct Writer {
    stream: WriteHalf<Box<dyn Stream>>,
    pub(crate) out: BytesMut,
}

impl TargetArgs {
    pub(crate) fn target(&self) -> anyhow::Result<Target> {
        Ok(Target { address: self.address, tls: self.tls.connector()? })
    }
}

impl Target {
    /// A stream before its CONNECT.
    pub(crate) async fn stream(&self, receive_buffer: Option<u32>) -> anyhow::Result<Box<dyn Stream>> {
        let tcp = match receive_buffer {
            None => TcpStream::connect(self.address).await,
            Some(size) => {
                let socket = TcpSocket::new_v4()?;
                socket.set_recv_buffer_size(size)?;
                socket.connect(self.address).await
            }
        };
        let tcp = tcp.context("connect")?;
        tcp.set_nodelay(true)?;
        Ok(match &self.tls {
            Some(connector) => Box::new(connector.connect(server_name(self.address), tcp).await.context("TLS")?),
            None => Box::new(tcp),
        })
    }

    /// Connects and waits for CONNACK.
    pub(crate) async fn connect(&self, client_id: &str, clean: bool) -> anyhow::Result<(Reader, Writer)> {
        greet(self.stream(None).await?, client_id, clean).await
    }

    /// The same, and SUBSCRIBE.
    pub(crate) async fn subscribe(
        &self,
        client_id: &str,
        clean: bool,
        filter: &str,
        qos: u8,
    ) -> anyhow::Result<(Reader, Writer)> {
        let (mut reader, mut writer) = self.connect(client_id, clean).await?;
        writer.out.extend_from_slice(&wire::subscribe(&[filter.to_owned()], qos));
        writer.flush().await?;
        timeout(ANSWER, reader.expect(9)).await.context("no SUBACK in time")??;
        Ok((reader, writer))
    }
}

/// CONNECT and CONNACK on a new stream.
pub(crate) async fn greet(stream: Box<dyn Stream>, client_id: &str, clean: bool) -> anyhow::Result<(Reader, Writer)> {
    let (mut reader, mut writer) = halves(stream);
    writer.out = wire::connect(client_id, clean);
    writer.flush().await?;
    let connack = timeout(ANSWER, reader.expect(2)).await.context("no CONNACK in time")??;
    ensure!(connack.get(1) == Some(&0), "CONNECT was refused: {connack:?}");
    Ok((reader, writer))
}

/// The halves of a stream.
pub(crate) fn halves(stream: Box<dyn Stream>) -> (Reader, Writer) {
    let (read, write) = tokio::io::split(stream);
    (Reader { stream: read, buffer: BytesMut::new() }, Writer { stream: write, out: BytesMut::new() })
}

impl Reader {
    /// Hands over the packets that are whole; reads once if there are none yet.
    pub(crate) async fn read(&mut self, mut found: impl FnMut(u8, &[u8])) -> anyhow::Result<()> {
        let mut is_any = false;
        // What came together with CONNACK or SUBACK.
        wire::packets(&mut self.buffer, |first, body| {
            is_any = true;
            found(first, body);
        });
        if is_any {
            return Ok(());
        }
        self.fill().await?;
        wire::packets(&mut self.buffer, found);
        Ok(())
    }

    /// Waits for a packet of type `kind` and returns what follows its length. Others before it are dropped; what is behind it stays.
    pub(crate) async fn expect(&mut self, kind: u8) -> anyhow::Result<BytesMut> {
        loop {
            while let Some((first, body)) = wire::first_packet(&mut self.buffer) {
                if first >> 4 == kind {
                    return Ok(body);
                }
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        self.buffer.reserve(READ);
        ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the broker closed the connection");
        Ok(())
    }
}

impl Writer {
    pub(crate) async fn flush(&mut self) -> anyhow::Result<()> {
        self.stream.write_all_buf(&mut self.out).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// DISCONNECT, and the end of the stream.
    pub(crate) async fn leave(mut self) -> anyhow::Result<()> {
        self.out.extend_from_slice(&[0xE0, 0]);
        self.flush().await?;
        self.stream.shutdown().await?;
        Ok(())
    }
}
