//! A broker that does as it is told: it speaks TLS and MQTT with the lb's session, and hands clients' connections to the
//! test as plain sockets. What a connection is shows in its first bytes: those of the tests' clients begin with the one
//! [`hello`](super::hello) that they have in common, which is taken off.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use evermq_daemon::tls::Material;
use evermq_mqtt::codec::{self, Limits};
use evermq_mqtt::packet::{ConnAck, Packet, Publish, SubAck, Version};
use evermq_mqtt::properties::ConnAckProperties;
use evermq_mqtt::{QoS, ReasonCode, Text, TopicName};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use socket2::SockRef;

use super::{PATIENCE, certs};

/// What happens to clients' connections.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clients {
    /// Every byte comes back.
    Echoed,
    /// The test takes them with [`Broker::accept`].
    HandedOver,
}

/// A running broker; dies when dropped.
pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    clients: Receiver<TcpStream>,
}

struct Shared {
    listener: Mutex<Option<TcpListener>>,
    connections: Mutex<Vec<TcpStream>>,
    tls: Arc<ServerConfig>,
    clients: Clients,
    hand_over: Sender<TcpStream>,
    /// No packet of a session is answered any more.
    mute: AtomicBool,
    /// CONNECT is answered with "not authorized".
    refuse_sessions: AtomicBool,
    sessions: AtomicUsize,
    /// What it says of itself; none where it refuses to.
    says: Mutex<Option<&'static str>>,
    /// Clients that the lb wanted sent away.
    sent_away: AtomicUsize,
}

impl Broker {
    pub(crate) fn start(name: &str, clients: Clients) -> Self {
        Self::start_at(name, clients, evermq_ports::free_address())
    }

    /// Starts on an address that a dead one had.
    pub(crate) fn start_at(name: &str, clients: Clients, address: SocketAddr) -> Self {
        let tls = Material::load(&certs::files(name)).unwrap().server_config().unwrap();
        let listener = bind(address);
        let address = listener.local_addr().unwrap();
        let (hand_over, receiver) = channel();
        let shared = Arc::new(Shared {
            listener: Mutex::new(Some(listener.try_clone().unwrap())),
            connections: Mutex::default(),
            tls,
            clients,
            hand_over,
            mute: AtomicBool::new(false),
            refuse_sessions: AtomicBool::new(false),
            sessions: AtomicUsize::new(0),
            says: Mutex::default(),
            sent_away: AtomicUsize::new(0),
        });
        serve(&shared, listener);
        Self { address, shared, clients: receiver }
    }

    /// The next client's connection, from now on the test's alone.
    pub(crate) fn accept(&self) -> TcpStream {
        let stream = self.clients.recv_timeout(PATIENCE).expect("a client comes");
        self.shared.forget(&stream);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// As kill -9: the listener is closed, every connection reset.
    pub(crate) fn kill(&self) {
        self.stop_listening();
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            let _ = SockRef::from(&connection).set_linger(Some(Duration::ZERO));
            let _ = SockRef::from(&connection).shutdown(std::net::Shutdown::Both);
        }
    }

    /// As SIGSTOP: nothing is answered, nothing is closed.
    pub(crate) fn freeze(&self) {
        self.shared.mute.store(true, Ordering::SeqCst);
    }

    /// What it says of itself from now on.
    pub(crate) fn say(&self, word: &'static str) {
        *self.shared.says.lock().unwrap() = Some(word);
    }

    /// Clients that the lb wanted sent away.
    pub(crate) fn sent_away(&self) -> usize {
        self.shared.sent_away.load(Ordering::SeqCst)
    }

    pub(crate) fn refuse_sessions(&self, refuse: bool) {
        self.shared.refuse_sessions.store(refuse, Ordering::SeqCst);
    }

    /// The listener goes, sessions and clients stay.
    pub(crate) fn stop_listening(&self) {
        if let Some(listener) = self.shared.listener.lock().unwrap().take() {
            // Wakes the thread that accepts.
            let _ = nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        }
    }

    /// The listener is back.
    pub(crate) fn listen_again(&self) {
        let listener = bind(self.address);
        *self.shared.listener.lock().unwrap() = Some(listener.try_clone().unwrap());
        serve(&self.shared, listener);
    }

    /// CONNECTs answered with success.
    pub(crate) fn sessions(&self) -> usize {
        self.shared.sessions.load(Ordering::SeqCst)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

fn bind(address: SocketAddr) -> TcpListener {
    super::eventually("address is free", || TcpListener::bind(address).ok())
}

fn serve(shared: &Arc<Shared>, listener: TcpListener) {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            shared.connections.lock().unwrap().push(stream.try_clone().unwrap());
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.connection(stream));
        }
    });
}

impl Shared {
    fn connection(&self, mut stream: TcpStream) {
        let mut first = vec![0; super::hello().len()];
        match peek_all(&stream, &mut first) {
            Some(true) => {
                stream.read_exact(&mut first).unwrap();
                match self.clients {
                    Clients::Echoed => {
                        echo(&stream);
                        self.forget(&stream);
                    }
                    Clients::HandedOver => {
                        let _ = self.hand_over.send(stream);
                    }
                }
            }
            Some(false) => {
                let same = stream.try_clone().unwrap();
                self.session(stream);
                self.forget(&same);
            }
            None => self.forget(&stream),
        }
    }

    fn forget(&self, stream: &TcpStream) {
        let peer = stream.peer_addr().ok();
        self.connections.lock().unwrap().retain(|other| {
            let other = other.peer_addr().ok();
            other.is_some() && other != peer
        });
    }

    /// Speaks MQTT over TLS until the other side leaves.
    fn session(&self, stream: TcpStream) {
        let connection = ServerConnection::new(Arc::clone(&self.tls)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        let mut input = BytesMut::new();
        let mut chunk = [0; 512];
        // Once it is subscribed to: what was said last.
        let mut said: Option<Option<&'static str>> = None;
        loop {
            let count = match super::read(&mut stream, &mut chunk) {
                Ok(0) => return,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
                Err(_) => return,
            };
            input.extend_from_slice(&chunk[..count]);
            while let Ok(Some(packet)) = codec::decode(&mut input, Version::V4, &Limits::default()) {
                if self.mute.load(Ordering::SeqCst) {
                    continue;
                }
                let mut output = BytesMut::new();
                match packet {
                    Packet::Connect(_) => codec::encode(&self.conn_ack(), Version::V4, &mut output).unwrap(),
                    Packet::PingReq => codec::encode(&Packet::PingResp, Version::V4, &mut output).unwrap(),
                    Packet::Subscribe(subscribe) => {
                        assert_eq!(subscribe.filters[0].filter.as_str(), "$EVERMQ/state");
                        let refused = self.says.lock().unwrap().is_none();
                        let reason = if refused { ReasonCode::NotAuthorized } else { ReasonCode::Success };
                        let suback = SubAck { packet_id: subscribe.packet_id, reasons: vec![reason], properties: None };
                        codec::encode(&Packet::SubAck(suback), Version::V4, &mut output).unwrap();
                        if !refused {
                            said = Some(None);
                            let short = Some(Duration::from_millis(5));
                            stream.sock.set_read_timeout(short).unwrap();
                        }
                    }
                    Packet::Publish(publish) => {
                        assert_eq!(publish.topic.as_str(), "$EVERMQ/disconnect");
                        self.send_away(&publish.payload);
                    }
                    Packet::Disconnect(_) => return,
                    other => panic!("the lb's session sends nothing else: {other:?}"),
                }
                if stream.write_all(&output).is_err() {
                    return;
                }
            }
            let word = *self.says.lock().unwrap();
            if let (Some(before), Some(word)) = (said, word)
                && before != Some(word)
            {
                said = Some(Some(word));
                let mut output = BytesMut::new();
                codec::encode(&state(word), Version::V4, &mut output).unwrap();
                if stream.write_all(&output).is_err() {
                    return;
                }
            }
        }
    }

    /// Closes those connections, as a broker does that has said goodbye.
    fn send_away(&self, list: &[u8]) {
        let list: Vec<SocketAddr> =
            std::str::from_utf8(list).unwrap().lines().map(|line| line.parse().unwrap()).collect();
        for connection in &*self.connections.lock().unwrap() {
            if connection.peer_addr().is_ok_and(|peer| list.contains(&peer)) {
                self.sent_away.fetch_add(1, Ordering::SeqCst);
                let _ = connection.shutdown(std::net::Shutdown::Both);
            }
        }
    }

    fn conn_ack(&self) -> Packet {
        let reason = if self.refuse_sessions.load(Ordering::SeqCst) {
            ReasonCode::NotAuthorized
        } else {
            self.sessions.fetch_add(1, Ordering::SeqCst);
            ReasonCode::Success
        };
        Packet::ConnAck(Box::new(ConnAck { session_present: false, reason, properties: ConnAckProperties::default() }))
    }
}

fn state(word: &'static str) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: TopicName::new(Text::new("$EVERMQ/state").unwrap()).unwrap(),
        packet_id: None,
        properties: None,
        payload: Bytes::from_static(word.as_bytes()),
    })
}

/// Whether the connection begins with the tests' hello; none if it ends before that can be told.
fn peek_all(stream: &TcpStream, first: &mut [u8]) -> Option<bool> {
    let hello = super::hello();
    loop {
        match stream.peek(first) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return None,
            Ok(count) if first[..count] != hello[..count] => return Some(false),
            Ok(count) if count == hello.len() => return Some(true),
            // It comes in pieces.
            Ok(_) => std::thread::yield_now(),
        }
    }
}

fn echo(mut stream: &TcpStream) {
    let mut buffer = [0; 16384];
    while let Ok(count @ 1..) = super::read(&mut stream, &mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
    let _ = stream.shutdown(std::net::Shutdown::Both);
}
