//! MQTT over WebSocket, with tungstenite as the client.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::BytesMut;
use evermq_config::broker::{Listener, Protocol};
use evermq_mqtt::{Packet, QoS, ReasonCode, Version, codec};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{ClientRequestBuilder, Error, Message, WebSocket};

use crate::client::{Client, connect, message};
use crate::listeners::{listener, tcp, tls};
use crate::running::{PATIENCE, Running, Site, start_with};

/// Bytes over WebSocket; each write is a frame.
struct Frames<S> {
    socket: WebSocket<S>,
    unread: BytesMut,
}

impl<S: Read + Write> Read for Frames<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.unread.is_empty() {
            match self.socket.read() {
                Ok(Message::Binary(bytes)) => self.unread.extend_from_slice(&bytes),
                Ok(Message::Close(_)) | Err(Error::ConnectionClosed) => return Ok(0),
                Ok(_) => {}
                Err(Error::Io(error)) => return Err(error),
                Err(_) => return Ok(0),
            }
        }
        let count = buf.len().min(self.unread.len());
        buf[..count].copy_from_slice(&self.unread.split_to(count));
        Ok(count)
    }
}

impl<S: Read + Write> Write for Frames<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.send(Message::binary(bytes.to_vec())).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush().map_err(io::Error::other)
    }
}

fn web(name: &str, tls: bool) -> Listener {
    Listener { protocol: Protocol::WebSocket, tls, ..listener(name, tcp()) }
}

fn start() -> (Site, Running) {
    start_with(|config| config.listeners.extend([web("web", false), web("secure", true)]))
}

fn plain(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A stream whose reads begin again where the process stood still: signal(7) has EINTR for a socket with a timeout then,
/// and tungstenite gives up.
#[derive(Debug)]
struct Steady<S>(S);

impl<S: Read> Read for Steady<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buf) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }
}

impl<S: Write> Write for Steady<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn upgrade<S: Read + Write>(stream: S, subprotocol: &str) -> Result<WebSocket<Steady<S>>, String> {
    let request = ClientRequestBuilder::new("ws://broker1/mqtt".parse().unwrap()).with_sub_protocol(subprotocol);
    let (socket, response) = tungstenite::client(request, Steady(stream)).map_err(|error| error.to_string())?;
    let chosen = response.headers().get("Sec-WebSocket-Protocol").map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(chosen.as_deref(), Some(subprotocol));
    Ok(socket)
}

fn frames<S: Read + Write>(stream: S) -> Frames<Steady<S>> {
    Frames { socket: upgrade(stream, "mqtt").unwrap(), unread: BytesMut::new() }
}

fn bytes(packet: &Packet) -> Vec<u8> {
    let mut out = BytesMut::new();
    codec::encode(packet, Version::V5, &mut out).unwrap();
    out.to_vec()
}

#[test]
fn it_carries_mqtt_with_and_without_tls() {
    let (site, broker) = start();
    let own = site.ca.issue("device-1", 1);
    let (mut one, _) = Client::over(frames(plain(broker.at("web"))), connect("one"));
    let (mut two, _) = Client::over(frames(tls(broker.at("secure"), &own, Some(&own))), connect("two"));
    one.subscribe_at("t/#", QoS::ExactlyOnce);
    for size in [0, 1, 125, 126, 65_535, 90_000] {
        let payload = "x".repeat(size);
        two.publish(message("t/1", &payload), QoS::ExactlyOnce);
        assert_eq!(one.message(), ("t/1".to_owned(), payload));
    }
    one.disconnect(ReasonCode::Success);
}

/// `[MQTT-6.0.0-2]`: packets do not care about frames.
#[test]
fn packets_may_span_frames_or_share_one() {
    let (_site, broker) = start();
    let mut socket = upgrade(plain(broker.at("web")), "mqtt").unwrap();
    let connect = bytes(&Packet::Connect(Box::new(connect("c"))));
    for byte in &connect {
        socket.send(Message::binary(vec![*byte])).unwrap();
    }
    assert!(matches!(socket.read().unwrap(), Message::Binary(bytes) if bytes[0] == 0x20));
    socket.send(Message::Ping(b"there?".to_vec().into())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong(b"there?".to_vec().into()));
    let pings = bytes(&Packet::PingReq).repeat(3);
    socket.send(Message::binary(pings)).unwrap();
    let mut answers = Vec::new();
    while answers.len() < 6 {
        answers.extend_from_slice(&socket.read().unwrap().into_data());
    }
    assert_eq!(answers, bytes(&Packet::PingResp).repeat(3));
    socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).unwrap();
    let Message::Close(Some(close)) = socket.read().unwrap() else { panic!("a Close is answered with one") };
    assert_eq!(close.code, CloseCode::Normal);
    broker.wait_for("the end", |state| state["connections"] == 0);
}

/// `[MQTT-6.0.0-1]`.
#[test]
fn a_text_frame_ends_the_connection() {
    let (_site, broker) = start();
    let mut socket = upgrade(plain(broker.at("web")), "mqtt").unwrap();
    socket.send(Message::text("hello")).unwrap();
    let Message::Close(Some(close)) = socket.read().unwrap() else { panic!("no Close") };
    assert_eq!(close.code, CloseCode::Unsupported);
    broker.wait_for("the end", |state| state["connections"] == 0);
}

/// `[MQTT-6.0.0-3]`, `[MQTT-6.0.0-4]`, and what clients from before MQTT 3.1.1 ask for.
#[test]
fn the_subprotocol_must_be_mqtt() {
    let (_site, broker) = start();
    let refused = upgrade(plain(broker.at("web")), "chat").unwrap_err();
    assert!(refused.contains("400"), "{refused}");
    upgrade(plain(broker.at("web")), "mqttv3.1").unwrap();
    for garbage in [&b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01c"[..], b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"]
    {
        let mut stream = plain(broker.at("web"));
        stream.write_all(garbage).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
    }
    broker.wait_for("strangers", |state| state["messages"]["strangers"].as_u64() >= Some(4));
}

#[test]
fn who_never_finishes_the_upgrade_has_to_go() {
    let (_site, broker) = start_with(|config| {
        config.listeners.push(web("web", false));
        config.connect_timeout = Duration::from_millis(300);
    });
    let mut silent = plain(broker.at("web"));
    let mut slow = plain(broker.at("web"));
    slow.write_all(b"GET /mqtt HTTP/1.1\r\nHost: b").unwrap();
    let mut endless = plain(broker.at("web"));
    // The answer may come before all of it is read.
    let _ = endless.write_all(&[b"GET /mqtt HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 20_000]].concat());
    for stream in [&mut silent, &mut slow, &mut endless] {
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        assert!(ended.is_ok() || ended.unwrap_err().kind() == io::ErrorKind::ConnectionReset);
    }
    broker.wait_for("nobody", |state| state["connections"] == 0);
}
