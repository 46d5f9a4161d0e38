//! TLS that ends at the lb, over sockets: real clients, a real broker, and backends that look at every byte.

mod mosquitto;
mod proxy;
mod reload;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evermq_config::lb::Probe;
use evermq_config::{BackendConfig, LbConfig};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConnection, StreamOwned};

use crate::harness::{self, PATIENCE, Running};
use crate::pki::Pki;

/// Client identifier "c", MQTT 3.1.1.
const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c";

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// The lb's configuration, with one backend that has these addresses.
fn config(pki: &Pki, lb: &str, tls: Option<SocketAddr>, plain: Option<SocketAddr>) -> LbConfig {
    let mut config = pki.config(lb, "");
    let broker = &config.backends[0];
    config.backends = vec![BackendConfig {
        host: None,
        address: tls,
        plain_address: plain,
        probe: Probe::None,
        send_proxy_plain: false,
        ..broker.clone()
    }];
    config.lb.listeners[0].address = SocketAddr::from(([127, 0, 0, 1], 0));
    config.lb.workers = 1;
    config.peer_listen = SocketAddr::from(([127, 0, 0, 1], 0));
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    config.control_socket = pki.path(&format!("lb-{number}.sock"));
    config
}

fn terminating(pki: &Pki, lb: &str, plain: SocketAddr) -> Running {
    Running::start(config(pki, lb, None, Some(plain)))
}

fn client_of(
    pki: &Pki,
    address: SocketAddr,
    certificate: Option<&str>,
    version: &'static rustls::SupportedProtocolVersion,
) -> Tls {
    let name = ServerName::try_from("lb1").unwrap();
    let connection = ClientConnection::new(Arc::new(pki.client_of(certificate, &[version])), name).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(connection, stream)
}

fn client(pki: &Pki, address: SocketAddr) -> Tls {
    client_of(pki, address, Some("client"), &TLS13)
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A client that has said CONNECT, and the backend's end.
fn connected(mut tls: Tls, backend: &TcpListener) -> (Tls, TcpStream) {
    tls.write_all(CONNECT).unwrap();
    let (mut stream, _) = backend.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut first = [0; CONNECT.len()];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(first, CONNECT);
    (tls, stream)
}

/// Whether the lb has closed it, with whatever alert before.
fn closed(stream: &mut impl Read) -> bool {
    let mut sink = [0; 4096];
    loop {
        match harness::read(stream, &mut sink) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => {
                return !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
            }
        }
    }
}

#[test]
fn strangers_are_closed_at_once() {
    let pki = Pki::new();
    let (backend, address) = listen();
    backend.set_nonblocking(true).unwrap();
    let lb = terminating(&pki, "greeting_timeout = \"9s\"", address);
    let start = Instant::now();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], CONNECT, b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", &[0; 100]] {
        let mut stream = lb.stranger();
        stream.write_all(bytes).unwrap();
        assert!(closed(&mut stream), "{bytes:?}");
    }
    // Strangers who have a certificate.
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\xc0\x00", &[0x10; 20_000]] {
        let mut tls = client(&pki, lb.address);
        let _ = tls.write_all(bytes).and_then(|()| tls.flush());
        assert!(closed(&mut tls), "{bytes:?}");
    }
    // And one without.
    let mut tls = client_of(&pki, lb.address, None, &TLS13);
    let _ = tls.write_all(CONNECT);
    assert!(closed(&mut tls));
    assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
    assert!(backend.accept().is_err(), "no broker hears of them");
}

#[test]
fn who_stops_in_the_midst_is_closed_in_time_and_gives_way() {
    let pki = Pki::new();
    let (backend, address) = listen();
    let lb = terminating(&pki, "greeting_timeout = \"6s\"\nmax_handshakes = 1", address);
    // A ClientHello whose end is missing takes the only place.
    let mut slow = lb.stranger();
    slow.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").unwrap();
    let start = Instant::now();
    let (mut tls, mut stream) = connected(client(&pki, lb.address), &backend);
    assert!((1..6).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert!(closed(&mut slow));
    stream.write_all(b"answer").unwrap();
    let mut answer = [0; 6];
    tls.read_exact(&mut answer).unwrap();
    // Nobody wants its place: it has until greeting_timeout.
    let mut slow = lb.stranger();
    slow.write_all(b"\x16\x03").unwrap();
    let start = Instant::now();
    assert!(closed(&mut slow));
    assert!((5..12).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[test]
fn a_hello_in_single_bytes_is_understood() {
    let pki = Pki::new();
    let (backend, address) = listen();
    let lb = terminating(&pki, "", address);
    let mut tls = client(&pki, lb.address);
    let mut hello = Vec::new();
    while tls.conn.wants_write() {
        tls.conn.write_tls(&mut hello).unwrap();
    }
    tls.sock.set_nodelay(true).unwrap();
    for byte in hello {
        tls.sock.write_all(&[byte]).unwrap();
    }
    connected(tls, &backend);
}

#[test]
fn each_direction_ends_by_itself() {
    let pki = Pki::new();
    let (backend, address) = listen();
    let lb = terminating(&pki, "", address);
    for version in [&TLS12, &TLS13] {
        // The client first.
        let (mut tls, mut stream) = connected(client_of(&pki, lb.address, Some("client"), version), &backend);
        tls.write_all(b"last words").unwrap();
        tls.conn.send_close_notify();
        tls.flush().unwrap();
        let mut words = Vec::new();
        stream.read_to_end(&mut words).unwrap();
        assert_eq!(words, b"last words");
        stream.write_all(b"still here").unwrap();
        drop(stream);
        let mut answer = Vec::new();
        tls.read_to_end(&mut answer).expect("a close_notify");
        assert_eq!(answer, b"still here");

        // The backend first.
        let (mut tls, mut stream) = connected(client_of(&pki, lb.address, Some("client"), version), &backend);
        stream.write_all(b"bye").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        tls.read_to_end(&mut answer).expect("a close_notify");
        assert_eq!(answer, b"bye");
        tls.write_all(b"one more").unwrap();
        drop(tls);
        let mut words = Vec::new();
        stream.read_to_end(&mut words).unwrap();
        assert_eq!(words, b"one more");
    }
}

#[test]
fn bulk_arrives_whole_before_slow_readers() {
    const SIZE: usize = 24 << 20;
    let pki = Pki::new();
    let (backend, address) = listen();
    let lb = terminating(&pki, "", address);
    for version in [&TLS12, &TLS13] {
        let (mut tls, mut stream) = connected(client_of(&pki, lb.address, Some("client"), version), &backend);
        let bytes = Arc::new(harness::bytes(SIZE, 11));
        let writer = std::thread::spawn({
            let (mut stream, bytes) = (stream.try_clone().unwrap(), Arc::clone(&bytes));
            move || stream.write_all(&bytes).unwrap()
        });
        // Both sides write before either reads: what does not fit waits with its sender.
        let reader = std::thread::spawn(move || {
            let mut read = vec![0; SIZE];
            stream.read_exact(&mut read).unwrap();
            (read, stream)
        });
        let mut back = vec![0; SIZE];
        for (out, back) in bytes.chunks(1 << 20).zip(back.chunks_mut(1 << 20)) {
            tls.write_all(out).unwrap();
            tls.read_exact(back).unwrap();
        }
        writer.join().unwrap();
        let (there, _stream) = reader.join().unwrap();
        assert!(there == *bytes && back == *bytes);
    }
}
