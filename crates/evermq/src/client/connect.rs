//! TCP, TLS and CONNECT; and connecting again after a loss.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use evermq_daemon::listen::{SocketOptions, tune};
use evermq_mqtt::packet::ConnAck;
use evermq_mqtt::{Packet, ReasonCode};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::connection::{Connection, Stream};
use super::failure::Failure;
use super::options::Target;
use super::stop::{Cause, Stop};

/// The first attempt may take so long, and each step of a later one at most.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first attempt after a loss: TCP's own first retry comes after a second, when a virtual address has long moved.
const FIRST_RETRY_PATIENCE: Duration = Duration::from_millis(300);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The kernel asks a silent server after a second whether it is there. The host that has taken over a virtual address
/// answers with a reset, so that a subscriber notices at once.
const SOCKET: SocketOptions = SocketOptions { keepalive: Duration::from_secs(1), user_timeout: Duration::from_secs(5) };
/// A TLS record of type alert (RFC 8446 §5.1).
const TLS_ALERT: u8 = 21;

/// Connects for the first time.
pub(super) async fn connect(target: &Target) -> Result<(Connection, ConnAck), Failure> {
    attempt(target, PATIENCE).await
}

/// Connects again after `loss`, until it succeeds, or fails in a way that will not pass. `None`: told to stop.
pub(super) async fn reconnect(
    target: &Target,
    loss: Failure,
    stop: &mut Stop,
) -> Result<Result<(Connection, ConnAck), Cause>, Failure> {
    if !loss.is_passing() {
        return Err(loss);
    }
    target.voice.complain(&format!("{loss}; reconnecting to {}", target.server()));
    let lost_at = Instant::now();
    tokio::select! {
        cause = stop.wait() => Ok(Err(cause)),
        connected = try_again(target) => {
            let connected = connected?;
            let seconds = lost_at.elapsed().as_secs_f32();
            target.voice.complain(&format!("connected again to {} after {seconds:.2} s", target.server()));
            Ok(Ok(connected))
        }
    }
}

async fn try_again(target: &Target) -> Result<(Connection, ConnAck), Failure> {
    let mut patience = FIRST_RETRY_PATIENCE;
    let mut pause = FIRST_PAUSE;
    loop {
        match attempt(target, patience).await {
            Err(failure) if failure.is_passing() => target.voice.trace(|| format!("{failure}")),
            other => return other,
        }
        tokio::time::sleep(pause).await;
        patience = (patience * 2).min(PATIENCE);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One attempt. `patience` bounds the wait for TCP; TLS and MQTT, which a busy server may delay, have all of it anew.
async fn attempt(target: &Target, patience: Duration) -> Result<(Connection, ConnAck), Failure> {
    let tcp = connect_tcp(target, patience).await?;
    let greeting = async {
        let stream = secure(target, tcp).await?;
        greet(target, Connection::new(stream, &target.connect, target.voice)).await
    };
    match timeout(PATIENCE.min(patience * 8), greeting).await {
        Ok(outcome) => outcome,
        Err(_) => Err(no_answer(target, PATIENCE.min(patience * 8))),
    }
}

fn no_answer(target: &Target, after: Duration) -> Failure {
    Failure::NoAnswer { server: target.server(), seconds: after.as_secs_f32() }
}

async fn connect_tcp(target: &Target, patience: Duration) -> Result<TcpStream, Failure> {
    let unresolved = |source| Failure::Resolve { host: target.host.clone(), source };
    let addresses: Vec<SocketAddr> =
        lookup_host((target.host.as_str(), target.port)).await.map_err(unresolved)?.collect();
    let mut failure = unresolved(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
    for address in addresses {
        let outcome = timeout(patience, TcpStream::connect(address)).await;
        let connected = outcome.map(|connected| connected.and_then(|stream| tune(&stream, SOCKET).map(|()| stream)));
        match connected {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(source)) => failure = Failure::Connect { server: target.server(), source },
            Err(_) => failure = no_answer(target, patience),
        }
    }
    Err(failure)
}

async fn secure(target: &Target, tcp: TcpStream) -> Result<Box<dyn Stream>, Failure> {
    let Some(tls) = &target.tls else { return Ok(Box::new(tcp)) };
    let connector = TlsConnector::from(tls.config.clone());
    match connector.connect(tls.server_name.clone(), tcp).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(tls.failure(&target.server(), &error).unwrap_or_else(|| closed_early(target, error))),
    }
}

/// Sends CONNECT and waits for CONNACK.
async fn greet(target: &Target, mut connection: Connection) -> Result<(Connection, ConnAck), Failure> {
    connection.send(&Packet::Connect(Box::new(target.connect.clone())))?;
    let packet = loop {
        match connection.next().await {
            Ok(Some(packet)) => break packet,
            Ok(None) => {}
            Err(failure) => return Err(judge(target, &connection, failure)),
        }
    };
    let Packet::ConnAck(connack) = packet else {
        return Err(Failure::Unexpected("another packet before CONNACK"));
    };
    if connack.reason != ReasonCode::Success {
        return Err(Failure::refused(target.server(), connack.reason, target.version()));
    }
    let properties = &connack.properties;
    // [MQTT-3.2.2-21]
    let keep_alive = properties.server_keep_alive.unwrap_or(target.connect.keep_alive);
    connection.start(keep_alive, properties.maximum_packet_size);
    Ok((connection, *connack))
}

/// What a failure before CONNACK says about the server.
fn judge(target: &Target, connection: &Connection, failure: Failure) -> Failure {
    match failure {
        Failure::Lost(error) => match target.tls.as_ref().and_then(|tls| tls.failure(&target.server(), &error)) {
            Some(failure) => failure,
            None => closed_early(target, error),
        },
        Failure::Closed => closed_early(target, io::ErrorKind::UnexpectedEof.into()),
        Failure::Decode(_) if connection.incoming().first() == Some(&TLS_ALERT) => {
            Failure::SpeaksTls { server: target.server() }
        }
        Failure::Decode(source) => Failure::NotMqtt { server: target.server(), source },
        other => other,
    }
}

fn closed_early(target: &Target, error: io::Error) -> Failure {
    let is_closed = matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    );
    if !is_closed {
        return Failure::Connect { server: target.server(), source: error };
    }
    let hint = match &target.tls {
        Some(_) => "is it a TLS port, and is a server behind it up?",
        None => "is it a TLS port (then --cafile is needed), and does the server speak this version of MQTT (-V)?",
    };
    Failure::ClosedEarly { server: target.server(), hint }
}
