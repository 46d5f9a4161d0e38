//! What two lbs tell each other of their clients, and who is let in to do so.

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::broker::{Broker, Clients};
use crate::harness::{self, PATIENCE, Running, certs, config, eventually, ping};
use evermq_config::{HostName, LbConfig, Peer};
use evermq_daemon::tls::{Material, server_name};
use evermq_lb::state::PeerState;
use rustls::{ClientConnection, StreamOwned};
use serde_json::{Value, json};

/// Addresses that no certificate of the tests holds, so that names decide.
const LB1: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const LB2: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);

/// A port that is free on both.
fn peer_port() -> u16 {
    evermq_ports::free_on([LB1, LB2].map(IpAddr::V4))[0].port()
}

fn broker() -> Broker {
    Broker::start_at("broker1", Clients::Echoed, evermq_ports::free_on([IpAddr::from([127, 0, 0, 2])])[0])
}

/// One of two lbs, in this process.
fn configured(name: &str, port: u16, broker: &Broker) -> LbConfig {
    let (mine, other, theirs) = if name == "lb1" { (LB1, "lb2", LB2) } else { (LB2, "lb1", LB1) };
    LbConfig {
        host: HostName::new(name).unwrap(),
        peer_listen: SocketAddr::from((mine, port)),
        peers: vec![Peer { name: HostName::new(other).unwrap(), address: SocketAddr::from((theirs, port)) }],
        tls: certs::files(name),
        ..config(&[broker.address])
    }
}

fn peer(lb: &Running) -> PeerState {
    lb.state().peers.into_iter().next().unwrap()
}

fn until_peer(lb: &Running, what: &str, condition: impl Fn(&PeerState) -> bool) -> PeerState {
    eventually(what, || Some(peer(lb)).filter(&condition))
}

/// The answer to `clients`: the header, and each connection as client and local address.
fn clients_known(lb: &Running) -> (Value, BTreeSet<(SocketAddr, SocketAddr)>) {
    let mut stream = UnixStream::connect(&lb.control).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"{\"request\":\"clients\"}\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let header = lines.next().unwrap();
    let mut known = BTreeSet::new();
    for line in lines {
        if line == json!({"end": true}) {
            return (header, known);
        }
        let chunk: Vec<(IpAddr, u16, IpAddr, u16)> = serde_json::from_value(line).unwrap();
        assert!(!chunk.is_empty() && chunk.len() <= 256);
        for (client, port, local, local_port) in chunk {
            assert!(known.insert((SocketAddr::new(client, port), SocketAddr::new(local, local_port))));
        }
    }
    panic!("no end");
}

fn pairs(clients: &[TcpStream]) -> BTreeSet<(SocketAddr, SocketAddr)> {
    clients.iter().map(|client| (client.local_addr().unwrap(), client.peer_addr().unwrap())).collect()
}

/// lb2 as a program that can be killed.
struct Program {
    process: Child,
    address: SocketAddr,
}

impl Program {
    fn start(port: u16, broker: &Broker) -> Self {
        let address = evermq_ports::free_address();
        let file = certs::path(&format!("evermq-peers-{port}.toml"));
        let run_dir: PathBuf = certs::path(&format!("run-peers-{port}"));
        let directory = certs::directory().display();
        let text = format!(
            "[cluster]\nname = \"test\"\nrun_dir = \"{run_dir}\"\n\
             [lb]\nlisten = \"{address}\"\nworkers = 2\nmax_connections = 2000\npeer_port = {port}\n\
             [broker]\nlisten = \"0.0.0.0:{broker_port}\"\n\
             [tls]\nca = \"{directory}/ca.crt\"\ncert = \"{directory}/{{host}}.crt\"\nkey = \"{directory}/{{host}}.key\"\n\
             [[hosts]]\nname = \"lb1\"\naddress = \"{LB1}\"\nroles = [\"lb\"]\n\
             [[hosts]]\nname = \"lb2\"\naddress = \"{LB2}\"\nroles = [\"lb\"]\n\
             [[hosts]]\nname = \"broker1\"\naddress = \"127.0.0.2\"\nroles = [\"broker\"]\n",
            run_dir = run_dir.display(),
            broker_port = broker.address.port(),
        );
        std::fs::write(&file, text).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_evermq-lb"))
            .args(["--host", "lb2", "--config"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, address }
    }

    fn clients(&self, count: usize) -> Vec<TcpStream> {
        let connect = |_| {
            let mut client = eventually("connected", || harness::connect(self.address).ok());
            ping(&mut client);
            client
        };
        (0..count).map(connect).collect()
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_list_of_a_killed_lb_is_kept_until_it_is_back() {
    let (port, broker) = (peer_port(), broker());
    let lb1 = Running::start_up(configured("lb1", port, &broker));
    let mut lb2 = Program::start(port, &broker);
    let mut clients = lb2.clients(600);
    until_peer(&lb1, "all known", |peer| peer.clients == 600);
    let (header, known) = clients_known(&lb1);
    assert_eq!(header["rate"], 5000);
    assert_eq!((&header["peers"][0]["name"], &header["peers"][0]["clients"]), (&json!("lb2"), &json!(600)));
    assert_eq!(known, pairs(&clients));

    clients.truncate(20);
    until_peer(&lb1, "those that left are gone", |peer| peer.clients == 20);
    let expected = pairs(&clients);
    lb2.kill();
    let peer = until_peer(&lb1, "seen as away", |peer| !peer.receiving && !peer.sending);
    assert_eq!(peer.clients, 20);
    assert!(peer.last_error.is_some());
    assert_eq!(clients_known(&lb1).1, expected);

    let back = Program::start(port, &broker);
    until_peer(&lb1, "back, with nobody", |peer| peer.receiving && peer.sending && peer.clients == 0);
    let new = back.clients(1);
    until_peer(&lb1, "a new one", |peer| peer.clients == 1);
    assert_eq!(clients_known(&lb1).1, pairs(&new));
}

#[test]
fn clients_that_were_there_before_the_peer_are_told_and_each_side_tells_its_own() {
    let (port, broker) = (peer_port(), broker());
    let lb1 = Running::start_up(configured("lb1", port, &broker));
    let early: Vec<_> = (0..10).map(|_| lb1.echoing_client()).collect();
    let lb2 = Running::start_up(configured("lb2", port, &broker));
    let late: Vec<_> = (0..5).map(|_| lb2.echoing_client()).collect();
    until_peer(&lb2, "lb1's clients", |peer| peer.clients == 10);
    until_peer(&lb1, "lb2's clients", |peer| peer.clients == 5);
    assert_eq!(clients_known(&lb2).1, pairs(&early));
    assert_eq!(clients_known(&lb1).1, pairs(&late));
    drop((early, late));
    until_peer(&lb2, "all gone", |peer| peer.clients == 0);
    assert!(peer(&lb1).last_error.is_none() || peer(&lb1).sending);
}

/// A connection to lb1's peer port that shows the certificate of `name`.
fn stranger(name: &str, port: u16) -> StreamOwned<ClientConnection, TcpStream> {
    let mut files = certs::files(name);
    if name == "stranger" {
        files.ca = certs::path("ca.crt");
    }
    let host = HostName::new("lb1").unwrap();
    let tls = Material::load(&files).unwrap().client_config_for(&host, LB1.into()).unwrap();
    let stream = TcpStream::connect((LB1, port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(ClientConnection::new(tls, server_name(&host)).unwrap(), stream)
}

fn hello(cluster: &str, host: &str) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8][..], text.as_bytes()].concat();
    let body = [&[2, 0, 1][..], &text(cluster), &text(host)].concat();
    [&[1, 0, 0, 0, body.len() as u8][..], &body].concat()
}

/// What comes until the lb closes.
fn answer(stream: &mut impl io::Read) -> Vec<u8> {
    let mut answer = Vec::new();
    // Whether it closes with or without a word of TLS, or resets: it closes.
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert!(!matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "not closed: {error}");
    }
    answer
}

#[test]
fn who_is_no_lb_of_this_cluster_gets_nowhere() {
    let (port, broker) = (peer_port(), broker());
    let lb1 = Running::start_up(configured("lb1", port, &broker));

    // Another CA.
    let mut outsider = stranger("stranger", port);
    let _ = outsider.write_all(&hello("test", "lb2"));
    assert_eq!(answer(&mut outsider), b"");

    // The cluster's CA, but not the host that it says to be; no lb; another cluster.
    let cases = [
        ("broker1", "test", "lb2", "certificate"),
        ("broker1", "test", "broker1", "no other lb"),
        ("lb1", "test", "lb1", "no other lb"),
        ("lb2", "others", "lb2", "cluster"),
    ];
    for (certificate, cluster, host, reason) in cases {
        let mut refused = stranger(certificate, port);
        refused.write_all(&hello(cluster, host)).unwrap();
        let text = answer(&mut refused);
        assert_eq!(text[0], 3, "REFUSED");
        assert!(String::from_utf8_lossy(&text).contains(reason), "{:?}", String::from_utf8_lossy(&text));
    }
    // No TLS at all.
    let mut plain = TcpStream::connect((LB1, port)).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    answer(&mut plain);
    assert!(!peer(&lb1).receiving);
}

#[test]
fn garbage_of_a_peer_ends_its_link_and_costs_nothing() {
    let (port, broker) = (peer_port(), broker());
    let lb1 = Running::start_up(configured("lb1", port, &broker));
    let good = [
        &[4, 0, 0, 0, 2, 0, 0][..],
        &[5, 0, 0, 0, 20, 0, 0, 1, 10, 0, 0, 100, 0x23, 0x28, 3, 0, 0, 0, 1, 10, 1, 0, 7, 1, 2],
        &[6, 0, 0, 0, 2, 0, 0],
    ]
    .concat();
    let garbage: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n",
        // A frame of 4 GB; a worker that was not announced; a second HELLO; a list that was not begun.
        &[5, 0xff, 0xff, 0xff, 0xff],
        &[4, 0, 0, 0, 2, 0, 9],
        &[1, 0, 0, 0, 5, 2, 0, 1, 0, 0],
        &[6, 0, 0, 0, 2, 0, 0],
    ];
    for bytes in garbage {
        let mut bad = stranger("lb2", port);
        bad.write_all(&hello("test", "lb2")).unwrap();
        bad.write_all(&good).unwrap();
        until_peer(&lb1, "its list", |peer| peer.receiving && peer.clients == 1);
        bad.write_all(bytes).unwrap();
        assert_eq!(answer(&mut bad), [2, 0, 0, 0, 1, 2], "WELCOME and the end");
        let peer = until_peer(&lb1, "ended", |peer| !peer.receiving);
        assert_eq!(peer.clients, 1, "what it told before is kept");
    }
}

#[test]
fn a_flood_of_silent_strangers_does_not_keep_the_peer_out() {
    let (port, broker) = (peer_port(), broker());
    let lb1 = Running::start_up(configured("lb1", port, &broker));
    let silent: Vec<_> = (0..100).map(|_| TcpStream::connect((LB1, port)).unwrap()).collect();
    let start = Instant::now();
    let lb2 = Running::start_up(configured("lb2", port, &broker));
    until_peer(&lb1, "lb2 in", |peer| peer.receiving);
    until_peer(&lb2, "lb1 in", |peer| peer.receiving);
    assert!(start.elapsed() < Duration::from_secs(4), "it waited for strangers to give up");
    drop(silent);
}
