//! TLS that ends at the lb, over sockets: real clients, a real broker, and backends that look at every byte.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::harness::{self, PATIENCE, Running};
use crate::pki::{Odd, Pki};
use evermq_config::lb::Probe;
use evermq_config::{BackendConfig, HostName, LbConfig};
use evermq_daemon::proxy_protocol::{self, Parsed};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConnection, StreamOwned};

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

/// mosquitto, with a plain listener and one with mutual TLS.
struct Mosquitto {
    child: Child,
    plain: SocketAddr,
    tls: SocketAddr,
}

impl Mosquitto {
    fn start(pki: &Pki) -> Self {
        pki.issue("broker1", &["broker1"], Odd::default());
        let (plain, tls) = (evermq_ports::free_address(), evermq_ports::free_address());
        let file = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\nlistener {} 127.0.0.1\nallow_anonymous true\n\
             cafile PKI/ca.crt\ncertfile PKI/broker1.crt\nkeyfile PKI/broker1.key\nrequire_certificate true\nuser root\n",
            plain.port(),
            tls.port()
        );
        pki.write("mosquitto.conf", &file.replace("PKI", pki.path("").to_str().unwrap()));
        let child = Command::new("mosquitto")
            .arg("-c")
            .arg(pki.path("mosquitto.conf"))
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is installed");
        harness::eventually("mosquitto serves", || {
            TcpStream::connect(plain).and_then(|_| TcpStream::connect(tls)).ok()
        });
        Self { child, plain, tls }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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

fn mosquitto(pki: &Pki, program: &str, address: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    let file = |name: &str| pki.path(name).to_str().unwrap().to_owned();
    command.args(["-h", "127.0.0.1", "-p", &address.port().to_string(), "--cafile", &file("ca.crt")]);
    command.args(["--cert", &file("client.crt"), "--key", &file("client.key")]).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A large message through the lb and back.
fn publish_and_receive(pki: &Pki, address: SocketAddr, more: &[&str]) {
    let message = harness::bytes(300_000, 7);
    std::fs::write(pki.path("message"), &message).unwrap();
    let subscribe = [more, &["-t", "test", "-q", "1", "-C", "1", "-N", "-W", "20", "-i", "subscriber"]].concat();
    let subscriber = mosquitto(pki, "mosquitto_sub", address, &subscribe).spawn().unwrap();
    // A retained message comes whenever the subscription does.
    let path = pki.path("message");
    let publish = [more, &["-t", "test", "-q", "1", "-r", "-i", "publisher", "-f", path.to_str().unwrap()]].concat();
    let published = mosquitto(pki, "mosquitto_pub", address, &publish).output().unwrap();
    assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
    let Output { status, stdout, stderr } = subscriber.wait_with_output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    assert!(stdout == message, "{} bytes", stdout.len());
}

#[test]
fn mosquitto_s_clients_reach_a_plain_broker() {
    let pki = Pki::new();
    let broker = Mosquitto::start(&pki);
    let lb = terminating(&pki, "", broker.plain);
    for version in ["tlsv1.2", "tlsv1.3"] {
        publish_and_receive(&pki, lb.address, &["--tls-version", version]);
    }
    publish_and_receive(&pki, lb.address, &["--tls-alpn", "mqtt"]);
    let refused =
        mosquitto(&pki, "mosquitto_pub", lb.address, &["--tls-alpn", "h2", "-t", "t", "-m", "m"]).output().unwrap();
    assert!(!refused.status.success());
}

#[test]
fn mosquitto_s_clients_reach_a_broker_with_tls_of_its_own() {
    let pki = Pki::new();
    let broker = Mosquitto::start(&pki);
    let lb = Running::start(config(&pki, "mode = \"reencrypt\"", Some(broker.tls), None));
    for version in ["tlsv1.2", "tlsv1.3"] {
        publish_and_receive(&pki, lb.address, &["--tls-version", version]);
    }
}

#[test]
fn a_broker_with_a_certificate_of_another_is_not_spoken_to() {
    let pki = Pki::new();
    let broker = Mosquitto::start(&pki);
    let mut config = config(&pki, "mode = \"reencrypt\"", Some(broker.tls), None);
    config.backends[0].name = "another".to_owned();
    let lb = Running::start(config);
    let mut tls = client(&pki, lb.address);
    tls.write_all(CONNECT).unwrap();
    assert!(closed(&mut tls));
}

#[test]
fn openssl_resumes_at_another_lb() {
    let pki = Pki::new();
    let broker = Mosquitto::start(&pki);
    let lbs = [(); 2].map(|()| terminating(&pki, "", broker.plain));
    for version in ["-tls1_2", "-tls1_3"] {
        let mut reused = Vec::new();
        for (lb, session) in lbs.iter().zip(["-sess_out", "-sess_in"]) {
            let address = lb.address.to_string();
            let file = |name: &str| pki.path(name).to_str().unwrap().to_owned();
            let mut child = Command::new("openssl")
                .args(["s_client", "-connect", &address, "-servername", "lb1", version, session, &file("session.pem")])
                .args(["-CAfile", &file("ca.crt"), "-cert", &file("client.crt"), "-key", &file("client.key")])
                .args(["-verify_return_error", "-ign_eof", "-nocommands"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("openssl is installed");
            // The broker ends the connection after DISCONNECT: by then the ticket has come.
            let mut input = child.stdin.take().unwrap();
            input.write_all(&[CONNECT, b"\xe0\x00"].concat()).unwrap();
            let output = child.wait_with_output().unwrap();
            drop(input);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(text.contains("Verification: OK") || text.contains("Reused"), "{text}");
            reused.push(text.contains("\nReused, "));
        }
        assert_eq!(reused, [false, true], "{version}");
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

#[test]
fn the_broker_learns_who_the_client_is() {
    let pki = Pki::new();
    let (backend, address) = listen();
    let mut config = config(&pki, "client_certificates = \"optional\"", None, Some(address));
    config.backends[0].send_proxy_plain = true;
    config.backends[0].host = Some(HostName::new("broker1").unwrap());
    let lb = Running::start(config);
    for (certificate, resumed) in [(Some("client"), false), (Some("client"), true), (None, false)] {
        static CLIENT: std::sync::OnceLock<Arc<rustls::ClientConfig>> = std::sync::OnceLock::new();
        let client = match certificate {
            Some(_) => Arc::clone(CLIENT.get_or_init(|| {
                let mut client = pki.client(certificate);
                client.alpn_protocols = vec![b"mqtt".to_vec()];
                Arc::new(client)
            })),
            None => Arc::new(pki.client(None)),
        };
        let connection = ClientConnection::new(client, ServerName::try_from("lb1").unwrap()).unwrap();
        let mut tls = StreamOwned::new(connection, lb.stranger());
        tls.write_all(CONNECT).unwrap();
        let (mut stream, _) = backend.accept().unwrap();
        stream.write_all(b"\x20\x02\x00\x00").unwrap();
        let mut bytes = Vec::new();
        while !bytes.ends_with(CONNECT) {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            bytes.push(byte[0]);
        }
        let Parsed::Header { header, length } = proxy_protocol::parse(&bytes) else { panic!("{bytes:?}") };
        assert_eq!(&bytes[length..], CONNECT);
        assert_eq!(header.source(), Some(tls.sock.local_addr().unwrap()));
        assert_eq!(header.addresses.unwrap().destination, lb.address);
        assert_eq!(header.authority.as_deref(), Some("lb1"));
        assert!(header.unique_id.is_some());
        let ssl = header.ssl.unwrap();
        assert_eq!(ssl.version.as_deref(), Some("TLSv1.3"));
        assert_eq!(ssl.cipher.as_deref(), Some("TLS_AES_256_GCM_SHA384"));
        assert_eq!((ssl.shown, ssl.in_session), (certificate.is_some() && !resumed, certificate.is_some()));
        assert_eq!(ssl.is_verified(), certificate.is_some());
        assert_eq!(ssl.cn.as_deref(), certificate);
        assert_eq!(ssl.dn.is_some(), certificate.is_some());
        // Itself too, for what its names do not say: a ticket has kept it. Only to brokers of the cluster.
        let sent = ssl.certificate.as_deref().map(CertificateDer::from);
        assert_eq!(sent.as_ref().and_then(evermq_daemon::tls::common_name).as_deref(), certificate);
        assert_eq!(header.alpn.as_deref(), certificate.map(|_| &b"mqtt"[..]));
        let mut answer = [0; 4];
        tls.read_exact(&mut answer).unwrap_or_else(|error| panic!("{certificate:?} {resumed} {error}"));
        assert_eq!(&answer, b"\x20\x02\x00\x00");
    }
}

#[test]
fn a_broker_with_tls_of_its_own_learns_it_too() {
    let pki = Pki::new();
    let (backend, address) = listen();
    let mut config = config(&pki, "mode = \"reencrypt\"", Some(address), None);
    // As for every broker of the cluster; `lb.send_proxy` is for TLS that passes through.
    config.backends[0].send_proxy_plain = true;
    assert!(!config.backends[0].send_proxy);
    let lb = Running::start(config);
    let mut tls = client(&pki, lb.address);
    tls.write_all(CONNECT).unwrap();
    let (mut stream, _) = backend.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    let header = loop {
        match proxy_protocol::parse_v2(&bytes) {
            Parsed::Header { header, .. } => break header,
            Parsed::NeedMore => {
                let mut more = vec![0; proxy_protocol::length_v2(&bytes) - bytes.len()];
                stream.read_exact(&mut more).unwrap();
                bytes.extend(more);
            }
            Parsed::Invalid(invalid) => panic!("{invalid}"),
        }
    };
    assert_eq!(header.source(), Some(tls.sock.local_addr().unwrap()));
    let ssl = header.ssl.unwrap();
    assert!(ssl.is_verified());
    assert_eq!(ssl.cn.as_deref(), Some("client"));
    assert!(ssl.dn.is_some_and(|dn| dn.contains("CN=client") && dn.contains("O=plant")));
    assert_eq!(ssl.certificate, None, "it is no broker of the cluster, and may not take headers of that length");
    // Behind it comes a ClientHello.
    let mut first = [0; 6];
    stream.read_exact(&mut first).unwrap();
    assert_eq!((first[0], first[5]), (22, 1));
}

#[test]
fn a_balancer_before_the_lb_may_speak_first() {
    let pki = Pki::new();
    let (backend, address) = listen();
    let lb = terminating(&pki, "accept_proxy_from = [\"127.0.0.1\"]", address);
    for together in [true, false] {
        let mut tls = client(&pki, lb.address);
        let mut first = b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 8883\r\n".to_vec();
        if together {
            while tls.conn.wants_write() {
                tls.conn.write_tls(&mut first).unwrap();
            }
        }
        tls.sock.write_all(&first).unwrap();
        connected(tls, &backend);
    }
}

/// The program itself.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_reload_changes_certificates_and_loses_nobody() {
    let pki = Pki::new();
    let (backend, address) = listen();
    let front = evermq_ports::free_address();
    let lb = format!("listen = \"{front}\"\naccess_log = \"PKI/access.log\"\ncrl = [\"PKI/ca.crl\"]\n");
    let broker = format!("[[lb.backends]]\nname = \"b\"\nplain_address = \"{address}\"\nprobe = \"none\"\n");
    pki.issue("lost", &[], Odd { serial: Some(66), ..Odd::default() });
    pki.revoke(&[], (4000, 1, 1));
    pki.write("evermq.toml", &pki.file(&lb, &broker));
    let mut program = Command::new(env!("CARGO_BIN_EXE_evermq-lb"));
    program.args(["--host", "lb1", "--config"]).arg(pki.path("evermq.toml")).stderr(Stdio::null());
    let _program = Program(program.spawn().unwrap());
    harness::eventually("the program serves", || TcpStream::connect(front).ok());
    let (mut kept, mut end) = connected(client(&pki, front), &backend);
    let before = kept.conn.peer_certificates().unwrap()[0].clone();
    let (_lost, _its_end) = connected(client_of(&pki, front, Some("lost"), &TLS13), &backend);

    pki.issue("lb1", &["lb1"], Odd::default());
    pki.revoke(&[66], (4000, 1, 1));
    let reload = || {
        let request = serde_json::json!({ "request": "reload" });
        evermq_daemon::control::request(&pki.path("lb.sock"), &request, PATIENCE)
    };
    reload().unwrap();
    let (fresh, _) = connected(client(&pki, front), &backend);
    assert_ne!(fresh.conn.peer_certificates().unwrap()[0], before, "the new certificate");
    let mut lost = client_of(&pki, front, Some("lost"), &TLS13);
    let _ = lost.write_all(CONNECT);
    assert!(closed(&mut lost), "revoked since");

    // A bad file changes nothing.
    pki.write("ca.crl", "nothing");
    let error = reload().unwrap_err().to_string();
    assert!(error.contains("ca.crl"), "{error}");
    connected(client(&pki, front), &backend);
    kept.write_all(b"still here").unwrap();
    let mut words = [0; 10];
    end.read_exact(&mut words).unwrap();
    assert_eq!(&words, b"still here");
    drop((kept, end));
    harness::eventually("the access log tells of it", || {
        let log = std::fs::read_to_string(pki.path("access.log")).unwrap_or_default();
        log.lines().any(|line| line.contains("tls=TLSv1.3") && line.contains("cn=client")).then_some(())
    });
}
