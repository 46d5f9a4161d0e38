//! Behind load balancers: HAProxy stands for an lb host at 127.0.0.2, everyone at another address is a stranger.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, Once};
use std::time::Duration;

use evermq_config::broker::{Anonymous, CertificateIdentity};
use evermq_config::{HostName, LbHost, TlsFiles};
use evermq_daemon::proxy_protocol::{Header, Ssl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::running::{PATIENCE, Running, Site};

const LB: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const STRANGER: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Where clients connect from.
const CLIENT: &str = "127.0.0.3";
/// A CONNECT of MQTT 3.1.1 with client identifier "c", and the CONNACK that answers.
const CONNECT: &[u8] = &[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, b'c'];
const CONNACK: &[u8] = &[0x20, 0x02, 0x00, 0x00];

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// What the brokers of this process log goes here.
struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A broker of a cluster with one lb host.
fn start() -> (Site, Running) {
    static LOGGING: Once = Once::new();
    LOGGING.call_once(|| {
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_env_filter("evermq_broker::listener=debug")
            .with_writer(|| Log)
            .init();
    });
    let site = Site::new();
    let mut config = site.config("broker1", SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &[]);
    config.broker.listen_proxy = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    config.broker.connect_timeout = Duration::from_secs(2);
    // They come from elsewhere, as far as the header says.
    config.broker.auth.anonymous = Anonymous::On;
    config.lbs = vec![LbHost { name: HostName::new("lb1").unwrap(), address: LB }];
    let running = Running::start(&config);
    (site, running)
}

/// The line that says that this client has connected.
fn logged(client_id: &str) -> String {
    let log = String::from_utf8(LOG.lock().unwrap().clone()).unwrap();
    let wanted = format!("client={client_id} ");
    log.lines().find(|line| line.contains(&wanted)).unwrap_or_else(|| panic!("no {wanted} in {log}")).to_owned()
}

/// HAProxy, killed at the end.
struct Proxy {
    address: SocketAddr,
    child: Child,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Proxy {
    fn start(site: &Site, bind: &str, server: SocketAddr, how: &str) -> Self {
        let address = evermq_ports::free_address();
        let config = format!(
            "global\n  maxconn 20\ndefaults\n  mode tcp\n  timeout connect 10s\n  timeout client 10s\n  timeout server 10s\n\
             listen one\n  unique-id-format \"unique-17\"\n  bind {address} {bind}\n  server broker {server} source {LB} {how}\n"
        );
        let file = site.directory.path().join("haproxy.cfg");
        std::fs::write(&file, config).unwrap();
        let mut child = Command::new("haproxy")
            .arg("-db")
            .arg("-f")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("haproxy is needed: apt-get install haproxy");
        let deadline = evermq_broker::connection::clock() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert_eq!(child.try_wait().unwrap(), None, "haproxy has ended");
            assert!(evermq_broker::connection::clock() < deadline, "haproxy does not listen");
            std::thread::yield_now();
        }
        Self { address, child }
    }

    /// Certificate and key in one file, as HAProxy wants them.
    fn pem(site: &Site, files: &TlsFiles, name: &str) -> String {
        let path = site.directory.path().join(name);
        let pem = std::fs::read_to_string(&files.cert).unwrap() + &std::fs::read_to_string(&files.key).unwrap();
        std::fs::write(&path, pem).unwrap();
        path.display().to_string()
    }

    /// For `bind`: HAProxy ends the clients' TLS.
    fn ends_tls(site: &Site, verify: &str) -> String {
        let own = site.ca.issue("lb1", 1);
        let pem = Self::pem(site, &own, "front.pem");
        format!("ssl crt {pem} ca-file {} verify {verify}", own.ca.display())
    }

    /// mosquitto_pub through it, with or without a certificate; whether it could publish.
    fn publish(&self, client_id: &str, files: &TlsFiles, certificate: bool) -> bool {
        let mut command = Command::new("mosquitto_pub");
        command.args(["-h", "localhost", "-p", &self.address.port().to_string(), "-A", CLIENT, "-i", client_id]);
        command.args(["-t", "t", "-m", "m", "-q", "1"]).arg("--cafile").arg(&files.ca);
        if certificate {
            command.arg("--cert").arg(&files.cert).arg("--key").arg(&files.key);
        }
        let output = command.stderr(Stdio::null()).status();
        output.expect("mosquitto_pub is needed: apt-get install mosquitto-clients").success()
    }
}

/// A connection from `from`.
fn from(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let SocketAddr::V4(to) = to else { panic!("the tests use IPv4") };
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let [a, b, c, d] = from.octets();
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrIn::new(a, b, c, d, 0)).unwrap();
    connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrIn::from(to)).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends all of it and reads what comes until the broker closes, or until it has said `CONNACK`.
fn answer(stream: &mut TcpStream, pieces: &[&[u8]]) -> Vec<u8> {
    for piece in pieces {
        // A broken pipe says that the broker has refused already.
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    let mut found = Vec::new();
    let mut chunk = [0; 64];
    while found != CONNACK {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => found.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => panic!("nothing came in time: {error}"),
        }
    }
    found
}

fn header() -> Vec<u8> {
    let mut bytes = Vec::new();
    Header::proxy("192.0.2.7:40000".parse().unwrap(), "192.0.2.1:9000".parse().unwrap()).encode_v2(&mut bytes);
    bytes
}

fn refused(broker: &Running, count: u64) {
    broker.wait_for("counted refusals", |state| {
        state["messages"]["proxy_refused"] == count && state["messages"]["strangers"].as_u64() >= Some(count)
    });
}

#[test]
fn tls_passes_through_behind_a_header() {
    let (site, broker) = start();
    let proxy = Proxy::start(&site, "", broker.tls, "send-proxy-v2 proxy-v2-options unique-id");
    assert!(proxy.publish("passed-through", &site.ca.issue("device-1", 1), true));
    let line = logged("passed-through");
    for part in
        ["address=127.0.0.3:", "user=\"device-1\"", "dn=\"CN=device-1\"", "tls=\"TLSv1.3\"", "unique_id=\"unique-17\""]
    {
        assert!(line.contains(part), "no {part} in {line}");
    }
    // The header does not stand for a certificate.
    assert!(!proxy.publish("passed-through-without", &site.ca.issue("device-1", 1), false));
    assert_eq!(broker.state()["messages"]["proxy_refused"], 0);
}

#[test]
fn tls_that_ended_at_the_load_balancer_counts_as_if_it_had_ended_here() {
    let (site, broker) = start();
    let bind = Proxy::ends_tls(&site, "optional");
    let proxy = Proxy::start(&site, &bind, broker.proxy.unwrap(), "send-proxy-v2-ssl-cn");
    let device = site.ca.issue("device-2", 1);
    assert!(proxy.publish("ended", &device, true));
    let line = logged("ended");
    for part in ["address=127.0.0.3:", "user=\"device-2\"", "tls=\"TLSv1.3\""] {
        assert!(line.contains(part), "no {part} in {line}");
    }
    // Who comes in there without a certificate is for the load balancer to say.
    assert!(proxy.publish("ended-without", &device, false));
    assert!(!logged("ended-without").contains("user="));
}

/// A header that says that this certificate was shown to the load balancer and found good, with a CONNECT behind it.
fn shown(certificate: &[u8], names: bool) -> Vec<u8> {
    let name = |name: &str| names.then(|| name.into());
    let ssl = Ssl {
        is_tls: true,
        shown: true,
        version: Some("TLSv1.3".into()),
        cn: name("told"),
        dn: name("CN=told"),
        certificate: (!certificate.is_empty()).then(|| certificate.into()),
        ..Ssl::default()
    };
    let mut header = Header::proxy("192.0.2.7:40000".parse().unwrap(), "192.0.2.1:9000".parse().unwrap());
    header.ssl = Some(Box::new(ssl));
    let mut bytes = Vec::new();
    header.encode_v2(&mut bytes);
    bytes.extend_from_slice(CONNECT);
    bytes
}

#[test]
fn a_certificate_in_the_header_is_as_good_as_one_that_was_shown_here() {
    let site = Site::new();
    let mut config = site.config("broker1", SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &[]);
    config.broker.listen_proxy = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    config.broker.auth.identity = CertificateIdentity::SanUri;
    config.broker.auth.crl = vec![site.ca.revoke("revoked.crl", &[99], 1)];
    config.lbs = vec![LbHost { name: HostName::new("lb1").unwrap(), address: LB }];
    let broker = Running::start(&config);
    let issue = |name: &str, serial: u64| {
        let files = site.ca.issue_as(name, 1, |params| {
            params.serial_number = Some(rcgen::SerialNumber::from(serial));
            params.subject_alt_names.push(rcgen::SanType::URI(format!("urn:{name}").try_into().unwrap()));
        });
        CertificateDer::from_pem_file(&files.cert).unwrap()
    };
    let ask = |bytes: &[u8]| {
        let mut stream = from(LB, broker.proxy.unwrap());
        (answer(&mut stream, &[bytes]), stream)
    };
    let (good, revoked) = (issue("device-5", 5), issue("device-99", 99));
    let (answered, _kept) = ask(&shown(&good, true));
    assert_eq!(answered, CONNACK);
    let clients = broker.ask(&serde_json::json!({ "request": "clients" }));
    assert_eq!(clients["clients"][0]["user"], "urn:device-5", "{clients}");
    // Without it there is no such name; and one that was revoked is refused here too, whatever the load balancer knows.
    for refused in [shown(&[], true), shown(&revoked, true)] {
        assert_eq!(ask(&refused).0, [0x20, 2, 0, 5]);
    }
}

#[test]
fn tls_of_the_load_balancer_says_who_the_client_is() {
    let (site, broker) = start();
    let bind = Proxy::ends_tls(&site, "required");
    let ca = site.ca.issue("device-3", 1);
    for (name, client_id, user) in [
        // The lb host's own certificate: its header counts.
        ("lb1", "encrypted-again", "user=\"device-3\""),
        // Another one's, from the same address: it is the client's, and says who that is.
        ("device-4", "encrypted-by-another", "user=\"device-4\""),
    ] {
        let pem = Proxy::pem(&site, &site.ca.issue(name, 1), "back.pem");
        let server = format!("ssl crt {pem} verify required ca-file {} send-proxy-v2-ssl-cn", ca.ca.display());
        let proxy = Proxy::start(&site, &bind, broker.tls, &server);
        assert!(proxy.publish(client_id, &ca, true));
        let line = logged(client_id);
        assert!(line.contains(user) && line.contains("address=127.0.0.3:"), "{line}");
    }
}

#[test]
fn nobody_else_may_say_who_a_client_is() {
    let (_site, broker) = start();
    // Before TLS, and where a header is asked for.
    for (count, to) in [(1, broker.tls), (2, broker.proxy.unwrap())] {
        assert_eq!(answer(&mut from(STRANGER, to), &[&header(), CONNECT]), b"");
        refused(&broker, count);
    }
    // Not even without saying anything.
    assert_eq!(answer(&mut from(STRANGER, broker.proxy.unwrap()), &[CONNECT]), b"");
    refused(&broker, 3);
    // A header is no MQTT where none is asked for.
    assert_eq!(answer(&mut from(LB, broker.plain), &[&header(), CONNECT]), b"");
    broker.client("still-serves").expect_nothing();
}

#[test]
fn a_header_comes_first_and_is_one() {
    let (_site, broker) = start();
    let to = broker.proxy.unwrap();
    let one = header();
    // In pieces, and as a health check sends it.
    let pieces: Vec<&[u8]> = one.chunks(1).chain([CONNECT]).collect();
    assert_eq!(answer(&mut from(LB, to), &pieces), CONNACK);
    let mut local = Vec::new();
    Header::LOCAL.encode_v2(&mut local);
    assert_eq!(answer(&mut from(LB, to), &[&[&local, CONNECT].concat()]), CONNACK);
    broker.wait_for("counted headers", |state| state["messages"]["proxied"] == 2);

    let huge = [&one[..14], &[0xFF, 0xFF]].concat();
    let twice = [&one[..], &one].concat();
    let version_1 = b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 9000\r\n";
    for (count, bytes) in [(1, CONNECT), (2, version_1), (3, b"GET / HTTP/1.1\r\n\r\n"), (4, &huge)] {
        assert_eq!(answer(&mut from(LB, to), &[bytes]), b"", "{bytes:02x?}");
        refused(&broker, count);
    }
    // Behind the header comes a CONNECT, not another header.
    assert_eq!(answer(&mut from(LB, to), &[&twice, CONNECT]), b"");
    assert_eq!(broker.state()["messages"]["proxy_refused"], 4);
    // Half a header, then the end.
    let mut half = from(LB, to);
    half.write_all(&one[..20]).unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(answer(&mut half, &[]), b"");
    refused(&broker, 5);
}

#[test]
fn a_slow_header_has_to_go_and_holds_up_nobody() {
    let (_site, broker) = start();
    let slow: Vec<_> = (0..40)
        .map(|index| {
            let mut stream = from(LB, if index % 2 == 0 { broker.tls } else { broker.proxy.unwrap() });
            stream.write_all(&header()[..index % 28]).unwrap();
            stream
        })
        .collect();
    assert_eq!(answer(&mut from(LB, broker.proxy.unwrap()), &[&header(), CONNECT]), CONNACK);
    for mut slow in slow {
        assert_eq!(answer(&mut slow, &[]), b"");
    }
    broker.wait_for("counted strangers", |state| state["messages"]["strangers"] == 40);
}
