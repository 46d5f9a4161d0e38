//! Drives one backend's [`Session`] and [`Backend`]: sockets, TLS and the clock.
//!
//! One task for each backend, owned by the control thread, cancelled by its token. Every future in [`Link`] is kept over
//! turns of the loop, so an input that wins never costs another one its progress.

use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use evermq_daemon::listen::{self, SocketOptions};
use evermq_mqtt::codec::{self, Limits};
use evermq_mqtt::packet::{Connect, Disconnect};
use evermq_mqtt::{Packet, ReasonCode, Text, Version};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::backend::{self, Backend, Standing};
use crate::health::{self, Failure, Session, Timing};
use crate::pool::{Member, Pool};
use crate::worker::Worker;

/// MQTT 3.1.1, which every broker speaks.
const VERSION: Version = Version::V4;
/// All that a broker may send here is CONNACK and PINGRESP.
const LIMITS: Limits = Limits { max_packet_size: 256 };
/// The keep alive is for the broker, which is to forget a dead lb; some refuse shorter ones.
const SHORTEST_KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_millis(100);

/// What every probe of this lb shares.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The MQTT client identifier.
    pub(crate) client_id: Text,
    /// Patience.
    pub(crate) timing: Timing,
    /// For the session's socket.
    pub(crate) socket: SocketOptions,
}

/// The probe of one backend.
pub(crate) struct Probe {
    index: usize,
    pool: Arc<Pool>,
    workers: Arc<[Arc<Worker>]>,
    tls: TlsConnector,
    server_name: ServerName<'static>,
    settings: Settings,
    session: Session,
    backend: Backend,
    link: Link,
}

impl Probe {
    pub(crate) fn new(
        index: usize,
        pool: Arc<Pool>,
        workers: Arc<[Arc<Worker>]>,
        tls: TlsConnector,
        settings: Settings,
    ) -> Self {
        let now = clock();
        let server_name = evermq_daemon::tls::server_name(pool.members()[index].name());
        let session = Session::new(settings.timing, now);
        pool.members()[index].report().since = Some(now);
        let link = Link::Closed;
        Self { index, pool, workers, tls, server_name, settings, session, backend: Backend::new(), link }
    }

    /// Keeps the session until `shutdown`, then says farewell.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let pool = Arc::clone(&self.pool);
        let member = &pool.members()[self.index];
        loop {
            self.act().await;
            let session = self.session.poll_timeout();
            let deadline = self.backend.poll_timeout().map_or(session, |backend| backend.min(session));
            tokio::select! {
                // What has arrived comes before the time that has passed: after a pause of this machine the answer may be
                // there already.
                biased;
                () = shutdown.cancelled() => break,
                event = self.link.next() => self.handle_event(event),
                refusal = member.refused() => self.backend.handle_refusal(refusal, clock()),
                () = tokio::time::sleep_until(deadline.into()) => {
                    let now = clock();
                    self.session.handle_timeout(now);
                    self.backend.handle_timeout(now);
                }
            }
        }
        self.say_farewell().await;
    }

    fn handle_event(&mut self, event: Event) {
        let now = clock();
        match event {
            Event::Connected(Ok(stream)) => {
                self.link = Link::Connected(stream);
                self.session.handle_connected(now);
            }
            Event::Secured(Ok(stream)) => {
                self.link = Link::Open { stream, input: BytesMut::with_capacity(LIMITS.max_packet_size as usize) };
                self.session.handle_secured();
            }
            Event::Connected(Err(error)) => self.session.handle_failure(connect_failure(&error), now),
            Event::Secured(Err(error)) | Event::Received(Err(error)) => {
                self.session.handle_failure(session_failure(&error), now);
            }
            Event::Received(Ok(0)) => self.session.handle_failure(Failure::Closed, now),
            Event::Received(Ok(_)) => self.handle_input(now),
        }
    }

    fn handle_input(&mut self, now: Instant) {
        while let Link::Open { input, .. } = &mut self.link {
            match codec::decode(input, VERSION, &LIMITS) {
                Ok(Some(packet)) => {
                    self.session.handle_packet(&packet, now);
                    self.member().report().round_trip = self.session.round_trip();
                }
                Ok(None) => break,
                Err(error) => {
                    self.session.handle_failure(Failure::Rejected(error.to_string()), now);
                    break;
                }
            }
        }
    }

    /// Does what both machines want done.
    async fn act(&mut self) {
        while let Some(action) = self.session.poll_action() {
            match action {
                health::Action::Open => self.link = Link::connecting(self.member()),
                health::Action::Secure => self.secure(),
                health::Action::Introduce => self.send(self.connect_packet()).await,
                health::Action::Ping => self.send(Packet::PingReq).await,
                health::Action::Close => self.link = Link::Closed,
                health::Action::Up => self.backend.handle_session_up(),
                health::Action::Failed(failure) => {
                    tracing::debug!(backend = %self.member().name(), %failure, "no session");
                    let mut report = self.member().report();
                    report.last_error = Some(failure.to_string());
                    report.round_trip = None;
                    drop(report);
                    self.backend.handle_session_failed(failure);
                }
            }
        }
        while let Some(action) = self.backend.poll_action() {
            match action {
                backend::Action::Change { from, to, reason } => self.make_known(from, to, &reason),
                backend::Action::CloseClients => self.workers.iter().for_each(|worker| worker.sweep()),
            }
        }
    }

    fn make_known(&self, from: Standing, to: Standing, reason: &backend::Reason) {
        let member = self.member();
        self.pool.set_standing(self.index, to);
        member.report().since = Some(clock());
        tracing::info!(
            backend = %member.name(),
            address = %member.address(),
            from = from.name(),
            to = to.name(),
            %reason,
            connections = member.connections(),
            "backend changed"
        );
    }

    fn secure(&mut self) {
        if let Link::Connected(stream) = std::mem::replace(&mut self.link, Link::Closed) {
            if let Err(error) = listen::tune(&stream, self.settings.socket) {
                tracing::debug!(%error, "session's socket options");
            }
            self.link = Link::Securing(Box::pin(self.tls.connect(self.server_name.clone(), stream)));
        }
    }

    /// Sends one of the session's few small packets. No more than one of them is ever unanswered, so they fit into the
    /// socket's buffer; the time limit is for a kernel that disagrees.
    async fn send(&mut self, packet: Packet) {
        let Link::Open { stream, .. } = &mut self.link else { return };
        let mut bytes = BytesMut::new();
        let written = match codec::encode(&packet, VERSION, &mut bytes) {
            Ok(()) => tokio::time::timeout(self.settings.timing.timeout, write(stream, &bytes)).await,
            Err(error) => Ok(Err(io::Error::other(error))),
        };
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.session.handle_failure(session_failure(&error), clock()),
            Err(_) => self.session.handle_failure(Failure::NoAnswer, clock()),
        }
    }

    async fn say_farewell(&mut self) {
        let Link::Open { stream, .. } = &mut self.link else { return };
        let mut bytes = BytesMut::new();
        let farewell = Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties: None });
        if codec::encode(&farewell, VERSION, &mut bytes).is_ok() {
            let _ = tokio::time::timeout(FAREWELL, async {
                write(stream, &bytes).await?;
                stream.shutdown().await
            })
            .await;
        }
    }

    fn connect_packet(&self) -> Packet {
        let keep_alive = (self.settings.timing.timeout * 2).max(SHORTEST_KEEP_ALIVE).as_secs();
        Packet::Connect(Box::new(Connect {
            version: VERSION,
            clean_start: true,
            keep_alive: u16::try_from(keep_alive).unwrap_or(u16::MAX),
            client_id: self.settings.client_id.clone(),
            will: None,
            username: None,
            password: None,
            properties: evermq_mqtt::properties::ConnectProperties::default(),
        }))
    }

    fn member(&self) -> &Member {
        &self.pool.members()[self.index]
    }
}

type Boxed<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// The connection, as far as it has come.
enum Link {
    Closed,
    Connecting(Boxed<TcpStream>),
    Connected(TcpStream),
    Securing(Pin<Box<tokio_rustls::Connect<TcpStream>>>),
    Open { stream: Box<TlsStream<TcpStream>>, input: BytesMut },
}

/// What happened on it.
enum Event {
    Connected(io::Result<TcpStream>),
    Secured(io::Result<Box<TlsStream<TcpStream>>>),
    Received(io::Result<usize>),
}

impl Link {
    fn connecting(member: &Member) -> Self {
        let address = member.address();
        Self::Connecting(Box::pin(async move {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
            socket?.connect(address).await
        }))
    }

    /// The next event; can be dropped and called again without loss.
    async fn next(&mut self) -> Event {
        match self {
            Self::Closed | Self::Connected(_) => pending().await,
            Self::Connecting(connecting) => Event::Connected(connecting.await),
            Self::Securing(securing) => Event::Secured(securing.await.map(Box::new)),
            Self::Open { stream, input } => Event::Received(stream.read_buf(input).await),
        }
    }
}

async fn write(stream: &mut TlsStream<TcpStream>, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

fn connect_failure(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Failure::Refused,
        io::ErrorKind::TimedOut => Failure::ConnectTimeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
            Failure::Unreachable(error.to_string())
        }
        _ => Failure::Local(error.to_string()),
    }
}

fn session_failure(error: &io::Error) -> Failure {
    match error.kind() {
        // What rustls has to say comes as one of these.
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
            Failure::Rejected(error.to_string())
        }
        io::ErrorKind::TimedOut => Failure::NoAnswer,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
            Failure::Unreachable(error.to_string())
        }
        _ => Failure::Closed,
    }
}

fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}
