//! What clients say first, on real sockets: ClientHello, CONNECT and PROXY protocol headers, in pieces, slow, wrong, and
//! where it leads them.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::harness::broker::{Broker, Clients};
use crate::harness::{AT_ONCE, PATIENCE, Running, certs, config, hello, ping, wait_closed};
use evermq_config::LbConfig;
use evermq_config::lb::{ClientIdAction, ClientIdRule, IpNetwork, Mode, Route};
use evermq_daemon::proxy_protocol::{self, Addresses, Header, Parsed};

/// A CONNECT of MQTT 3.1.1 with this client identifier.
fn connect(client_id: &str) -> Vec<u8> {
    let length = u8::try_from(client_id.len()).unwrap();
    [&[0x10, 12 + length, 0, 4][..], b"MQTT", &[4, 2, 0, 60, 0, length], client_id.as_bytes()].concat()
}

/// The same of MQTT 5.0.
fn connect5(client_id: &str) -> Vec<u8> {
    let length = u8::try_from(client_id.len()).unwrap();
    [&[0x10, 13 + length, 0, 4][..], b"MQTT", &[5, 2, 0, 60, 0, 0, length], client_id.as_bytes()].concat()
}

/// A load balancer for plain MQTT before backends that are given as where their sessions and where their clients go to.
fn plain(backends: &[(&Broker, SocketAddr)], change: impl FnOnce(&mut LbConfig)) -> Running {
    let mut config = config(&backends.iter().map(|(broker, _)| broker.address).collect::<Vec<_>>());
    config.lb.listeners[0].mode = Mode::Plain;
    for (backend, (_, plain)) in config.backends.iter_mut().zip(backends) {
        backend.plain_address = Some(*plain);
        backend.send_proxy_plain = false;
    }
    change(&mut config);
    Running::start_up(config)
}

fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

/// The next connection; reads fail after [`PATIENCE`].
fn accept(listener: &TcpListener) -> TcpStream {
    let stream = listener.accept().unwrap().0;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn read(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// All that comes until the end.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut found = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut found);
    found
}

/// The header that comes first.
fn header(stream: &mut TcpStream) -> Header {
    let mut bytes = Vec::new();
    loop {
        match proxy_protocol::parse_v2(&bytes) {
            Parsed::Header { header, .. } => return header,
            Parsed::NeedMore => bytes.extend(read(stream, proxy_protocol::length_v2(&bytes) - bytes.len())),
            Parsed::Invalid(invalid) => panic!("{invalid}"),
        }
    }
}

/// Stands before a broker: sessions of the lb go on to it without the header that says they are the lb's own; connections
/// that begin with a client's are the test's.
struct Tap {
    address: SocketAddr,
    clients: Receiver<TcpStream>,
}

impl Tap {
    fn start(broker: SocketAddr) -> Self {
        let listener = listener();
        let address = listener.local_addr().unwrap();
        let (sender, clients) = channel();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    let mut stream = stream;
                    let mut first = [0; 16];
                    // Headers come whole.
                    match stream.peek(&mut first) {
                        Ok(16) if first.starts_with(b"\r\n") && first[12] == 0x21 => {
                            let _ = sender.send(stream);
                        }
                        Ok(1..) => {
                            if first.starts_with(b"\r\n") {
                                assert_eq!(header(&mut stream), Header::LOCAL);
                            }
                            let other = TcpStream::connect(broker).unwrap();
                            let (from, to) = (other.try_clone().unwrap(), stream.try_clone().unwrap());
                            std::thread::spawn(move || copy(from, to));
                            copy(stream, other);
                        }
                        _ => {}
                    }
                });
            }
        });
        Self { address, clients }
    }

    fn accept(&self) -> TcpStream {
        let stream = self.clients.recv_timeout(PATIENCE).expect("a client comes");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}

#[test]
fn a_hello_may_come_in_pieces() {
    let broker = Broker::start("broker1", Clients::Echoed);
    let lb = Running::start_up(config(&[broker.address]));
    for size in [1, 5, 6, 100, hello().len() - 1] {
        let mut client = lb.stranger();
        for piece in hello().chunks(size) {
            client.write_all(piece).unwrap();
            std::thread::yield_now();
        }
        ping(&mut client);
    }
}

#[test]
fn what_is_no_hello_is_closed_at_once_and_no_broker_hears_of_it() {
    let broker = Broker::start("broker1", Clients::HandedOver);
    let lb = Running::start_up(config(&[broker.address]));
    let before = lb.state().backends[0].total;
    let not_a_hello = {
        let mut bytes = hello().to_vec();
        bytes[5] = 2;
        bytes
    };
    let malformed = {
        let mut bytes = hello().to_vec();
        // The session identifier's length.
        bytes[43] = 33;
        bytes
    };
    let cases: [&[u8]; 8] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &connect("c"),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C\x7F\0\0\x01\x7F\0\0\x01\0\x01\0\x02",
        // A record above 2^14 bytes, and a hello above 16 kB.
        &[22, 3, 1, 0x40, 1],
        &[22, 3, 1, 0x40, 0, 1, 0, 0x40, 0],
        &[21, 3, 3, 0, 2, 2, 40],
        &not_a_hello,
        &malformed,
    ];
    for bytes in cases {
        let mut client = lb.stranger();
        client.write_all(bytes).unwrap();
        let waited = wait_closed(&mut client);
        assert!(waited < AT_ONCE, "{waited:?} for {bytes:02x?}");
    }
    assert_eq!(lb.until("all gone", |state| state.connections.current == 0).backends[0].total, before);
}

#[test]
fn whoever_is_slow_has_to_go_and_holds_up_nobody() {
    let broker = Broker::start("broker1", Clients::Echoed);
    let mut config = config(&[broker.address]);
    config.lb.greeting_timeout = Duration::from_millis(700);
    let lb = Running::start_up(config);
    let start = Instant::now();
    let mut slow: Vec<_> = (0..100).map(|_| lb.stranger()).collect();
    let mut sent = 0;
    while start.elapsed() < Duration::from_millis(1500) {
        // A byte in ten milliseconds: the hello would take two seconds.
        if start.elapsed() > Duration::from_millis(10) * sent {
            for client in &mut slow {
                // Closed by now, perhaps.
                let _ = client.write_all(&hello()[sent as usize..][..1]);
            }
            sent += 1;
        }
        lb.echoing_client();
    }
    for client in &mut slow {
        wait_closed(client);
    }
    lb.until("all gone", |state| state.connections.current == 0);
}

#[test]
fn a_client_may_end_its_side_behind_its_greeting_not_before() {
    let broker = Broker::start("broker1", Clients::HandedOver);
    let lb = Running::start_up(config(&[broker.address]));
    let before = lb.state().backends[0].total;
    let mut client = lb.client();
    client.shutdown(Shutdown::Write).unwrap();
    let mut there = broker.accept();
    assert_eq!(rest(&mut there), b"");
    there.write_all(b"goodbye").unwrap();
    drop(there);
    assert_eq!(rest(&mut client), b"goodbye");
    for length in [0, 1, 5, 6, hello().len() - 1] {
        let mut client = lb.stranger();
        client.write_all(&hello()[..length]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert!(wait_closed(&mut client) < AT_ONCE, "{length}");
    }
    assert_eq!(lb.until("all gone", |state| state.connections.current == 0).backends[0].total, before + 1);
}

/// Whose certificate openssl is shown.
fn certificate(lb: &Running, name: Option<&str>) -> String {
    let own = certs::files("client");
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &lb.address.to_string()]).args(["-alpn", "mqtt"]);
    command.arg("-cert").arg(own.cert).arg("-key").arg(own.key);
    match name {
        Some(name) => command.args(["-servername", name]),
        None => command.arg("-noservername"),
    };
    let output = command.stdin(Stdio::null()).output().expect("openssl is needed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let subject = text.lines().find_map(|line| line.strip_prefix("subject=")).unwrap_or_else(|| panic!("{text}"));
    subject.rsplit([' ', '=']).next().unwrap().to_owned()
}

#[test]
fn names_lead_to_groups() {
    let brokers = ["broker1", "broker2"].map(|name| Broker::start(name, Clients::Echoed));
    let mut config = config(&brokers.each_ref().map(|broker| broker.address));
    config.backends[1].group = "other".to_owned();
    config.lb.routes = vec![Route {
        sni: vec!["other.example.org".to_owned(), "*.other.example.org".to_owned()],
        group: "other".to_owned(),
    }];
    let lb = Running::start_up(config);
    for (name, expected) in [
        (Some("other.example.org"), "broker2"),
        (Some("OTHER.example.ORG"), "broker2"),
        (Some("a.b.other.example.org"), "broker2"),
        (Some("another.example.org"), "broker1"),
        (Some("example.org"), "broker1"),
        (None, "broker1"),
    ] {
        assert_eq!(certificate(&lb, name), expected, "{name:?}");
    }
}

#[test]
fn a_group_without_backends_is_refused_at_the_start() {
    let mut config = config(&[evermq_ports::free_address()]);
    config.lb.routes = vec![Route { sni: vec!["a".to_owned()], group: "nobody".to_owned() }];
    let error = evermq_lb::LoadBalancer::bind(config).unwrap_err().to_string();
    assert!(error.contains("nobody"), "{error}");
}

#[test]
fn a_connect_may_come_in_pieces_and_need_not_be_there_whole() {
    let (broker, listener) = (Broker::start("broker1", Clients::Echoed), listener());
    let lb = plain(&[(&broker, listener.local_addr().unwrap())], |_| {});
    let whole = connect("device-1");
    for size in [1, 3, whole.len()] {
        let mut client = lb.stranger();
        for piece in whole.chunks(size) {
            client.write_all(piece).unwrap();
            std::thread::yield_now();
        }
        let mut there = accept(&listener);
        assert_eq!(read(&mut there, whole.len()), whole);
        there.write_all(&[0x20, 2, 0, 0]).unwrap();
        assert_eq!(read(&mut client, 4), [0x20, 2, 0, 0]);
    }
    // A will of 60,000 bytes, of which none has come when the broker hears of the client.
    let mut start = [&[0x10, 0, 0, 0, 0, 4][..], b"MQTT", &[4, 6, 0, 60, 0, 1, b'c', 0, 1, b't']].concat();
    let will = [&60_000_u16.to_be_bytes()[..], &vec![7; 60_000]].concat();
    let remaining = start.len() - 4 + will.len();
    start[1..4].copy_from_slice(&[remaining as u8 | 0x80, (remaining >> 7) as u8 | 0x80, (remaining >> 14) as u8]);
    let mut client = lb.stranger();
    client.write_all(&start).unwrap();
    let mut there = accept(&listener);
    assert_eq!(read(&mut there, start.len()), start);
    client.write_all(&will).unwrap();
    assert_eq!(read(&mut there, will.len()), will);
}

#[test]
fn what_is_no_connect_is_closed_at_once_and_no_broker_hears_of_it() {
    let (broker, listener) = (Broker::start("broker1", Clients::Echoed), listener());
    let lb = plain(&[(&broker, listener.local_addr().unwrap())], |_| {});
    let mut other_level = connect("c");
    other_level[8] = 9;
    let cases: [(&[u8], &[u8]); 5] = [
        (hello(), b""),
        (b"GET / HTTP/1.1\r\n\r\n", b""),
        (&[0xC0, 0], b""),
        // Properties of 65,535 bytes.
        (&[0x10, 0xFF, 0xFF, 0x7F, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 0xFF, 0xFF, 3], b""),
        (&other_level, &[0x20, 2, 0, 1]),
    ];
    for (bytes, answer) in cases {
        let mut client = lb.stranger();
        client.write_all(bytes).unwrap();
        let start = Instant::now();
        assert_eq!(rest(&mut client), answer, "{bytes:02x?}");
        assert!(start.elapsed() < AT_ONCE);
    }
    lb.until("all gone", |state| state.connections.current == 0);
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn client_identifiers_are_denied_or_lead_to_groups() {
    let brokers = ["broker1", "broker2"].map(|name| Broker::start(name, Clients::Echoed));
    let listeners = [listener(), listener()];
    let addresses = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
    let rule = |pattern: &str, action| ClientIdRule { pattern: pattern.to_owned(), action };
    let lb = plain(&[(&brokers[0], addresses[0]), (&brokers[1], addresses[1])], |config| {
        config.backends[1].group = "other".to_owned();
        config.lb.client_ids = vec![
            rule("test-good-*", ClientIdAction::Allow),
            rule("test-*", ClientIdAction::Deny),
            rule("*-legacy", ClientIdAction::Group("other".to_owned())),
        ];
    });
    for (packet, place) in [
        (connect("test-good-1"), 0),
        (connect("device-1"), 0),
        (connect("device-1-legacy"), 1),
        (connect5("device-2-legacy"), 1),
    ] {
        let mut client = lb.stranger();
        client.write_all(&packet).unwrap();
        let mut there = accept(&listeners[place]);
        assert_eq!(read(&mut there, packet.len()), packet);
    }
    let not_authorized = [(connect("test-1"), &[0x20, 2, 0, 5][..]), (connect5("test-2"), &[0x20, 3, 0, 0x87, 0])];
    for (packet, answer) in not_authorized {
        let mut client = lb.stranger();
        client.write_all(&packet).unwrap();
        assert_eq!(rest(&mut client), answer);
    }
}

#[test]
fn a_client_of_plain_mqtt_is_told_when_no_broker_takes_it() {
    let broker = Broker::start("broker1", Clients::Echoed);
    // Nobody listens there.
    let lb = plain(&[(&broker, evermq_ports::free_address())], |_| {});
    for (packet, answer) in [(connect("c"), &[0x20, 2, 0, 3][..]), (connect5("c"), &[0x20, 3, 0, 0x88, 0])] {
        let mut client = lb.stranger();
        client.write_all(&packet).unwrap();
        assert_eq!(rest(&mut client), answer);
    }
}

#[test]
fn a_broker_is_told_who_the_client_is() {
    let (broker, listener) = (Broker::start("broker1", Clients::Echoed), listener());
    let lb = plain(&[(&broker, listener.local_addr().unwrap())], |config| config.backends[0].send_proxy_plain = true);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut client = lb.stranger();
        client.write_all(&connect("c")).unwrap();
        let mut there = accept(&listener);
        let found = header(&mut there);
        let addresses = Addresses { source: client.local_addr().unwrap(), destination: lb.address };
        assert_eq!(found.addresses, Some(addresses));
        assert_eq!((found.authority, found.ssl), (None, None));
        ids.push(String::from_utf8(found.unique_id.unwrap().into()).unwrap());
        assert_eq!(read(&mut there, connect("c").len()), connect("c"));
    }
    assert!(ids[0] != ids[1] && ids.iter().all(|id| id.parse::<u64>().is_ok()), "{ids:?}");

    // Before TLS that passes through, with the name that the client asks for.
    let tap = Tap::start(broker.address);
    let mut config = config(&[tap.address]);
    config.backends[0].send_proxy = true;
    let lb = Running::start_up(config);
    let client = lb.client();
    let mut there = tap.accept();
    let found = header(&mut there);
    assert_eq!(found.source(), client.local_addr().ok());
    assert_eq!((found.authority.as_deref(), found.ssl), (Some("anybody"), None));
    assert_eq!(read(&mut there, hello().len()), hello());
}

#[test]
fn a_balancer_before_this_one_says_whom_it_speaks_for() {
    let broker = Broker::start("broker1", Clients::Echoed);
    let tap = Tap::start(broker.address);
    let mut config = config(&[tap.address]);
    config.backends[0].send_proxy = true;
    config.lb.accept_proxy_from = vec![IpNetwork::parse("127.0.0.0/8").unwrap()];
    let lb = Running::start_up(config);

    let addresses =
        Addresses { source: "192.0.2.7:40000".parse().unwrap(), destination: "192.0.2.1:8883".parse().unwrap() };
    let mut version_2 = Vec::new();
    let unique_id = Some(Box::from(&b"slb-5"[..]));
    let from_slb = Header { unique_id, ..Header::proxy(addresses.source, addresses.destination) };
    from_slb.encode_v2(&mut version_2);
    for (bytes, size, id) in [
        (&b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 8883\r\n"[..], 4096, None),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 8883\r\n", 1, None),
        (&version_2, 4096, Some(&b"slb-5"[..])),
        (&version_2, 3, Some(b"slb-5")),
    ] {
        let mut client = lb.stranger();
        for piece in [bytes, hello()].concat().chunks(size) {
            client.write_all(piece).unwrap();
        }
        let mut there = tap.accept();
        let found = header(&mut there);
        assert_eq!(found.addresses, Some(addresses));
        let number = |name: &[u8]| std::str::from_utf8(name).is_ok_and(|name| name.parse::<u64>().is_ok());
        let name = found.unique_id.unwrap();
        assert!(id.map_or_else(|| number(&name), |id| *name == *id), "{name:?}");
        assert_eq!(read(&mut there, hello().len()), hello());
        there.write_all(b"answer").unwrap();
        assert_eq!(read(&mut client, 6), b"answer");
    }
    // For itself.
    let mut local = Vec::new();
    Header::LOCAL.encode_v2(&mut local);
    let mut client = lb.stranger();
    client.write_all(&[&local, hello()].concat()).unwrap();
    assert_eq!(header(&mut tap.accept()).source(), client.local_addr().ok());

    // It must say it, once, and rightly.
    let twice = [&version_2[..], &version_2, hello()].concat();
    for bytes in [hello(), b"PROXY TCP4 nonsense\r\n", &[b'P'; 200], &twice] {
        let mut client = lb.stranger();
        client.write_all(bytes).unwrap();
        assert!(wait_closed(&mut client) < AT_ONCE);
    }
    lb.until("strangers gone", |state| state.connections.current <= 1);
}

#[test]
fn others_are_not_believed() {
    let broker = Broker::start("broker1", Clients::Echoed);
    let mut config = config(&[broker.address]);
    config.lb.accept_proxy_from = vec![IpNetwork::parse("10.0.0.0/8").unwrap()];
    let lb = Running::start_up(config);
    lb.echoing_client();
    let mut header = Vec::new();
    Header::proxy("192.0.2.7:40000".parse().unwrap(), "192.0.2.1:8883".parse().unwrap()).encode_v2(&mut header);
    for first in [&header[..], b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 8883\r\n"] {
        let mut client = lb.stranger();
        client.write_all(&[first, hello()].concat()).unwrap();
        assert!(wait_closed(&mut client) < AT_ONCE);
    }
}
