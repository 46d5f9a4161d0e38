//! `[[broker.listeners]]`: their kinds and their rules.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use evermq_broker::Driver;
use evermq_config::TlsFiles;
use evermq_config::broker::{ClientCertificates, ListenAddress, Listener, Protocol};
use evermq_mqtt::packet::Connect;
use evermq_mqtt::{QoS, ReasonCode, Version};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::client::{Client, connect, message};
use crate::running::{PATIENCE, Running, Site, start_with};

/// A listener without rules of its own.
pub(crate) fn listener(name: &str, address: ListenAddress) -> Listener {
    Listener {
        name: name.to_owned(),
        address,
        protocol: Protocol::Mqtt,
        tls: false,
        client_certificates: ClientCertificates::Required,
        anonymous: None,
        max_connections: None,
        max_packet_size: None,
        protocol_versions: vec![3, 4, 5],
    }
}

/// Loopback, on a port that the system chooses.
pub(crate) fn tcp() -> ListenAddress {
    ListenAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}

/// A TLS connection, with this certificate or none.
pub(crate) fn tls(
    address: SocketAddr,
    ca: &TlsFiles,
    own: Option<&TlsFiles>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&ca.ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = match own {
        Some(own) => {
            let chain = vec![CertificateDer::from_pem_file(&own.cert).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&own.key).unwrap()).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let name = ServerName::try_from("broker1").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket)
}

fn start_unix() -> (Site, Running, std::path::PathBuf) {
    let site = Site::new();
    let mut config = site.config("broker1", SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &[]);
    let path = site.directory.path().join("mqtt.sock");
    config.broker.listeners.push(listener("local", ListenAddress::Unix(path.clone())));
    // What a broker that was killed leaves behind.
    drop(UnixListener::bind(&path).unwrap());
    // A program that another test is just starting holds it until its exec.
    while UnixStream::connect(&path).is_ok() {
        std::thread::yield_now();
    }
    let running = Running::start(&config);
    (site, running, path)
}

#[test]
fn a_unix_socket_replaces_what_a_dead_broker_left() {
    let (_site, broker, path) = start_unix();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let mut subscriber = broker.client("s");
    subscriber.subscribe_at("t", QoS::AtLeastOnce);
    // More than there are workers: each of them may accept.
    for number in 0..8 {
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (mut client, connack) = Client::over(stream, connect(&format!("local-{number}")));
        assert_eq!(connack.reason, ReasonCode::Success);
        client.publish(message("t", &number.to_string()), QoS::AtLeastOnce);
        assert_eq!(subscriber.message().1, number.to_string());
    }
}

#[test]
fn a_unix_socket_in_use_is_refused() {
    let (site, _broker, path) = start_unix();
    let mut config = site.config("broker2", SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &[]);
    config.broker.store.path = site.directory.path().join("store-2");
    config.broker.listeners.push(listener("local", ListenAddress::Unix(path.clone())));
    let Err(error) = Driver::start(&config) else { panic!("two brokers on one socket") };
    assert!(format!("{error:#}").contains("mqtt.sock answers"), "{error:#}");
    UnixStream::connect(&path).unwrap().write_all(b"x").unwrap();
}

#[test]
fn a_listener_serves_the_versions_that_it_says() {
    let (_site, broker) = start_with(|config| {
        let mut old = listener("old", tcp());
        old.protocol_versions = vec![4];
        config.listeners.push(old);
    });
    let at = broker.at("old");
    let (mut client, connack) = Client::open(at, connect("new"));
    assert_eq!(connack.reason, ReasonCode::UnsupportedProtocolVersion);
    assert_eq!(client.next(), None);
    let (mut client, connack) = Client::open(at, Connect { version: Version::V3, ..connect("older") });
    assert_eq!(connack.reason, ReasonCode::UnsupportedProtocolVersion);
    assert_eq!(client.next(), None);
    let (mut client, connack) = Client::open(at, Connect { version: Version::V4, ..connect("old") });
    assert_eq!(connack.reason, ReasonCode::Success);
    client.expect_nothing();
}

#[test]
fn a_listener_has_a_packet_size_of_its_own() {
    let (_site, broker) = start_with(|config| {
        let mut small = listener("small", tcp());
        small.max_packet_size = Some(2000);
        config.listeners.push(small);
    });
    let (mut client, connack) = Client::open(broker.at("small"), connect("c"));
    assert_eq!(connack.properties.maximum_packet_size, Some(2000));
    client.publish(message("t", &"x".repeat(1900)), QoS::AtLeastOnce);
    client.send_bytes(&[0x30, 0x80, 0x80, 0x01]);
    client.expect_disconnect(ReasonCode::PacketTooLarge);
    let (mut client, connack) = Client::open(broker.plain, connect("c"));
    assert_eq!(connack.properties.maximum_packet_size, Some(100_000));
    client.publish(message("t", &"x".repeat(90_000)), QoS::AtLeastOnce);
}

#[test]
fn a_listener_has_a_number_of_connections_of_its_own() {
    let (_site, broker) = start_with(|config| {
        let mut few = listener("few", tcp());
        few.max_connections = Some(1);
        config.listeners.push(few);
    });
    let at = broker.at("few");
    let one = Client::open(at, connect("one")).0;
    assert_eq!(Client::raw(at, Version::V5).next(), None);
    broker.client("elsewhere").expect_nothing();
    broker.wait_for("the count", |state| state["messages"]["refused_listener"] == 1);
    one.vanish();
    broker.wait_for("a free place", |state| state["connections"] == 0);
    Client::open(at, connect("two")).0.expect_nothing();
}

#[test]
fn tls_with_certificates_of_clients_or_without() {
    let (site, broker) = start_with(|config| {
        for (name, clients) in [
            ("required", ClientCertificates::Required),
            ("optional", ClientCertificates::Optional),
            ("off", ClientCertificates::Off),
        ] {
            let mut secure = listener(name, tcp());
            (secure.tls, secure.client_certificates) = (true, clients);
            secure.anonymous = Some(evermq_config::broker::Anonymous::On);
            config.listeners.push(secure);
        }
    });
    let own = site.ca.issue("device-1", 1);
    let foreign = crate::certs::Ca::new(site.directory.path(), "other-ca").issue("device-1", 1);
    let gets_in = |name: &str, shown: Option<&TlsFiles>| {
        let mut client = Client::raw_over(tls(broker.at(name), &own, shown), Version::V5);
        client.try_connect(connect(name))
    };
    for (name, own_one, none, others) in
        [("required", true, false, false), ("optional", true, true, false), ("off", true, true, true)]
    {
        assert_eq!(gets_in(name, Some(&own)), own_one, "{name}, own");
        assert_eq!(gets_in(name, None), none, "{name}, none");
        assert_eq!(gets_in(name, Some(&foreign)), others, "{name}, another CA's: not asked for, not looked at");
    }
}

/// More than the sockets between them take at once, either way, so that records wait and are taken up again.
#[test]
fn much_goes_through_tls_both_ways() {
    const COUNT: usize = 60;
    const SIZE: usize = 90_000;
    let (site, broker) = start_with(|config| config.max_queued_bytes = 20_000_000);
    let own = site.ca.issue("device-1", 1);
    let connect_tls = |id| Client::over(tls(broker.tls, &own, Some(&own)), connect(id)).0;
    let (mut subscriber, mut publisher) = (connect_tls("s"), connect_tls("p"));
    subscriber.subscribe_at("t", QoS::AtLeastOnce);
    let payload = |number: usize| format!("{number} {}", "x".repeat(SIZE));
    for number in 0..COUNT {
        publisher.publish(message("t", &payload(number)), QoS::AtLeastOnce);
    }
    for number in 0..COUNT {
        assert!(subscriber.message().1 == payload(number), "message {number}");
    }
    publisher.disconnect(ReasonCode::Success);
}
